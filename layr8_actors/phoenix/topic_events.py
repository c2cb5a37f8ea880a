"""What a frame meant for its topic: the events that :meth:`layr8_actors.phoenix.Topic.receive` returns.

They are data and do nothing. Match on the type; do not subclass them. Structs and not dataclasses, because one is made
for each frame, and a frozen dataclass takes four times as long.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = (
    "FrameIgnored",
    "JoinMalformed",
    "JoinRefused",
    "JoinSucceeded",
    "LeaveSucceeded",
    "MessageReceived",
    "ReplyMalformed",
    "ReplyReceived",
    "TopicClosed",
    "TopicErrored",
    "TopicEvent",
    "TopicUnmatched",
    "WhyIgnored",
)


class JoinSucceeded(msgspec.Struct, frozen=True):
    """The node answered the join with ok; the topic is joined.

    Args:
        join_ref: the join it answers, now the join in force.
        response: what the node said, an object; ``did`` is a non-empty string where present, ``capabilities`` a list
            of strings where present, and nothing else has been looked at.
    """

    join_ref: str
    response: dict[str, Any]


class JoinRefused(msgspec.Struct, frozen=True):
    """The node answered the join with error; the socket stays up, and a new join may be sent.

    Args:
        join_ref: the join it answers.
        reason: the response's ``reason`` where that is a string, else ``""``. Phoenix' own are ``unmatched topic``,
            ``join crashed`` and ``too many channels joined``.
        response: what the node said, any JSON value.
    """

    join_ref: str
    reason: str
    response: Any


class JoinMalformed(msgspec.Struct, frozen=True):
    """The node answered the join with something that is no answer; the topic is errored.

    The node may take the topic for joined all the same; a new join replaces that one.

    Args:
        join_ref: the join it answers.
        detail: what is wrong with the answer, without quoting it.
    """

    join_ref: str
    detail: str


class ReplyReceived(msgspec.Struct, frozen=True):
    """The node answered a push; match it by ``ref``, for replies come in any order, and twice from a careless node.

    Args:
        ref: the ref of the push.
        status: ``ok``, ``error``, or any other name that the node's channel gave.
        reason: the response's ``reason`` where that is a string, else ``""``.
        response: any JSON value, ``None`` where there is none; ``bytes`` of a binary reply.
    """

    ref: str
    status: str
    reason: str
    response: Any


class ReplyMalformed(msgspec.Struct, frozen=True):
    """The node answered a push with something that is no reply; no other answer will come for that ref.

    Args:
        ref: the ref of the push.
        detail: what is wrong with the answer, without quoting it.
    """

    ref: str
    detail: str


class MessageReceived(msgspec.Struct, frozen=True):
    """The node sent an event of the application, as a push of this join or as a broadcast.

    Args:
        event: the name of the event.
        payload: an object by Phoenix' rules, though any JSON value is passed on; ``bytes`` of a binary message.
    """

    event: str
    payload: Any


class LeaveSucceeded(msgspec.Struct, frozen=True):
    """The node answered the leave; the topic is closed. The ``phx_close`` that follows is ignored.

    Args:
        ref: the ref of the ``phx_leave``.
    """

    ref: str


class TopicClosed(msgspec.Struct, frozen=True):
    """The node ended the channel in order (``phx_close``); nothing pending under this join will be answered.

    It ends a leave too, whose own reply may be lost in a race.

    Args:
        join_ref: the join that was in force.
    """

    join_ref: str


class TopicErrored(msgspec.Struct, frozen=True):
    """The channel crashed on the node (``phx_error``); nothing pending under this join will be answered. Join again.

    Args:
        join_ref: the join that was in force.
        payload: ``{}`` up to Phoenix 1.8.9, ``{"reason": "channel_crash"}`` since.
    """

    join_ref: str
    payload: Any


class TopicUnmatched(msgspec.Struct, frozen=True):
    """The node says that it does not know the topic that we hold for joined: the channel is gone. Join again.

    phoenix.js takes this reply for the plain error of one push and stays in a channel that is dead.

    Args:
        ref: the ref of the push that it answers.
    """

    ref: str


WhyIgnored: TypeAlias = Literal["foreign topic", "stale join_ref", "null join_ref", "not joined", "unexpected"]
"""Why a frame changed nothing.

``foreign topic``: it is for another topic. ``stale join_ref``: it belongs to a join that is over. ``null join_ref``: a
``phx_close`` or ``phx_error`` that does not say which join it ends. ``not joined``: no join is in force that it could
belong to. ``unexpected``: it answers nothing, or is nothing that a server sends.
"""


class FrameIgnored(msgspec.Struct, frozen=True):
    """The frame changed nothing.

    Args:
        why: the reason, for telemetry.
    """

    why: WhyIgnored


TopicEvent: TypeAlias = (
    JoinSucceeded
    | JoinRefused
    | JoinMalformed
    | ReplyReceived
    | ReplyMalformed
    | MessageReceived
    | LeaveSucceeded
    | TopicClosed
    | TopicErrored
    | TopicUnmatched
    | FrameIgnored
)
"""Everything that :meth:`layr8_actors.phoenix.Topic.receive` may return."""
