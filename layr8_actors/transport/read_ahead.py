"""What has been read and not yet received: a bounded queue that hands over all it holds at once."""

from __future__ import annotations

import trio

__all__ = ("ReadAhead",)

# What may wait unread before the socket is no longer read; one chunk of 300 B messages is about 900 of them.
_SIZE = 1024 * 1024
_MESSAGES = 4096


class ReadAhead:
    """Messages between the task that reads a socket and the one that receives from the transport."""

    __slots__ = ("_arrived", "_discarding", "_messages", "_room", "_size", "closing", "ended")

    def __init__(self) -> None:
        self._messages: list[str | bytes] = []
        self._size = 0
        self._arrived = trio.lowlevel.ParkingLot()
        # What only a full queue waits on is made by the first that waits: most links are idle.
        self._room: trio.lowlevel.ParkingLot | None = None
        self._discarding = False
        self.closing = False
        """True once this side closes: reading goes on for the peer's answer, however much is there."""
        self.ended = False
        """True once nothing more will come."""

    @property
    def full(self) -> bool:
        """True while nothing more should be read."""
        return self._size >= _SIZE or len(self._messages) >= _MESSAGES

    def append(self, message: str | bytes) -> None:
        """Put a message behind the others; nobody is woken before :meth:`deliver`.

        Once this side closes and the queue is full, it and all that follow are dropped: a flood must not fill the heap.
        """
        self._discarding = self._discarding or (self.closing and self.full)
        if self._discarding:
            return
        self._messages.append(message)
        self._size += len(message)

    def deliver(self) -> None:
        """Wake the receiver, if there is something for it."""
        if self._messages:
            self._arrived.unpark_all()

    def close(self) -> None:
        """This side closes: reading goes on without waiting for room."""
        self.closing = True
        self._make_room()

    def end(self) -> None:
        """Nothing more will come: whoever waits is released."""
        self.ended = True
        self._arrived.unpark_all()
        self._make_room()

    async def take(self) -> list[str | bytes]:
        """Wait for messages and return all that are there; none once it has ended and is empty.

        Always a checkpoint, and cancelled it takes nothing.
        """
        if self._messages or self.ended:
            await trio.lowlevel.checkpoint()
        while not self._messages and not self.ended:
            await self._arrived.park()
        taken, self._messages, self._size = self._messages, [], 0
        self._make_room()
        return taken

    async def room(self) -> None:
        """Wait until somebody has taken what is there, or this side closes; a checkpoint."""
        if self._room is None:
            self._room = trio.lowlevel.ParkingLot()
        await self._room.park()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.unpark_all()
