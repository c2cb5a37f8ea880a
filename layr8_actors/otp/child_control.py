"""Starting and stopping one child, the two steps that all else of a supervisor is made of."""

from __future__ import annotations

import contextvars
import heapq
import math
from typing import Any

import trio

from ..errors import ChildStartError
from ..telemetry import Hook
from . import events
from .alarms import Alarms, Sleeper
from .child_spec import Restart
from .children import ChildRecord, Children, ChildState
from .commands import Command
from .exit_reason import ExitKind, Ignore, sole_exception
from .incarnation import Incarnation
from .insiders import Insiders
from .reports import Reports

__all__ = ("ChildControl",)

REPORT_PERIOD = 5.0  # seconds between reports of a stuck child without a grace to count by; OTP's shutdown default
# How many children are asked to end between two checkpoints. All in one go would hold up every other task, and what
# lives between the asking and the end would set off full collections (10,000 actors: 54 us each, so 24; otp_scale.py).
ASKED_AT_ONCE = 16
RUNG_AT_ONCE = 16  # likewise, how many get a task between two checkpoints because their deadline has come


class ChildControl:
    """Starts and stops children for the supervisor's own task, which alone may call its coroutines.

    Args:
        path: the names from the root supervisor down to this one.
        children: the record table.
        reports: where events go.
        dynamic: whether a child that nothing starts again is forgotten, as a dynamic supervisor has it.
        insiders: those of the tree.
    """

    __slots__ = (
        "_alarms",
        "_children",
        "_dynamic",
        "_reports",
        "_start_scope",
        "_waiting",
        "failure",
        "fatal",
        "inbox",
        "insiders",
        "nursery",
        "path",
        "stopping",
    )

    nursery: trio.Nursery
    """Where the children's tasks live; set before the first start."""

    def __init__(
        self, path: tuple[str, ...], children: Children, reports: Reports, insiders: Insiders, *, dynamic: bool
    ) -> None:
        self.path = path
        self._children = children
        self._dynamic = dynamic
        self._reports = reports
        self._alarms: Alarms | None = None  # until an actor without a task has a deadline
        self._waiting: trio.lowlevel.Task | None = None
        self._start_scope: trio.CancelScope | None = None
        self.stopping = False
        """Once True, nothing is started or restarted any more, whatever ends."""
        self.fatal = False
        """True once a child let out what ends the whole program."""
        self.failure: Exception | None = None
        """What the supervisor ends with."""
        self.inbox: list[Incarnation | Command[Any]] = []
        """Exit notices and requests, in the order in which they came."""
        self.insiders = insiders

    @property
    def hook(self) -> Hook:
        """Where the supervisor's events go, and those of supervisors below it that have no hook of their own."""
        return self._reports.hook

    # --- for any task -------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Make the supervisor's task look around, if it waits."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            trio.lowlevel.reschedule(waiting)

    def around(self, task: trio.lowlevel.Task | None) -> Incarnation | None:
        """Return the child that ``task`` belongs to, directly or through nurseries within it, if it is one of ours."""
        while task is not None and task.parent_nursery is not None:
            if task.parent_nursery is self.nursery:
                return self._children.of_task(task, self._reports.label)
            task = task.parent_nursery.parent_task
        return None

    def request_stop(self, failure: Exception | None = None) -> None:
        """Begin the end of the supervisor: no start goes on and no new one begins.

        Args:
            failure: what it ends with; ``None`` for a clean end.
        """
        self.stopping = True
        self.failure = self.failure or failure
        if self._start_scope is not None:
            self._start_scope.cancel(reason=f"supervisor {self._reports.label} stops")
        self.wake()

    def ended(self, incarnation: Incarnation) -> None:
        """The child's task is over: called in that task, so it does no more than to leave a notice."""
        if incarnation.reason.kind is ExitKind.FATAL:
            self.stopping = self.fatal = True  # what it raised leaves through the nursery, which cancels us
        elif incarnation.ready and not incarnation.stop_requested:
            self.inbox.append(incarnation)
        self.wake()

    def set_alarm(self, sleeper: Sleeper, due: float) -> None:
        """Ring for an actor that has no task to wait in.

        Args:
            sleeper: the actor.
            due: when, in seconds of ``trio.current_time()``.
        """
        if self._alarms is None:
            self._alarms = Alarms()
        if self._alarms.set(sleeper, due):
            self.wake()

    def withdraw_alarm(self, sleeper: Sleeper) -> None:
        """The actor has ended, or needs no alarm."""
        if self._alarms is not None:
            self._alarms.withdraw(sleeper)

    # --- for the supervisor's own task --------------------------------------------------------------------------------

    def next_alarm(self) -> float:
        """Return when the next alarm rings, ``math.inf`` where none does."""
        return math.inf if self._alarms is None else self._alarms.next_due()

    def ring(self) -> None:
        """Ring the alarms whose time has come, a turn's worth of them."""
        if self._alarms is None:
            return
        now = trio.current_time()
        for _ in range(RUNG_AT_ONCE):
            sleeper = self._alarms.pop_due(now)
            if sleeper is None:
                return
            sleeper.ring(now)

    @trio.lowlevel.enable_ki_protection
    async def sleep_until(self, deadline: float) -> None:
        """Wait for a wake-up or the deadline, whichever is first; a checkpoint.

        Args:
            deadline: seconds of ``trio.current_time()``.
        """
        # Alarms ring whatever the supervisor waits for: a child that is slow to start must not hold up its siblings.
        deadline = min(deadline, self.next_alarm())
        # Parked in a slot, with a scope only where there is a deadline: an Event and a scope take 1.2 KiB (Trio 0.35).
        self.park()
        if deadline == math.inf:
            await trio.lowlevel.wait_task_rescheduled(self.abort)
        else:
            with trio.CancelScope(deadline=deadline):
                await trio.lowlevel.wait_task_rescheduled(self.abort)
        self.ring()

    def park(self) -> None:
        """Take the caller's task for the one to wake: the first half of a wait, of which :meth:`abort` is the other."""
        self._waiting = trio.lowlevel.current_task()

    def unpark(self) -> None:
        """Nobody waits, after all."""
        self._waiting = None

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """Who waits is cancelled."""
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def start(self, record: ChildRecord, event: type[events.ChildStarted]) -> ChildStartError | None:
        """Start a child and wait until it is ready.

        A checkpoint, but where the child is an actor whose methods never wait; cancellation gives the start up and
        waits until the child is gone again.

        Args:
            record: one without incarnation; RUNNING afterwards, or STOPPED.
            event: what to emit when it is ready.

        Returns:
            Why it did not start; ``None`` also where it was ignored, or where the supervisor began to stop meanwhile.
        """
        spec = record.spec
        incarnation = record.begin(self.path, self)
        # An actor may run its init right here: in a context of its own all the same, as its task has one.
        contextvars.copy_context().run(incarnation.begin, self.nursery)
        gave_up = False
        try:
            if not (incarnation.ready or incarnation.done):
                with trio.CancelScope(deadline=trio.current_time() + spec.start_timeout) as self._start_scope:
                    while not (incarnation.ready or incarnation.done):
                        await self.sleep_until(math.inf)
        finally:
            self._start_scope = None
            gave_up = not (incarnation.ready or incarnation.done)
            if gave_up:
                with trio.CancelScope(shield=True):
                    await self._wait_gone([(record, incarnation)])
            if incarnation.ready:
                record.ready(by_supervisor=event is events.ChildRestarted)
                self._reports.child(event, record)
        if incarnation.ready:
            return None
        record.settle()
        if self.stopping:
            return None
        error = self._start_error(record, incarnation, gave_up)
        if error is not None:
            self._reports.child(events.ChildStartFailed, record, error=error.__cause__ or error)
        return error

    def _start_error(self, record: ChildRecord, incarnation: Incarnation, gave_up: bool) -> ChildStartError | None:
        cause = incarnation.reason.error
        if cause is not None and isinstance(sole_exception(cause), Ignore):
            self._reports.child(events.ChildIgnored, record)
            record.last_exit = None
            self.retire(record)
            return None
        if gave_up:
            detail = f"it was not ready within {record.spec.start_timeout:g} s"
        elif cause is not None:
            detail = repr(cause)
        elif incarnation.reason.kind is ExitKind.KILLED:
            detail = "it was killed before it was ready"
        else:
            detail = "it returned without calling task_status.started()"
        error = ChildStartError(self._reports.label, record.spec.id, detail)
        error.__cause__ = cause
        return error

    async def stop(self, record: ChildRecord) -> None:
        """Ask a child to end and wait until it is gone; does nothing to one that does not run.

        Checkpoints while the child runs; cancellation leaves it stopping, and a second call goes on waiting.

        Args:
            record: any; STOPPED afterwards.
        """
        if record.incarnation is None:
            record.state = ChildState.STOPPED
            return
        await self._wait_gone([(record, record.incarnation)])
        self._stopped(record)

    async def stop_together(self, records: list[ChildRecord]) -> None:
        """Ask many children to end at once, each with its own grace, and wait until all are gone.

        Checkpoints likewise.

        Args:
            records: any; STOPPED afterwards.
        """
        await self._wait_gone([(record, record.incarnation) for record in records if record.incarnation is not None])
        for record in records:
            if record.incarnation is not None:
                self._stopped(record)
            record.state = ChildState.STOPPED

    def _stopped(self, record: ChildRecord) -> None:
        incarnation = record.settle()
        if incarnation.ready:
            self._reports.child_ended(record, incarnation, expected=incarnation.reason.kind is not ExitKind.FATAL)
        if incarnation.reason.kind is ExitKind.ERROR:
            self._reports.shutdown_error(record, incarnation.reason)

    async def _wait_gone(self, leaving: list[tuple[ChildRecord, Incarnation]]) -> None:
        """Ask, wait for the grace, kill, then report and wait on: Trio can abandon no task, so neither do we."""
        # When the next step against each of them is due; the count keeps records out of the comparison.
        due: list[tuple[float, int, ChildRecord, Incarnation]] = []
        for count, (record, incarnation) in enumerate(leaving):
            if count and count % ASKED_AT_ONCE == 0:
                # Not cancellable: whoever waits again, or kills, must find that all were asked.
                await trio.lowlevel.cancel_shielded_checkpoint()
            incarnation.request_stop(record.spec.grace)
            self.insiders.stop(incarnation)
            first = incarnation.stop_deadline
            if incarnation.killed:
                first = trio.current_time() + _report_period(record)
            due.append((first, count, record, incarnation))
        heapq.heapify(due)
        for _record, incarnation in leaving:
            while not incarnation.done:
                await self.sleep_until(due[0][0])
                while due and (due[0][3].done or due[0][0] <= trio.current_time()):
                    when, count, record, late = heapq.heappop(due)
                    if not late.done:
                        self._overdue(record, late, when)
                        heapq.heappush(due, (trio.current_time() + _report_period(record), count, record, late))

    def _overdue(self, record: ChildRecord, incarnation: Incarnation, when: float) -> None:
        # At the end of its grace an actor counts itself as killed, and may be faster with that than we are.
        if incarnation.killed and when != incarnation.stop_deadline:
            self._reports.stop_timeout(record, incarnation)
        else:
            incarnation.kill()
            self.insiders.stop(incarnation)

    def retire(self, record: ChildRecord) -> None:
        """Nothing starts the child again by itself: forget it if it is temporary or dynamic, tell its handle anyway.

        Args:
            record: one without incarnation.
        """
        record.state = ChildState.STOPPED
        record.gone()
        if self._dynamic or record.spec.restart is Restart.TEMPORARY:
            self._children.drop(record)

    def kill_all(self) -> None:
        """Cancel all children at once, their cleanup included; for a supervisor whose own grace ran out."""
        for record in self._children:
            if record.incarnation is not None:
                record.incarnation.request_stop(0.0)
                record.incarnation.kill()
                self.insiders.stop(record.incarnation)


def _report_period(record: ChildRecord) -> float:
    return record.spec.grace if 0 < record.spec.grace < math.inf else REPORT_PERIOD
