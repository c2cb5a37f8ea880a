"""Writing frames to a stream that many tasks want to write to: one at a time, and each frame whole or the last."""

from __future__ import annotations

import trio

from .bare_socket import BareSocket
from .dial import explain
from .framing import InboundFrames, masked_frames

__all__ = ("FrameWriter",)

# What is written at once has so many characters or bytes at the most: two more passes of the loop are a small part of
# what it takes to write more, and the kernel may not take it in one go.
_AT_ONCE = 64 * 1024


class FrameWriter:
    """Whoever sends writes in its own task, and takes along what the protocol wants written meanwhile.

    Args:
        stream: what is written to.
        bare: its socket, where it may be written to directly.
        frames: knows whether messages may still be sent, and has the protocol's own pongs and close frames.
    """

    __slots__ = ("_bare", "_frames", "_queued", "_stream", "_turn", "busy", "failure", "torn")

    def __init__(self, stream: trio.abc.Stream, bare: BareSocket | None, frames: InboundFrames) -> None:
        self._stream = stream
        self._bare = bare
        self._frames = frames
        self._queued: list[bytes] = []
        self._turn: trio.lowlevel.ParkingLot | None = None  # made by the first writer that has to wait
        self.busy = False
        """True while somebody writes."""
        self.torn = False
        """True once a write was not finished: whatever followed it would be garbage to the peer."""
        self.failure = ""
        """What the stream raised, in words; empty also where a write was cancelled."""

    @property
    def idle(self) -> bool:
        """True while nobody writes, nothing waits to be written, and all that was begun is whole."""
        return not (self.busy or self.torn or self._queued)

    def write_now(self, message: str | bytes) -> bool:
        """Write a message without waiting, or begin to; whoever writes next writes the rest first.

        Args:
            message: of any length; what is long is refused.

        Returns:
            True where it is written to its end.

        Raises:
            WouldBlock: nothing was written.
        """
        if self._bare is None or len(message) > _AT_ONCE or not self.idle or not self._frames.open:
            raise trio.WouldBlock
        (frame,) = masked_frames((message,))
        written = self._bare.send_some(frame)
        if not written:
            raise trio.WouldBlock
        if written < len(frame):
            self._queued.append(frame[written:])
        return written == len(frame)

    async def write(self, pieces: list[bytes], farewell: tuple[int, str] | None = None) -> bool:
        """Wait for one's turn and write.

        Args:
            pieces: whole frames, together.
            farewell: code and reason of a close frame behind them.

        Returns:
            False where the link has ended, or ended under the write.

        Raises:
            ValueError: no close frame may carry that code; nothing was written.

        A checkpoint. Cancelled before its turn it has written nothing; cancelled in the write, it is :attr:`torn`.
        """
        while self.busy:
            if self._turn is None:
                self._turn = trio.lowlevel.ParkingLot()
            await self._turn.park()
        if self.torn or not self._frames.open:
            await trio.lowlevel.checkpoint()
            return False
        await trio.lowlevel.checkpoint_if_cancelled()
        if farewell is not None:
            self._frames.send_close(*farewell)
        self._queued += pieces
        await self.flush()
        return not self.torn

    async def flush(self) -> None:
        """Write what is queued, and what the protocol queues meanwhile; only while nobody is :attr:`busy`."""
        self.collect()
        self.busy = True
        finished = False
        try:
            while self._queued:
                pieces, self._queued = self._queued, []
                for data in pieces:
                    await self._stream.send_all(data)
                self.collect()
            finished = True
        except Exception as error:  # a stream may be anybody's; whatever it raises, it cannot be written to
            self.failure = self.failure or explain(error)
        finally:
            self.busy = False
            self.torn = self.torn or not finished
            if self._turn:
                self._turn.unpark_all()

    def collect(self) -> bool:
        """Queue what the protocol wants written, and return whether anything waits for a writer."""
        answers = self._frames.to_send()
        if answers:
            self._queued += answers
            if self.busy or self.torn:
                # The last pong will do (RFC 6455 section 5.5.3), and a close frame is the last.
                del self._queued[:-1]
        return bool(self._queued)
