"""Router: knows the topic's state and who waits for which reply, and sends each inbound frame where it belongs.

It never waits for anybody, so it never holds up a reply. Its frames and callers are in the record: after a crash the
next incarnation goes on with the frame after the last one that was routed. Over 400 lines, because what becomes of each
kind of frame stands in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ..errors import JoinRejected, RemoteProtocolError, TopicDown
from ..otp import ActorRef, Continue, ExitKind, ExitReason
from ..phoenix import (
    PHOENIX_TOPIC,
    PHX_REPLY,
    Frame,
    FrameIgnored,
    JoinMalformed,
    JoinRefused,
    JoinSucceeded,
    LeaveSucceeded,
    MessageReceived,
    ReplyMalformed,
    ReplyReceived,
    TopicClosed,
    TopicErrored,
    TopicStatus,
    TopicUnmatched,
)
from .did_spec import build_did_spec, join_payload
from .events import AssignedDidChanged, TopicJoined, TopicLost
from .link_state import AbandonJoin, JoinTopic
from .messages import (
    FramesArrived,
    JoinAcknowledged,
    Joined,
    JoinFailed,
    LinkDown,
    LinkEnded,
    MessagesArrived,
    Push,
    Resynchronize,
    TopicEnded,
)
from .prompt import PromptActor
from .refusal import is_permanent_reason
from .reply import Reply
from .routed_messages import route_messages

if TYPE_CHECKING:
    from .record import Record

__all__ = ("Router",)

MAX_CRASHES_ON_ONE_FRAME = 2
"""A frame that crashed two incarnations is refused: it is the frame, and a third crash could spend the budget."""


class Router(PromptActor):
    """The actor that routes.

    Args:
        record: the channel's record.
        inbox: gets the messages.
        reconnector: is told how joins, the topic and the link end.
    """

    helpers = False

    def __init__(self, record: Record, inbox: ActorRef, reconnector: ActorRef) -> None:
        self._record = record
        self._inbox = inbox
        self._reconnector = reconnector

    async def init(self) -> Continue | None:
        """Look at what the last incarnation left."""
        record = self._record
        if record.unrouted and record.crashes_on_one_frame >= MAX_CRASHES_ON_ONE_FRAME:
            batch = record.unrouted[0]
            record.backlog.remove(1, batch.sizes[record.routed_so_far])
            record.routed_so_far += 1
            record.crashes_on_one_frame = 0
            record.refuse_frame(batch.link, RemoteProtocolError("this frame crashed the router twice"))
        if self._reconnector.running:  # else it looks when it starts
            self._reconnector.cast_nowait(Resynchronize())
        record.reply_deadlines.watch(self._set_alarm)
        self._set_alarm()
        record.route = self.route_now
        record.failed_now = None
        self._look_for_mail()
        self.attend()
        return Continue() if record.unrouted else None

    @property
    def free(self) -> bool:
        """False while frames are routed, or are to be routed first: a join must not come between two."""
        return not (self._record.unrouted or self._record.mailed)

    def _look_for_mail(self) -> None:
        if self._record.mailed:
            self._record.mailed = self.ref.statistics().depth > 0

    def _set_alarm(self) -> None:
        self.deadline = self._record.reply_deadlines.due

    async def handle_timeout(self) -> None:
        """Tell those who have waited for a reply long enough."""
        self._record.reply_deadlines.expire(trio.current_time())
        self._set_alarm()

    async def handle_continue(self, term: object) -> None:
        """Go on where the last incarnation stopped; not in init, so that a frame that crashes this one is noted too."""
        self._route()

    async def handle_cast(self, message: object) -> None:
        """Route what was read, send a join or a leave, or note the end of a socket."""
        match message:
            case FramesArrived(error=None):
                self._record.unrouted.append(message)
                self._route()
                self._look_for_mail()
            case FramesArrived(error=error):
                self._look_for_mail()
                # Else another incarnation has come, and has gone on where routing stopped.
                if error is not None and message is self._record.failed_now:
                    raise error
            case LinkEnded(link=link, error=error):
                self._link_ended(link, error)
            case JoinTopic(link=link, protocols=protocols):
                self._join(link, protocols)
            case AbandonJoin(link=link):
                self._abandon_join(link)
            case TopicEnded(link=link, error=error):
                self._topic_unresponsive(link, error)
            case _:
                await super().handle_cast(message)

    async def terminate(self, reason: ExitReason) -> None:
        """Release those who wait for a reply: it could still come, but nobody promises any more that it is matched."""
        self._record.reply_deadlines.watch(None)
        self._record.route = None
        self._record.note_exit(reason)
        if reason.kind is ExitKind.ERROR and self._record.unrouted:
            self._record.crashes_on_one_frame += 1
        self._record.fail_waiting("the router was restarted before the reply came", cause=reason.error)

    # --- outbound -----------------------------------------------------------------------------------------------------

    def _join(self, number: int, protocols: tuple[str, ...]) -> None:
        record = self._record
        link = record.link
        if link is None or link.number != number:
            return  # its end is on the way to Reconnector
        record.topic_link = number
        record.timeouts_in_a_row = 0
        payload = join_payload(build_did_spec(record.options.did_spec, record.options.agent_did), protocols)
        # Nothing that waits under an older join will be answered any more.
        record.fail_waiting("the topic is joined anew", cause=TopicDown("the topic is joined anew"))
        link.post(record.serializer.encode(record.topic.join(record.refs.next(), payload)))
        record.backlog.raise_bounds()
        if record.topics is not None:
            record.topics.link_opened()  # behind our own join, which is the first frame of each socket

    def _abandon_join(self, number: int) -> None:
        record = self._record
        if record.topic.status is not TopicStatus.JOINING or record.topic_link != number:
            return
        leave = record.topic.join_timed_out(record.refs.next())
        if record.link is not None and record.link.number == number:
            record.link.post(record.serializer.encode(leave))

    def _topic_unresponsive(self, number: int, error: Exception) -> None:
        record = self._record
        if record.topic.status is not TopicStatus.JOINED or record.topic_link != number:
            return
        leave = record.topic.leave(record.refs.next())
        if record.link is not None and record.link.number == number:
            record.link.post(record.serializer.encode(leave))
        self._topic_lost(number, error)

    # --- inbound ------------------------------------------------------------------------------------------------------

    def route_now(self, batch: FramesArrived) -> bool:
        """Route what was read in the task of the one who has read it, which spares a switch of tasks a read.

        It can be done because no handler here waits, and so none is under way. What goes wrong is a crash of Router all
        the same: it is told of the error, and raises it.

        Args:
            batch: as :class:`FramesArrived`.

        Returns:
            False where it has to go by mail: behind what is there already, or because no incarnation runs.
        """
        record = self._record
        if record.mailed or record.unrouted or not self.ref.running:
            return False
        record.unrouted.append(batch)
        try:
            self._route()
        except Exception as error:
            record.failed_now = failed = msgspec.structs.replace(batch, error=error)
            record.mailed = True
            self.ref.cast_nowait(failed)
        return True

    def _route(self) -> None:
        record = self._record
        unrouted = record.unrouted
        backlog, topics = record.backlog, record.topics
        while unrouted:
            link, frames, sizes = unrouted[0].link, unrouted[0].frames, unrouted[0].sizes
            route_messages(record, link, frames, sizes)
            for number in range(record.routed_so_far, len(frames)):
                frame = frames[number]
                if topics is None or not topics.take(link, frame, sizes[number]):  # else it stays counted
                    if not self._route_one(link, frame):
                        backlog.remove(1, sizes[number])
                    else:
                        record.routed_sizes.append(sizes[number])
                # A frame counts as routed only when it is done with, so that a crash loses none.
                record.routed_so_far = number + 1
                if record.crashes_on_one_frame:
                    record.crashes_on_one_frame = 0
            unrouted.pop(0)
            record.routed_so_far = 0
        if record.routed and record.take_at_once is not None:
            record.take_at_once()
        if record.routed or record.routed_joins:
            self._hand_over()
        if topics is not None:
            topics.deliver()
        backlog.make_room()

    def _hand_over(self) -> None:
        record = self._record
        messages, sizes, joins = record.routed, record.routed_sizes, record.routed_joins
        if record.lane_open and not record.messages_mailed:
            # A lane that is at work needs no mail to be woken by: what it has not come to waits in the record.
            record.backlog.put(messages, sizes, joins)
        else:
            record.messages_mailed = True
            self._inbox.cast_nowait(MessagesArrived(messages, sizes, joins))
        record.routed, record.routed_sizes, record.routed_joins = [], [], []

    def _route_one(self, link: int, frame: Frame) -> bool:
        """Act on one frame; return whether it is a message, which counts as unhandled until Inbox is done with it.

        The two commonest kinds are known at a glance, at a fraction of the price: a message, and an ok to a push, both
        of the join in force. They mean here what they mean to ``_route_any``, which is asked about all others.
        """
        record = self._record
        topic = record.topic
        payload, ref = frame.payload, frame.ref
        if (
            frame.join_ref == topic.join_ref
            and topic.status is TopicStatus.JOINED
            and frame.topic == topic.topic
            and link == record.topic_link
            and type(payload) is dict
        ):
            if frame.event == "message":
                record.counters.messages_received += 1
                record.routed.append(payload)
                return True
            if frame.event == PHX_REPLY and type(ref) is str and ref and ref != topic.join_ref:
                response = payload.get("response")
                if payload.get("status") == "ok" and (type(response) is not dict or "reason" not in response):
                    self._reply(ref, Reply("ok", "", response))
                    return False
        return self._route_any(link, frame)

    def _route_any(self, link: int, frame: Frame) -> bool:
        record = self._record
        if link != record.topic_link and frame.topic != PHOENIX_TOPIC:
            record.ignore_frame(link, "abandoned socket")
            return False
        if frame.topic == PHOENIX_TOPIC:
            self._heartbeat_reply(link, frame)
            return False
        match record.topic.receive(frame):
            case MessageReceived(event="message", payload=dict() as payload):
                record.counters.messages_received += 1
                record.routed.append(payload)
                return True
            case MessageReceived(event="message"):
                record.refuse_frame(link, RemoteProtocolError("the payload of a message is not an object"))
            case MessageReceived(event=event, payload=payload) if record.options.callbacks.on_push is not None:
                record.counters.pushes_received += 1
                record.routed.append(Push(event, payload))
                return True
            case MessageReceived(event=event):
                record.ignore_frame(link, f"unhandled event {record.redact(event)[:64]!r}")
            case ReplyReceived(ref=ref, status=status, reason=reason, response=response):
                status, reason = record.redact(status), record.redact(reason)
                self._reply(ref, Reply(status, reason, response))
            case ReplyMalformed(ref=ref, detail=detail):
                self._malformed_reply(link, ref, detail)
            case JoinSucceeded(join_ref=join_ref, response=response):
                self._joined(link, join_ref, response)
            case JoinRefused(reason=reason):
                rejected = JoinRejected(record.redact(reason), is_permanent_reason(reason))
                self._reconnector.cast_nowait(JoinFailed(link, rejected))
            case JoinMalformed(detail=detail):
                self._reconnector.cast_nowait(
                    JoinFailed(link, RemoteProtocolError(f"the node answered the join with nonsense: {detail}"))
                )
            case TopicClosed():
                self._topic_lost(link, TopicDown("the node closed the topic (phx_close)"))
            case TopicErrored():
                self._topic_lost(link, TopicDown("the topic crashed on the node (phx_error)"))
            case TopicUnmatched():
                self._topic_lost(link, TopicDown("the node no longer has the topic (unmatched topic)"))
            case LeaveSucceeded():
                pass
            case FrameIgnored(why=why):
                record.ignore_frame(link, why)
        return False

    def _heartbeat_reply(self, number: int, frame: Frame) -> None:
        record = self._record
        link = record.link
        if link is None or link.number != number:
            record.ignore_frame(number, "abandoned socket")
            return
        round_trip = link.heartbeat.replied(frame.ref, trio.current_time())
        if round_trip is None:
            record.ignore_frame(number, "heartbeat reply to no heartbeat of ours")
        else:
            record.round_trip = round_trip

    def _reply(self, ref: str, reply: Reply) -> None:
        record = self._record
        record.timeouts_in_a_row = 0
        waiter = record.waiting.pop(ref, None)
        if waiter is not None:
            record.counters.replies += 1
            waiter.resolve(reply)
        else:
            # Nobody waits: it answers a fire-and-forget, comes too late, or for the second time.
            record.counters.replies_unclaimed += 1

    def _malformed_reply(self, link: int, ref: str, detail: str) -> None:
        record = self._record
        error = RemoteProtocolError(f"the node answered with nonsense: {detail}")
        record.refuse_frame(link, error)
        waiter = record.waiting.pop(ref, None)
        if waiter is not None:
            waiter.fail(RemoteProtocolError(str(error)))

    def _joined(self, link: int, join_ref: str, response: dict[str, Any]) -> None:
        record = self._record
        before = record.assigned_did
        assigned = response.get("did", record.options.agent_did)
        if not assigned:
            if record.link is not None:
                record.link.post(record.serializer.encode(record.topic.leave(record.refs.next())))
            error = RemoteProtocolError("the node answered a join without a DID and assigned none")
            self._reconnector.cast_nowait(JoinFailed(link, error))
            return
        now = trio.current_time()
        topic = record.topic
        record.assigned_did = assigned
        record.capabilities = tuple(response.get("capabilities", ()))
        if not record.options.agent_did:
            topic.accept_alias(f"plugins:{assigned}")
        record.routed_joins.append((len(record.routed), Joined(join_ref, response)))
        rejoin = record.joins > 0
        record.joins += 1
        if rejoin:
            record.counters.rejoins += 1
            if assigned != before:
                record.emit(
                    AssignedDidChanged(
                        at=now, topic=topic.topic, before=record.redact(before), after=record.redact(assigned)
                    )
                )
        record.emit(
            TopicJoined(
                at=now,
                topic=topic.topic,
                link=link,
                join_ref=join_ref,
                assigned_did=record.redact(assigned),
                capabilities=record.redact_all(record.capabilities),
                rejoin=rejoin,
            )
        )
        self._reconnector.cast_nowait(JoinAcknowledged(link))

    def _topic_lost(self, link: int, error: TopicDown | Exception) -> None:
        record = self._record
        if not record.closing:
            record.emit(TopicLost(at=trio.current_time(), topic=record.topic.topic, link=link, error=error))
        record.fail_waiting(str(error), cause=error)
        record.backlog.raise_bounds()
        self._reconnector.cast_nowait(TopicEnded(link, error))

    def _link_ended(self, number: int, error: Exception) -> None:
        record = self._record
        if record.topic_link == number:
            record.topic.disconnected()
        record.fail_waiting(f"the link was lost: {error}", link=number, cause=error)
        self._reconnector.cast_nowait(LinkDown(number, error))
        if record.topics is not None:
            record.topics.link_ended(number, error)
