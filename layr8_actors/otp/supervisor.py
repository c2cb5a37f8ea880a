"""The supervisor of a fixed list of children, in an order that means something (OTP: supervisor)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Any

from ..errors import InvalidOption
from ..telemetry import Hook
from .any_supervisor import AnySupervisor
from .backoff import Backoff
from .child_spec import ChildSpec
from .strategy import AutoShutdown, Strategy
from .validation import checked_choice

__all__ = ("Supervisor",)

MAX_RESTARTS = 3  # Elixir: Supervisor, max_restarts
MAX_SECONDS = 5.0  # Elixir: Supervisor, max_seconds


class Supervisor(AnySupervisor):
    """Keeps children running (OTP: supervisor), in a task of whatever nursery it is run in.

    Args:
        children: the static children, in start order.
        strategy: who else is restarted when a child is.
        max_restarts: how many restarts the window permits, over all children (Elixir: 3).
        max_seconds: the window in seconds (Elixir: 5); a restart exactly that old still counts.
        backoff: how long to wait before a restart; ``None`` for not at all, as in OTP.
        give_up_never: restart for ever, whatever the window says; needs a backoff.
        max_attempts: how many restarts in a row any one child may need before the supervisor gives up, besides the
            window (Pekko: maxNrOfRetries). What is a row ends with a run that was healthy for the backoff's
            ``reset_after``, so it needs a backoff; ``None``, the default, for no such limit.
        auto_shutdown: whether it ends when significant children have ended by themselves (OTP: never).
        parallel_shutdown: stop all children at once instead of one after another; the default is OTP's order.
        shutdown_deadline: seconds that a whole stop may take before all that is left is cut short (systemd:
            TimeoutStopSec, for a tree); infinite by default, because each child has a grace of its own.
        name: its name in events and errors, while it is nobody's child.
        on_event: called with each event, in order, from the supervisor's own task. By default it is that of the
            supervisor above, so that one hook hears a whole tree (suture: EventHook); at the root, one that logs.
        random: where the backoff's jitter comes from; by default a new generator for each delay that has some.

    Raises:
        InvalidOption: a value that is not allowed; nothing was started. So is a backoff whose delays are so long that
            the window can never fill: it would restart for ever without anybody having said so.
    """

    __slots__ = ()

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = MAX_RESTARTS,
        max_seconds: float = MAX_SECONDS,
        backoff: Backoff | None = None,
        give_up_never: bool = False,
        max_attempts: int | None = None,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        parallel_shutdown: bool = False,
        shutdown_deadline: float = math.inf,
        name: str = "supervisor",
        on_event: Hook | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__(
            tuple(children),
            strategy=checked_choice("strategy", strategy, Strategy),
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff=backoff,
            give_up_never=give_up_never,
            max_attempts=max_attempts,
            auto_shutdown=checked_choice("auto_shutdown", auto_shutdown, AutoShutdown),
            parallel_shutdown=parallel_shutdown,
            shutdown_deadline=shutdown_deadline,
            name=name,
            on_event=on_event,
            random=random,
        )
        seen: set[str] = set()
        for spec in self.children:
            self._check_spec(spec)
            if spec.id in seen:
                raise InvalidOption("children", self.children, f"ids that differ; {spec.id!r} is there twice")
            seen.add(spec.id)

    async def start_child(self, spec: ChildSpec) -> Any:
        """Append a child and start it (OTP: start_child/2).

        A checkpoint; cancelling it does not cancel the start.

        Args:
            spec: the child.

        Returns:
            Its handle; ``None`` where it said that there is nothing to run.

        Raises:
            ChildAlreadyStarted: a child of that id runs; the error has its handle.
            ChildAlreadyPresent: a child of that id is stopped or restarting.
            ChildStartError: it did not start; the spec is dropped and nothing else changed.
            NameTaken: it did not start because another one holds its name in a registry; likewise.
            InvalidOption: the spec does not fit this supervisor.
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
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
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
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
            NameTaken: it did not start because another one holds its name in a registry; likewise.
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
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
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
        """
        run = self._running()
        await run.submit(lambda: run.delete_child(id))
