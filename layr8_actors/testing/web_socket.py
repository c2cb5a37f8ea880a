"""The server's end of one WebSocket (RFC 6455) over any Trio stream, with control over everything a network can do.

It drives wsproto, the protocol engine under trio-websocket, without trio-websocket's server on top. That one cannot
answer as a Phoenix server does: it echoes the client's close code where Bandit answers 1000, sends a reason where
Phoenix sends none, drops a client whose text is not UTF-8 where 1007 is due, never returns from a handshake that is
no HTTP, and parks its reader when nobody takes the messages (trio-websocket#184).
"""

from __future__ import annotations

import http
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from .memory_stream import MemoryStream

__all__ = ("Gate", "ServerWebSocket", "SocketEnded", "close_stream", "reset_stream")

_RECEIVE_SIZE: Final = 64 * 1024
_ABNORMAL: Final = 1006
# While more than this waits for the client to read it, nothing more is read from the client: Bandit and Cowboy read
# and write in one process, so one that waits to write does not read.
_HIGH_WATER: Final = 1024 * 1024


class SocketEnded(Exception):
    """The WebSocket is over; ``code`` is the close code that came from the client, 1006 where none came."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the socket ended with code {code}")


class Gate:
    """Something that is open, or closed and waited for."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()
        self._event.set()

    @property
    def is_open(self) -> bool:
        return self._event.is_set()

    def close(self) -> None:
        if self._event.is_set():
            self._event = trio.Event()

    def open(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Wait until it is open; checkpoints only when it is closed."""
        while not self._event.is_set():
            await self._event.wait()


def close_stream(stream: trio.abc.Stream) -> None:
    """Close a TCP or memory stream without waiting (FIN)."""
    if isinstance(stream, trio.SSLStream):
        close_stream(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream):
        stream.socket.close()
    elif isinstance(stream, MemoryStream):
        stream.close()
    else:
        raise TypeError(f"cannot close a {type(stream).__name__} without waiting")


def reset_stream(stream: trio.abc.Stream) -> None:
    """Close a TCP or memory stream abortively (RST): the peer fails at once and loses what it had not read."""
    if isinstance(stream, trio.SSLStream):
        reset_stream(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream):
        if stream.socket.fileno() != -1:
            # Lingering for zero seconds is how BSD sockets spell RST.
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
    elif isinstance(stream, MemoryStream):
        stream.reset()
    else:
        raise TypeError(f"cannot reset a {type(stream).__name__}")


class ServerWebSocket:
    """One WebSocket, server side; its owner runs :meth:`write_loop` in a task and calls :meth:`receive` in another.

    Everything that is sent goes into an unbounded outbox in order, because a Phoenix socket process has an unbounded
    mailbox; :attr:`outbox_size` tells how many bytes wait in it.

    Args:
        stream: a connected TCP, TLS or memory stream.
        max_message_size: bytes of a message above which the socket closes with 1009; ``None`` for no limit.
    """

    def __init__(self, stream: trio.abc.Stream, *, max_message_size: int | None = None) -> None:
        self.stream = stream
        self.close_code: int | None = None
        self.outbox_size = 0
        self.reading = Gate()
        self.writing = Gate()
        self.ended = False
        self._max_message_size = max_message_size
        self._wire = WSConnection(ConnectionType.SERVER)
        self._outbox: deque[bytes] = deque()
        self._work = trio.Event()
        self._flushed = trio.Event()
        self._flushed.set()
        self._low = Gate()
        self._events: Iterator[Event] | None = None  # of the last read, as far as they were not looked at
        self._parts: list[Any] = []
        self._part_size = 0

    @property
    def open(self) -> bool:
        """True from the accepted upgrade until a close frame was sent or received, or the stream has ended."""
        return not self.ended and self._wire.connection is not None and self._wire.state is ConnectionState.OPEN

    # --- the upgrade --------------------------------------------------------------------------------------------------

    async def read_request(self) -> Request | None:
        """Return the client's upgrade request, or ``None`` when what came was none; then it was answered with 400."""
        while True:
            data = await self._receive_some()
            try:
                self._wire.receive_data(data)
                for event in self._wire.events():
                    if isinstance(event, Request):
                        return event
            except ProtocolError as error:
                hint = getattr(error, "event_hint", None)
                await self._refuse_garbage(hint)
                return None
            except (UnicodeError, ValueError):
                # wsproto decodes the host and the target without expecting them to be bad.
                await self._refuse_garbage(None)
                return None
            if not data:
                return None

    async def accept(self) -> None:
        """Answer the request with 101; no sub-protocol and no extension is ever chosen, as in Phoenix's defaults."""
        headers = [(b"cache-control", b"max-age=0, private, must-revalidate")]
        await self.send_now(self._wire.send(AcceptConnection(extra_headers=headers)))

    async def reject(self, status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Answer the request with an HTTP status, and a body if there is one; then the stream is of no more use."""
        headers = list(headers or ())
        if body:
            headers.append((b"content-length", str(len(body)).encode()))
        data = self._wire.send(RejectConnection(status_code=status, headers=headers, has_body=bool(body)))
        if body:
            data += self._wire.send(RejectData(data=body))
        await self.send_now(data)

    async def _refuse_garbage(self, hint: object) -> None:
        # Written by hand: h11 does not answer what it could not parse.
        status = hint.status_code if isinstance(hint, RejectConnection) else 400
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "connection: close", "content-length: 0"]
        if status == 426:
            lines.append("sec-websocket-version: 13")
        await self.send_now(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def send_now(self, data: bytes) -> None:
        """Write bytes at once, before there is a WebSocket; SocketEnded where the client has gone."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise SocketEnded(_ABNORMAL) from None

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive(self) -> list[str | bytes]:
        """Return the next message in a list, or none at the end of what one read gave; pings are answered.

        One by one, because a close frame behind a message must not take effect before the message is acted on.

        Raises:
            SocketEnded: the client closed, dropped the stream, or broke RFC 6455; the answer that is due (an echo with
                1000, as Bandit sends it; 1002, 1007 or 1009) is in the outbox.
        """
        await self._low.wait()
        if self._events is None:
            data = await self._receive_some()
            if not data:
                self._end()
                raise SocketEnded(_ABNORMAL if self.close_code is None else self.close_code)
            try:
                self._wire.receive_data(data)
            except ProtocolError:
                raise SocketEnded(_ABNORMAL) from None
            self._events = self._wire.events()
        messages: list[str | bytes] = []
        for event in self._events:
            if isinstance(event, (TextMessage, BytesMessage)):
                self._take(event, messages)
                if messages:
                    return messages
            elif isinstance(event, Ping):
                if self.open:
                    self._put(self._wire.send(event.response()))
            elif isinstance(event, CloseConnection):
                self._answer_close(int(event.code))
                raise SocketEnded(int(event.code))
        self._events = None
        return messages

    async def _receive_some(self) -> bytes:
        await self.reading.wait()
        try:
            data = bytes(await self.stream.receive_some(_RECEIVE_SIZE))
            # Reading may have been stopped while the read was under way; what it got then waits here.
            await self.reading.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise SocketEnded(_ABNORMAL if self.close_code is None else self.close_code) from None
        return data

    def _take(self, event: TextMessage | BytesMessage, messages: list[str | bytes]) -> None:
        if self._wire.state is not ConnectionState.OPEN:
            return
        data = event.data if isinstance(event, TextMessage) else bytes(event.data)
        self._part_size += len(data)
        if self._max_message_size is not None and self._part_size > self._max_message_size:
            self.close(1009)
            return
        self._parts.append(data)
        if event.message_finished:
            messages.append("".join(self._parts) if isinstance(data, str) else b"".join(self._parts))
            self._parts = []
            self._part_size = 0

    def _answer_close(self, code: int) -> None:
        state = self._wire.state
        if state is ConnectionState.REMOTE_CLOSING:
            self.close_code = code
            self._put(self._wire.send(CloseConnection(code=1000)))
        elif state is ConnectionState.OPEN:
            # wsproto reports a breach of RFC 6455 as a close that it has not got; 1002 or 1007 is due.
            self.close(code)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: str | bytes) -> bool:
        """Put one message into the outbox; False when the socket is closing or gone, then it is dropped."""
        if not self.open:
            return False
        event: Event = TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
        self._put(self._wire.send(event))
        return True

    def send_wire(self, data: bytes) -> None:
        """Put raw bytes into the outbox, below WebSocket framing."""
        self._put(data)

    def close(self, code: int, reason: str = "") -> None:
        """Put a close frame into the outbox, behind what waits there; nothing can be sent after it; idempotent."""
        if self.open:
            self.close_code = code
            self._put(self._wire.send(CloseConnection(code=code, reason=reason or None)))

    def drop(self) -> None:
        """Close the stream at once, without a close frame (FIN)."""
        self._end()
        close_stream(self.stream)

    def reset(self) -> None:
        """Close the stream abortively, without a close frame (RST)."""
        self._end()
        reset_stream(self.stream)

    async def finish(self) -> None:
        """Write what waits; where the client's close frame is still due, read and forget until it has closed.

        Closing a TCP stream with unread data in it makes an RST of it, which could eat our close frame.
        """
        await self.flush()
        if self._wire.state is ConnectionState.LOCAL_CLOSING:
            await self.wait_for_end()

    async def wait_for_end(self) -> None:
        """Read and forget until the client has closed the stream."""
        try:
            while await self._receive_some():
                pass
        except SocketEnded:
            return

    async def flush(self) -> None:
        """Wait until the outbox is empty, or the stream has ended."""
        while self._outbox and not self.ended:
            await self._flushed.wait()

    async def wait_for_room(self) -> None:
        """Wait until less than a mebibyte waits in the outbox; checkpoints."""
        await trio.lowlevel.checkpoint()
        await self._low.wait()

    async def write_loop(self) -> None:
        """Write the outbox to the stream, all that waits in one piece, until the stream has ended."""
        while True:
            await self._work.wait()
            await self.writing.wait()
            self._work = trio.Event()
            data = b"".join(self._outbox)
            count = len(self._outbox)
            try:
                if data:
                    await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end()
            if self.ended:
                return
            for _ in range(count):
                self._outbox.popleft()
            self.outbox_size -= len(data)
            if self.outbox_size < _HIGH_WATER:
                self._low.open()
            if self._outbox:
                self._work.set()
            else:
                self._flushed.set()

    def _end(self) -> None:
        self.ended = True
        self._outbox.clear()
        self.outbox_size = 0
        for gate in (self.reading, self.writing, self._low):
            gate.open()
        self._work.set()
        self._flushed.set()

    def _put(self, data: bytes) -> None:
        if self.ended:
            return
        self._outbox.append(data)
        self.outbox_size += len(data)
        if self.outbox_size >= _HIGH_WATER:
            self._low.close()
        if self._flushed.is_set():
            self._flushed = trio.Event()
        self._work.set()
