"""When those of a supervisor's actors want to be looked at that have no task of their own to wait in."""

from __future__ import annotations

import heapq
import math
from typing import Protocol

__all__ = ("Alarms", "Sleeper")

PRUNED_FROM = 16
"""How many entries that nobody waits for any more are put up with, besides as many as there are others."""


class Sleeper(Protocol):
    """An actor that holds no task."""

    def wake(self) -> None:
        """Start a task for it: there is something to do."""

    def ring(self, now: float) -> None:
        """Look whether its deadline has come; it is its alarm that rang."""


class Alarms:
    """The alarms of one supervisor, at most one for each actor, the earliest first."""

    __slots__ = ("_count", "_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[Sleeper, float] = {}
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._count = 0

    def set(self, sleeper: Sleeper, due: float) -> bool:
        """Let the alarm of ``sleeper`` ring at ``due``, unless it rings before that anyway.

        Args:
            sleeper: whose.
            due: when, in seconds of ``trio.current_time()``.

        Returns:
            Whether it is the next one to ring, so that who waits for that has to look again.
        """
        if due >= self._due.get(sleeper, math.inf):
            return False
        self._due[sleeper] = due
        self._count += 1  # keeps those of one instant in the order in which they were set
        heapq.heappush(self._heap, (due, self._count, sleeper))
        if len(self._heap) > 2 * len(self._due) + PRUNED_FROM:
            self._heap = [entry for entry in self._heap if self._live(entry)]
            heapq.heapify(self._heap)
        return self._heap[0][2] is sleeper

    def withdraw(self, sleeper: Sleeper) -> None:
        """Call the alarm of ``sleeper`` off, where there is one."""
        self._due.pop(sleeper, None)

    def next_due(self) -> float:
        """Return when the next one rings, ``math.inf`` where there is none."""
        while self._heap and not self._live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Sleeper | None:
        """Take out the next one if its time has come, and return whose it was.

        Args:
            now: seconds of ``trio.current_time()``.
        """
        if self.next_due() > now:
            return None
        sleeper = heapq.heappop(self._heap)[2]
        del self._due[sleeper]
        return sleeper

    def _live(self, entry: tuple[float, int, Sleeper]) -> bool:
        return self._due.get(entry[2]) == entry[0]
