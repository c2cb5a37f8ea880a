"""A node that breaks WebSocket itself, or abuses it: the link ends with a typed error, and is dialled anew."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, ChannelOptions, open_channel
from layr8_actors.channel.events import AttemptFailed, LinkLost
from layr8_actors.errors import Disconnected, JoinRejected, TransportClosed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from layr8_actors.testing.memory_stream import MemoryStream
from layr8_actors.transport import Endpoint, Secret, TransportName, connector_named
from tests.hostile.raw_node import RawNode, accept

DID = "did:web:node.test:alice"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
JOINED = b'["1","1","plugins:did:web:node.test:alice","phx_reply",{"status":"ok","response":{}}]'

TRANSPORTS: list[TransportName] = ["websockets", "trio-websocket"]
TOO_LONG = 0  # a length that the RFC does not allow is a breach to the one library and beyond the limit to the other


def options(node: CloudNode, events: list[Event], **more: Any) -> ChannelOptions:
    given: dict[str, Any] = {"agent_did": DID, "transport": node.connector, "on_event": events.append, **more}
    return ChannelOptions(ws_url=node.url, api_key="s3cr3t-k3y", **given)


BREACHES = {
    "a message beyond max_message_size": (b"\x81\x7e\x10\x00" + b"x" * 4096, 1009),
    "a binary message beyond max_message_size": (b"\x82\x7e\x10\x00" + b"x" * 4096, 1009),
    "fragments beyond max_message_size": (
        b"\x01\x7e\x04\x00" + b"x" * 1024 + (b"\x00\x7e\x04\x00" + b"x" * 1024) * 4,
        1009,
    ),
    "text that is not UTF-8": (b"\x81\x02\xff\xfe", 1007),
    "a compressed frame": (b"\xc1\x7e\x10\x00" + b"\x00" * 4096, 1002),
    "a masked frame": (b"\x81\x81abcdx", 1002),
    "a reserved opcode": (b"\x83\x00", 1002),
    "an endless ping": (b"\x89\x7e\x00\xff" + b"x" * 255, 1002),
    "a length of 2**63": (b"\x81\x7f\x80" + b"\x00" * 7, TOO_LONG),
    "close code 0": (b"\x88\x02\x00\x00", 1002),
    "close code 1005": (b"\x88\x02\x03\xed", 1002),
    "close code 1006": (b"\x88\x02\x03\xee", 1002),
    "close code 65535": (b"\x88\x02\xff\xff", 1002),
    "a close reason that is not UTF-8": (b"\x88\x04\x03\xe8\xff\xfe", 1007),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_of_websocket_ends_the_link_and_it_is_joined_again(
    breach: str, transport: TransportName
) -> None:
    wire, code = BREACHES[breach]
    events: list[Event] = []
    lost: list[Exception] = []
    async with CloudNode(memory=True) as node:
        callbacks = Callbacks(on_disconnect=lost.append)
        connector = connector_named(transport, node.open_stream)
        changes = {"max_message_size": 1024, "callbacks": callbacks, "transport": connector}
        async with open_channel(options(node, events, **changes)) as channel:
            await channel.connect(PROTOCOLS)
            node.drop_replies(count=1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_then, node, wire)
                with pytest.raises(Disconnected) as caught:
                    await channel.send_msg("message", {"id": "1", "to": [DID]})
            assert caught.value.written
            await channel.connect(PROTOCOLS)  # waits for the join that follows by itself
            assert node.joins(DID) == 2
            assert (await channel.send_msg("message", {"id": "2", "to": [DID]})).ok
            (event,) = [event for event in events if isinstance(event, LinkLost)]
            (error,) = lost
            assert isinstance(error, TransportClosed)
            assert event.error is error
            assert error.code in (1002, 1009) if code == TOO_LONG else error.code == code
            assert len(str(error)) < 300
            assert channel.statistics().frames_refused == 0


async def _then(node: CloudNode, wire: bytes) -> None:
    await trio.testing.wait_all_tasks_blocked()
    node.send_wire(wire, DID)


@pytest.mark.parametrize(
    "trickle",
    [b"\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x00" + b"x" * 1000, b"\x01\x00" + b"\x00\x00" * 1000],
    ids=["a message, a byte a second", "empty fragments"],
)
async def test_a_message_that_never_ends_is_ended_by_the_heartbeat(trickle: bytes) -> None:
    """The heartbeat's reply cannot come in the midst of a message, so 60 s is all that such a node gets."""
    events: list[Event] = []

    async def serve(stream: MemoryStream) -> None:
        await accept(stream)
        await stream.receive_some(65536)  # the join
        await stream.send_all(b"\x81" + bytes((len(JOINED),)) + JOINED)
        for position in range(0, len(trickle), 2):
            await trio.sleep(1)
            await stream.send_all(trickle[position : position + 2])
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        node = RawNode(nursery, serve)
        channel_options = ChannelOptions(
            ws_url="ws://node.test/", api_key="k", agent_did=DID, transport=node.connector, on_event=events.append
        )
        async with open_channel(channel_options) as channel:
            await channel.connect(PROTOCOLS)
            await trio.sleep(61)
            (lost,) = [event for event in events if isinstance(event, LinkLost)]
            assert lost.at == pytest.approx(60, abs=1)
            assert "heartbeat" in str(lost.error)
        nursery.cancel_scope.cancel()


async def test_a_node_that_pings_without_end_and_reads_no_pong_is_dropped_by_the_heartbeat() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True, capacity=4096) as node, open_channel(options(node, events)) as channel:
        await channel.connect(PROTOCOLS)
        node.stop_reading(DID)
        for _ in range(2000):
            with contextlib.suppress(ValueError):
                node.send_wire(b"\x89\x7d" + b"p" * 125, DID)
        await trio.sleep(61)
        assert any(isinstance(event, LinkLost) for event in events)
        node.resume(DID)
        await node.wait_joined(DID, 2, timeout=60)


async def test_bytes_behind_the_head_of_the_answer_are_the_first_frames() -> None:
    async def serve(stream: MemoryStream) -> None:
        await accept(stream, more=b"\x81\x02hi\x82\x02ho\x81")
        await stream.send_all(b"\x03end")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        node = RawNode(nursery, serve)
        endpoint = Endpoint(url="ws://node.test/", api_key=Secret("s3cr3t-k3y"))
        transport = await node.connector.open(nursery, endpoint)
        got: list[Any] = []
        while len(got) < 3:
            got += await transport.receive()
        assert got == ["hi", b"ho", "end"]
        nursery.cancel_scope.cancel()


async def test_words_of_the_node_are_cut_and_escaped_before_they_are_logged() -> None:
    """A refusal of 1 MB, or with line breaks in it, is one short line all the same."""
    events: list[Event] = []
    reason = "no\n2026-01-01 CRITICAL all is lost\x1b[2J" + "x" * 1_000_000
    async with CloudNode(memory=True) as node, open_channel(options(node, events)) as channel:
        node.refuse_joins(reason, count=1)
        with pytest.raises(JoinRejected) as caught:
            await channel.connect(PROTOCOLS)
        assert caught.value.reason == reason
        node.assign_did("did:web:" + "y" * 1_000_000)
        await channel.connect(PROTOCOLS)
        node.push(channel.assigned_did, "z\n" * 500_000, {})
        await trio.testing.wait_all_tasks_blocked()
        (failed,) = [event for event in events if isinstance(event, AttemptFailed)]
        for text in (str(caught.value), str(failed.error), *(event.describe() for event in events)):
            assert text.isprintable()
            assert len(text) < 2000
