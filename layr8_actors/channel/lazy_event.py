"""An event that takes next to nothing before somebody waits for it: each idle channel holds two, of 280 bytes else."""

from __future__ import annotations

import trio

__all__ = ("LazyEvent",)


class LazyEvent:
    """A :class:`trio.Event` that is made by the first who waits."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        """Return whether :meth:`set` was called."""
        return self._is_set

    def set(self) -> None:
        """Release everybody who waits, and who will; no checkpoint, and idempotent."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait for :meth:`set`. Always checkpoints; cancellation leaves nothing behind."""
        if self._event is None:
            self._event = trio.Event()
            if self._is_set:
                self._event.set()
        await self._event.wait()
