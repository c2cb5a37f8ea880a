"""The supervisor as users see it: configuration that can be run, again and again, in any nursery or as a child."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Any

import trio

from ..errors import InvalidOption, SupervisionError, SupervisorNotRunning
from ..telemetry import Hook, log_event
from .backoff import Backoff
from .child_spec import START_TIMEOUT, ChildSpec, ChildType, Restart
from .children import ChildCounts, ChildInfo
from .incarnation import incarnation_of
from .strategy import Strategy
from .supervisor_run import SupervisorRun
from .validation import checked_choice, checked_count, checked_seconds, checked_text

__all__ = ("Supervisor",)


class Supervisor:
    """Keeps children running (OTP: supervisor), in a task of whatever nursery it is run in.

    Args:
        children: the static children, in start order.
        strategy: who else is restarted when a child is.
        max_restarts: how many restarts the window permits, over all children (Elixir: 3).
        max_seconds: the window in seconds (Elixir: 5); a restart exactly that old still counts.
        backoff: how long to wait before a restart; ``None`` for not at all, as in OTP.
        give_up_never: restart for ever, whatever the window says; needs a backoff.
        name: its name in events and errors, while it is nobody's child.
        on_event: called with each event, in order, from the supervisor's own task; logs by default.
        random: where the backoff's jitter comes from; by default a new generator for each delay that has some.
        auto_shutdown: only ``"never"`` so far.

    Raises:
        InvalidOption: a value that is not allowed; nothing was started. So is a backoff whose delays are so long that
            the window can never fill: it would restart for ever without anybody having said so.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_run",
        "backoff",
        "children",
        "give_up_never",
        "max_restarts",
        "max_seconds",
        "name",
        "on_event",
        "random",
        "strategy",
    )

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        backoff: Backoff | None = None,
        give_up_never: bool = False,
        name: str = "supervisor",
        on_event: Hook = log_event,
        random: Random | None = None,
        auto_shutdown: str = "never",
    ) -> None:
        self.children = tuple(children)
        self.strategy = checked_choice("strategy", strategy, Strategy)
        self.max_restarts = checked_count("max_restarts", max_restarts)
        self.max_seconds = checked_seconds("max_seconds", max_seconds, allow_zero=False)
        self.backoff = backoff
        self.give_up_never = give_up_never
        self.name = checked_text("name", name)
        self.on_event = on_event
        self.random = random
        self._run: SupervisorRun | None = None
        self._block: AbstractAsyncContextManager[None] | None = None
        if auto_shutdown != "never":
            raise InvalidOption("auto_shutdown", auto_shutdown, '"never"')
        if not callable(on_event):
            raise InvalidOption("on_event", on_event, "a function that takes an event")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise InvalidOption("backoff", backoff, "a Backoff or None")
        seen: set[str] = set()
        for spec in self.children:
            self._check_spec(spec)
            if spec.id in seen:
                raise InvalidOption("children", self.children, f"ids that differ; {spec.id!r} is there twice")
            seen.add(spec.id)
        self._check_window()

    def _check_spec(self, spec: object) -> None:
        if not isinstance(spec, ChildSpec):
            raise InvalidOption("children", spec, "ChildSpec; Actor and Supervisor classes have child_spec to make one")
        if spec.significant:
            # Without auto_shutdown its end would mean nothing (OTP: validAutoShutdownForStrategy).
            raise InvalidOption("significant", spec.significant, 'False where auto_shutdown is "never"')

    def _check_window(self) -> None:
        if self.give_up_never:
            if self.backoff is None:
                raise InvalidOption("give_up_never", True, "False without a backoff: it would restart in a busy loop")
            return
        if self.backoff is None:
            return
        slowest = 0.0
        for attempt in range(self.max_restarts):
            slowest += self.backoff.longest_delay(attempt)
            if slowest >= self.max_seconds:
                allowed = (
                    f"more than the sum of the first {self.max_restarts} delays of the backoff, for else a child that "
                    f"fails for ever is never given up; raise max_seconds, or say give_up_never=True"
                )
                raise InvalidOption("max_seconds", self.max_seconds, allowed)

    def __repr__(self) -> str:
        return f"<Supervisor {self.name!r} {'running' if self._run is not None else 'not running'}>"

    def run(self, *, task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED) -> Coroutine[Any, Any, None]:
        """Run the tree until it is stopped, gives up, or is cancelled; afterwards it may be run again, from scratch.

        Checkpoints. When it is cancelled, the children stop one after another in reverse order, each within its
        grace, and then the cancellation goes on upward; no task is left.

        Args:
            task_status: told once all static children are ready, with the supervisor itself as handle.

        Raises:
            ChildStartError: a static child did not start; those before it were stopped again.
            RestartLimitExceeded: it gave up; ``__cause__`` is the last failure.
            SupervisionError: it runs already.
        """
        incarnation = incarnation_of(task_status)
        run = SupervisorRun(self, (self.name,) if incarnation is None else incarnation.path)
        if incarnation is not None:
            incarnation.on_kill = run.kill_all
        return run.run(task_status)

    def bind(self, run: SupervisorRun | None) -> None:
        """For the library alone: ``run`` begins; ``None``, it has ended."""
        if run is not None and self._run is not None:
            raise SupervisionError(f"supervisor {self.name!r} runs already")
        self._run = run

    async def stop(self) -> None:
        """Stop the children in reverse order and wait until the supervisor is gone; idempotent.

        Checkpoints; cancelling it leaves the supervisor stopping. It makes ``run`` return normally. A child may call
        it: its own wait is then cancelled like everything else it does.
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

    async def __aenter__(self) -> Supervisor:
        """Run the tree in a nursery of its own for the length of an ``async with`` block.

        Checkpoints until all static children are ready; cancellation stops those that are. A supervisor that gives up
        cancels the block.

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
        """Stop the children in reverse order, wait until they are gone, and let the block's error out as it is.

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
                await nursery.start(self.run)
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

    # --- management ---------------------------------------------------------------------------------------------------

    async def start_child(self, spec: ChildSpec) -> Any:
        """Append a child and start it (OTP: start_child/2).

        A checkpoint; cancelling it does not cancel the start. Do not call it from a child's own start: the supervisor
        is waiting for that one, and both would until its ``start_timeout``.

        Args:
            spec: the child.

        Returns:
            Its handle; ``None`` where it said that there is nothing to run.

        Raises:
            ChildAlreadyStarted: a child of that id runs; the error has its handle.
            ChildAlreadyPresent: a child of that id is stopped or restarting.
            ChildStartError: it did not start; the spec is dropped and nothing else changed.
            InvalidOption: the spec does not fit this supervisor.
            SupervisorNotRunning: the supervisor does not run.
        """
        self._check_spec(spec)
        run = self._running()
        return await run.submit(lambda: run.start_child(spec))

    async def terminate_child(self, id: str) -> None:
        """Stop a child, or call off its restart; the spec stays unless it is temporary (OTP: terminate_child/2).

        A checkpoint; cancelling it does not cancel the stop. Idempotent.

        Args:
            id: the child's.

        Raises:
            ChildNotFound: there is no such child.
            SupervisorNotRunning: the supervisor does not run.
        """
        run = self._running()
        await run.submit(lambda: run.terminate_child(id))

    async def restart_child(self, id: str) -> Any:
        """Start a child that is stopped (OTP: restart_child/2).

        A checkpoint; cancelling it does not cancel the start.

        Args:
            id: the child's.

        Returns:
            Its handle; ``None`` where it said that there is nothing to run.

        Raises:
            ChildNotFound: there is no such child.
            ChildRunning: it runs.
            ChildRestarting: it will be started anyway.
            ChildStartError: it did not start; it stays stopped.
            SupervisorNotRunning: the supervisor does not run.
        """
        run = self._running()
        return await run.submit(lambda: run.restart_child(id))

    async def delete_child(self, id: str) -> None:
        """Forget a child that is stopped (OTP: delete_child/2); a checkpoint.

        Args:
            id: the child's.

        Raises:
            ChildNotFound: there is no such child.
            ChildRunning: it runs; terminate it first.
            ChildRestarting: it will be started again; terminate it first.
            SupervisorNotRunning: the supervisor does not run.
        """
        run = self._running()
        await run.submit(lambda: run.delete_child(id))

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

    def restarts_used(self) -> int:
        """Return how many restarts the window holds now; no checkpoint.

        Raises:
            SupervisorNotRunning: the supervisor does not run.
        """
        return self._running().intensity.used(trio.current_time())

    def _running(self) -> SupervisorRun:
        if self._run is None:
            raise SupervisorNotRunning(f"supervisor {self.name!r} does not run")
        return self._run
