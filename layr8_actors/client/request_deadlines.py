"""When those who wait for a response give up: one clock for all of them, because a cancel scope each takes 5 us.

Each has a timeout of its own, so that they stand in a heap, and the clock sleeps until the first is due.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from ..errors import RequestTimeout

if TYPE_CHECKING:
    from .requests import Pending

__all__ = ("RequestDeadlines",)

OVER_KEPT = 256
"""How many requests that are over may stand in the heap beside those that wait, before they are taken out."""


class RequestDeadlines:
    """The heap of those who wait, and the clock.

    The clock is a helper task of the dispatcher, from the first request on. While there can be none, and once there is
    none any more, callers watch their own deadlines.

    Args:
        waiting: all requests that wait.
    """

    __slots__ = ("_heap", "_numbers", "_runs", "_sleeper", "_waiting", "start_clock")

    def __init__(self, waiting: Mapping[str, Pending]) -> None:
        self._waiting = waiting
        self._heap: list[tuple[float, int, Pending]] = []
        self._numbers = itertools.count()  # of two that are due at once the first goes first
        self._runs = False
        self._sleeper: trio.lowlevel.Task | None = None
        self.start_clock: Callable[[], bool] | None = None
        """Starts :meth:`run` in a task; False where that cannot be, because the dispatcher ends."""

    def add(self, pending: Pending) -> bool:
        """Watch the deadline of one who begins to wait.

        Args:
            pending: who waits; woken, while not over, once nobody watches any more.

        Returns:
            False where nobody watches.
        """
        if not self._runs:
            if self.start_clock is None or not self.start_clock():
                return False
            self._runs = True
        heap = self._heap
        if len(heap) > 2 * len(self._waiting) + OVER_KEPT:
            heap[:] = [entry for entry in heap if not entry[2].over]
            heapq.heapify(heap)
        deadline = pending.deadline
        if deadline < math.inf:
            heapq.heappush(heap, (deadline, next(self._numbers), pending))
            if heap[0][2] is pending and self._sleeper is not None:
                self._wake()
        return True

    async def run(self) -> None:
        """Be the clock, until nobody waits; cancelled, it hands over to those who do."""
        heap = self._heap
        try:
            while heap:
                with trio.CancelScope(deadline=heap[0][0]):
                    await self._sleep()
                now = trio.current_time()
                while heap and (heap[0][2].over or heap[0][0] <= now):
                    pending = heapq.heappop(heap)[2]
                    pending.finish(None, RequestTimeout(pending.timeout))
        finally:
            self._runs = False
            for _, _, pending in heap:
                pending.wake()
            heap.clear()

    @trio.lowlevel.enable_ki_protection
    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    @trio.lowlevel.enable_ki_protection
    def _wake(self) -> None:
        if self._sleeper is not None:
            task, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(task)
