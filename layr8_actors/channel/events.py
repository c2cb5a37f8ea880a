"""What a channel reports of itself: frozen events, through ``ChannelOptions.on_event``, in the order they happen."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, ClassVar

from ..telemetry import Event

__all__ = (
    "AssignedDidChanged",
    "AttemptFailed",
    "CallbackFailed",
    "CallbacksSkipped",
    "ChannelEvent",
    "FrameIgnored",
    "FrameRefused",
    "GaveUp",
    "LinkClosed",
    "LinkLost",
    "LinkOpened",
    "MessageDropped",
    "MessageInterrupted",
    "ReadingPaused",
    "ReadingResumed",
    "SendsDiscarded",
    "TopicJoined",
    "TopicLost",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEvent(Event):
    """The root of the channel's events.

    Args:
        topic: the Phoenix topic of the channel, ``plugins:{did}``.
    """

    layer: ClassVar[str] = "channel"
    topic: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkOpened(ChannelEvent):
    """A socket is open and the join is about to be sent; ``link`` is the number of its dial, from 1."""

    link: int
    transport: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkLost(ChannelEvent):
    """A socket has ended; ``error`` says how, ``discarded`` counts the frames that were queued and never written."""

    level: ClassVar[int] = logging.WARNING
    link: int
    error: Exception
    discarded: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkClosed(ChannelEvent):
    """The socket was closed because the channel was; fields as in :class:`LinkLost`."""

    link: int
    error: Exception
    discarded: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TopicJoined(ChannelEvent):
    """The node acknowledged a join; ``rejoin`` is True for all but the first."""

    link: int
    join_ref: str
    assigned_did: str
    capabilities: tuple[str, ...]
    rejoin: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TopicLost(ChannelEvent):
    """The node closed or crashed the topic, or stopped answering on it; the socket is kept."""

    level: ClassVar[int] = logging.WARNING
    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(ChannelEvent):
    """An attempt to connect or to join failed; ``retry_in`` is None where no other attempt follows."""

    level: ClassVar[int] = logging.WARNING
    attempt: int
    error: Exception
    retry_in: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp(ChannelEvent):
    """The node refused for good, several times in a row; the channel ends with ``error``."""

    level: ClassVar[int] = logging.ERROR
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AssignedDidChanged(ChannelEvent):
    """The node bound another DID at a rejoin than before; what was addressed to the old one no longer arrives."""

    level: ClassVar[int] = logging.WARNING
    before: str
    after: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameRefused(ChannelEvent):
    """The node sent something that is not a frame, or not one a channel understands; it changed nothing else.

    ``count`` is how many there were so far. The 1st to 8th are reported, then each power of two, so that a node gone
    mad cannot flood the log.
    """

    level: ClassVar[int] = logging.WARNING
    link: int
    error: Exception
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameIgnored(ChannelEvent):
    """A well-formed frame was not for the join in force: a stale join_ref, another topic, an abandoned socket."""

    level: ClassVar[int] = logging.DEBUG
    link: int
    why: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SendsDiscarded(ChannelEvent):
    """Frames that were queued under a join that ended before they were written; who waits for a reply was told."""

    level: ClassVar[int] = logging.WARNING
    link: int
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailed(ChannelEvent):
    """A function of the user raised ``error``; nothing else came of it."""

    level: ClassVar[int] = logging.ERROR
    callback: str
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallbacksSkipped(ChannelEvent):
    """An on_disconnect or on_reconnect does not return while the link comes and goes: the two oldest calls that waited
    for it, one of each, will not be made; ``count`` is how many so far."""

    level: ClassVar[int] = logging.WARNING
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageInterrupted(ChannelEvent):
    """The inbox ended while ``on_message`` was at work on ``payload``; it is not handed over again."""

    level: ClassVar[int] = logging.ERROR
    payload: Any = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(ChannelEvent):
    """Nobody has ever read messages and the inbox is full, so the oldest went; ``count`` is how many so far."""

    level: ClassVar[int] = logging.WARNING
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPaused(ChannelEvent):
    """The user is slower than the node: ``waiting`` frames wait, and the socket is left to TCP's backpressure."""

    level: ClassVar[int] = logging.DEBUG
    link: int
    waiting: int
    bytes_waiting: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadingResumed(ChannelEvent):
    """Enough messages were handled; the socket is read again after ``seconds`` of pause."""

    level: ClassVar[int] = logging.DEBUG
    link: int
    seconds: float
