"""What a client reports of itself, beside the events of its channel; through ``ClientConfig.on_event``."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, ClassVar

from ..telemetry import Event

__all__ = (
    "ClientEvent",
    "DelegationChanged",
    "DelegationIgnored",
    "DidNotRejoined",
    "DispatchReplyDiscarded",
    "FunctionFailed",
    "HandlerFailed",
    "HandlerInterrupted",
    "MessageMalformed",
    "MessageUnhandled",
    "MessagesWaitForDid",
    "ProblemReported",
    "ReplyFailed",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent(Event):
    """The root of the client's events.

    Args:
        did: the client's own.
    """

    layer: ClassVar[str] = "client"
    did: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(ClientEvent):
    """Something about one inbound message.

    Args:
        message_id: its id.
        message_type: its type.
        sender: the DID it came from; ``""`` where it does not say.
    """

    message_id: str
    message_type: str
    sender: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed(MessageEvent):
    """A handler raised, was not done in time, or returned what is no answer; the sender got a problem report."""

    level: ClassVar[int] = logging.ERROR
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HandlerInterrupted(MessageEvent):
    """A handler was cancelled because the client ended, or its dispatcher crashed; it may have done part of its work.

    The node was told ``error``, as far as the channel still stood.
    """

    level: ClassVar[int] = logging.WARNING


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFailed(MessageEvent):
    """A handler's answer, or the problem report about it, did not go out; ``error`` says why."""

    level: ClassVar[int] = logging.ERROR
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageUnhandled(MessageEvent):
    """No handler is registered for the type; the node was told ``pass``. ``count`` is how many there were so far.

    The 1st to 8th are reported, then each power of two, so that no peer can flood the log.
    """

    level: ClassVar[int] = logging.WARNING
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageMalformed(ClientEvent):
    """What came as a message is no DIDComm message; ``payload`` is all of it, ``count`` as in MessageUnhandled."""

    level: ClassVar[int] = logging.WARNING
    error: Exception
    count: int
    payload: Any = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReported(MessageEvent):
    """A problem report came that answers no request which still waits, and no handler is registered for it.

    ``error`` is what it says; ``thread`` is the one that it is about.
    """

    level: ClassVar[int] = logging.WARNING
    thread: str
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DispatchReplyDiscarded(ClientEvent):
    """The node was not told what became of a message, because the join under which it came is over."""

    level: ClassVar[int] = logging.WARNING
    message_id: str
    status: str
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DelegationChanged(ClientEvent):
    """What is known of the delegated credentials changed, by a join or by a push of the node; never what they are."""

    status: str
    revision: int | None
    credentials: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DelegationIgnored(ClientEvent):
    """A push of delegated credentials was not applied; ``why`` says which rule it broke."""

    level: ClassVar[int] = logging.WARNING
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DidNotRejoined(ClientEvent):
    """After a restart of the client a further DID was not joined again, for ``error``; its handle raises ChannelClosed.

    A node that refuses a rejoin is another thing: that is tried again, and ends with the channel's GaveUp.
    """

    level: ClassVar[int] = logging.ERROR
    error: Exception


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessagesWaitForDid(ClientEvent):
    """So many stored messages are of a further DID that is not joined: they wait until somebody joins it.

    It is looked for a minute after the start of a durable client, then ever less often, and every hour in the end.
    """

    level: ClassVar[int] = logging.WARNING
    messages: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFailed(ClientEvent):
    """A function of the user that is no handler raised ``error``; nothing else came of it."""

    level: ClassVar[int] = logging.ERROR
    function: str
    error: Exception
