"""One WebSocket over a Trio stream: many frames per read and per write, and no task between the caller and the socket.

Who receives reads the socket itself, and who sends writes it itself. Only what neither of them does falls to a task of
the transport's own, which sleeps most of the time, and is none while somebody has promised to receive: see
:meth:`WebSocketsTransport.run`. Over 400 lines, because receiver, senders, closers and that task take over from each
other at any step, and what one leaves behind is what the others look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from .bare_socket import bare_socket
from .dial import explain
from .endpoint import Endpoint
from .frame_writer import FrameWriter
from .framing import InboundFrames, masked_frames
from .link_end import LinkEnd, cut_reason

__all__ = ("WebSocketsTransport",)

# Measured with trio-websocket: x1.2 at 300 B, x2-3 at 4 KB, x4-6 at 64 KB messages against 4 KiB.
_RECEIVE_SIZE = 256 * 1024
# What may wait unread before the socket is no longer read, and the most that is parsed without a checkpoint.
_AHEAD_SIZE = 1024 * 1024
_AHEAD_FRAMES = 4096
# Seconds after which a link that nobody receives from is read all the same. It is how late a ping may be answered then,
# and how often the transport's task looks after a link in use; proxies and nodes wait for a pong for 10 s or more.
_UNATTENDED = 1.0
# Seconds that reading waits for more after writing has failed: a reset socket answers at once, other streams soon.
_LAST_READ = 0.1
# Seconds that the answer to a close frame, or one of our own for a frame refused, may take: the peer may read no more.
_LAST_WRITE = 1.0


class WebSocketsTransport:
    """One open WebSocket; see :class:`layr8_actors.transport.Transport` for the contract. Made by the connector only.

    One task at a time reads: the receiver, or else :meth:`run`. One task at a time writes, and takes along what the
    others have queued meanwhile.

    Args:
        nursery: where its own task runs.
        stream: connected, and upgraded.
        endpoint: for the limits, and for the key that is taken out of what the peer says.
        data: what came behind the answer to the upgrade.
    """

    __slots__ = (
        "_aborted",
        "_ahead",
        "_ahead_size",
        "_alarmed",
        "_arrived",
        "_attended",
        "_bare",
        "_busy",
        "_called",
        "_closing",
        "_discarding",
        "_end",
        "_endpoint",
        "_frames",
        "_gone",
        "_lost",
        "_nursery",
        "_over",
        "_reading",
        "_reads_ahead",
        "_received",
        "_running",
        "_sleeping",
        "_stream",
        "_writer",
    )
    name = "websockets"

    def __init__(self, nursery: trio.Nursery, stream: trio.abc.Stream, endpoint: Endpoint, data: bytes) -> None:
        self._nursery = nursery
        self._stream = stream
        self._bare = bare_socket(stream)
        self._endpoint = endpoint
        self._frames = InboundFrames(endpoint.max_message_size)
        self._frames.feed(data)
        self._writer = FrameWriter(stream, self._bare, self._frames)
        # Reading.
        self._ahead: list[str | bytes] = []  # what run has read while nobody received
        self._ahead_size = 0
        self._discarding = False
        self._reading: trio.lowlevel.Task | None = None  # who is, in stream.receive_some
        self._received = 0  # calls of receive that have returned something
        self._alarmed = True  # run will see before long whether anybody receives
        self._arrived: trio.lowlevel.ParkingLot | None = None  # receivers while another task reads
        # The end.
        self._closing = False
        self._aborted = False
        self._lost = ""
        self._end: LinkEnd | None = None
        self._over = False
        self._gone: trio.Event | None = None  # made by the first that waits for it
        # The transport's own task.
        self._attended = False  # it need not look whether anybody receives
        self._running = False  # there is one, or one is started that has not had a turn yet
        self._called = False  # there is something for it to do
        self._sleeping: trio.lowlevel.Task | None = None
        self._busy: trio.CancelScope | None = None  # around what it does where that may take long
        self._reads_ahead: trio.CancelScope | None = None  # likewise, where that is to read for whoever receives next

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def receive(self) -> list[str | bytes]:
        """See :meth:`layr8_actors.transport.Transport.receive`."""
        frames = self._frames
        if self._ahead or frames.pending or self._over:
            await trio.lowlevel.checkpoint()
        while True:
            batch = self._take()
            if batch:
                self._received += 1
                return batch
            if self._over:
                raise (self._end or LinkEnd()).error()
            if frames.pending:
                await trio.lowlevel.checkpoint()
            elif self._reading or frames.over or self._aborted:
                if self._arrived is None:
                    self._arrived = trio.lowlevel.ParkingLot()
                await self._arrived.park()
            else:
                self._reading = trio.lowlevel.current_task()
                try:
                    # In no variable, which a traceback would show: a peer may echo the key.
                    self._feed(await (self._bare or self._stream).receive_some(_RECEIVE_SIZE))
                except Exception as error:  # a stream may be anybody's; whatever it raises, it cannot be read from
                    self._cannot_read(error)
                finally:
                    self._reading = None
                    if self._arrived:
                        self._arrived.unpark_all()
                    self._leave()

    def _take(self) -> list[str | bytes]:
        """All that has arrived and may be handed over at once."""
        if self._ahead:
            batch, self._ahead, self._ahead_size = self._ahead, [], 0
            self._leave()
            return batch
        return self._parse(_AHEAD_FRAMES)

    def _parse(self, frames: int) -> list[str | bytes]:
        batch = self._frames.take(frames)
        if self._writer.collect() or self._frames.over:
            self._call()
        return batch

    def _feed(self, data: bytes | bytearray) -> None:
        if data:
            self._frames.feed(data)
        else:
            self._frames.end()
            self._call()

    def _cannot_read(self, error: Exception) -> None:
        expected = isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError)
        failure = explain(error) if expected else f"the WebSocket reader failed ({type(error).__name__})"
        self._lost = self._lost or failure
        self._feed(b"")

    def _leave(self) -> None:
        """Nobody reads now, and there is room: run has to know, where it is not going to look by itself."""
        if not (self._alarmed or self._attended) or self._closing or self._writer.torn:
            self._alarmed = True
            self._call()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, batch: Sequence[str | bytes]) -> None:
        """See :meth:`layr8_actors.transport.Transport.send`."""
        pieces = masked_frames(batch)
        if not pieces and self._writer.idle:
            await trio.lowlevel.checkpoint()
        elif not await self._write(pieces):
            raise (self._end or LinkEnd(1006, "", self._endpoint.redact(self._writer.failure))).error()

    def send_nowait(self, message: str | bytes) -> bool:
        """See :meth:`layr8_actors.transport.Transport.send_nowait`; over TLS, and what is long, only :meth:`send`."""
        return self._writer.write_now(message)

    async def _write(self, pieces: list[bytes], farewell: tuple[int, str] | None = None) -> bool:
        try:
            return await self._writer.write(pieces, farewell)
        finally:
            if self._writer.torn:
                self._tear()

    def _tear(self) -> None:
        """A write was not finished."""
        if not self._writer.failure:
            self.abort()  # it was cancelled
        else:  # what the peer had sent before it went away can still be read, its close frame among it
            if self._busy is not None:
                self._busy.cancel(reason="writing has failed")
            self._call()

    # --- ending ------------------------------------------------------------------------------------------------------

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
        first = not self._closing
        self._closing = True
        self._call()  # from here on it reads whenever nobody else does, for the peer's answer
        if first and not self._writer.torn and self._frames.open:
            self._end = self._end or LinkEnd(code, reason, "closed by this side")
            try:
                if not await self._write([], farewell=(code, cut_reason(reason))):
                    return
            except ValueError as error:  # a code that no frame may carry; close never raises
                self._end = LinkEnd(1006, "", f"the close handshake failed ({error})")
                return
        await self._wait_gone()

    def abort(self) -> None:
        """See :meth:`layr8_actors.transport.Transport.abort`."""
        self._end = self._end or LinkEnd(1006, "", "dropped by this side")
        self._aborted = self._writer.torn = True
        if self._busy is not None:
            self._busy.cancel(reason="the transport was aborted")
        self._call()

    async def _wait_gone(self) -> None:
        if self._over:
            await trio.lowlevel.checkpoint()
            return
        if self._gone is None:
            self._gone = trio.Event()
        await self._gone.wait()

    # --- the transport's own task ------------------------------------------------------------------------------------

    def attend(self, attended: bool) -> None:
        """See :meth:`layr8_actors.transport.port.AttendedTransport.attend`."""
        self._attended = attended
        self._alarmed = True
        if self._reads_ahead is not None and attended and not self._writer.torn:
            self._reads_ahead.cancel(reason="somebody receives again")
        if self._running or not attended:
            self._call()

    def start(self) -> None:
        """Start the transport's own task; for the connector, and for whoever has something for it to do."""
        self._running = True
        receiver = self._reading
        if receiver is None or receiver is trio.lowlevel.current_task():
            self._nursery.start_soon(self.run)
        else:  # in the context of who receives, and not of whoever happens to abort or to send
            receiver.context.run(self._nursery.start_soon, self.run)

    async def run(self) -> None:
        """Do what nobody else does, until the link has ended, then drop it.

        It writes the protocol's own answers, reads where nobody receives or this side closes, and closes the socket.
        Most of the time it sleeps, in as little memory as it can; while the link is attended it returns instead, and
        what there is to do starts another one.
        """
        try:
            await self._look_after()
        except Exception as error:  # likewise
            self._lost = self._lost or f"the WebSocket task failed ({type(error).__name__})"
        finally:
            if self._running:
                await self._drop()

    async def _drop(self) -> None:
        self._writer.torn = True
        default = self._lost or self._writer.failure or "the nursery of the transport was cancelled"
        self._end = self._end or LinkEnd(1006, "", self._endpoint.redact(default))
        try:
            await trio.aclose_forcefully(self._stream)
        except Exception as error:  # likewise
            self._lost = self._lost or explain(error)
        finally:
            self._over = True
            if self._arrived is not None:
                self._arrived.unpark_all()
            if self._gone is not None:
                self._gone.set()

    async def _look_after(self) -> None:
        """Return when the link has ended; or, no longer :attr:`_running`, when it is attended and nothing is to do."""
        received = self._received
        last = -math.inf  # when a receiver was seen that had only just been away
        due = trio.current_time() + _UNATTENDED  # when to see whether anybody receives
        if self._reading:
            self._alarmed, due = False, math.inf
        while True:
            if self._called or due < math.inf:
                await self._sleep(due)
            else:  # idle, as most links are most of the time: neither a scope, which is 1 KiB, nor one more coroutine
                self._sleeping = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._oversleep)
                self._called = False
            ended = self._has_ended()
            if self._writer.collect() and not self._writer.busy and not self._writer.torn:
                with trio.move_on_after(_LAST_WRITE if ended else math.inf) as self._busy:
                    await self._writer.flush()
                self._busy = None
                if self._writer.torn:
                    self._tear()
            if ended or self._aborted:
                return
            if self._writer.torn:
                await self._read_the_rest()
                return
            if self._attended and not self._closing:
                if self._called:
                    continue
                self._running = False
                return
            now = trio.current_time()
            if self._alarmed and due == math.inf:
                if self._reading and now - last >= _UNATTENDED:
                    self._alarmed, last = False, now  # it took a lone message, and is back: that needs no clock
                else:
                    due = now + _UNATTENDED
            if now < due and not self._closing:
                continue
            if self._reading or (self._full and not self._closing):
                self._alarmed, due = False, math.inf  # whoever reads, or makes room, calls
            elif received != self._received and not self._closing:
                received, due = self._received, now + _UNATTENDED
            else:
                await self._read_ahead(math.inf)
                self._called = True

    async def _sleep(self, until: float) -> None:
        if not self._called:
            self._sleeping = trio.lowlevel.current_task()
            with trio.move_on_at(until):
                await trio.lowlevel.wait_task_rescheduled(self._oversleep)
        else:
            await trio.lowlevel.checkpoint()
        self._called = False

    def _oversleep(self, _: object) -> trio.lowlevel.Abort:
        self._sleeping = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _call(self) -> None:
        """Wake the transport's task, or start one: there is something for it to do."""
        self._called = True
        if self._sleeping is not None:
            trio.lowlevel.reschedule(self._sleeping)
            self._sleeping = None
        elif not (self._running or self._over):
            self.start()

    @property
    def _full(self) -> bool:
        return len(self._ahead) >= _AHEAD_FRAMES or self._ahead_size >= _AHEAD_SIZE

    async def _read_ahead(self, seconds: float) -> None:
        """Read once, for whoever receives next.

        Args:
            seconds: to wait; afterwards it counts as the end of the stream.
        """
        if not self._frames.pending:
            scope = self._busy = self._reads_ahead = trio.CancelScope(deadline=trio.current_time() + seconds)
            size = _RECEIVE_SIZE if self._full else min(_RECEIVE_SIZE, _AHEAD_SIZE - self._ahead_size)
            self._reading = trio.lowlevel.current_task()
            try:
                with scope:
                    self._feed(await (self._bare or self._stream).receive_some(size))
            except Exception as error:  # likewise
                self._cannot_read(error)
            finally:
                self._reading = self._busy = self._reads_ahead = None
                if self._arrived:
                    self._arrived.unpark_all()
            if scope.cancelled_caught:
                if seconds < math.inf:
                    self._feed(b"")
                return  # else writing has failed, or the link was aborted, or somebody receives again
        self._discarding = self._discarding or (self._closing and self._full)
        batch = self._parse(_AHEAD_FRAMES if self._closing else _AHEAD_FRAMES - len(self._ahead))
        if not self._discarding:  # a flood behind our close frame is read for the peer's answer, and must fill no heap
            self._ahead += batch
            self._ahead_size += sum(map(len, batch))

    async def _read_the_rest(self) -> None:
        """Writing has failed: let what the peer had sent before it went away arrive, its close frame among it."""
        received, deadline = self._received, trio.current_time() + _LAST_READ
        while not self._aborted and not self._has_ended():
            if received != self._received:
                received, deadline = self._received, trio.current_time() + _LAST_READ
            if not self._reading and not self._full:
                await self._read_ahead(_LAST_READ)
            elif not self._reading:
                await self._sleep(math.inf)
            elif trio.current_time() < deadline:
                await self._sleep(deadline)
            else:
                return

    # --- how it ended ------------------------------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        """Return whether nothing more is to come, and record how it ended; False while a close awaits its answer."""
        frames = self._frames
        if not frames.over:
            return False
        end = frames.ending()
        if end is None:
            end = LinkEnd(
                1006, "", self._endpoint.redact(self._lost or self._writer.failure or "the connection was lost")
            )
        else:
            end = LinkEnd(end.code, self._endpoint.redact(end.reason))
        self._end = self._end or end
        return frames.closed or not (frames.refused and self._closing)
