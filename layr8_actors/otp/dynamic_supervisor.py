"""The supervisor of children that come and go, as many as there is work for (Elixir: DynamicSupervisor)."""

from __future__ import annotations

import math
from random import Random

from ..telemetry import Hook
from .any_supervisor import AnySupervisor
from .backoff import Backoff
from .child_spec import ChildSpec
from .pid import Pid
from .strategy import AutoShutdown, Strategy
from .supervisor import MAX_RESTARTS, MAX_SECONDS
from .validation import checked_count

__all__ = ("DynamicSupervisor",)


class DynamicSupervisor(AnySupervisor):
    """Starts children on demand and keeps them running (Elixir: DynamicSupervisor; OTP: simple_one_for_one).

    It begins empty. One spec may be started many times: each child is named after it, ``worker-1``, ``worker-2`` and so
    on. Their order means nothing, so one is restarted alone, and all are stopped at once. A child that ends for good,
    by its restart type or by ``terminate_child``, is forgotten.

    Args:
        max_children: how many there may be, those included that wait for a restart; infinite by default (Elixir).
        max_restarts: as in :class:`Supervisor`.
        max_seconds: likewise.
        backoff: likewise.
        give_up_never: likewise.
        max_attempts: likewise.
        shutdown_deadline: likewise.
        name: likewise.
        on_event: likewise.
        random: likewise.

    Raises:
        InvalidOption: a value that is not allowed; nothing was started.
    """

    __slots__ = ("max_children",)

    dynamic = True

    def __init__(
        self,
        *,
        max_children: float = math.inf,
        max_restarts: int = MAX_RESTARTS,
        max_seconds: float = MAX_SECONDS,
        backoff: Backoff | None = None,
        give_up_never: bool = False,
        max_attempts: int | None = None,
        shutdown_deadline: float = math.inf,
        name: str = "dynamic_supervisor",
        on_event: Hook | None = None,
        random: Random | None = None,
    ) -> None:
        super().__init__(
            (),
            strategy=Strategy.ONE_FOR_ONE,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff=backoff,
            give_up_never=give_up_never,
            max_attempts=max_attempts,
            auto_shutdown=AutoShutdown.NEVER,
            parallel_shutdown=True,
            shutdown_deadline=shutdown_deadline,
            name=name,
            on_event=on_event,
            random=random,
        )
        self.max_children = max_children if max_children == math.inf else checked_count("max_children", max_children)

    async def start_child(self, spec: ChildSpec) -> Pid | None:
        """Start one more child (Elixir: start_child/2).

        A checkpoint; cancelling it does not cancel the start.

        Args:
            spec: the child; its id is the first part of the name. An actor's, made with an id and not with a ref, gets
                a ref of its own for each child: ``pid.handle`` is it.

        Returns:
            The identity of its first run; ``None`` where it said that there is nothing to run.

        Raises:
            MaxChildrenReached: there are as many as there may be.
            ChildStartError: it did not start; nothing else changed.
            NameTaken: it did not start because another one holds its name in a registry; likewise.
            InvalidOption: the spec does not fit this supervisor.
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
        """
        self._check_spec(spec)
        run = self._running()
        return await run.submit(lambda: run.start_dynamic_child(spec, self.max_children))

    async def terminate_child(self, child: Pid | str) -> None:
        """Stop a child, or call off its restart, and forget it (Elixir: terminate_child/2).

        A checkpoint; cancelling it does not cancel the stop.

        Args:
            child: the pid of any of its runs, for a restart shall not make it unreachable (elixir-lang/elixir#9319); or
                its id, as ``which_children`` has it.

        Raises:
            ChildNotFound: there is no such child, or none any more.
            SupervisorNotRunning: the supervisor does not run, or is stopping.
            CallingSelf: the caller is part of a child that the supervisor waits for.
        """
        run = self._running()
        await run.submit(lambda: run.terminate_child(run.child_id(child)))
