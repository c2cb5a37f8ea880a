"""Raw messages from the socket to their effects: decoded, matched to the topic, routed, answered, counted.

The input is lines. The first byte says what a line is: ``t`` a text message, ``b`` a binary one, and what we do
between them: ``j`` join, ``p`` push and wait, ``f`` push and do not, ``h`` heartbeat, ``l`` give the topic up, ``a``
abandon the join, ``e`` lose the link. In a message ``$J``, ``$R``, ``$H`` and ``$T`` stand for the join_ref in force,
the last ref, the heartbeat awaited and the topic, so that a reply can hit.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import trio

from layr8_actors.channel import ChannelOptions
from layr8_actors.channel.link import Link
from layr8_actors.channel.link_state import AbandonJoin, JoinTopic
from layr8_actors.channel.messages import FramesArrived, LinkEnded, MessagesArrived, TopicEnded
from layr8_actors.channel.record import Record
from layr8_actors.channel.router import Router
from layr8_actors.channel.waiter import Waiter
from layr8_actors.errors import Layr8Error, MalformedFrame, TopicDown, TransportClosed
from layr8_actors.otp import ActorRef
from layr8_actors.phoenix import Frame, Heartbeat, TopicStatus
from layr8_actors.telemetry import Event
from layr8_actors.transport import memory_pair

__all__ = ("check",)

_DID = "did:web:node.test:alice"
_PROTOCOLS = ("https://didcomm.org/basicmessage/2.0",)


class _Mailbox:
    """Stands where an actor's ref does, and keeps what is cast."""

    def __init__(self) -> None:
        self.taken: list[object] = []

    def cast_nowait(self, message: object) -> bool:
        self.taken.append(message)
        return True


class _Rig:
    """One router with its record, and everybody around it."""

    def __init__(self, agent_did: str) -> None:
        self.events: list[Event] = []
        options = ChannelOptions(
            ws_url="ws://node.test/", api_key="key", agent_did=agent_did, on_event=self.events.append
        )
        self.record = Record(options)
        self.inbox = _Mailbox()
        self.reconnector = _Mailbox()
        self.router = Router(self.record, cast("ActorRef", self.inbox), cast("ActorRef", self.reconnector))
        self.waiters: list[Waiter] = []
        self.messages = 0
        self.links = 0
        self.open_link()

    def open_link(self) -> None:
        self.links += 1
        now = trio.current_time()
        self.record.link = Link(self.links, memory_pair()[0], Heartbeat(30, 30, now), now, 1024)

    @property
    def link(self) -> Link:
        assert self.record.link is not None
        return self.record.link

    # --- what we do ---

    async def join(self) -> None:
        await self.router.handle_cast(JoinTopic(self.link.number, _PROTOCOLS))
        assert not self.record.waiting, "a caller waits for an answer to the join before"

    async def push(self, *, wait: bool) -> None:
        record = self.record
        if record.topic.status is not TopicStatus.JOINED:
            return
        ref = record.refs.next()
        record.topic.push(ref, "message", {})
        if wait:
            waiter = Waiter()
            waiter.ref, waiter.link, waiter.written = ref, self.link.number, True
            record.waiting[ref] = waiter
            self.waiters.append(waiter)

    def beat(self) -> None:
        now = trio.current_time()
        if self.link.heartbeat.pending is None:
            self.link.heartbeat.sent(self.record.refs.next(), now)

    async def lose_link(self) -> None:
        number = self.link.number
        self.record.link = None
        await self.router.handle_cast(LinkEnded(number, TransportClosed(1006)))
        assert not self.record.waiting
        assert self.record.topic.join_ref is None or self.record.topic_link != number
        self.open_link()

    # --- what the node does ---

    async def receive(self, message: str | bytes) -> None:
        """As Connection hands it on: decoded or refused."""
        record = self.record
        before, told = self.effects(), len(self.inbox.taken)
        waiting = set(record.waiting)
        beat, status = self.link.heartbeat.pending, record.topic.status
        try:
            frame = record.serializer.decode(message)
        except MalformedFrame as error:
            record.refuse_frame(self.link.number, error)
        else:
            record.backlog.add(1, len(message))
            await self.router.handle_cast(FramesArrived(self.link.number, [frame], [len(message)]))
            self.messages += self._messages_of_last_cast(told)
        assert set(record.waiting) <= waiting
        assert record.backlog.frames == self.messages, "what waits is miscounted"
        assert not record.unrouted
        assert not record.routed
        effects = sum(self.effects().values()) - sum(before.values())
        # A heartbeat's reply and the end of a leave are told nobody.
        quiet = beat is not None and self.link.heartbeat.pending is None
        quiet = quiet or (status is TopicStatus.LEAVING and record.topic.status is TopicStatus.CLOSED and effects == 0)
        assert effects == (0 if quiet else 1), f"{effects} effects of one message"

    def _messages_of_last_cast(self, before: int) -> int:
        new = self.inbox.taken[before:]
        assert len(new) <= 1
        return sum(len(cast_.payloads) for cast_ in new if isinstance(cast_, MessagesArrived))

    def effects(self) -> dict[str, int]:
        """What each message has exactly one of."""
        counters = dataclasses.asdict(self.record.counters)
        names = ("frames_refused", "frames_ignored", "replies", "replies_unclaimed")
        return {
            **{name: counters[name] for name in names},
            # A join is told both of them, and so counts by what Reconnector is told.
            "inbox": sum(not isinstance(told, MessagesArrived) or bool(told.payloads) for told in self.inbox.taken),
            "reconnector": len(self.reconnector.taken),
        }

    def fill_in(self, message: bytes) -> bytes:
        """Put the refs in force where the marks stand."""
        record = self.record
        marks: dict[bytes, Any] = {
            b"$J": record.topic.join_ref or "0",
            b"$R": next(reversed(record.waiting), "0"),
            b"$H": self.link.heartbeat.pending or "0",
            b"$T": record.topic.topic,
        }
        for mark, value in marks.items():
            message = message.replace(mark, value.encode())
        return message


async def check(data: bytes) -> None:
    """Play one conversation, and look at what is left."""
    lines = data.split(b"\n")
    rig = _Rig("" if lines[0] == b"anonymous" else _DID)
    record = rig.record
    for line in lines:
        match line[:1]:
            case b"t":
                await rig.receive(rig.fill_in(line[1:]).decode("utf-8", "replace"))
            case b"b":
                await rig.receive(rig.fill_in(line[1:]))
            case b"j":
                await rig.join()
            case b"p" | b"f":
                await rig.push(wait=line[:1] == b"p")
            case b"h":
                rig.beat()
            case b"l":
                await rig.router.handle_cast(TopicEnded(rig.link.number, TopicDown("given up")))
            case b"a":
                await rig.router.handle_cast(AbandonJoin(rig.link.number))
            case b"e":
                await rig.lose_link()
            case _:
                pass
        assert len(record.waiting) <= len(rig.waiters)
    await rig.lose_link()
    for waiter in rig.waiters:
        try:
            await waiter.wait()  # a caller who is left without an answer hangs here, and the fuzzer's timeout tells
        except Layr8Error:
            pass  # typed, as promised
    total = record.counters.frames_refused + record.counters.frames_ignored
    reported = [event for event in rig.events if hasattr(event, "count")]
    assert len(reported) <= 16 + 2 * math.log2(total + 1), "a flood of bad frames floods the log"
    assert record.assigned_did == "" or isinstance(record.assigned_did, str)
    assert all(isinstance(name, str) for name in record.capabilities)
    assert Frame(None, None, record.topic.topic, "x", {}).topic == f"plugins:{record.options.agent_did}"
