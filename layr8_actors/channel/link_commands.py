"""What the link's state machine commands; Reconnector carries it out."""

from __future__ import annotations

import dataclasses

from ..errors import JoinRejected

__all__ = (
    "AbandonJoin",
    "AnnounceDisconnect",
    "AnnounceReconnect",
    "Command",
    "DropLink",
    "FinishConnect",
    "GiveUp",
    "JoinTopic",
    "OpenLink",
    "ReportFailure",
)


@dataclasses.dataclass(frozen=True, slots=True)
class OpenLink:
    """Dial; Connection answers with LinkUp or LinkFailed of the same number."""

    link: int


@dataclasses.dataclass(frozen=True, slots=True)
class DropLink:
    """End the socket, or the dial that is to become it; its end comes back as LinkDown or LinkFailed."""

    link: int
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class JoinTopic:
    """Send ``phx_join``; Router answers with JoinAcknowledged or JoinFailed."""

    link: int
    protocols: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class AbandonJoin:
    """The join was not answered: leave it, so that a late ok on the node is undone (phoenix.js)."""

    link: int


@dataclasses.dataclass(frozen=True, slots=True)
class AnnounceDisconnect:
    """Call on_disconnect."""

    error: Exception


@dataclasses.dataclass(frozen=True, slots=True)
class AnnounceReconnect:
    """Call on_reconnect."""


@dataclasses.dataclass(frozen=True, slots=True)
class FinishConnect:
    """Release the callers of connect."""

    error: Exception | None


@dataclasses.dataclass(frozen=True, slots=True)
class ReportFailure:
    """Tell the operator of a failed attempt."""

    attempt: int
    error: Exception
    retry_in: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    """End the channel with this error."""

    error: JoinRejected


Command = (
    OpenLink
    | DropLink
    | JoinTopic
    | AbandonJoin
    | AnnounceDisconnect
    | AnnounceReconnect
    | FinishConnect
    | ReportFailure
    | GiveUp
)
