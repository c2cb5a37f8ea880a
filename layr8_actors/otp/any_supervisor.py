"""What both kinds of supervisors have in common: they can be run, stopped and looked at, again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Any, Self

import trio

from ..errors import InvalidOption, SupervisionError, SupervisorNotRunning
from ..telemetry import Hook
from .backoff import Backoff
from .child_spec import START_TIMEOUT, ChildSpec, ChildType, Restart
from .children import ChildCounts, ChildInfo, Children
from .incarnation import Incarnation, incarnation_of
from .pid import Pid
from .snapshot import SupervisorSnapshot, snapshot_of
from .strategy import AutoShutdown, Strategy
from .supervisor_run import SupervisorRun
from .validation import checked_count, checked_flag, checked_seconds, checked_text

__all__ = ("AnySupervisor",)


_DELAYS_LOOKED_AT = 10_000  # a budget beyond that is never spent


class AnySupervisor:
    """The part that :class:`Supervisor` and :class:`DynamicSupervisor` share; not to be made by itself.

    It is configuration until it is run, in a task of whatever nursery: with ``nursery.start(supervisor.run)``, by
    ``async with``, with ``trio.run(supervisor.run)``, or as a child of another supervisor.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_run",
        "auto_shutdown",
        "backoff",
        "children",
        "give_up_never",
        "max_attempts",
        "max_restarts",
        "max_seconds",
        "name",
        "on_event",
        "parallel_shutdown",
        "random",
        "shutdown_deadline",
        "strategy",
    )

    dynamic = False
    """Whether children have no place in an order and are forgotten when they end."""

    def __init__(
        self,
        children: tuple[ChildSpec, ...],
        *,
        strategy: Strategy,
        max_restarts: int,
        max_seconds: float,
        backoff: Backoff | None,
        give_up_never: bool,
        max_attempts: int | None,
        auto_shutdown: AutoShutdown,
        parallel_shutdown: bool,
        shutdown_deadline: float,
        name: str,
        on_event: Hook | None,
        random: Random | None,
    ) -> None:
        self.children = children
        self.strategy = strategy
        self.max_restarts = checked_count("max_restarts", max_restarts)
        self.max_seconds = checked_seconds("max_seconds", max_seconds, allow_zero=False)
        self.backoff = backoff
        self.give_up_never = checked_flag("give_up_never", give_up_never)
        self.max_attempts = None if max_attempts is None else checked_count("max_attempts", max_attempts)
        self.auto_shutdown = auto_shutdown
        self.parallel_shutdown = checked_flag("parallel_shutdown", parallel_shutdown)
        self.shutdown_deadline = checked_seconds("shutdown_deadline", shutdown_deadline, allow_infinity=True)
        self.name = checked_text("name", name)
        self.on_event = on_event
        self.random = random
        self._run: SupervisorRun | None = None
        self._block: AbstractAsyncContextManager[None] | None = None
        if on_event is not None and not callable(on_event):
            raise InvalidOption("on_event", on_event, "a function that takes an event, or None")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise InvalidOption("backoff", backoff, "a Backoff or None")
        self._check_window()

    def _check_spec(self, spec: object) -> None:
        if not isinstance(spec, ChildSpec):
            raise InvalidOption("children", spec, "ChildSpec; Actor and Supervisor classes have child_spec to make one")
        if spec.significant and self.auto_shutdown is AutoShutdown.NEVER:
            # Its end would mean nothing (OTP: validAutoShutdownForStrategy).
            raise InvalidOption("significant", spec.significant, "False where auto_shutdown is AutoShutdown.NEVER")

    def _check_window(self) -> None:
        if self.backoff is None:
            if self.give_up_never:
                raise InvalidOption("give_up_never", True, "False without a backoff: it would restart in a busy loop")
            if self.max_attempts is not None:
                allowed = "None without a backoff, whose reset_after says when failures in a row are forgotten"
                raise InvalidOption("max_attempts", self.max_attempts, allowed)
            return
        if self.give_up_never or self.max_attempts is not None:
            return  # somebody has said what shall happen to a child that fails for ever
        slowest = sum(
            self.backoff.longest_delay(attempt) for attempt in range(min(self.max_restarts, _DELAYS_LOOKED_AT))
        )
        if slowest >= self.max_seconds:
            allowed = (
                f"more than {slowest:g} s, the sum of the first {self.max_restarts} delays of the backoff, for else a "
                f"child that fails for ever is never given up; or say max_attempts, or give_up_never=True"
            )
            raise InvalidOption("max_seconds", self.max_seconds, allowed)

    def __repr__(self) -> str:
        state = "running" if self._run is not None else "not running"
        return f"<{type(self).__name__} {self.name!r} {state}>"

    def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> Coroutine[Any, Any, None]:
        """Run the tree until it is stopped, ends or gives up by itself, or is cancelled; then it may be run again.

        Checkpoints. When it is cancelled, the children stop as they do when it is asked to stop, each within its grace,
        and then the cancellation goes on upward; no task is left. Each run begins from scratch.

        Args:
            task_status: told once all static children are ready, with the supervisor itself as handle.

        Raises:
            ChildStartError: a static child did not start; those before it were stopped again.
            RestartLimitExceeded: it gave up; ``__cause__`` is the last failure.
            SupervisionError: it runs already.
        """
        incarnation = incarnation_of(task_status)
        run = SupervisorRun(self, incarnation)
        if incarnation is not None:
            incarnation.on_kill = run.kill_all
            incarnation.subtree = self
        return run.run(task_status)

    def bind(self, run: SupervisorRun | None) -> None:
        """For the library alone: ``run`` begins; ``None``, it has ended."""
        if run is not None and self._run is not None:
            raise SupervisionError(f"supervisor {self.name!r} runs already")
        self._run = run

    async def stop(self) -> None:
        """Stop the children and wait until the supervisor is gone; idempotent.

        Checkpoints; cancelling it leaves the supervisor stopping. It makes ``run`` return normally. A child may call
        it: its own wait is then cancelled like everything else it does.

        Raises:
            CallingSelf: a child called it whose cleanup is shielded, and would wait for its own end; the supervisor
                stops all the same. Use :meth:`request_stop` there.
        """
        run = self._run
        if run is None:
            await trio.lowlevel.checkpoint()
            return
        run.request_stop()
        await run.wait_ended()

    def request_stop(self) -> None:
        """Begin what :meth:`stop` does, without waiting for it; no checkpoint, so a hook of events may call it too.

        Idempotent; it does nothing where the supervisor does not run.
        """
        if self._run is not None:
            self._run.request_stop()

    async def __aenter__(self) -> Self:
        """Run the tree in a nursery of its own for the length of an ``async with`` block.

        Checkpoints until all static children are ready; cancellation stops those that are. A supervisor that ends by
        itself cancels the block: with an error where it gave up, without one where ``auto_shutdown`` ended it.

        Returns:
            The supervisor.

        Raises:
            ChildStartError: a static child did not start; those before it were stopped again.
            SupervisionError: it runs already.
        """
        block = self._run_around()
        await block.__aenter__()
        self._block = block
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Stop the children, wait until they are gone, and let the block's error out as it is.

        Checkpoints; cancellation changes nothing but what comes out.

        Raises:
            RestartLimitExceeded: it had given up. Only with another error of the block do both come as a group.
        """
        block, self._block = self._block, None
        assert block is not None
        return await block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _run_around(self) -> AsyncIterator[None]:
        alone: BaseException | None = None
        own: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._run_in, nursery.cancel_scope)
                try:
                    yield
                except Exception as error:
                    own = error  # Trio would put a copy in its place where it is a group
                    raise
                finally:
                    self.request_stop()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            alone = own or group.exceptions[0]  # without the nursery's own layer, and no other
        if alone is not None:
            raise alone

    async def _run_in(self, block: trio.CancelScope, *, task_status: trio.TaskStatus[AnySupervisor]) -> None:
        run = SupervisorRun(self, None)
        running = run.run(task_status)
        del task_status  # or else Trio's nursery of the start is kept alive
        await running
        if not run.asked:
            block.cancel(reason=f"supervisor {self.name} ended by its auto_shutdown")

    def child_spec(
        self,
        id: str | None = None,
        *,
        restart: Restart = Restart.PERMANENT,
        shutdown: float | None = None,
        significant: bool = False,
        start_timeout: float = START_TIMEOUT,
    ) -> ChildSpec:
        """Describe the supervisor as a child of another one; its handle is the supervisor itself.

        Args:
            id: its child id; its name by default.
            restart: as in :class:`ChildSpec`.
            shutdown: likewise; ``None`` waits for ever (OTP). A finite one is safe here: the subtree is cancelled.
            significant: likewise.
            start_timeout: seconds for all of its children together.

        Raises:
            InvalidOption: a value that is not allowed.
        """
        return ChildSpec(
            id=self.name if id is None else id,
            start=self.run,
            restart=restart,
            shutdown=shutdown,
            type=ChildType.SUPERVISOR,
            significant=significant,
            start_timeout=start_timeout,
        )

    # --- looking, and crashes on purpose ------------------------------------------------------------------------------

    def exit_child(self, id: str, reason: Exception | None = None) -> None:
        """Make a child end at its next checkpoint as if by its own fault (OTP: ``Process.exit/2``); no checkpoint.

        Its restart rule applies, and an actor's ``terminate`` runs.

        Args:
            id: the child's.
            reason: the exception it shall seem to have crashed with; ``None`` kills it.

        Raises:
            ChildNotFound: there is no such child.
            ActorNotRunning: it does not run now.
            InvalidOption: ``reason`` is no Exception.
            SupervisorNotRunning: the supervisor does not run.
        """
        if reason is not None and not isinstance(reason, Exception):
            raise InvalidOption("reason", reason, "an Exception or None")
        self._running().exit_child(id, reason)

    def which_children(self) -> list[ChildInfo]:
        """Return all children as plain data, in start order (OTP: which_children/1); no checkpoint, it never waits.

        Raises:
            SupervisorNotRunning: the supervisor does not run.
        """
        return [record.info() for record in self._running().children]

    def count_children(self) -> ChildCounts:
        """Count the children (OTP: count_children/1); no checkpoint.

        Raises:
            SupervisorNotRunning: the supervisor does not run.
        """
        return self._running().children.counts()

    def snapshot(self) -> SupervisorSnapshot:
        """Return the whole tree as plain data, a supervisor that does not run as one without children.

        No checkpoint: it reads the record tables and never waits, whatever a supervisor of the tree is at.
        """
        return snapshot_of(self)

    def pid(self, id: str) -> Pid:
        """Return the identity of a child's run of now, ready or not; no checkpoint.

        Args:
            id: the child's.

        Raises:
            ChildNotFound: there is no such child.
            ActorNotRunning: it does not run now.
            SupervisorNotRunning: the supervisor does not run.
        """
        return self._running().children.living(id).pid

    def whereis(self, id: str) -> Any:
        """Return the handle of a child that runs: what it reported as started; no checkpoint.

        Args:
            id: the child's.

        Raises:
            ChildNotFound: there is no such child.
            ActorNotRunning: it does not run now.
            SupervisorNotRunning: the supervisor does not run.
        """
        return self._running().children.whereis(id)

    @property
    def running(self) -> bool:
        """True from the first child's start until the last one's end."""
        return self._run is not None

    @property
    def stopping(self) -> bool:
        """True from the first step of the end on: nothing is started any more, and all children are asked to end."""
        return self._run is not None and self._run.stopping

    def restarts_used(self) -> int:
        """Return how many restarts the window holds now; no checkpoint.

        Raises:
            SupervisorNotRunning: the supervisor does not run.
        """
        return self._running().intensity.used(trio.current_time())

    def records(self) -> Children:
        """For the library alone: return the record table of the run of now, an empty one where there is none."""
        return Children() if self._run is None else self._run.children

    def around(self, task: trio.lowlevel.Task) -> Incarnation | None:
        """For the library alone: return the child that a task belongs to, directly or not, if any."""
        return None if self._run is None else self._run.around(task)

    def _running(self) -> SupervisorRun:
        if self._run is None:
            raise SupervisorNotRunning(f"supervisor {self.name!r} does not run")
        return self._run
