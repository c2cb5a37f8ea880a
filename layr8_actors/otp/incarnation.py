"""One run of one child: the task wrapper that turns whatever the child does into one exit notice."""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from ..errors import InvalidOption
from ..telemetry import Hook
from .alarms import Sleeper
from .child_spec import ChildSpec
from .exit_reason import ExitKind, ExitReason
from .pid import Pid

if TYPE_CHECKING:
    from .actor_process import ActorProcess
    from .any_supervisor import AnySupervisor
    from .insiders import Insiders

__all__ = ("Incarnation", "Owner", "incarnation_of", "mark_healthy")

NORMAL = ExitReason(ExitKind.NORMAL)


class Owner(Protocol):
    """Who is told about an incarnation, in the task of the child."""

    insiders: Insiders
    nursery: trio.Nursery

    @property
    def hook(self) -> Hook:
        """Where the events of its supervisor go."""
        ...

    def wake(self) -> None:
        """The child is ready."""

    def set_alarm(self, sleeper: Sleeper, due: float) -> None:
        """Ring for an actor that has no task to wait in."""

    def withdraw_alarm(self, sleeper: Sleeper) -> None:
        """It has ended."""

    def ended(self, incarnation: Incarnation) -> None:
        """The child has ended; called once."""


class Told(Protocol):
    """A child without a scope."""

    def told(self) -> None:
        """End, by whatever is now set in the incarnation."""


