"""One topic of one socket as a state machine: what we may send, and what a frame from the node means.

The states are those of phoenix.js' ``channel.js``. What differs from it is told where it does: here ``phx_close`` and
``phx_error`` count only for the join in force, and an "unmatched topic" that comes while joined ends the channel.
"""

from __future__ import annotations

import enum
from typing import Any

from layr8_actors.errors import LocalProtocolError

from .frames import PHX_CLOSE, PHX_ERROR, PHX_JOIN, PHX_LEAVE, PHX_REPLY, RESERVED_EVENTS, Frame, Ref
from .topic_events import (
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
    TopicEvent,
    TopicUnmatched,
)

__all__ = ("Topic", "TopicStatus")

_UNMATCHED = "unmatched topic"


class TopicStatus(enum.Enum):
    """The state of a topic, in the words of phoenix.js."""

    CLOSED = "closed"
    """Never joined, or ended in order: by a leave, or by the node's ``phx_close``."""

    JOINING = "joining"
    """``phx_join`` is sent, its reply awaited."""

    JOINED = "joined"
    """The join in force was answered with ok; the only state in which pushes are legal."""

    LEAVING = "leaving"
    """``phx_leave`` is sent, its reply or the ``phx_close`` awaited; messages still arrive."""

    ERRORED = "errored"
    """Refused, timed out, crashed or cut off; a join is what helps."""


class Topic:
    """The client's side of one topic: makes the frames to send, and tells what received ones mean.

    Args:
        topic: the name, for instance ``plugins:did:web:node.example:alice``.

    It sends nothing and knows no clock: write the frames it returns, hand it every frame received, and call
    :meth:`join_timed_out` and :meth:`disconnected` when they happen. Nothing here checkpoints.
    """

    __slots__ = ("_alias", "_leave_ref", "join_ref", "status", "topic")

    def __init__(self, topic: str) -> None:
        # Plain attributes, though nobody else may write them: each frame asks for them.
        self.topic = topic
        """The name that all frames sent carry."""
        self.status = TopicStatus.CLOSED
        """The state it is in."""
        self.join_ref: str | None = None
        """The join in force, or being asked for; not None exactly while the status is joining, joined or leaving."""
        self._alias: str | None = None
        # Not None exactly while the status is leaving.
        self._leave_ref: str | None = None

    def __repr__(self) -> str:
        return f"<Topic {self.topic!r} {self.status.value} join_ref={self.join_ref!r}>"

    def accept_alias(self, topic: str) -> None:
        """Take frames of this other topic name for ours, from now on and over rejoins, instead of any alias before.

        A join without a DID goes to ``plugins:``, and the node may send what follows on ``plugins:<assigned DID>``.
        """
        self._alias = topic

    # --- what we send -------------------------------------------------------------------------------------------------

    def join(self, ref: str, payload: Any) -> Frame:
        """Return the ``phx_join`` to send; legal in every state, and frames of the join before are stale from now on.

        Args:
            ref: a ref never used on this socket; it becomes the ``join_ref``.
            payload: what the node's join callback gets.

        Joining while joined is Phoenix' duplicate join: the node kills the old channel, answers the new join first and
        closes the old one after it. Nothing pending under the old join will be answered.
        """
        self._set(TopicStatus.JOINING, ref)
        return Frame(ref, ref, self.topic, PHX_JOIN, payload)

    def leave(self, ref: str) -> Frame:
        """Return the ``phx_leave`` to send, with the join_ref without which Phoenix ignores it.

        Raises:
            LocalProtocolError: the topic is neither joining nor joined; there is nothing to leave.
        """
        join_ref = self.join_ref
        if join_ref is None or self.status is TopicStatus.LEAVING:
            raise LocalProtocolError(f"leave on a topic that is {self.status.value}")
        self._set(TopicStatus.LEAVING, join_ref, ref)
        return Frame(join_ref, ref, self.topic, PHX_LEAVE, {})

    def push(self, ref: str, event: str, payload: Any) -> Frame:
        """Return the push to send, stamped with the join in force: no other join_ref works on all Phoenix versions.

        Args:
            ref: a ref never used on this socket, which the reply will carry.
            event: an event of the application.
            payload: any JSON value, or ``bytes`` for a binary push.

        Raises:
            LocalProtocolError: the topic is not joined; or the event is one of Phoenix' own, which crashes the channel.
        """
        if self.status is not TopicStatus.JOINED:
            raise LocalProtocolError(f"push on a topic that is {self.status.value}")
        if event in RESERVED_EVENTS:
            raise LocalProtocolError(f"push of the reserved event {event}")
        return Frame(self.join_ref, ref, self.topic, event, payload)

    def join_timed_out(self, ref: str) -> Frame:
        """Note that the join was not answered in time: errored; return the ``phx_leave`` that undoes a late ok.

        Args:
            ref: a ref never used on this socket; nobody need wait for its reply.

        Raises:
            LocalProtocolError: the topic is not joining.
        """
        if self.status is not TopicStatus.JOINING:
            raise LocalProtocolError(f"a join cannot time out on a topic that is {self.status.value}")
        frame = Frame(self.join_ref, ref, self.topic, PHX_LEAVE, {})
        self._set(TopicStatus.ERRORED)
        return frame

    def disconnected(self) -> None:
        """Note that the socket is gone: errored if it was joining or joined, closed if it was leaving."""
        if self.join_ref is not None:
            self._set(TopicStatus.CLOSED if self.status is TopicStatus.LEAVING else TopicStatus.ERRORED)

    # --- what we receive ----------------------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> TopicEvent:
        """Return what a frame from the node means, after making the change of state that it means.

        Args:
            frame: any frame that :meth:`Serializer.decode` returned, for this topic or not.

        Frames of a join that is over change nothing, nor do frames of other topics. A frame without a join_ref belongs
        to whatever join is in force: so come broadcasts, and "unmatched topic". Never raises.
        """
        if frame.topic != self.topic and (self._alias is None or frame.topic != self._alias):
            return FrameIgnored("foreign topic")
        # Phoenix writes a null ref as the empty string in binary frames, and phoenix.js takes both for none.
        join_ref = None if frame.join_ref == "" else frame.join_ref
        current = self.join_ref
        if current is None:
            return FrameIgnored("not joined" if join_ref is None else "stale join_ref")
        if join_ref is not None and join_ref != current:
            return FrameIgnored("stale join_ref")
        event = frame.event
        if event == PHX_REPLY:
            return self._receive_reply(current, join_ref, frame.ref, frame.payload)
        if event not in RESERVED_EVENTS:
            return MessageReceived(event, frame.payload)
        if event in (PHX_CLOSE, PHX_ERROR):
            if join_ref is None:
                return FrameIgnored("null join_ref")
            if event == PHX_CLOSE:
                self._set(TopicStatus.CLOSED)
                return TopicClosed(current)
            # A crash while leaving is an end that nobody mourns: no join shall follow it.
            self._set(TopicStatus.CLOSED if self.status is TopicStatus.LEAVING else TopicStatus.ERRORED)
            return TopicErrored(current, frame.payload)
        return FrameIgnored("unexpected")

    def _receive_reply(self, current: str, join_ref: Ref, ref: Ref, payload: Any) -> TopicEvent:
        if not isinstance(ref, str) or not ref:
            return FrameIgnored("unexpected")
        if self.status is TopicStatus.JOINING:
            # By ref and not by join_ref: Phoenix answers an unmatched topic without one.
            return self._receive_join_reply(current, payload) if ref == current else FrameIgnored("unexpected")
        if ref == current:
            return FrameIgnored("unexpected")  # A second answer to the join.
        if ref == self._leave_ref:
            # Whatever the answer says: a leave cannot be refused.
            self._set(TopicStatus.CLOSED)
            return LeaveSucceeded(ref)
        fault = _fault_of_reply(payload)
        if fault is not None:
            return ReplyMalformed(ref, fault)
        response = payload.get("response")
        reason = _reason(response)
        if (
            reason == _UNMATCHED
            and join_ref is None  # With one it is the channel itself that speaks, so it lives.
            and self.status is TopicStatus.JOINED
            and payload["status"] == "error"
            and _newer(ref, current)
        ):
            self._set(TopicStatus.ERRORED)
            return TopicUnmatched(ref)
        return ReplyReceived(ref, payload["status"], reason, response)

    def _receive_join_reply(self, current: str, payload: Any) -> TopicEvent:
        fault = _fault_of_join_reply(payload)
        if fault is not None:
            self._set(TopicStatus.ERRORED)
            return JoinMalformed(current, fault)
        response = payload.get("response")
        if payload["status"] == "ok":
            self._set(TopicStatus.JOINED, current)
            return JoinSucceeded(current, response)
        self._set(TopicStatus.ERRORED)
        return JoinRefused(current, _reason(response), response)

    def _set(self, status: TopicStatus, join_ref: str | None = None, leave_ref: str | None = None) -> None:
        self.status = status
        self.join_ref = join_ref
        self._leave_ref = leave_ref


