"""The commands that speak to a node: connect, listen and send."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ..channel import Channel, ChannelOptions, open_channel
from ..errors import NotConnected
from ..telemetry import Event
from .event_text import event_text
from .job import FAILED, OK, complain, printable

__all__ = ("connect", "ignore_event", "listen", "report_event", "send")

REPLY_PROTOCOL = "reply_protocol/1"
"""The capability of nodes that want one dispatch_reply for each message; those without it want an ack."""


def ignore_event(event: Event) -> None:
    """The event hook of commands that say how it went when they are done."""


def report_event(event: Event) -> None:
    """The event hook of listen: one line on stderr.

    Args:
        event: what happened.
    """
    text = event_text(event)
    if text is not None:
        print(text, file=sys.stderr, flush=True)


async def connect(options: ChannelOptions, protocols: Sequence[str]) -> int:
    """Join, print what the node said, and leave.

    Args:
        options: of the channel.
        protocols: to bind.

    Returns:
        The exit status.

    Raises:
        Layr8Error: as :meth:`Channel.connect`.

    Checkpoints; cancelled, it leaves the node in order.
    """
    async with open_channel(options) as channel:
        await channel.connect(protocols)
        print(f"did           {printable(channel.assigned_did)}")
        print(f"capabilities  {printable(' '.join(channel.capabilities)) or '(none)'}")
        print(f"state         {channel.state.status.value}", flush=True)
    return OK


async def listen(options: ChannelOptions, protocols: Sequence[str]) -> int:
    """Join, and print each inbound message as a line of JSON until cancelled.

    Args:
        options: of the channel; its on_event reports what becomes of the connection.
        protocols: to bind.

    Returns:
        The exit status, if the channel ends first.

    Raises:
        Layr8Error: as :meth:`Channel.connect`, and what ends a channel that gives up.

    Checkpoints; cancelled, it leaves the node in order.
    """
    async with open_channel(options) as channel:
        await channel.connect(protocols)
        async for payload in channel.messages():
            print(json.dumps(payload), flush=True)
            await _acknowledge(channel, payload)
    return OK


async def _acknowledge(channel: Channel, payload: Any) -> None:
    """Tell the node that the message was handled; a node that waits for that in vain holds back the next one."""
    plaintext = payload.get("plaintext") if isinstance(payload, Mapping) else None
    message_id = plaintext.get("id") if isinstance(plaintext, Mapping) else None
    if not isinstance(message_id, str):
        return
    try:
        if REPLY_PROTOCOL in channel.capabilities:
            await channel.send_fire_and_forget("dispatch_reply", {"message_id": message_id, "status": "handled"})
        else:
            await channel.send_ack([message_id])
    except NotConnected as error:
        # The join that the message came by is over, and the node does not wait for its reply any more.
        complain(f"message {message_id} was not acknowledged: {error}")


async def send(
    options: ChannelOptions, protocols: Sequence[str], recipients: Sequence[str], message_type: str, body: Any
) -> int:
    """Join, send one message, print the node's reply, and leave.

    Args:
        options: of the channel.
        protocols: to bind.
        recipients: DIDs.
        message_type: of the DIDComm message.
        body: of the message, a JSON object.

    Returns:
        The exit status: 0 only where the node replied ``ok``.

    Raises:
        Layr8Error: as :meth:`Channel.connect` and :meth:`Channel.send_msg`.

    Checkpoints; cancelled, it leaves the node in order, which may have acted on the message.
    """
    async with open_channel(options) as channel:
        await channel.connect(protocols)
        plaintext = {
            "id": str(uuid.uuid4()),
            "type": message_type,
            "from": channel.assigned_did,
            "to": list(recipients),
            "body": body,
        }
        reply = await channel.send_msg("message", plaintext)
        answer = {"id": plaintext["id"], "status": reply.status, "reason": reply.reason, "response": reply.response}
        print(json.dumps(answer), flush=True)
    return OK if reply.ok else FAILED
