"""The adapter for trio-websocket, and the only module here that knows it.

Contained: python-trio/trio-websocket#184 (a ping after our close frame crashes the reader), a handshake that waits for
ever when the peer goes away during it, and every other exception of the reader task. All three end the link; none
reaches the caller's nursery. Only public names are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .dial import OpenStream, Refused, explain
from .endpoint import Endpoint
from .guarded_stream import GuardedStream, WriteFailed
from .link_end import LinkEnd
from .read_ahead import ReadAhead
from .stream_connector import StreamConnector
from .upgrade import UpgradeFailed

__all__ = ("TrioWebSocketConnector",)

# 256 KiB: measured x1.2 at 300 B, x2-3 at 4 KB, x4-6 at 64 KB messages against trio-websocket's 4 KiB.
_RECEIVE_BUFFER_SIZE = 256 * 1024
_NAME = "trio-websocket"


class TrioWebSocketTransport:
    """One WebSocket; see :class:`layr8_actors.transport.Transport` for the contract. Made by the connector only.

    Two tasks: :meth:`run`, which pumps messages into the read-ahead, and trio-websocket's reader. All messages of one
    chunk of bytes are gathered before the receiver is woken: one wake-up per chunk instead of one per message.
    """

    __slots__ = (
        "_aborted",
        "_end",
        "_endpoint",
        "_farewell",
        "_gone",
        "_guard",
        "_handshake",
        "_read_ahead",
        "_scope",
        "_websocket",
    )
    name = _NAME

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._read_ahead = ReadAhead()
        self._guard = GuardedStream(stream, endpoint, self._read_ahead.deliver)
        self._websocket: trio_websocket.WebSocketConnection | None = None
        self._gone: trio.Event | None = None  # made by the first that waits for it
        self._aborted = False
        self._scope: trio.CancelScope | None = None
        self._handshake: trio.CancelScope | None = None
        self._farewell = False
        self._end: LinkEnd | None = None

    # --- the caller's side -------------------------------------------------------------------------------------------

    async def receive(self) -> list[str | bytes]:
        """See :meth:`layr8_actors.transport.Transport.receive`."""
        batch = await self._read_ahead.take()
        if not batch:
            raise (self._end or LinkEnd()).error()
        return batch

    async def send(self, batch: Sequence[str | bytes]) -> None:
        """See :meth:`layr8_actors.transport.Transport.send`."""
        websocket = self._websocket
        assert websocket is not None
        if not batch:
            await trio.lowlevel.checkpoint()
        end: LinkEnd | None = None
        last = len(batch) - 1
        corked = last > 0 and self._guard.cork()
        try:
            for number, message in enumerate(batch):
                if corked and number == last:
                    self._guard.uncork()  # all of them leave with the last one
                await websocket.send_message(message)
        except (trio_websocket.ConnectionClosed, LocalProtocolError, WriteFailed) as error:
            end = self._ending(error)
        finally:
            if corked:
                self._guard.discard()
            if self._guard.torn and end is None:
                self.abort()
        if end is not None:
            raise (self._end or end).error()

    def send_nowait(self, message: str | bytes) -> bool:
        """See :meth:`layr8_actors.transport.Transport.send_nowait`; the library has nothing of the kind."""
        raise trio.WouldBlock

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        """See :meth:`layr8_actors.transport.Transport.close`."""
        try:
            with trio.move_on_after(timeout) as scope:
                await self._shake_hands(code, reason, scope)
        finally:
            self.abort()
            # Shielded, so that the socket is gone when Cancelled comes out too; the clean-up never waits for the peer.
            with trio.CancelScope(shield=True):
                await self._wait_gone()

    async def _shake_hands(self, code: int, reason: str, scope: trio.CancelScope) -> None:
        websocket = self._websocket
        assert websocket is not None
        first = not self._read_ahead.closing
        self._read_ahead.close()
        if not first or self._read_ahead.ended or self._guard.torn or websocket.closed is not None:
            await self._wait_gone()
            return
        self._farewell = True
        self._handshake = scope
        self._end = self._end or LinkEnd(code, reason, "closed by this side")
        try:
            await websocket.aclose(code, reason)
        except Exception as error:  # close never raises, whatever the library does
            self._end = LinkEnd(1006, "", f"the close handshake failed ({type(error).__name__})")

    def abort(self) -> None:
        """See :meth:`layr8_actors.transport.Transport.abort`."""
        self._end = self._end or LinkEnd(1006, "", "dropped by this side")
        self._aborted = True
        self._guard.cut()
        if self._scope is not None:
            self._scope.cancel(reason="the transport was aborted")

    async def _wait_gone(self) -> None:
        if self._read_ahead.ended:
            await trio.lowlevel.checkpoint()
            return
        if self._gone is None:
            self._gone = trio.Event()
        await self._gone.wait()

    # --- the transport's own task ------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[Refused | None]) -> None:
        """Upgrade, report by ``task_status`` (``None`` for success), and pump until the end; for the connector only."""
        refused = Refused("the upgrade failed")
        opened = False
        crashed = False
        try:
            try:
                async with trio.open_nursery() as reader:
                    self._scope = reader.cancel_scope  # one of our own around it would cost an idle link 0.8 KiB
                    self._websocket = await self._upgrade(reader)
                    opened = True
                    task_status.started(None)
                    task_status = (
                        trio.TASK_STATUS_IGNORED
                    )  # Trio's own keeps the nursery of the start alive, which is 1 KiB
                    await self._pump(self._websocket)
                    reader.cancel_scope.cancel(reason="the link has ended")
            except* Exception as group:  # the reader is the library's, all its failures are contained
                crashed = True
                refused = self._crashed(group, opened)
            if crashed and self._farewell and not self._aborted:
                with trio.CancelScope() as self._scope:
                    await self._drain()
        finally:
            self._end = self._end or LinkEnd(1006, "", "the nursery of the transport was cancelled")
            try:
                await trio.aclose_forcefully(self._guard.stream)
            finally:
                self._read_ahead.end()
                if self._gone is not None:
                    self._gone.set()
                if self._handshake is not None:
                    self._handshake.cancel(reason="the link has ended")
        if not opened:
            task_status.started(refused)

    async def _upgrade(self, reader: trio.Nursery) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(
            reader,
            cast("trio.SocketStream", self._guard),  # it is documented to take any stream
            self._endpoint.host_header,
            self._endpoint.path,
            message_queue_size=0,  # the read-ahead is the queue; a message in between would be lost at a close
            max_message_size=self._endpoint.max_message_size,
            receive_buffer_size=_RECEIVE_BUFFER_SIZE,
        )

    async def _pump(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Read ahead until the link ends, and record how it ended."""
        read_ahead = self._read_ahead
        try:
            while True:
                message = await websocket.get_message()
                read_ahead.append(message)
                if self._guard.paused or read_ahead.full:
                    read_ahead.deliver()
                while read_ahead.full and not read_ahead.closing:
                    await read_ahead.room()
        except trio_websocket.ConnectionClosed as error:
            self._end = self._end or self._ending(error)
        if self._farewell:
            await trio.sleep_forever()  # until close has had its answer, or its deadline, and cancels the scope

    async def _drain(self) -> None:
        """Read to the end, after #184 has killed the reader between our close frame and the peer's answer.

        A socket closed with bytes unread is reset, and the reset destroys what the peer has not read yet: our leave
        and our close frame. The deadline of close bounds it.
        """
        try:
            while await self._guard.stream.receive_some(_RECEIVE_BUFFER_SIZE):
                await trio.lowlevel.checkpoint()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end = self._end or LinkEnd(1006, "", explain(error))

    def _crashed(self, group: BaseExceptionGroup[Exception], opened: bool) -> Refused:
        """Turn what the reader raised into an end of the link, or into a failure of the upgrade."""
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, UpgradeFailed):
            return error.refused
        name = type(error).__name__
        if not opened:
            # The library answers a bad handshake with an event that a client cannot send, and fails on that in turn.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, RemoteProtocolError):
                cause = cause.__context__
            # The library's text may quote the peer, whose headers may be 64 KiB long.
            detail = f": {str(cause)[:300]}" if cause is not None else f" ({name})"
            return Refused(f"the answer to the upgrade is not a WebSocket handshake{detail}")
        if self._end is None or (self._end.code == 1006 and not self._farewell):
            self._end = LinkEnd(1006, "", f"the WebSocket reader failed ({name})")
        return Refused(name)

    # --- how it ended ------------------------------------------------------------------------------------------------

    def _ending(self, error: Exception) -> LinkEnd:
        """What a library call that raised ``error`` says about the end of the link."""
        assert self._websocket is not None
        closed = error.reason if isinstance(error, trio_websocket.ConnectionClosed) else None
        closed = closed or self._websocket.closed
        if closed is None or closed.code == 1006:
            return LinkEnd(1006, "", self._endpoint.redact(self._guard.lost or "the connection was lost"))
        return LinkEnd(closed.code, self._endpoint.redact(closed.reason or ""))


class TrioWebSocketConnector(StreamConnector[TrioWebSocketTransport]):
    """Opens WebSockets by trio-websocket, as :class:`layr8_actors.transport.Connector` promises.

    Neither compression nor a subprotocol is offered, and no ``Origin`` is sent. ``localhost`` and ``*.localhost`` are
    dialled at 127.0.0.1 (RFC 6761).

    Args:
        open_stream: connects to a host and a port; the default is TCP. TLS is put on top of it for ``wss``. It is
            cancelled at the open timeout, and must leave no socket behind then.
    """

    def __init__(self, open_stream: OpenStream | None = None) -> None:
        super().__init__(_NAME, open_stream)

    async def _upgrade(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, endpoint: Endpoint, attended: bool
    ) -> TrioWebSocketTransport | Refused:
        del attended  # the library has a task of its own, whoever receives
        transport = TrioWebSocketTransport(stream, endpoint)
        refused: Refused | None = await nursery.start(transport.run)
        return refused or transport
