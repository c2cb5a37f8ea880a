"""The byte stream under a WebSocket library, guarded: the key is put in and taken out here, torn writes are known.

A WebSocket library keeps the request target it is given in its objects, and shows it in the locals of its frames and
the texts of its errors. So it is given a target without a key, and this stream writes the real one, as a
``memoryview``, which prints as an address. What the peer echoes of it is taken out before the library reads it, for the
library logs it: from the head of the answer, and from control frames. Nothing above this stream ever holds the key,
but for messages, which are handed over as they came.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .bare_socket import bare_socket
from .control_frames import ControlFrames
from .dial import Refused, explain
from .endpoint import Endpoint
from .redaction import redact_bytes
from .upgrade import AnswerHead, UpgradeFailed, request_with_key

__all__ = ("GuardedStream", "WriteFailed")

# Seconds that reading waits for more after writing has failed: a reset socket answers at once, other streams soon.
_LAST_READ = 0.1


class WriteFailed(Exception):
    """The peer cannot be written to any more; internal, it never leaves the adapter."""


class GuardedStream(trio.abc.Stream):
    """A stream that carries one WebSocket of ours, from the upgrade request on.

    Until the answer's head is complete, every end of the stream and every answer but a 101 raises
    :class:`UpgradeFailed` in the reader, so that nobody waits for an upgrade that cannot come. The body of a refusal
    is not read: it may be endless, and may quote the request.

    Args:
        stream: a connected stream.
        endpoint: gives the request target and the headers with the key.
        on_pause: called whenever the library has dealt with all bytes it was given, or begins to write.
    """

    __slots__ = (
        "_control_frames",
        "_corked",
        "_corked_by",
        "_cut",
        "_endpoint",
        "_head",
        "_on_pause",
        "_reader",
        "_reading",
        "_receiving",
        "_source",
        "_writing",
        "lost",
        "stream",
        "torn",
        "upgraded",
    )

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint, on_pause: Callable[[], None]) -> None:
        self.stream = stream
        self._source = bare_socket(stream) or stream
        self.torn = False
        self.upgraded = False
        self.lost = ""
        self._endpoint = endpoint
        self._control_frames = ControlFrames(endpoint.api_key)
        self._on_pause = on_pause
        self._reader: trio.lowlevel.Task | None = None
        self._receiving: trio.CancelScope | None = None
        self._head = AnswerHead()
        self._reading = False
        self._writing = 0
        self._cut = False
        self._corked: list[bytes] = []
        self._corked_by: trio.lowlevel.Task | None = None

    @property
    def paused(self) -> bool:
        """True while the library waits for bytes or for a write, hence has nothing more to hand over right now."""
        return self._reading or self._writing > 0

    def cut(self) -> None:
        """Let nothing be written any more; what is being written now is torn when the stream is closed."""
        self._cut = True

    def cork(self) -> bool:
        """Hold back what this task writes, so that it leaves with the first write after :meth:`uncork`, as one.

        The library knows no batches: each message is a write of its own, in its own turn among the writers.

        Returns:
            False where another task does so already; then nothing is held back.
        """
        if self._corked_by is not None or self._corked:
            return False
        self._corked_by = trio.lowlevel.current_task()
        return True

    def uncork(self) -> None:
        """End :meth:`cork`; the next write, whoever's it is, takes along what was held back."""
        self._corked_by = None

    def discard(self) -> None:
        """End :meth:`cork`, and forget what was held back and not written."""
        self._corked_by = None
        self._corked = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write; a write that does not finish makes the stream torn, and a torn stream refuses all further writes.

        A failed write does not end reading: what the peer has sent before it went away can still be read, its close
        frame among it. So the failure is told to the writer as :class:`WriteFailed`, which the library lets through;
        at a ``BrokenResourceError`` it would throw away the messages of the chunk in hand.
        """
        if self._reader is None:
            self._reader = trio.lowlevel.current_task()  # the first to write is the reader, with the upgrade request
            await self._request(data)
            return
        if self._corked_by is not None and trio.lowlevel.current_task() is self._corked_by:
            self._corked.append(bytes(data))
            return
        if not (self.torn or self._cut):
            if self._corked and self._corked_by is None:
                data, self._corked = b"".join((*self._corked, data)), []
            await self._write(data)
        if self.torn or self._cut:
            await trio.lowlevel.checkpoint_if_cancelled()
            # The reader writes nothing but pongs and the answer to a close, which nobody is left to read.
            if trio.lowlevel.current_task() is not self._reader:
                raise WriteFailed

    async def _request(self, data: bytes | bytearray | memoryview) -> None:
        await self._write(request_with_key(bytes(data), self._endpoint))
        if self.torn:
            raise UpgradeFailed(Refused(f"the upgrade request could not be written: {self.lost}"))

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        self._writing += 1
        self._on_pause()
        finished = False
        try:
            await self.stream.send_all(data)
            finished = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.lost = self.lost or explain(error)
        finally:
            self._writing -= 1
            if not finished:
                self.torn = True
                if self._receiving is not None:
                    self._receiving.cancel(reason="writing has failed")

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream beneath has it."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, without the key in it; during the upgrade, anything but the head of a 101 answer raises.

        On a torn stream, it reads what has arrived and then reports the end, instead of waiting for more.

        Raises:
            UpgradeFailed: the answer to the upgrade is none, or ended.
        """
        while True:  # in one coroutine: a second one for the reading would be memory that each idle link holds
            self._reading = True
            self._on_pause()
            data: bytes | bytearray = b""
            try:
                if not self.torn:
                    with trio.CancelScope() as self._receiving:
                        data = await self._source.receive_some(max_bytes)
                if self.torn and not data:
                    with trio.move_on_after(_LAST_READ):
                        data = await self._source.receive_some(max_bytes)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.lost = self.lost or explain(error)
            finally:
                self._reading = False
            if not self.upgraded:
                data = self._answer(data)
            elif data:
                data = self._control_frames.feed(data)
            else:
                return data  # the end; what is held back is half a control frame, which nobody misses
            if data:
                return data

    def _answer(self, data: bytes | bytearray) -> bytes:
        """The answer's head once it is whole, and what of the first frames came with it."""
        found = self._head.feed(data, self.lost)
        if found is None:
            return b""
        self.upgraded = True
        head, rest = found
        return redact_bytes(head, self._endpoint.api_key) + self._control_frames.feed(rest)

    async def aclose(self) -> None:
        """Close the stream beneath."""
        await self.stream.aclose()
