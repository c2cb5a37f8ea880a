"""What a client sends, whichever of its DIDs it sends as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import InvalidOption, ServerReject
from ..otp.validation import checked_seconds
from .message import Message
from .record import handling

if TYPE_CHECKING:
    from .record import Record, Topic

__all__ = ("REQUEST_TIMEOUT", "request_on", "send_on")

REQUEST_TIMEOUT: Final = 30.0
"""Seconds that request waits by default: the Python SDK."""


async def send_on(record: Record, message: Message) -> Message:
    """Do what :meth:`Client.send` says.

    Args:
        record: of the DID that sends.
        message: to send.
    """
    topic = record.connected()
    outgoing = _outgoing(message, topic)
    reply = await topic.send_msg("message", outgoing.to_plaintext())
    if not reply.ok:
        raise ServerReject(reply.reason, message_id=outgoing.id)
    return outgoing


async def request_on(record: Record, message: Message, timeout: float, survive_reconnect: bool) -> Message:
    """Do what :meth:`Client.request` says.

    Args:
        record: of the DID that sends.
        message: to send.
        timeout: seconds.
        survive_reconnect: as there.
    """
    seconds = checked_seconds("timeout", timeout, allow_infinity=True)
    if not isinstance(message, Message):
        raise InvalidOption("message", message, "a Message")
    return await record.requests.ask(record, message, seconds, survive_reconnect, handling.get())


def _outgoing(message: Message, topic: Topic) -> Message:
    if not isinstance(message, Message):
        raise InvalidOption("message", message, "a Message")
    return message if message.from_ else message.replace(from_=topic.assigned_did)
