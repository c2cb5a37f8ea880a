"""What a client sends, whichever of its DIDs it sends as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import InvalidOption, ServerReject
from ..otp.validation import checked_seconds
from .message import Message
from .record import handling

if TYPE_CHECKING:
    from .record import Record

__all__ = ("REQUEST_TIMEOUT", "request_on", "send_durably_on", "send_on")

REQUEST_TIMEOUT: Final = 30.0
"""Seconds that request waits by default: the Python SDK."""


async def send_on(record: Record, message: Message) -> Message:
    """Do what :meth:`Client.send` says.

    Args:
        record: of the DID that sends.
        message: to send.
    """
    topic = record.connected()
    outgoing = _outgoing(message, topic.assigned_did)
    reply = await topic.send_msg("message", outgoing.to_plaintext())
    if not reply.ok:
        raise ServerReject(reply.reason, message_id=outgoing.id)
    return outgoing


async def send_durably_on(record: Record, message: Message) -> Message:
    """Do what :meth:`Client.send_durably` says.

    Args:
        record: of the DID that sends.
        message: to store.
    """
    if record.durability is None:
        raise InvalidOption("durable", None, "a store, Client(config, durable=store), for what is sent durably")
    outgoing = _outgoing(message, record.did)
    await record.durability.send(outgoing)
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


def _outgoing(message: Message, did: str) -> Message:
    if not isinstance(message, Message):
        raise InvalidOption("message", message, "a Message")
    return message if message.from_ else message.replace(from_=did)
