"""The adapter for the sans-I/O core of websockets, and the only module that knows it: many frames per read and write.

The library never sees a socket: all frames of one chunk of bytes are parsed at once, and all messages of a batch are
one write. So a message costs a fraction of what it does through trio-websocket. Only public names are used.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from .dial import OpenStream, Refused, explain
from .endpoint import Endpoint
from .guarded_stream import GuardedStream, UpgradeFailed
from .link_end import LinkEnd, cut_reason
from .read_ahead import ReadAhead
from .stream_connector import StreamConnector

__all__ = ("WebSocketsConnector",)

# Measured with trio-websocket: x1.2 at 300 B, x2-3 at 4 KB, x4-6 at 64 KB messages against 4 KiB.
_RECEIVE_SIZE = 256 * 1024
# What is parsed at once: a frame of two bytes becomes an object of some 300, and a chunk may hold nothing else.
_PARSE_SIZE = 32 * 1024
# Seconds that reading waits for more after writing has failed: a reset socket answers at once, other streams soon.
_LAST_READ = 0.1
# Seconds that the answer to a close frame, or one of our own for a frame refused, may take: the peer may read no more.
_LAST_WRITE = 1.0
# The most bytes of UTF-8 that a character takes: max_message_size counts characters of a text, the library bytes.
_BYTES_PER_CHARACTER = 4
_NAME = "websockets"

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT

# Belongs to no hierarchy: at DEBUG the library would log every frame, and a peer may echo the key in one.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001 - one of the hierarchy could be heard


class WebSocketsTransport:
    """One WebSocket; see :class:`layr8_actors.transport.Transport` for the contract. Made by the connector only.

    One task, :meth:`run`: it reads, and writes what the protocol itself wants written. Whoever sends writes in its own
    task. One of them writes at a time, and takes along what the others have queued meanwhile.
    """

    __slots__ = (
        "_aborted",
        "_end",
        "_endpoint",
        "_fragments",
        "_gone",
        "_lost",
        "_protocol",
        "_queued",
        "_read_ahead",
        "_scope",
        "_stream",
        "_torn",
        "_turn",
        "_unparsed",
        "_writing",
    )
    name = _NAME

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._protocol = ClientProtocol(
            # Without the key, which the guarded stream puts into the request.
            parse_uri(endpoint.public_url),
            max_size=endpoint.max_message_size * _BYTES_PER_CHARACTER,
            logger=_SILENT,
        )
        self._read_ahead = ReadAhead()
        # Not the frames, of which each takes 300 bytes, were it empty.
        self._fragments: tuple[Opcode, bytearray] | None = None
        self._queued: list[bytes] = []  # what the protocol wants written and nobody has written yet
        self._scope = trio.CancelScope()
        self._unparsed: memoryview | bytes = b""
        self._writing = False
        self._turn: trio.lowlevel.ParkingLot | None = None  # made by the first writer that has to wait
        self._torn = False  # a write was not finished, and whatever followed it would be garbage to the peer
        self._lost = ""
        self._aborted = False
        self._end: LinkEnd | None = None
        self._gone: trio.Event | None = None  # made by the first that waits for it

    # --- the caller's side -------------------------------------------------------------------------------------------

    async def receive(self) -> list[str | bytes]:
        """See :meth:`layr8_actors.transport.Transport.receive`."""
        batch = await self._read_ahead.take()
        if not batch:
            raise (self._end or LinkEnd()).error()
        return batch

    async def send(self, batch: Sequence[str | bytes]) -> None:
        """See :meth:`layr8_actors.transport.Transport.send`."""
        messages = [_encoded(message) for message in batch]
        if not messages:
            await trio.lowlevel.checkpoint()
        elif not await self._write(messages):
            raise (self._end or LinkEnd(1006, "", self._endpoint.redact(self._lost))).error()

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        """See :meth:`layr8_actors.transport.Transport.close`."""
        try:
            with trio.move_on_after(timeout):
                await self._shake_hands(code, reason)
        finally:
            self.abort()
            # Shielded, so that the socket is gone when Cancelled comes out too; the clean-up never waits for the peer.
            with trio.CancelScope(shield=True):
                await self._wait_gone()

    async def _shake_hands(self, code: int, reason: str) -> None:
        first = not self._read_ahead.closing
        self._read_ahead.close()
        if first and not self._torn and self._protocol.state is State.OPEN:
            self._end = self._end or LinkEnd(code, reason, "closed by this side")
            try:
                if not await self._write([], farewell=(code, cut_reason(reason))):
                    return
            except ProtocolError as error:  # a code that no frame may carry; close never raises
                self._end = LinkEnd(1006, "", f"the close handshake failed ({error})")
                return
        await self._wait_gone()

    def abort(self) -> None:
        """See :meth:`layr8_actors.transport.Transport.abort`."""
        self._end = self._end or LinkEnd(1006, "", "dropped by this side")
        self._aborted = self._torn = True
        self._scope.cancel(reason="the transport was aborted")

    async def _wait_gone(self) -> None:
        if self._read_ahead.ended:
            await trio.lowlevel.checkpoint()
            return
        if self._gone is None:
            self._gone = trio.Event()
        await self._gone.wait()

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, messages: list[tuple[Opcode, bytes]], farewell: tuple[int, str] | None = None) -> bool:
        """Wait for one's turn and write messages.

        Args:
            messages: what to write.
            farewell: code and reason of a close frame behind them.

        Returns:
            False where the link has ended, or ended under the write.

        A checkpoint. Cancelled before its turn it has written nothing; cancelled in the write, the link is aborted.
        """
        while self._writing:
            if self._turn is None:
                self._turn = trio.lowlevel.ParkingLot()
            await self._turn.park()
        protocol = self._protocol
        if self._torn or protocol.state is not State.OPEN:
            await trio.lowlevel.checkpoint()
            return False
        await trio.lowlevel.checkpoint_if_cancelled()
        for opcode, data in messages:
            if opcode is _TEXT:
                protocol.send_text(data)
            else:
                protocol.send_binary(data)
        if farewell is not None:
            protocol.send_close(*farewell)
        return await self._flush()

    async def _flush(self) -> bool:
        """Write what the protocol has queued, and what it queues meanwhile; only where nobody is writing."""
        self._collect()
        self._writing = True
        finished = False
        try:
            while self._queued:
                data = b"".join(self._queued)
                self._queued.clear()
                await self._stream.send_all(data)
                self._collect()
            finished = True
        except Exception as error:  # a stream may be anybody's; whatever it raises, it cannot be written to
            self._lost = self._lost or explain(error)
        finally:
            self._writing = False
            if self._turn is not None:
                self._turn.unpark_all()
            if not finished:
                self._torn = True
                if not self._lost:
                    self.abort()
                # Else what the peer had sent before it went away can still be read, its close frame among it.
                self._scope.cancel(reason="writing has failed")
        return finished

    def _collect(self) -> bool:
        self._queued += filter(None, self._protocol.data_to_send())  # an empty one is the protocol's end of the stream
        if self._writing or self._torn:
            # Answers of the protocol. The last pong will do (RFC 6455 section 5.5.3), and a close frame is the last.
            del self._queued[:-1]
        return bool(self._queued)

    # --- the transport's own task ------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[Refused | None]) -> None:
        """Upgrade, report by ``task_status`` (``None`` for success), and read until the end; for the connector only."""
        refused: Refused | None = Refused("the upgrade failed")
        try:
            with self._scope:
                refused = await self._upgrade()
                if refused is None:
                    task_status.started(None)
                    # Trio's own keeps the nursery of the start alive, which is 1 KiB.
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._read()
            if self._torn and not self._aborted:
                with trio.CancelScope() as self._scope:
                    await self._read(last_read=_LAST_READ)
        except Exception as error:  # likewise
            self._lost = self._lost or f"the WebSocket reader failed ({type(error).__name__})"
        finally:
            default = self._lost or "the nursery of the transport was cancelled"
            self._end = self._end or LinkEnd(1006, "", self._endpoint.redact(default))
            try:
                await self._drop()
            finally:
                self._torn = True
                self._read_ahead.end()
                if self._gone is not None:
                    self._gone.set()
        if refused is not None:
            task_status.started(refused)

    async def _drop(self) -> None:
        try:
            await trio.aclose_forcefully(self._stream)
        except Exception as error:  # likewise
            self._lost = self._lost or explain(error)

    async def _upgrade(self) -> Refused | None:
        protocol = self._protocol
        guard = GuardedStream(self._stream, self._endpoint, lambda: None)
        request = protocol.connect()
        del request.headers["Host"]
        request.headers["Host"] = self._endpoint.host_header
        protocol.send_request(request)
        try:
            await guard.send_all(b"".join(protocol.data_to_send()))
            while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
                self._feed(await guard.receive_some(_RECEIVE_SIZE))
        except UpgradeFailed as failed:
            return failed.refused
        if protocol.handshake_exc is not None:
            return Refused(f"the answer to the upgrade is not a WebSocket handshake: {protocol.handshake_exc}")
        self._take([event for event in protocol.events_received() if isinstance(event, Frame)])
        return None

    def _feed(self, data: bytes | bytearray) -> None:
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()

    async def _read(self, last_read: float | None = None) -> None:
        """Read until the link has ended.

        Args:
            last_read: seconds to wait for more of what the peer may still have sent; ``None`` for as long as it takes.
        """
        stream, protocol, read_ahead = self._stream, self._protocol, self._read_ahead
        await self._parse()
        while True:
            ended = protocol.state is not State.OPEN and self._has_ended()
            # A pong, or the answer to a close frame; whoever is writing takes it along.
            if self._collect() and not self._writing and not self._torn:
                with trio.move_on_after(_LAST_WRITE if ended else math.inf):
                    await self._flush()
            if ended:
                return
            while read_ahead.full and not read_ahead.closing:
                await read_ahead.room()
            data: bytes | bytearray = b""
            try:
                if last_read is None:
                    data = await stream.receive_some(_RECEIVE_SIZE)
                else:
                    with trio.move_on_after(last_read):
                        data = await stream.receive_some(_RECEIVE_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._lost = self._lost or explain(error)
            if len(data) <= _PARSE_SIZE:
                self._feed(data)
                self._take(protocol.events_received())
            else:
                self._unparsed = memoryview(data)
                await self._parse()

    async def _parse(self) -> None:
        # What is left is kept where a failed write, which cancels the wait for room, does not lose it.
        while self._unparsed:
            while self._read_ahead.full and not self._read_ahead.closing:
                await self._read_ahead.room()
            step, self._unparsed = self._unparsed[:_PARSE_SIZE], self._unparsed[_PARSE_SIZE:]
            self._protocol.receive_data(bytes(step))
            self._take(self._protocol.events_received())
        self._unparsed = b""  # an empty view keeps all of the chunk

    def _has_ended(self) -> bool:
        """Return whether nothing more is to come, and record how it ended; False while a close awaits its answer."""
        protocol = self._protocol
        received = protocol.close_rcvd
        if received is not None:  # also where the library objects, because it cut a fragmented message off
            self._end = self._end or LinkEnd(received.code, self._endpoint.redact(received.reason))
        elif isinstance(protocol.parser_exc, EOFError):
            self._end = self._end or LinkEnd(1006, "", self._endpoint.redact(self._lost or "the connection was lost"))
        elif isinstance(protocol.parser_exc, PayloadTooBig):
            self._end = self._end or LinkEnd(1009, self._too_big)
        elif protocol.parser_exc is not None and protocol.close_sent is not None:
            sent = protocol.close_sent
            self._end = self._end or LinkEnd(sent.code, self._endpoint.redact(sent.reason))
        elif protocol.state is not State.CLOSED:
            return self._end is not None and not self._read_ahead.closing  # we have refused a message
        return True

    def _take(self, events: Sequence[object]) -> None:
        """Put whole messages into the read-ahead, and refuse what the library lets through and we do not."""
        read_ahead = self._read_ahead
        largest = self._endpoint.max_message_size
        for frame in events:
            assert isinstance(frame, Frame)
            opcode, data = frame.opcode, frame.data
            if opcode is _CONT or (not frame.fin and (opcode is _TEXT or opcode is _BINARY)):
                self._fragments = begun = self._fragments or (opcode, bytearray())
                begun[1].extend(data)
                if not frame.fin:
                    continue
                (opcode, data), self._fragments = begun, None
            message: str | bytes
            if opcode is _TEXT:
                try:
                    message = str(data, "utf-8")
                except UnicodeDecodeError:
                    self._refuse(1007, "a text message is not UTF-8")
                    break
            elif opcode is _BINARY:
                message = bytes(data)
            else:
                continue
            if len(message) > largest:
                self._refuse(1009, self._too_big)
                break
            read_ahead.append(message)
        read_ahead.deliver()

    @property
    def _too_big(self) -> str:
        return f"a message exceeds the limit of {self._endpoint.max_message_size} bytes"

    def _refuse(self, code: int, reason: str) -> None:
        self._end = self._end or LinkEnd(code, reason)
        self._protocol.fail(code, reason)


def _encoded(message: object) -> tuple[Opcode, bytes]:
    if isinstance(message, str):
        return _TEXT, message.encode()
    if isinstance(message, bytes | bytearray | memoryview):
        return _BINARY, bytes(message)
    raise ValueError(f"a message is str or bytes, not {type(message).__name__}")


class WebSocketsConnector(StreamConnector[WebSocketsTransport]):
    """Opens WebSockets by the sans-I/O core of websockets, as :class:`layr8_actors.transport.Connector` promises.

    Neither compression nor a subprotocol is offered, and no ``Origin`` is sent. ``localhost`` and ``*.localhost`` are
    dialled at 127.0.0.1 (RFC 6761). It needs the extra ``fast``.

    Args:
        open_stream: connects to a host and a port; the default is TCP. TLS is put on top of it for ``wss``. It is
            cancelled at the open timeout, and must leave no socket behind then.
    """

    def __init__(self, open_stream: OpenStream | None = None) -> None:
        super().__init__(_NAME, WebSocketsTransport, open_stream)
