"""One inbound message on its way through a client, and what the node is told of it: exactly once, on its own join."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import trio

from ..errors import ChannelClosed, Disconnected, NotConnected, ReplyTimeout

if TYPE_CHECKING:
    from ..channel.push import Push
    from .handlers import Handler
    from .message import Message

__all__ = ("Inbound", "Status", "settlement")


class Status(Enum):
    """What a ``dispatch_reply`` says of a message."""

    HANDLED = "handled"
    PASS = "pass"  # noqa: S105 - a status of the node
    ERROR = "error"


DISCARDED = (NotConnected, Disconnected, ReplyTimeout, ChannelClosed)
"""What the channel raises where a join is over: the node has forgotten the dispatch with it."""


class Inbound:
    """One message from its arrival until its handler is done.

    Args:
        message: it.
        join_ref: of the join that it came under.
        replies: whether that node wants a dispatch_reply; else an ack.
        handler: who handles it.
        size: in bytes, where it was counted.
    """

    __slots__ = (
        "answering",
        "handler",
        "interrupted",
        "join_ref",
        "message",
        "push",
        "replies",
        "reported",
        "scope",
        "settled",
        "size",
        "thread",
    )

    def __init__(
        self, message: Message, join_ref: str | None, replies: bool, handler: Handler | None, size: int = 0
    ) -> None:
        self.message = message
        self.thread = message.thread
        self.join_ref = join_ref
        self.replies = replies
        self.handler = handler
        self.size = size
        self.settled = False
        self.interrupted = False
        self.reported = False  # that it was interrupted
        self.answering = False  # its handler is done, and the answer is on its way
        self.push: Push | None = None  # the answer, until the node has taken it
        self.scope: trio.CancelScope | None = None  # around its handler, while that runs

    def withdraw(self) -> None:
        """Nobody wants to know any more what the node says to the answer."""
        push, self.push = self.push, None
        if push is not None:
            push.withdraw()

    @property
    def stores(self) -> bool:
        """Whether it is to be stored, and counts as accepted only then."""
        return self.handler is not None and self.handler.stores


def settlement(message_id: str, replies: bool, status: Status, code: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return event and payload of what tells a node that a message is dealt with.

    Args:
        message_id: of the message; ``""`` where it has none that can be read.
        replies: whether the node wants a dispatch_reply.
        status: what became of it; an ack cannot say.
        code: of an error.
        text: of an error.
    """
    if not replies:
        return "ack", {"ids": [message_id]}
    payload: dict[str, Any] = {"message_id": message_id} if message_id else {}
    payload["status"] = status.value
    if status is Status.ERROR:
        payload["code"] = code
        payload["message"] = text
    return "dispatch_reply", payload