def _reason(response: Any) -> str:
    reason = response.get("reason") if isinstance(response, dict) else None
    return reason if isinstance(reason, str) else ""


def _fault_of_reply(payload: Any) -> str | None:
    if not isinstance(payload, dict):
        return f"the payload of a reply has to be an object, not {type(payload).__name__}"
    status = payload.get("status")
    if not isinstance(status, str):
        return f"the status of a reply has to be a string, not {type(status).__name__}"
    return None


def _fault_of_join_reply(payload: Any) -> str | None:
    fault = _fault_of_reply(payload)
    if fault is not None:
        return fault
    status = payload["status"]
    if status == "error":
        return None
    if status != "ok":
        return "the status of a join reply has to be ok or error"
    response = payload.get("response")
    if not isinstance(response, dict):
        return f"the response to a join has to be an object, not {type(response).__name__}"
    if "did" in response and not (isinstance(response["did"], str) and response["did"]):
        return "did has to be a string that is not empty"
    capabilities = response.get("capabilities", [])
    if not isinstance(capabilities, list) or not all(isinstance(name, str) for name in capabilities):
        return "capabilities has to be a list of strings"
    return None


def _newer(ref: str, than: str) -> bool:
    """Compare two decimal refs without ``int``, which refuses very long ones; False where one is no decimal."""
    if not (ref.isascii() and ref.isdigit() and than.isascii() and than.isdigit()):
        return False
    ref, than = ref.lstrip("0"), than.lstrip("0")
    return (len(ref), ref) > (len(than), than)
