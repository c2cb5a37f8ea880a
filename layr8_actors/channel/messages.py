"""What the channel's actors send each other; each is handled between two checkpoints, so none is ever half done.

What is made for each read or each message is a struct, since a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from ..phoenix import Frame

__all__ = (
    "FramesArrived",
    "JoinAcknowledged",
    "JoinFailed",
    "Joined",
    "LinkDown",
    "LinkEnded",
    "LinkFailed",
    "LinkUp",
    "MessagesArrived",
    "Notify",
    "Push",
    "Resynchronize",
    "ServeRequests",
    "TopicEnded",
    "WatchLink",
)


class FramesArrived(msgspec.Struct, frozen=True):
    """Connection to Router: what one read of the socket gave, decoded, in order, and the size each was read as.

    Where Connection has begun to route it and failed, ``error`` says how: Router is to crash of it.
    """

    link: int
    frames: list[Frame]
    sizes: list[int]
    error: Exception | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LinkEnded:
    """Connection to Router, behind the last frames of that socket: nothing more will come from it."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class WatchLink:
    """Connection to Heartbeat: there is a new socket to keep alive."""


@dataclasses.dataclass(frozen=True, slots=True)
class LinkUp:
    """Connection to Reconnector: the socket is open."""

    link: int


@dataclasses.dataclass(frozen=True, slots=True)
class LinkFailed:
    """Connection to Reconnector: the dial failed."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class LinkDown:
    """Router to Reconnector: the socket ended, and all that came from it was routed."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class JoinAcknowledged:
    """Router to Reconnector: the topic is joined."""

    link: int


@dataclasses.dataclass(frozen=True, slots=True)
class JoinFailed:
    """Router to Reconnector: the node refused the join, or answered it with nonsense."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class TopicEnded:
    """Router to Reconnector, or a caller to Router: the topic ended, or is taken to have ended."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class Resynchronize:
    """Connection or Router to Reconnector, after a restart: look at us again."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServeRequests:
    """The facade to Reconnector: the list of those who wait in connect has changed."""


class Push(msgspec.Struct, frozen=True):
    """What stands among the payloads for a push of another event than ``message``."""

    event: str
    payload: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """What stands between the payloads of one join and those of the next; the response is the node's."""

    join_ref: str
    response: dict[str, Any]


class MessagesArrived(msgspec.Struct, frozen=True):
    """Router to Inbox: payloads for the user, in order, and the size of the frame of each.

    ``joins`` are those acknowledged meanwhile, each with the number of the payloads here that came before it.
    """

    payloads: list[Any]
    sizes: list[int]
    joins: list[tuple[int, Joined]] = []


@dataclasses.dataclass(frozen=True, slots=True)
class Notify:
    """Reconnector to Inbox: call on_disconnect with the error, or on_reconnect where there is none."""

    error: Exception | None
