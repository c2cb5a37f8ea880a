"""Byte streams within one Trio loop that behave like TCP: bounded, half-closeable, and resettable.

``trio.testing.memory_stream_pair`` never fills up and cannot be reset, so neither back-pressure nor an abortive close
can be shown with it; here both can, without a socket and without real time.
"""

from __future__ import annotations

import operator

import trio

__all__ = ("MemoryStream", "memory_stream_pair")

CAPACITY = 64 * 1024
"""Bytes one direction holds before its sender waits; the default receive buffer of TCP on Linux is of that order."""


class _Pipe:
    """One direction: a bounded buffer between a sender and a receiver."""

    __slots__ = ("buffer", "capacity", "changed", "receiver_gone", "reset", "sender_done")

    def __init__(self, capacity: int) -> None:
        self.buffer = bytearray()
        self.capacity = capacity
        self.changed = trio.lowlevel.ParkingLot()
        self.sender_done = False
        self.receiver_gone = False
        self.reset = False

    def wake(self) -> None:
        self.changed.unpark_all()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a :func:`memory_stream_pair`; it has the contract of :class:`trio.SocketStream`.

    Sending checkpoints, and waits while the other end does not read; cancelled, it leaves an unknown part of the data
    sent, as TCP does. Two tasks sending, or two receiving, at once raise :class:`trio.BusyResourceError`.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False

    @property
    def closed(self) -> bool:
        """True once this end was closed or reset from this side."""
        return self._closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; checkpoints, and waits for room.

        Raises:
            trio.ClosedResourceError: this end is closed.
            trio.BrokenResourceError: the other end is closed or reset.
            trio.BusyResourceError: another task is sending.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            pipe = self._outgoing
            view = memoryview(data)
            while True:
                self._check_sendable(pipe)
                room = pipe.capacity - len(pipe.buffer)
                if room > 0 and view:
                    pipe.buffer += view[:room]
                    view = view[room:]
                    pipe.wake()
                if not view:
                    return
                await pipe.changed.park()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room in the buffer; checkpoints, and raises as :meth:`send_all` does."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            pipe = self._outgoing
            while not self._closed and not pipe.receiver_gone and len(pipe.buffer) >= pipe.capacity:
                await pipe.changed.park()
            self._check_sendable(pipe)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Send the end of the data while receiving goes on (TCP: FIN); checkpoints."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        self._outgoing.sender_done = True
        self._outgoing.wake()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return at least one byte, or ``b""`` at the end of the data; checkpoints.

        Args:
            max_bytes: at most so many; ``None`` takes what there is.

        Raises:
            trio.ClosedResourceError: this end is closed.
            trio.BrokenResourceError: the other end reset the stream; what was not yet read is lost, as with TCP.
            trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            pipe = self._incoming
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream was closed")
                if pipe.reset:
                    raise trio.BrokenResourceError("the peer reset the stream")
                if pipe.buffer:
                    size = len(pipe.buffer) if max_bytes is None else max_bytes
                    data = bytes(pipe.buffer[:size])
                    del pipe.buffer[:size]
                    pipe.wake()
                    return data
                if pipe.sender_done:
                    return b""
                await pipe.changed.park()
        finally:
            self._receiving = False

    def close(self) -> None:
        """Close this end: the other one reads what was sent, then the end (TCP: FIN); never checkpoints; idempotent."""
        self._closed = True
        self._outgoing.sender_done = True
        self._incoming.receiver_gone = True
        self._outgoing.wake()
        self._incoming.wake()

    def reset(self) -> None:
        """Close this end abortively: the other one fails at once and loses what it had not read (TCP: RST)."""
        if not self._closed:
            self._outgoing.reset = True
            self._outgoing.buffer.clear()
            self._incoming.reset = True
        self.close()

    async def aclose(self) -> None:
        """Close as :meth:`close` does, then checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_sendable(self, pipe: _Pipe) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if pipe.sender_done:
            raise trio.ClosedResourceError("send_eof was called")
        if pipe.receiver_gone or pipe.reset:
            raise trio.BrokenResourceError("the peer closed the stream")


def memory_stream_pair(capacity: int = CAPACITY) -> tuple[MemoryStream, MemoryStream]:
    """Return two connected streams.

    Args:
        capacity: bytes that each direction holds before its sender waits; default :data:`CAPACITY`.
    """
    forth, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, forth), MemoryStream(forth, back)
