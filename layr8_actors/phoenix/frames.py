"""The one shape of Phoenix Channels V2: a frame of five fields, and the event names that Phoenix reserves.

The field names are those of ``Phoenix.Socket.Message`` (``lib/phoenix/socket/message.ex``), in the order in which the
V2 serializer writes them (``lib/phoenix/socket/serializers/v2_json_serializer.ex``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

__all__ = (
    "HEARTBEAT",
    "PHOENIX_TOPIC",
    "PHX_CLOSE",
    "PHX_ERROR",
    "PHX_JOIN",
    "PHX_LEAVE",
    "PHX_REPLY",
    "RESERVED_EVENTS",
    "SHALLOW",
    "DeepFrame",
    "Frame",
    "Ref",
)

PHX_JOIN = "phx_join"
PHX_LEAVE = "phx_leave"
PHX_REPLY = "phx_reply"
PHX_ERROR = "phx_error"
PHX_CLOSE = "phx_close"

HEARTBEAT = "heartbeat"

PHOENIX_TOPIC = "phoenix"
"""The topic of the socket itself; only ``heartbeat`` is answered on it."""

RESERVED_EVENTS = frozenset((PHX_JOIN, PHX_LEAVE, PHX_REPLY, PHX_ERROR, PHX_CLOSE))
"""Events that steer a channel; pushed by a client as if they were its own, they crash it (Phoenix 1.7, 1.8)."""

Ref: TypeAlias = str | int | None
"""A ref as it may stand on the wire: a node echoes what it was sent, so integers occur; ours are decimal strings."""


SHALLOW = 8
"""Levels of arrays and objects that a payload has at the most where a decoder of :class:`Frame` takes it.

So how deep it nests is known for nothing: to count brackets took a third of what decoding a message of 300 B does. The
decoder has a branch for arrays and one for objects on each level: it is made in 2 ms with eight levels, in 20 with ten.
"""


def _nested(levels: int) -> Any:
    leaf = nested = None | bool | int | float | str
    for _ in range(levels):
        nested = leaf | list[nested] | dict[str, nested]  # type: ignore[valid-type]
    return nested


if TYPE_CHECKING:
    Payload: TypeAlias = Any
else:
    Payload = _nested(SHALLOW)


# gc=False: a frame only points at its payload, which never points back, so it cannot be part of a cycle.
class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message of Phoenix Channels V2, in either direction.

    Args:
        join_ref: the ref of the ``phx_join`` that this frame belongs to; ``None`` on heartbeats and broadcasts.
        ref: the ref that a reply answers; ``None`` on what is not answered (server pushes and broadcasts).
        topic: the topic's name. It is an integer only where a node echoes one that it was sent.
        event: one of the ``phx_`` names, ``heartbeat``, or an event of the application.
        payload: any JSON value; ``bytes`` for a binary push or broadcast; ``{"status": str, "response": bytes}`` for
            a binary reply.

    Frames are equal when their fields are. Decoding accepts six and more elements and drops the extra ones, as
    Phoenix does.
    """

    join_ref: Ref
    ref: Ref
    topic: str | int
    event: str
    payload: Payload


class DeepFrame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frame whose payload may nest at will; only for decoding what a decoder of :class:`Frame` does not take."""

    join_ref: Ref
    ref: Ref
    topic: str | int
    event: str
    payload: Any

    def plain(self) -> Frame:
        """The same as a frame like any other."""
        return Frame(self.join_ref, self.ref, self.topic, self.event, self.payload)
