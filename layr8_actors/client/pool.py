"""Tasks that handlers run in, and who is called when: to wake one takes a quarter of what it takes to start one."""

from __future__ import annotations

from collections.abc import Callable

import trio

__all__ = ("Pool",)

KEPT = 2
"""Tasks that may wait for work: one that handles what does not wait, and one that is called in case it does. Ours; they
end by themselves, see ``handler_task.IDLE``."""


class Pool:
    """Who waits for work, and who is on the way to it.

    Args:
        start: starts a task, which says :meth:`arrive` first and :meth:`leave` last.
    """

    __slots__ = ("_parked", "_start", "_tasks", "coming")

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._parked: dict[trio.lowlevel.Task, None] = {}
        self._tasks = 0
        self.coming = 0
        """Tasks that were called, and have not come to it."""

    @property
    def at_work(self) -> int:
        """Tasks that are at a message now; where one of them asks, it counts."""
        return self._tasks - self.coming - len(self._parked)

    @property
    def crowded(self) -> bool:
        """Whether enough tasks wait, so that one more may as well end."""
        return len(self._parked) >= KEPT

    @trio.lowlevel.enable_ki_protection
    def call(self, wanted: int = 1) -> None:
        """See to it that so many tasks are on the way to work; no checkpoint.

        Args:
            wanted: at most as many as there are messages.
        """
        while self.coming < wanted:
            self.coming += 1
            if self._parked:
                task, _ = self._parked.popitem()
                trio.lowlevel.reschedule(task)
            else:
                self._tasks += 1
                self._start()

    def arrive(self) -> None:
        """A task that was called is there."""
        self.coming -= 1

    def leave(self) -> None:
        """A task ends."""
        self._tasks -= 1

    @trio.lowlevel.enable_ki_protection
    async def park(self) -> None:
        """Wait to be called, and :meth:`arrive`. A checkpoint; cancelled, it was not called."""
        task = trio.lowlevel.current_task()
        self._parked[task] = None

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._parked[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        self.coming -= 1
