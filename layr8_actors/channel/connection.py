"""Connection: owns the transport, and is the only one who dials, reads and writes.

A socket that is lost is an expected end and no crash: it is reported, and Reconnector acts on it.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING

import trio

from ..errors import ConnectFailed, InvalidOption, MailboxFull, MalformedFrame, NotConnected, TransportClosed
from ..otp import ActorRef, ExitKind, ExitReason
from ..phoenix import Frame, Heartbeat as HeartbeatState, Ref, TopicStatus
from .events import LinkClosed, LinkLost, LinkOpened, ReadingPaused, ReadingResumed
from .link import Link
from .link_state import DropLink, OpenLink
from .messages import FramesArrived, LinkEnded, LinkFailed, LinkUp, Resynchronize, WatchLink
from .outbox import Outgoing
from .prompt import PromptActor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..transport import Connector, Transport
    from .record import Record

__all__ = ("Connection",)

FRAMES_PER_TURN = 32
"""How many frames are handled before other tasks get their turn: a flood on one channel must not hold up the others.

As many as Inbox hands over in a turn of its own. Measured at a flood of 300 B: fewer pay more for the turns (4.1 us of
CPU time a message with 16, 3.5 with 32), and more for the garbage collector, which looks at all that lives at once."""

SIZE_PER_TURN = 24 * 1024
"""Likewise, as ``len()`` counts: the frame that reaches it is the last of its turn. Measured under a flood of 4 KB: the
round trip of another channel takes 3.5 times what it takes in an idle process, 5.6 times with twice as much."""


class Connection(PromptActor):
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
        self._context = contextvars.copy_context()

    async def init(self) -> None:
        """Declare what the last incarnation held as lost; its sockets died with it."""
        self._forget("the connection actor was restarted")
        self.attend()

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
                    self._context.run(self.start_soon, self._run_link, number)  # not in that of who called connect
            case DropLink(link=number, error=error):
                if self._record.dialling == number:
                    self._dialling.cancel(reason="the dial was called off")
                link = self._record.link
                if link is not None and link.number == number and link.error is None:
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
        opened: Transport | Exception | None = None
        with self._dialling:
            opened = await self._dial()
        record.dialling = 0
        if opened is None or isinstance(opened, Exception):
            self._busy = False
            error = opened or self._called_off()
            record.last_end = (number, error)
            self._reconnector.cast_nowait(LinkFailed(number, error))
            return
        link: Link | None = None
        try:
            link = self._link_up(number, opened)
            # No scope around it, which would be 0.6 KiB of an idle link: what ends the link ends its transport.
            await self._read(link)
            if link.farewell == "close":
                await opened.close(timeout=record.options.close_timeout)  # it has been closed, or is just being closed
        finally:
            opened.abort()  # as was promised when it was opened, come what may
            self._busy = False
            if link is not None:
                link.outbox.start_writer = None  # with this task the nursery may end
                if link.error is not None:  # else it is the actor that ends, and terminate knows what that means
                    self._end(link)

    def _link_up(self, number: int, transport: Transport) -> Link:
        record = self._record
        options = record.options
        now = trio.current_time()
        heartbeat = HeartbeatState(options.heartbeat_interval, options.heartbeat_timeout_s, now)
        link = Link(number, transport, heartbeat, now, options.outbox_capacity, self._start_writer)
        record.link = link
        record.counters.links_opened += 1
        record.emit(LinkOpened(at=now, topic=record.topic.topic, link=number, transport=transport.name))
        link.outbox.enter()  # its reader writes what there is now, the join; a task for that would come to it later
        self._reconnector.cast_nowait(LinkUp(number))
        self._watch_link()
        return link

    async def _dial(self) -> Transport | Exception:
        options = self._record.options
        try:
            if not callable(options.api_key):
                endpoint = await options.endpoint()  # at once
            else:
                deadline = trio.current_time() + options.connect_timeout
                with trio.fail_at(deadline):
                    endpoint = await options.endpoint()
                endpoint = endpoint.within(max(deadline - trio.current_time(), 0.001))
        except trio.TooSlowError:
            return ConnectFailed(options.public_url, f"no API key within {options.connect_timeout:g} s")
        except InvalidOption as error:
            return error
        except Exception as error:
            # The class alone: the provider is the user's code, and its text might hold a key.
            return ConnectFailed(options.public_url, f"asking for the API key raised {type(error).__name__}")
        self._record.endpoint = endpoint
        try:
            # By name, here as below: isinstance with a runtime-checkable protocol takes 10 us (Python 3.11).
            open_it: Callable[..., Awaitable[Transport]] = getattr(
                self._connector, "open_attended", self._connector.open
            )
            transport = await open_it(self.nursery, endpoint)
        except ConnectFailed as error:
            return error
        if self._dialling.cancel_called:
            transport.abort()  # it opened in the very moment in which it was called off
            return self._called_off()
        return transport

    def _called_off(self) -> ConnectFailed:
        return ConnectFailed(self._record.options.public_url, "the dial was called off")

    def _watch_link(self) -> None:
        # While Heartbeat waits for its restart these gather, and one of them is as good as a thousand.
        with contextlib.suppress(MailboxFull):
            self._heartbeat.cast_nowait(WatchLink())

    def _finish(self, link: Link, error: Exception) -> None:
        if link.error is not None:
            return
        link.error = error
        if link.farewell == "close":
            self._context.run(self.start_soon, self._close, link)
        else:
            link.transport.abort()
        if link.pausing is not None:
            link.pausing.cancel(reason=f"the link ended: {error}")

    async def _close(self, link: Link) -> None:
        await link.transport.close(timeout=self._record.options.close_timeout)

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
        if self._reconnector.running:  # else it looks when it starts
            self._reconnector.cast_nowait(Resynchronize())

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, link: Link) -> None:
        record = self._record
        receive = link.transport.receive
        try:
            if 0 < sum(map(len, link.outbox.urgent)) <= SIZE_PER_TURN:  # else it may take long, and nobody would read
                await self._write_first(link)
            link.outbox.leave_to_others()
            while True:
                if record.backlog.full:
                    await self._pause(link)
                    if link.error is not None:
                        return
                messages = await receive()
                if link.error is not None:
                    return  # it was given up in that moment
                # Nothing may be lost at an await: what was received is decoded and routed, or mailed, before the next
                # one that can be cancelled.
                first = self._take(link, messages, 0)
                while first < len(messages):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    first = self._take(link, messages, first)
                del messages  # an idle link keeps nothing alive, and the traceback of its end shows nothing
        except TransportClosed as error:
            self._finish(link, error)

    def _take(self, link: Link, messages: list[str | bytes], first: int) -> int:
        """Decode and route one turn's worth, and return the number of the message that is next."""
        record = self._record
        decode = record.serializer.decode
        frames: list[Frame] = []
        sizes: list[int] = []
        number = first
        size = 0
        for data in messages[first : first + FRAMES_PER_TURN]:
            number += 1
            length = len(data)
            size += length
            try:
                frames.append(decode(data))
            except MalformedFrame as error:
                # Without its traceback, whose frames hold what the node sent.
                record.refuse_frame(link.number, error.with_traceback(None))
            else:
                sizes.append(length)
            if size >= SIZE_PER_TURN:
                break
        self._route(link, frames, sizes)
        return number

    def _route(self, link: Link, frames: list[Frame], sizes: list[int]) -> None:
        record = self._record
        if not frames:
            return
        batch = FramesArrived(link.number, frames, sizes)
        record.backlog.add(len(frames), sum(sizes))
        if record.route is None or not record.route(batch):
            record.mailed = True
            self._router.cast_nowait(batch)

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
        attend: Callable[[bool], None] | None = getattr(link.transport, "attend", None)
        if attend is not None:
            attend(False)
        link.heartbeat.pause(since)  # a reply that we do not read is not the node's fault
        try:
            with trio.CancelScope() as link.pausing:
                await backlog.room()
        finally:
            link.pausing = None
            now = trio.current_time()
            link.heartbeat.resume(now)
            backlog.paused = False
        if link.error is not None:
            return
        if attend is not None:
            attend(True)
        self._watch_link()
        record.emit(ReadingResumed(at=now, topic=record.topic.topic, link=link.number, seconds=now - since))

    # --- writing ------------------------------------------------------------------------------------------------------

    def _start_writer(self) -> None:
        link = self._record.link
        assert link is not None  # only its outbox calls
        self._context.run(self.start_soon, self._write, link)  # not in that of whoever happens to send first

    async def _write(self, link: Link) -> None:
        # It ends with its transport or its outbox, and where nobody sends: a channel that idles shall not pay for it.
        record = self._record
        outbox = link.outbox
        try:
            while not outbox.closed:
                urgent, queued, marks = outbox.take()
                batch = self._batch(link, urgent, queued)
                if batch or link.begun:
                    link.begun = False
                    await link.transport.send(batch)
                for mark in marks:
                    mark.set()
                if not queued and outbox.leave():
                    return  # it was a join or a heartbeat; who sends now and then finds a writer that waits
                del urgent, queued, marks, batch  # they would be held until the next ones come
                await outbox.wait()
        except TransportClosed as error:
            link.broken = True
            # The reader ends the link: it still has to take what had arrived, and it learns the real close code. But a
            # reader that is paused learns nothing, and one whose socket broke for writing alone would wait for ever.
            if not record.backlog.paused:
                with trio.move_on_after(record.options.close_timeout):
                    await link.ended.wait()
            self._finish(link, error)

    async def _write_first(self, link: Link) -> None:
        urgent, queued, marks = link.outbox.take()
        try:
            await link.send_first(self._batch(link, urgent, queued))
        except TransportClosed:
            link.broken = True  # what had arrived is read next, and the real close code
            return
        for mark in marks:
            mark.set()

    def _batch(self, link: Link, batch: list[str | bytes], queued: list[Outgoing]) -> list[str | bytes]:
        """Append what may still be written of ``queued``, and say of each request that it is written from now on."""
        topic = self._record.topic
        topics = self._record.topics
        # Nobody else runs in here, so the joins in force stay those they are.
        current = topic.join_ref if topic.status is TopicStatus.JOINED else None
        others: frozenset[Ref] | None = None  # of further topics, looked up where a frame is not of our own
        stale = 0
        for data, join_ref, waiter in queued:
            if join_ref != current:
                if others is None:
                    others = frozenset() if topics is None else topics.joins_in_force()
                if join_ref not in others:
                    stale += 1
                    continue
            if waiter is not None:
                if waiter.gone:
                    continue
                waiter.written = True  # set before the write: from here on the node may have it
            batch.append(data)
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
