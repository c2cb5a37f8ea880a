"""Messages that wait for a handler: in order within a thread, in the order of arrival between threads."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inbound import Inbound

__all__ = ("Threads",)


class Threads:
    """The queue of inbound messages; at most one of each thread is out of it at any time."""

    __slots__ = ("_behind", "_ready", "waiting")

    def __init__(self) -> None:
        self._ready: deque[Inbound] = deque()
        # Of each thread that has one out or ready; most threads never have a second one behind it.
        self._behind: dict[str, deque[Inbound] | None] = {}
        self.waiting = 0
        """Messages in the queue."""

    def put(self, inbound: Inbound) -> None:
        """Queue a message."""
        self.waiting += 1
        thread = inbound.thread
        if thread not in self._behind:
            self._behind[thread] = None
            self._ready.append(inbound)
            return
        behind = self._behind[thread]
        if behind is None:
            self._behind[thread] = behind = deque()
        behind.append(inbound)

    def take(self) -> Inbound | None:
        """Take the next message whose thread is free, if there is one; :meth:`release` the thread when it is done."""
        if not self._ready:
            return None
        self.waiting -= 1
        return self._ready.popleft()

    def release(self, inbound: Inbound) -> None:
        """Free the thread of a message that was taken: the next one of it may be taken too."""
        behind = self._behind.get(inbound.thread)
        if behind:
            self._ready.append(behind.popleft())
        else:
            self._behind.pop(inbound.thread, None)  # gone already where it was drained meanwhile

    def drain(self) -> list[Inbound]:
        """Take everything that waits, in no particular order between threads."""
        drained = [*self._ready]
        for behind in self._behind.values():
            drained.extend(behind or ())
        self._ready.clear()
        self._behind.clear()
        self.waiting = 0
        return drained

    @property
    def ready(self) -> int:
        """Messages whose thread is free."""
        return len(self._ready)

    @property
    def busy(self) -> int:
        """Threads that have a message out or waiting."""
        return len(self._behind)
