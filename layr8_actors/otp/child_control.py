"""Starting and stopping one child, the two steps that all else of a supervisor is made of."""

from __future__ import annotations

import math
from typing import Any

import trio

from ..errors import ChildStartError
from . import events
from .child_spec import Restart
from .children import ChildRecord, Children, ChildState
from .commands import Command
from .exit_reason import ExitKind, Ignore, sole_exception
from .incarnation import Incarnation
from .reports import Reports

__all__ = ("ChildControl",)

REPORT_PERIOD = 5.0  # seconds between reports of a stuck child that has no grace to count by; OTP's shutdown default


class ChildControl:
    """Starts and stops children for the supervisor's own task, which alone may call its coroutines.

    Args:
        path: the names from the root supervisor down to this one.
        children: the record table.
        reports: where events go.
    """

    __slots__ = (
        "_children",
        "_path",
        "_reports",
        "_start_scope",
        "_waiting",
        "failure",
        "fatal",
        "inbox",
        "nursery",
        "stopping",
    )

    nursery: trio.Nursery
    """Where the children's tasks live; set before the first start."""

    def __init__(self, path: tuple[str, ...], children: Children, reports: Reports) -> None:
        self._path = path
        self._children = children
        self._reports = reports
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

    # --- for any task -------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Make the supervisor's task look around, if it waits."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            trio.lowlevel.reschedule(waiting)

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

    # --- for the supervisor's own task --------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def sleep_until(self, deadline: float) -> None:
        """Wait for a wake-up or the deadline, whichever is first; a checkpoint.

        Args:
            deadline: seconds of ``trio.current_time()``.
        """
        # Parked in a slot, with a scope only where there is a deadline: an Event and a scope take 1.2 KiB (Trio 0.35).
        self._waiting = trio.lowlevel.current_task()
        if deadline == math.inf:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            with trio.CancelScope(deadline=deadline):
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def start(self, record: ChildRecord, event: type[events.ChildStarted]) -> ChildStartError | None:
        """Start a child and wait until it is ready.

        A checkpoint; cancellation gives the start up and waits until the child is gone again.

        Args:
            record: one without incarnation; RUNNING afterwards, or STOPPED.
            event: what to emit when it is ready.

        Returns:
            Why it did not start; ``None`` also where it was ignored, or where the supervisor began to stop meanwhile.
        """
        spec = record.spec
        incarnation = record.begin(self._path, self)
        self.nursery.start_soon(incarnation.run, name="/".join(incarnation.path))
        gave_up = False
        try:
            with trio.CancelScope(deadline=trio.current_time() + spec.start_timeout) as self._start_scope:
                while not (incarnation.ready or incarnation.done):
                    await self.sleep_until(math.inf)
        finally:
            self._start_scope = None
            gave_up = not (incarnation.ready or incarnation.done)
            if gave_up:
                with trio.CancelScope(shield=True):
                    await self._wait_gone(record, incarnation)
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
        incarnation = record.incarnation
        if incarnation is None:
            record.state = ChildState.STOPPED
            return
        await self._wait_gone(record, incarnation)
        record.settle()
        if incarnation.ready:
            self._reports.child_ended(record, incarnation, expected=incarnation.reason.kind is not ExitKind.FATAL)
        if incarnation.reason.kind is ExitKind.ERROR:
            self._reports.shutdown_error(record, incarnation.reason)

    async def _wait_gone(self, record: ChildRecord, incarnation: Incarnation) -> None:
        """Ask, wait for the grace, kill, then report and wait on: Trio can abandon no task, so neither do we."""
        grace = record.spec.grace
        incarnation.request_stop(grace)
        period = grace or REPORT_PERIOD
        next_report = trio.current_time() + period
        while not incarnation.done:
            deadline = next_report if incarnation.killed else incarnation.stop_deadline
            await self.sleep_until(deadline)
            now = trio.current_time()
            if incarnation.done or now < deadline:
                continue
            if incarnation.killed:
                self._reports.stop_timeout(record, incarnation)
            else:
                incarnation.kill()
            next_report = now + period

    def retire(self, record: ChildRecord) -> None:
        """Nothing starts the child again by itself: forget it if it is temporary, tell its handle in any case.

        Args:
            record: one without incarnation.
        """
        record.state = ChildState.STOPPED
        record.gone()
        if record.spec.restart is Restart.TEMPORARY:
            self._children.drop(record)

    def kill_all(self) -> None:
        """Cancel all children at once, their cleanup included; for a supervisor whose own grace ran out."""
        for record in self._children:
            if record.incarnation is not None:
                record.incarnation.request_stop(0.0)
                record.incarnation.kill()
