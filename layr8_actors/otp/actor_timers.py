"""Messages that an actor sends itself later (OTP: erlang:send_after): they cost no task and die with it."""

from __future__ import annotations

import heapq
import math
from typing import Any

__all__ = ("ActorTimers", "Timer")


class Timer:
    """One message to come; see Actor.send_after.

    Args:
        due: when, in seconds of ``trio.current_time()``.
        message: what ``handle_cast`` will get.
    """

    __slots__ = ("active", "due", "message")

    def __init__(self, due: float, message: Any) -> None:
        self.due = due
        self.message = message
        self.active = True
        """True until the message is handled, or the timer cancelled."""

    def cancel(self) -> bool:
        """Call the message off, even where it is due already; no checkpoint (OTP: erlang:cancel_timer/1).

        Returns:
            False where it was handled or cancelled before.
        """
        was, self.active = self.active, False
        self.message = None
        return was


class ActorTimers:
    """The timers of one incarnation, the earliest first."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def add(self, timer: Timer) -> None:
        """Take up a timer."""
        self._count += 1  # keeps those of one instant in the order in which they were set
        heapq.heappush(self._heap, (timer.due, self._count, timer))

    def next_due(self) -> float:
        """Return when the earliest is due, ``math.inf`` where there is none."""
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Timer | None:
        """Take out the earliest if it is due.

        Args:
            now: seconds of ``trio.current_time()``.
        """
        return heapq.heappop(self._heap)[2] if self.next_due() <= now else None
