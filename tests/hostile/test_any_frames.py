"""Whatever a node says, in whatever order: callers get typed errors, all is counted, and the channel is back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from layr8_actors.channel import Callbacks, ChannelOptions, open_channel
from layr8_actors.channel.events import FrameRefused
from layr8_actors.errors import JoinRejected, Layr8Error, RemoteProtocolError
from layr8_actors.otp.events import ChildExited
from layr8_actors.phoenix import Frame, Ref
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.hostile.any_json import DID, TOPIC, join_replies, messages

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


def options(node: CloudNode, events: list[Event], **more: Any) -> ChannelOptions:
    given: dict[str, Any] = {"agent_did": DID, "transport": node.connector, "on_event": events.append, **more}
    return ChannelOptions(ws_url=node.url, api_key="s3cr3t-k3y", **given)


def crashes(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, ChildExited) and not event.reason.clean]


@given(st.lists(st.lists(messages, min_size=1, max_size=6), max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
async def test_whatever_frames_come_no_actor_crashes_and_the_channel_is_joined_and_answers(
    bursts: list[list[str | bytes]], anonymous: bool
) -> None:
    events: list[Event] = []
    got: list[Any] = []
    async with CloudNode(memory=True) as node:
        changes = {"agent_did": ""} if anonymous else {}
        channel_options = options(node, events, callbacks=Callbacks(got.append), **changes)
        async with open_channel(channel_options) as channel, trio.open_nursery() as senders:

            async def keep_sending() -> None:
                while True:
                    with contextlib.suppress(Layr8Error):  # typed, whatever it is
                        await channel.send_msg("message", {"id": "1", "to": [DID]})
                    await trio.sleep(3)

            await channel.connect(PROTOCOLS)
            senders.start_soon(keep_sending)
            for burst in bursts:
                for message in burst:
                    node.send_raw(message)
                await trio.sleep(1)
            await trio.sleep(120)  # as long as the delays between joins may add up to
            assert channel.state.joined
            assert (await channel.send_msg("message", {"id": "2", "to": [channel.assigned_did]})).ok
            await trio.testing.wait_all_tasks_blocked()
            senders.cancel_scope.cancel()
        counts = channel.statistics()
        assert crashes(events) == []
        assert counts.replies_waiting == 0
        assert counts.messages_received == counts.messages_delivered == len(got)
        assert counts.messages_waiting == counts.callbacks_failed == 0
        assert counts.link is None


@given(join_replies)
@settings(max_examples=60, deadline=None)
async def test_a_join_answered_with_any_json_is_an_answer_or_a_typed_error_and_leaves_nothing(answer: Any) -> None:
    events: list[Event] = []
    async with CloudNode(memory=True, exclusive=False) as node, open_channel(options(node, events)) as channel:
        node.answer_joins(answer, count=1)
        try:
            await channel.connect(PROTOCOLS)
        except (JoinRejected, RemoteProtocolError):
            assert not node.connections
            await channel.connect(PROTOCOLS)
        else:
            assert answer["status"] == "ok"
            assert isinstance(answer["response"], dict)
            assert isinstance(channel.assigned_did, str)
            assert channel.assigned_did
        assert channel.state.joined
        assert crashes(events) == []


@given(st.lists(join_replies, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
async def test_a_rejoin_answered_with_any_json_is_tried_again_until_it_is_well(answers: list[Any]) -> None:
    events: list[Event] = []
    # A refusal for good, three times in a row, ends a channel, and is told by its words: these here are no such words.
    async with CloudNode(memory=True, exclusive=False) as node, open_channel(options(node, events)) as channel:
        await channel.connect(PROTOCOLS)
        for answer in answers:
            node.answer_joins(answer, count=1)
        node.drop(DID)
        await trio.sleep(200)
        assert channel.state.joined
        assert (await channel.send_msg("message", {"id": "1", "to": [DID]})).ok
        assert crashes(events) == []


@pytest.mark.parametrize(
    "message",
    [
        '["1",null,"{T}","message",{"a":1,"a":2,"plaintext":{"id":"1","id":"2"}}]',
        '["1",null,"{T}","message",{"plaintext":{"id":"2"}},"and","more",["elements"]]',
        ' \t["1" ,\r\nnull,"{T}","\\u006dessage",{"plaintext":{"id":"2"}}] ',
        '[null,null,"{T}","message",{"plaintext":{"id":"2"}}]',
    ],
    ids=["duplicate keys, the last wins", "more elements", "white space and escapes", "a broadcast"],
)
async def test_an_odd_frame_that_is_one_is_taken(message: str) -> None:
    got: list[Any] = []
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, [], callbacks=Callbacks(got.append))) as channel:
            await channel.connect(PROTOCOLS)
            node.send_raw(message.replace("{T}", TOPIC))
            await trio.testing.wait_all_tasks_blocked()
            assert [payload["plaintext"]["id"] for payload in got] == ["2"]
            assert channel.statistics().frames_refused == 0


BAD: dict[str, str | bytes] = {
    "too large, in bytes of UTF-8": '["1",null,"t","e","' + "é" * 600 + '"]',
    "nested beyond the limit": '["1",null,"t","e",' + "[" * 65 + "]" * 65 + "]",
    "nested far beyond the limit": '["1",null,"t","e",' + '{"a":' * 150 + "1" + "}" * 150 + "]",
    "cut short": '["1",null,"t","e",{"a',
    "cut short binary": b"\x01\x01\x01\x03\x02",
    "binary that is not UTF-8": b"\x02\x02\x01\xff\xfee",
    "a binary kind that is none": b"\x09\x01\x01te",
    "empty": "",
    "empty binary": b"",
    "wrong arity": '["1",null,"t","e"]',
    "wrong types": '[1.5,null,"t","e",{}]',
    "an object": '{"topic":"t","event":"e","payload":{},"ref":"1"}',
    "NaN": '["1",null,"t","e",NaN]',
    "a lone surrogate": '["1",null,"t","e","\\ud800"]',
    "two frames": '["1",null,"t","e",1]["1",null,"t","e",1]',
    "a byte order mark": '\ufeff["1",null,"t","e",{}]',
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_frame_is_refused_counted_and_reported_over_a_websocket_and_nothing_else_changes(kind: str) -> None:
    events: list[Event] = []
    # The WebSocket's own limit is in characters, and ends the link (test_wire.py); in bytes it is the serializer's.
    limit = 1024
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, events, max_message_size=limit)) as channel:
            await channel.connect(PROTOCOLS)
            before = channel.statistics()
            node.send_raw(BAD[kind])
            await trio.testing.wait_all_tasks_blocked()
            assert channel.statistics().frames_refused == 1
            (refused,) = [event for event in events if isinstance(event, FrameRefused)]
            assert isinstance(refused.error, RemoteProtocolError)
            assert refused.error.__traceback__ is None  # its frames would hold what was refused
            assert len(refused.describe()) < 400
            assert channel.statistics().frames_ignored == before.frames_ignored
            assert (await channel.send_msg("message", {"id": "1", "to": [DID]})).ok
            assert (node.joins(DID), len(node.connections)) == (1, 1)


async def test_replies_to_refs_that_were_never_sent_are_counted_and_reach_nobody() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node, [])) as channel:
        await channel.connect(PROTOCOLS)
        node.drop_replies(count=1)
        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send_msg, "message", {"id": "1", "to": [DID]})
                await trio.testing.wait_all_tasks_blocked()
                refs: list[Ref] = ["0", "999", "-1", "1e0", " 2", "\uff12", "10" * 200, 3, None, ""]
                for ref in refs:
                    node.send_reply(DID, ref, {"status": "ok", "response": {}})
        assert scope.cancelled_caught
        counts = channel.statistics()
        assert counts.replies == 0
        assert counts.replies_unclaimed + counts.frames_ignored == 10
        assert counts.replies_waiting == 0


async def test_a_flood_of_frames_that_mean_nothing_leaves_nothing_behind() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events)) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(1000):
            node.send_raw("nonsense")
            node.send_stale(DID, "message", {"n": number})
            node.send_foreign(DID, "message", {"n": number}, topic=f"plugins:{number}")
            node.send_reply(DID, str(10_000 + number), {"status": "ok", "response": {"n": number}})
            node.push(DID, f"event {number}", {})
            node.send_frame(Frame(None, str(number), "phoenix", "phx_reply", {"status": "ok", "response": {}}), DID)
            if number % 100 == 0:
                await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        record = channel._record
        assert (record.backlog.frames, len(record.unrouted), len(record.routed), len(record.waiting)) == (0, 0, 0, 0)
        assert record.backlog.size == len(record.backlog.messages) == 0
        counts = channel.statistics()
        assert (counts.frames_refused, counts.frames_ignored, counts.replies_unclaimed) == (1000, 4000, 1000)
        assert len(events) < 60  # the first ones, then ever fewer
        assert (await channel.send_msg("message", {"id": "1", "to": [DID]})).ok
