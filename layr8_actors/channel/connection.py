"""Connection: owns the transport, and is the only one who dials, reads and writes.

A socket that is lost is an expected end and no crash: it is reported, and Reconnector acts on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import trio

from ..errors import ConnectFailed, InvalidOption, MailboxFull, MalformedFrame, NotConnected, TransportClosed
from ..otp import Actor, ActorRef, ExitKind, ExitReason
from ..phoenix import Frame, Heartbeat as HeartbeatState, Ref, TopicStatus
from .events import LinkClosed, LinkLost, LinkOpened, ReadingPaused, ReadingResumed
from .link import Flush, Link, Outgoing
from .link_state import DropLink, OpenLink
from .messages import FramesArrived, LinkEnded, LinkFailed, LinkUp, Resynchronize, WatchLink

if TYPE_CHECKING:
    from ..transport import Connector, Transport
    from .record import Record

__all__ = ("Connection",)


class Connection(Actor):
    """The actor that owns the socket.

    Args:
        record: the channel's record.
        connector: opens sockets.
        router: gets what was read.
        heartbeat: is told of new sockets.
        reconnector: is told how dials end.
    """

    def __init__(
        self, record: Record, connector: Connector, router: ActorRef, heartbeat: ActorRef, reconnector: ActorRef
    ) -> None:
        self._record = record
        self._connector = connector
        self._router = router
        self._heartbeat = heartbeat
        self._reconnector = reconnector
        self._dialling = trio.CancelScope()
        self._busy = False  # one dial at a time, one socket at a time

    async def init(self) -> None:
        """Declare what the last incarnation held as lost; its sockets died with it."""
        self._forget("the connection actor was restarted")

    async def handle_cast(self, message: object) -> None:
        """Open or drop a socket; both go on in a task of their own, so that the mailbox stays open."""
        match message:
            case OpenLink(link=number):
                if self._busy:
                    error = ConnectFailed(self._record.options.public_url, "the last socket is still being closed")
                    self._reconnector.cast_nowait(LinkFailed(number, error))
                else:
                    self._busy = True
                    self._dialling = trio.CancelScope()  # made here, so that a drop right behind finds the right one
                    self.nursery.start_soon(self._run_link, number)
            case DropLink(link=number, error=error):
                if self._record.dialling == number:
                    self._dialling.cancel(reason="the dial was called off")
                link = self._record.link
                if link is not None and link.number == number:
                    # A socket whose peer is deaf gets no handshake; one that we give up gets a civil goodbye.
                    link.farewell = "abort" if isinstance(error, TransportClosed) else "close"
                    self._finish(link, error)
            case _:
                await super().handle_cast(message)

    async def terminate(self, reason: ExitReason) -> None:
        """Asked to stop: write what is queued, leave the topic, close the socket. Crashed: report the loss."""
        link = self._record.link
        self._record.note_exit(reason)
        if reason.kind is ExitKind.SHUTDOWN and link is not None and link.error is None:
            try:
                await self._say_goodbye(link)
            finally:
                link.transport.abort()
        self._forget("the connection actor has ended")

    # --- one socket ---------------------------------------------------------------------------------------------------

    async def _run_link(self, number: int) -> None:
        record = self._record
        opened = await self._dial()
        record.dialling = 0
        if isinstance(opened, Exception):
            self._busy = False
            record.last_end = (number, opened)
            self._reconnector.cast_nowait(LinkFailed(number, opened))
            return
        options = record.options
        now = trio.current_time()
        heartbeat = HeartbeatState(options.heartbeat_interval, options.heartbeat_timeout_s, now)
        link = Link(number, opened, heartbeat, now, options.outbox_capacity)
        record.link = link
        record.counters.links_opened += 1
        record.emit(LinkOpened(at=now, topic=record.topic.topic, link=number, transport=opened.name))
        self._reconnector.cast_nowait(LinkUp(number))
        self._watch_link()
        try:
            with link.scope:
                self.nursery.start_soon(self._write, link)  # it ends when its transport or its outbox does
                await self._read(link)
            if link.farewell == "close":
                await opened.close(timeout=options.close_timeout)
        finally:
            opened.abort()
            self._busy = False
            if link.error is not None:  # else it is the actor that ends, and terminate knows what that means
                self._end(link)

    async def _dial(self) -> Transport | Exception:
        options = self._record.options
        deadline = trio.current_time() + options.connect_timeout
        transport: Transport | None = None
        with self._dialling:
            try:
                with trio.fail_at(deadline):
                    endpoint = await options.endpoint()
            except trio.TooSlowError:
                return ConnectFailed(options.public_url, f"no API key within {options.connect_timeout:g} s")
            except InvalidOption as error:
                return error
            except Exception as error:
                # The class alone: the provider is the user's code, and its text might hold a key.
                return ConnectFailed(options.public_url, f"asking for the API key raised {type(error).__name__}")
            left = max(deadline - trio.current_time(), 0.001)
            self._record.endpoint = endpoint = dataclasses.replace(endpoint, open_timeout=left)
            try:
                transport = await self._connector.open(self.nursery, endpoint)
            except ConnectFailed as error:
                return error
        if transport is not None and not self._dialling.cancel_called:
            return transport
        if transport is not None:
            transport.abort()  # it opened in the very moment in which it was called off
        return ConnectFailed(options.public_url, "the dial was called off")

    def _watch_link(self) -> None:
        # While Heartbeat waits for its restart these gather, and one of them is as good as a thousand.
        with contextlib.suppress(MailboxFull):
            self._heartbeat.cast_nowait(WatchLink())

    def _finish(self, link: Link, error: Exception) -> None:
        if link.error is None:
            link.error = error
        link.scope.cancel(reason=f"the link ended: {error}")

    def _end(self, link: Link) -> None:
        if link.ended.is_set():
            return
        link.ended.set()
        record = self._record
        if record.link is link:
            record.link = None
        discarded = link.discard_queued()
        record.counters.sends_discarded += discarded
        error = link.error or TransportClosed(1006, detail="the connection actor ended")
        record.last_end = (link.number, error)
        event = LinkClosed if record.closing else LinkLost
        record.emit(
            event(at=trio.current_time(), topic=record.topic.topic, link=link.number, error=error, discarded=discarded)
        )
        self._router.cast_nowait(LinkEnded(link.number, error))

    def _forget(self, detail: str) -> None:
        record = self._record
        if record.link is not None:
            record.link.error = record.link.error or TransportClosed(1006, detail=detail)
            record.link.transport.abort()
            self._end(record.link)
        record.dialling = 0
        self._reconnector.cast_nowait(Resynchronize())

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, link: Link) -> None:
        record = self._record
        try:
            while True:
                if record.backlog.full:
                    await self._pause(link)
                # Nothing may be held across an await: what was received is decoded and mailed before the next one.
                frames: list[Frame] = []
                sizes: list[int] = []
                for data in await link.transport.receive():
                    try:
                        frames.append(record.serializer.decode(data))
                        sizes.append(len(data))
                    except MalformedFrame as error:
                        # Without its traceback, whose frames hold what the node sent.
                        record.refuse_frame(link.number, error.with_traceback(None))
                if frames and self._router.cast_nowait(FramesArrived(link.number, frames, sizes)):
                    record.backlog.add(len(frames), sum(sizes))
        except TransportClosed as error:
            self._finish(link, error)

    async def _pause(self, link: Link) -> None:
        record = self._record
        if link.broken:
            raise TransportClosed(1006, detail="the link broke while the user was slow")
        since = trio.current_time()
        backlog = record.backlog
        record.counters.reading_pauses += 1
        record.emit(
            ReadingPaused(
                at=since, topic=record.topic.topic, link=link.number, waiting=backlog.frames, bytes_waiting=backlog.size
            )
        )
        backlog.paused = True
        link.heartbeat.pause(since)  # a reply that we do not read is not the node's fault
        try:
            await backlog.room()
        finally:
            now = trio.current_time()
            link.heartbeat.resume(now)
            backlog.paused = False
        self._watch_link()
        record.emit(ReadingResumed(at=now, topic=record.topic.topic, link=link.number, seconds=now - since))

    # --- writing ------------------------------------------------------------------------------------------------------

    async def _write(self, link: Link) -> None:
        record = self._record
        try:
            while True:
                queued = [await link.drain.receive()]
                while True:
                    try:
                        queued.append(link.drain.receive_nowait())
                    except trio.WouldBlock:
                        break
                batch = self._batch(link, queued)
                if batch:
                    await link.transport.send(batch)
                for entry in queued:
                    if isinstance(entry, Flush):
                        entry.done.set()
        except TransportClosed as error:
            link.broken = True
            # The reader ends the link: it still has to take what had arrived, and it learns the real close code. But a
            # reader that is paused learns nothing, and one whose socket broke for writing alone would wait for ever.
            if not record.backlog.paused:
                with trio.move_on_after(record.options.close_timeout):
                    await link.ended.wait()
            self._finish(link, error)
        except trio.ClosedResourceError:
            return  # the link has ended and closed its outbox

    def _batch(self, link: Link, queued: list[Outgoing | Flush | None]) -> list[str | bytes]:
        batch: list[str | bytes] = list(link.urgent)
        link.urgent.clear()
        topic = self._record.topic
        topics = self._record.topics
        joins: frozenset[Ref] | None = None  # of further topics, looked up where a frame is of none of ours
        stale = 0
        for outgoing in queued:
            if not isinstance(outgoing, Outgoing):
                continue
            if outgoing.join_ref != topic.join_ref or topic.status is not TopicStatus.JOINED:
                if joins is None:
                    joins = frozenset() if topics is None else topics.joins_in_force()
                if outgoing.join_ref not in joins:
                    stale += 1
                    continue
            if outgoing.waiter is not None:
                if outgoing.waiter.gone:
                    continue
                outgoing.waiter.written = True  # set before the write: from here on the node may have it
            batch.append(outgoing.data)
        if stale:
            self._record.discard_sends(link.number, stale)
        return batch

    async def _say_goodbye(self, link: Link) -> None:
        record = self._record
        await link.flush()  # the writer still runs: what was accepted for sending is sent
        topic = record.topic
        leaves = [] if record.topics is None else record.topics.leaves(link.number)
        if topic.status is TopicStatus.JOINED or topic.status is TopicStatus.JOINING:
            leaves.append(topic.leave(record.refs.next()))
        for leave in leaves:
            link.post(record.serializer.encode(leave))
        if leaves:
            await link.flush()
        link.farewell = "close"
        self._finish(link, NotConnected("the channel was closed"))
        await link.ended.wait()
