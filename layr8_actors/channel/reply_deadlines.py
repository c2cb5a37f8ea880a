"""When those who wait for replies give up: one clock for all of them, because a cancel scope each costs 5 us a send.

All wait for the same time, so they give up in the order in which they began, and the clock is set to the first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..errors import ReplyTimeout
from .backlog import EMPTY

if TYPE_CHECKING:
    from .waiter import Waiter

__all__ = ("ReplyDeadlines",)

SETTLED_KEPT = 1024
"""How many callers that are answered may stand in the queue behind one that is not, before they are taken out."""


class ReplyDeadlines:
    """The queue of those who wait, and what wakes whoever looks at it.

    Router is the clock. While there is none, callers watch their own deadline: see :attr:`watched`.

    Args:
        timeout: seconds that each waits.
        waiting: who waits for a reply now.
    """

    __slots__ = ("_alarm", "_queue", "_timeout", "_waiting", "due", "watched")

    def __init__(self, timeout: float, waiting: dict[str, Waiter]) -> None:
        self._timeout = timeout
        self._waiting = waiting
        self._queue: deque[Waiter] = EMPTY
        self._alarm: Callable[[], None] | None = None
        self.due = math.inf
        """When :meth:`expire` is to be called, at the latest; in seconds of ``trio.current_time()``."""
        self.watched = False
        """True while somebody calls :meth:`expire` in time."""

    def watch(self, alarm: Callable[[], None] | None) -> None:
        """Begin or cease to watch; callers that wait when Router ends are released by it.

        Args:
            alarm: called when ``due`` has become earlier; ``None`` to cease.
        """
        self._alarm = alarm
        self.watched = alarm is not None

    def add(self, waiter: Waiter) -> None:
        """Put somebody who begins to wait behind the others."""
        waiter.deadline = trio.current_time() + self._timeout
        queue = self._queue
        if queue is EMPTY:
            self._queue = queue = deque()
        while queue and queue[0].settled:
            queue.popleft()
        if len(queue) > 2 * len(self._waiting) + SETTLED_KEPT:
            self._queue = queue = deque(other for other in queue if not other.settled)
        queue.append(waiter)
        if waiter.deadline < self.due:
            self.due = waiter.deadline
            if self._alarm is not None:
                self._alarm()

    def expire(self, now: float) -> None:
        """Tell all who have waited long enough, and find out when to look again.

        Args:
            now: in seconds of ``trio.current_time()``.
        """
        queue = self._queue
        while queue and (queue[0].settled or queue[0].deadline <= now):
            waiter = queue.popleft()
            if not waiter.settled:
                waiter.fail(ReplyTimeout(self._timeout, written=waiter.written))
        self.due = queue[0].deadline if queue else math.inf
        if not queue:
            self._queue = EMPTY
