"""How a queue wakes those who wait for work in its own process, without losing a wake-up."""

from __future__ import annotations

import trio

__all__ = ("WorkSignal",)


class WorkSignal:
    """Counts what happened to a queue, and wakes whoever found it empty before that."""

    def __init__(self) -> None:
        self._count = 0
        self._looked = -1
        self._event = trio.Event()

    def looked(self) -> int:
        """Return what to hand to :meth:`found_nothing`; to be called before the queue is looked into."""
        return self._count

    def found_nothing(self, count: int) -> None:
        """Say that a look which began at ``count`` found less than it asked for."""
        self._looked = count

    def notify(self) -> None:
        """Say that there may be work."""
        self._count += 1
        self._event.set()
        self._event = trio.Event()

    @property
    def idle(self) -> bool:
        """True where nothing happened since the last look, and that found nothing."""
        return self._looked == self._count

    async def wait(self, seconds: float) -> None:
        """Return at the first :meth:`notify` since the last look, at once if that was before, or after ``seconds``."""
        if not self.idle:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(seconds):
            await self._event.wait()