class Incarnation:
    """One run of a child, from its start to its end; also the ``task_status`` that the child is given.

    The child's task lives in the supervisor's nursery under a shielded cancel scope, so that a cancelled supervisor
    can still stop its children one by one (a nursery would cancel all of them in one instant). Nothing escapes into
    that nursery but what must end the whole program.

    Args:
        spec: the child.
        number: 1 for the first run of the child, and so on.
        supervisor: the names from the root supervisor down to the child's own.
        owner: told when the child is ready, and when it has ended.
    """

    __slots__ = (
        "_pid",
        "_scope",
        "_supervisor",
        "doing",
        "done",
        "dropped",
        "ended_at",
        "exit_requested",
        "handle",
        "healthy_at",
        "killed",
        "number",
        "on_gone",
        "on_kill",
        "on_stop",
        "on_told",
        "owner",
        "ready",
        "ready_at",
        "reason",
        "scope_entered",
        "second_error",
        "spec",
        "stop_deadline",
        "stop_requested",
        "stop_requested_at",
        "subtree",
        "task",
    )

    def __init__(
        self,
        spec: ChildSpec,
        number: int,
        supervisor: tuple[str, ...],
        owner: Owner,
    ) -> None:
        self.spec = spec
        self.number = number
        self._supervisor = supervisor
        self.owner = owner
        self._scope: trio.CancelScope | None = None
        self.scope_entered = False
        """Set by a child that enters the scope itself, around less than the whole of its run."""
        self.task: trio.lowlevel.Task | None = None

        self.handle: object = None
        self.ready = False
        self.ready_at = math.nan
        self.healthy_at = math.inf
        """Since when it counts as healthy, for the backoff; infinite while it does not."""
        self.done = False
        self.ended_at = math.nan
        self.reason = NORMAL
        self.second_error: Exception | None = None
        """An exception that came besides the reason: of ``terminate`` after a crash, or of the cleanup after a kill."""
        self.dropped = 0
        """Messages that were queued and nobody will handle."""
        self.doing: str | None = None
        """What an actor was at when it crashed or was killed: its handler and the type of the message."""

        self.stop_requested = False
        self.stop_requested_at = math.nan
        self.stop_deadline = math.inf
        self.exit_requested: ExitReason | None = None
        self.killed = False

        self.on_stop: Callable[[], None] | None = None
        """Set by a child that has a gentler way to stop than the cancellation of its whole scope."""
        self.on_kill: Callable[[], None] | None = None
        """Set by a child that shields its cleanup, so that it can be cut short."""
        self.on_told: Told | None = None
        """Set by a child that needs no scope: told to end in its place."""
        self.on_gone: Callable[[], None] | None = None
        """Set by a child that keeps something for its next incarnation: called when there will be none by itself."""
        self.subtree: AnySupervisor | None = None
        """Set by a child that is a supervisor, or has one: what a look at the whole tree goes down into."""
        self._pid: Pid | None = None

    @property
    def scope(self) -> trio.CancelScope:
        """What is cancelled to end the child; shielded, see above."""
        if self._scope is None:
            self._scope = trio.CancelScope(shield=True)
        return self._scope

    @property
    def pid(self) -> Pid:
        """Its identity for others, made when first asked for: an idle child shall cost next to nothing."""
        if self._pid is None:
            self._pid = Pid(self.path, self.number, self.handle, self._supervisor)
            if self.done:
                self._pid.ended(self.reason)
        return self._pid

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the root supervisor down to the child."""
        return (*self._supervisor, self.spec.id)

    def started(self, value: object = None) -> None:
        """Report readiness (``trio.TaskStatus.started``).

        Args:
            value: the child's handle.

        Raises:
            RuntimeError: it was called before.
        """
        if self.ready:
            raise RuntimeError("called 'started' twice on the same task status")
        if self.stop_requested:
            return  # the start was given up while the child was at it; its next checkpoint ends it
        self.handle = value
        if self._pid is not None:
            self._pid.handle = value
        self.ready = True
        self.ready_at = trio.current_time()
        if not self.spec.marks_healthy:
            self.healthy_at = self.ready_at
        self.owner.wake()

    def mark_healthy(self) -> None:
        """Count as healthy from now on, unless it did before."""
        self.healthy_at = min(self.healthy_at, trio.current_time())

    @trio.lowlevel.enable_ki_protection  # else one whose init is over could be taken for dead, and would live on
    def begin(self, nursery: trio.Nursery) -> None:
        """Start the child's task: it is over when the child has ended, however that came, and raises no ``Exception``.

        Args:
            nursery: the supervisor's.
        """
        of_actor: Callable[[Incarnation], ActorProcess] | None = getattr(self.spec.start, "otp_process", None)
        if of_actor is None:
            nursery.start_soon(self._run, name="/".join(self.path))
            return
        raised: Exception | None = None
        fatal = True
        process: ActorProcess | None = None
        try:
            try:
                process = of_actor(self)
            except Exception as error:
                raised = error
            fatal = False
        finally:
            if process is None:
                self.end(raised, fatal)
        if process is not None and not process.asleep:
            self.launch(process.run_whole)

    def launch(self, run_whole: Callable[[Incarnation], Awaitable[object]]) -> None:
        """Start a task for an actor, its first one or the next.

        Args:
            run_whole: all that it does.
        """
        self.owner.nursery.start_soon(run_whole, self, name="/".join(self.path))

    async def _run(self) -> None:
        self.task = trio.lowlevel.current_task()
        raised: Exception | None = None
        fatal = True
        try:
            try:
                child = self.spec.start(task_status=self)
                if not isinstance(child, Awaitable):
                    self.ready = False  # whatever it reported: it has returned already
                    raise InvalidOption("start", child, "an async function that takes task_status")
                if self.scope_entered:
                    await child
                else:
                    self.scope_entered = True
                    # The scope is inside the handler: it takes its own Cancelled out of a mixed group first.
                    with self.scope:
                        await child
            except Exception as error:
                raised = error
            fatal = False
        finally:
            self.end(raised, fatal)

    @trio.lowlevel.enable_ki_protection
    def end(self, raised: Exception | None, fatal: bool) -> None:
        """The child is over: for what runs it, in its task.

        Args:
            raised: what came out of it.
            fatal: whether that, or nothing, was no ``Exception``, and leaves through the supervisor's nursery.
        """
        self.reason = self._classify(raised, fatal)
        self.done = True
        self.ended_at = trio.current_time()
        self.task = None
        self.on_stop = self.on_kill = self.on_told = self.subtree = None
        if self._pid is not None:
            self._pid.ended(self.reason)
        self.owner.ended(self)

    def _classify(self, raised: Exception | None, fatal: bool) -> ExitReason:
        # Never by scope.cancelled_caught: it is False when a child swallowed Cancelled or raised in its cleanup.
        if fatal:
            return ExitReason(ExitKind.FATAL)
        if self.exit_requested is not None:
            if raised is not None and raised is not self.exit_requested.error:
                self.second_error = raised
            return self.exit_requested
        if raised is not None:
            return ExitReason.from_exception(raised)
        if self.killed:
            return ExitReason(ExitKind.KILLED)
        return ExitReason(ExitKind.SHUTDOWN if self.stop_requested else ExitKind.NORMAL)

    def request_stop(self, grace: float) -> None:
        """Ask the child to end (OTP: exit reason ``shutdown``); its own restart rule does not apply any more.

        Args:
            grace: seconds it has; 0 kills it at once.
        """
        if self.done or self.stop_requested:
            return
        self.stop_requested = True
        self.stop_requested_at = trio.current_time()
        self.stop_deadline = self.stop_requested_at + grace
        if grace == 0:
            self.kill()
        elif self.on_stop is not None:
            self.on_stop()
        else:
            self._cancel(f"supervisor stops {'/'.join(self.path)}")

    def cleaned_up(self) -> None:
        """The child has done what it does when asked to end; what its tasks still wait for, they wait for in vain."""
        self.on_stop = None
        self.owner.insiders.stop(self)

    def request_exit(self, error: Exception | None) -> None:
        """Make the child end at its next checkpoint as if by its own fault (OTP: ``Process.exit/2``).

        Args:
            error: what it shall seem to have raised; ``None`` kills it.
        """
        if self.done or self.stop_requested or self.exit_requested is not None:
            return
        kind = ExitKind.KILLED if error is None else ExitKind.ERROR
        self.exit_requested = ExitReason(kind, error)
        self._cancel(f"exit_child of {'/'.join(self.path)}")

    def kill(self) -> None:
        """Cancel everything that the child still does, its shielded cleanup included as far as it is ours."""
        self.killed = True
        self._cancel(f"supervisor kills {'/'.join(self.path)}")
        if self.on_kill is not None:
            self.on_kill()

    def _cancel(self, reason: str) -> None:
        if self.on_told is None:
            self.scope.cancel(reason=reason)
        else:
            self.on_told.told()

    def stack(self) -> tuple[str, ...]:
        """Where each task of the child waits, as lines like those of a traceback, for a child that does not end."""
        lines: list[str] = []
        tasks = [] if self.task is None else [self.task]
        while tasks:
            task = tasks.pop()
            lines.append(f"task {task.name}")
            lines.extend(traceback.StackSummary.extract(task.iter_await_frames(), limit=20).format())
            tasks.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return tuple(line.rstrip() for line in lines)


def incarnation_of(task_status: object) -> Incarnation | None:
    """Return the incarnation behind a ``task_status``, or ``None`` when no supervisor runs this child.

    Args:
        task_status: as given to the child; one that wraps another may name it in an attribute ``incarnation``.
    """
    if not isinstance(task_status, Incarnation):
        task_status = getattr(task_status, "incarnation", None)
    return task_status if isinstance(task_status, Incarnation) else None


def mark_healthy(task_status: object) -> None:
    """Say that this run of a child is healthy from now on; what failed before is forgotten ``reset_after`` later.

    For a child whose readiness proves nothing yet, such as a client that is ready before it has joined: with
    ``ChildSpec(marks_healthy=True)`` its failures in a row are counted, and its backoff grows, until it says so itself
    (Akka: the manual reset of BackoffSupervisor). The first mark of a run counts; no checkpoint. Actors have
    :meth:`Actor.mark_healthy`.

    Args:
        task_status: as the child was given it; where no supervisor runs the child, nothing happens.
    """
    incarnation = incarnation_of(task_status)
    if incarnation is not None:
        incarnation.mark_healthy()
