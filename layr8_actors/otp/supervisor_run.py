"""One run of a supervisor: the one task that starts, stops and restarts its children.

Everything that changes a child happens in this task, one turn at a time: an exit notice, a request, or a restart that
is due. What other tasks may do at once is to read the record table, and to cancel a scope.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ..errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    MaxChildrenReached,
    NameTaken,
    SupervisorNotRunning,
)
from ..telemetry import log_event
from . import events
from .child_control import ChildControl
from .child_spec import ChildSpec
from .children import ChildRecord, Children
from .commands import Command
from .exit_reason import ExitKind, ExitReason
from .incarnation import Incarnation
from .insiders import Insiders
from .pid import Pid
from .reports import Reports
from .restart_intensity import RestartIntensity
from .restart_timers import RestartTimers
from .restarts import Restarts

if TYPE_CHECKING:
    from .any_supervisor import AnySupervisor

__all__ = ("SupervisorRun",)

T = TypeVar("T")


class SupervisorRun:
    """The state of one run of a supervisor of either kind; one that is restarted gets a new one, with a full budget.

    Args:
        supervisor: whose configuration to run.
        incarnation: as what it runs where it is a child itself.
    """

    __slots__ = (
        "_control",
        "_ended",
        "_name",
        "_reports",
        "_restarts",
        "_started",
        "_supervisor",
        "_timers",
        "asked",
        "children",
        "intensity",
    )

    def __init__(self, supervisor: AnySupervisor, incarnation: Incarnation | None) -> None:
        path = (supervisor.name,) if incarnation is None else incarnation.path
        insiders = Insiders() if incarnation is None else incarnation.owner.insiders
        self._supervisor = supervisor
        self.children = Children(supervisor.children)
        self.intensity = RestartIntensity(supervisor.max_restarts, supervisor.max_seconds)
        self._ended: trio.Event | None = None
        self.asked = False
        """True once somebody asked for the end, so that it is not the supervisor's own doing."""
        self._name = "/".join(path)
        self._started = 0
        self._timers = RestartTimers()
        inherited = log_event if incarnation is None else incarnation.owner.hook
        self._reports = Reports(path, supervisor.on_event or inherited, self.intensity)
        self._control = ChildControl(path, self.children, self._reports, insiders, dynamic=supervisor.dynamic)
        self._restarts: Restarts | None = None  # until the first child ends by itself

    @property
    def stopping(self) -> bool:
        """True from the first step of the stop on."""
        return self._control.stopping

    async def run(self, task_status: trio.TaskStatus[Any]) -> None:
        """Start the children, serve until told to stop, stop the children; see :meth:`AnySupervisor.run`."""
        control = self._control
        alone: BaseException | None = None
        self._supervisor.bind(self)
        try:
            async with trio.open_nursery() as control.nursery:
                try:
                    await self._start_all()
                    if not control.stopping:
                        self._reports.supervisor_started(len(self.children))
                        task_status.started(self._supervisor)
                        del task_status  # Trio's own keeps the nursery of its start alive, which is 1 KiB
                        while not control.stopping:
                            if not await self._turn():
                                due = min(self._timers.next_due(), control.next_alarm())
                                if due != math.inf:
                                    await control.sleep_until(due)
                                else:  # the same, without a coroutine that would be held while nothing happens
                                    control.park()
                                    await trio.lowlevel.wait_task_rescheduled(control.abort)
                            # One checkpoint a turn: a child that ends as soon as it is started can starve nobody.
                            await trio.lowlevel.checkpoint()
                            control.ring()
                finally:
                    control.unpark()  # where Ctrl-C came just before the wait
                    try:
                        with trio.CancelScope(shield=True):
                            await self._stop_all()
                    finally:
                        # Nothing is left to kill unless that was interrupted, by a second Ctrl-C for one.
                        control.kill_all()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            # One exception must not gather a layer of group at each level of the tree.
            alone = group
            while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
                alone = alone.exceptions[0]
        finally:
            self._finish()
        if alone is not None:
            raise alone
        if control.failure is not None:
            raise control.failure

    async def _start_all(self) -> None:
        for record in self.children:
            error = await self._control.start(record, events.ChildStarted)
            if error is not None:
                self._control.request_stop(error)
            if self._control.stopping:
                return

    async def _turn(self) -> bool:
        """Deal with one exit notice, one request, or one restart that is due; return False where there is none."""
        control = self._control
        if control.inbox:
            item = control.inbox.pop(0)
            if isinstance(item, Command):
                await item.execute()
            else:
                await self._rules().child_exited(item)
        elif (pending := self._timers.pop_due(trio.current_time())) is not None:
            await self._rules().attempt(pending)
        else:
            return False
        return True

    def _rules(self) -> Restarts:
        if self._restarts is None:
            supervisor = self._supervisor
            self._restarts = Restarts(
                self.children,
                self._control,
                self._reports,
                self._timers,
                self.intensity,
                strategy=supervisor.strategy,
                backoff=supervisor.backoff,
                give_up_never=supervisor.give_up_never,
                max_attempts=supervisor.max_attempts,
                auto_shutdown=supervisor.auto_shutdown,
                random=supervisor.random,
            )
        return self._restarts

    async def _stop_all(self) -> None:
        """Stop the children, those that take longer than the whole stop may take by force."""
        self._control.stopping = True
        self._refuse_commands()
        for record in self.children:
            self._timers.withdraw(record)
        with trio.CancelScope(deadline=trio.current_time() + self._supervisor.shutdown_deadline) as scope:
            await self._stop_children()
        if scope.cancelled_caught:
            self._control.kill_all()
            await self._stop_children()
        kind = ExitKind.SHUTDOWN if self._control.failure is None else ExitKind.ERROR
        self._reports.supervisor_stopped(
            ExitReason(ExitKind.FATAL if self._control.fatal else kind, self._control.failure)
        )

    async def _stop_children(self) -> None:
        records = self.children.reverse_order()
        if self._supervisor.parallel_shutdown:
            await self._control.stop_together(records)
        else:
            # One after another, last started first (OTP: terminate_children).
            for record in records:
                await self._control.stop(record)

    def _finish(self) -> None:
        for record in self.children:
            if record.incarnation is not None and record.incarnation.done:
                record.settle()  # the stop itself was interrupted before it came to that
            record.gone()
        self._refuse_commands()
        self._supervisor.bind(None)
        if self._ended is not None:
            self._ended.set()

    def _refuse_commands(self) -> None:
        for item in self._control.inbox:
            if isinstance(item, Command):
                item.refuse()
        self._control.inbox.clear()

    # --- for any task -------------------------------------------------------------------------------------------------

    async def submit(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Let the supervisor's task do ``operation`` and wait for the outcome.

        A checkpoint; a cancelled caller does not cancel what it asked for.

        Raises:
            SupervisorNotRunning: it is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
            SupervisionError: what the operation refused with.
        """
        if self.stopping:
            raise SupervisorNotRunning(f"supervisor {self._name!r} is stopping")
        command = Command(operation, self._name)
        self._control.inbox.append(command)
        self._control.wake()
        await self._control.insiders.wait(command.done, self._control)
        return command.outcome()

    def request_stop(self) -> None:
        """Begin the ordered stop."""
        self.asked = True
        self._control.request_stop()

    async def wait_ended(self) -> None:
        """Wait until the supervisor is gone; a checkpoint.

        Raises:
            CallingSelf: the caller is part of it and shields its wait.
        """
        if self._ended is None:
            self._ended = trio.Event()
        await self._control.insiders.wait(self._ended, self._control)

    def around(self, task: trio.lowlevel.Task) -> Incarnation | None:
        """Return the child that a task belongs to, if any."""
        return self._control.around(task)

    def kill_all(self) -> None:
        """Cut the stop short: cancel all children at once, their cleanup included."""
        self._control.kill_all()

    def exit_child(self, child_id: str, reason: Exception | None) -> None:
        """Make a child end at its next checkpoint; see :meth:`Supervisor.exit_child`."""
        self.children.living(child_id).request_exit(reason)

    def child_id(self, child: Pid | str) -> str:
        """Return the id of a dynamic child, whichever incarnation of it was named.

        Raises:
            ChildNotFound: the pid is one of another supervisor, or of another run of this one.
        """
        if not isinstance(child, Pid):
            return child
        if child.owner is not self._control.path:
            raise ChildNotFound(f"{child!r} is no child of supervisor {self._name!r}")
        return child.id

    # --- operations, each executed in the supervisor's own task -------------------------------------------------------

    async def start_child(self, spec: ChildSpec) -> Any:
        """Append a child and start it (OTP: start_child)."""
        present = self.children.get(spec.id)
        if present is not None:
            if present.incarnation is not None and present.running:
                raise ChildAlreadyStarted(spec.id, present.incarnation.handle)
            raise ChildAlreadyPresent(f"child {spec.id!r} is present and does not run")
        return await self._start_new(spec)

    async def start_dynamic_child(self, spec: ChildSpec, max_children: float) -> Pid | None:
        """Start one more child of a dynamic supervisor (Elixir: DynamicSupervisor.start_child)."""
        if len(self.children) >= max_children:
            raise MaxChildrenReached(self._name, int(max_children))
        self._started += 1  # never used twice in one run, so that the pid of a child that is gone names no other
        child = spec.numbered(self._started)
        await self._start_new(child)
        record = self.children.get(child.id)
        # It may be gone again, or have said that there is nothing to run.
        return None if record is None or record.incarnation is None else record.incarnation.pid

    async def _start_new(self, spec: ChildSpec) -> Any:
        record = self.children.add(spec)
        try:
            return await self._start_by_hand(record)
        except Exception:
            if self.children.get(spec.id) is record:
                self.children.drop(record)
            record.gone()
            raise

    async def _start_by_hand(self, record: ChildRecord) -> Any:
        error = await self._control.start(record, events.ChildStarted)
        if error is not None:
            # That somebody else has the name is an answer and no failure (OTP: {error, {already_started, Pid}}).
            raise error.__cause__ if isinstance(error.__cause__, NameTaken) else error
        if record.incarnation is not None:
            return record.incarnation.handle
        if self._control.stopping:
            raise SupervisorNotRunning(
                f"supervisor {self._name!r} began to stop while child {record.spec.id!r} started"
            )
        return None

    async def terminate_child(self, child_id: str) -> None:
        """Stop a child, or its wait for a restart (OTP: terminate_child)."""
        record = self.children.find(child_id)
        self._timers.withdraw(record)
        await self._control.stop(record)
        record.by_hand = True
        self._control.retire(record)

    async def restart_child(self, child_id: str) -> Any:
        """Start a child that is stopped (OTP: restart_child)."""
        record = self._stopped(child_id)
        by_hand = record.by_hand
        try:
            return await self._start_by_hand(record)
        except Exception:
            record.by_hand = by_hand
            raise

    async def delete_child(self, child_id: str) -> None:
        """Forget a child that is stopped (OTP: delete_child)."""
        record = self._stopped(child_id)
        self.children.drop(record)
        record.gone()

    def _stopped(self, child_id: str) -> ChildRecord:
        record = self.children.find(child_id)
        if record.incarnation is not None:
            raise ChildRunning(f"child {child_id!r} runs")
        if record.pending is not None:
            raise ChildRestarting(f"child {child_id!r} waits for its restart")
        return record
