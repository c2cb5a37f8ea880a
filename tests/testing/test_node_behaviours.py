"""Each thing a node does at night, shown with a client that only looks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from layr8_actors.errors import ConnectFailed, NotConnected, TransportClosed
from layr8_actors.phoenix import Frame
from layr8_actors.testing import CloudNode, RawClient, UpgradeRefused
from layr8_actors.transport import Endpoint, Secret

ALICE = "did:web:node.test:alice"
BOB = "did:web:node.test:bob"
A = f"plugins:{ALICE}"
B = f"plugins:{BOB}"
OK = {"status": "ok", "response": {}}
UNMATCHED = {"status": "error", "response": {"reason": "unmatched topic"}}


@pytest.fixture(params=["memory", "tcp"])
def memory(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "memory")


@asynccontextmanager
async def joined(memory: bool = True, **options: Any) -> AsyncIterator[tuple[CloudNode, RawClient]]:
    """A node with Alice joined."""
    async with CloudNode(memory=memory, **options) as node, RawClient.connect(node) as client:
        await client.join(A)
        yield node, client


@asynccontextmanager
async def both(memory: bool = True) -> AsyncIterator[tuple[CloudNode, RawClient, RawClient]]:
    """A node with Alice and Bob joined, each on a socket of their own."""
    async with joined(memory) as (node, alice), RawClient.connect(node) as bob:
        await bob.join(B)
        yield node, alice, bob


async def alive(client: RawClient, ref: str = "hb") -> bool:
    await client.send(None, ref, "phoenix", "heartbeat", {})
    with trio.move_on_after(1):
        return bool(await client.reply(ref) == OK)
    return False


async def nothing_comes(client: RawClient, seconds: float = 10) -> bool:
    with trio.move_on_after(seconds) as scope:
        await client.receive_raw()
    return scope.cancelled_caught


# --- the socket ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_drop_cuts_one_did_without_a_close_frame(memory: bool, reset: bool) -> None:
    async with both(memory) as (node, alice, bob):
        node.drop(ALICE, reset=reset)
        assert node.dids == (BOB,)
        assert await alice.closed() == 1006
        assert await alive(bob)


async def test_a_reset_loses_what_the_client_had_not_read_and_a_drop_does_not() -> None:
    for reset, outcome in ((False, "hello"), (True, None)):
        async with joined() as (node, client):
            node.push(ALICE, "hello", {})
            await trio.testing.wait_all_tasks_blocked()
            node.drop(reset=reset)
            try:
                got = (await client.receive())[3]
            except TransportClosed:
                got = None
            assert got == outcome


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1012, ""), (4001, "go away")])
async def test_close_sends_any_code_and_reason_behind_what_was_sent(memory: bool, code: int, reason: str) -> None:
    async with both(memory) as (node, alice, bob):
        node.push(ALICE, "last", {})
        node.close(code, reason, ALICE)
        assert node.dids == (BOB,)
        assert (await alice.receive())[3] == "last"
        assert await alice.closed() == code
        assert alice.close_reason == reason
        assert await alive(bob)
        await node.wait_for(lambda: len(node.connections) == 1)


@pytest.mark.parametrize(("phoenix", "code"), [("1.7.24", 1000), ("1.8.11", 1001)])
async def test_disconnect_closes_with_the_code_of_the_version(phoenix: str, code: int) -> None:
    async with joined(phoenix=phoenix) as (node, client):
        node.disconnect()
        assert await client.closed() == code


async def test_a_silent_node_handles_all_and_says_all_when_it_resumes(memory: bool) -> None:
    async with both(memory) as (node, alice, bob):
        node.go_silent(ALICE)
        await alice.send("1", "2", A, "message", {"id": "m", "to": [BOB]})
        assert not await alive(alice)
        assert (await bob.receive())[3] == "message"
        assert await alive(bob)
        node.resume(ALICE)
        assert (await alice.receive())[1:2] == ["2"]
        assert (await alice.receive())[1:2] == ["hb"]


async def test_a_silent_socket_is_not_closed_as_idle() -> None:
    async with joined(idle_timeout=60) as (node, client):
        node.go_silent()
        await trio.sleep(300)
        assert node.dids == (ALICE,)
        node.resume()
        assert await alive(client)


async def test_a_node_that_stops_reading_blocks_the_client_until_it_resumes() -> None:
    async with both() as (node, alice, bob):
        node.stop_reading(ALICE)
        sent = 0
        with trio.move_on_after(1):
            while sent < 1000:
                await alice.send("1", "2", A, "ack", {"ids": ["x" * 1000]})
                sent += 1
        assert 60 < sent < 70 + 64
        assert node.frames(ALICE, event="ack") == []
        assert await alive(bob)
        node.resume(ALICE)
        await node.wait_for(lambda: len(node.frames(ALICE, event="ack")) >= sent - 1)


async def test_a_socket_that_does_not_read_can_still_be_dropped() -> None:
    async with joined() as (node, client):
        node.stop_reading()
        node.drop()
        assert await client.closed() == 1006
        await node.wait_for(lambda: node.statistics().sockets == 0)


async def test_a_client_that_stops_reading_stops_the_flood_and_not_the_node() -> None:
    async with both() as (node, _, bob), trio.open_nursery() as nursery:
        nursery.start_soon(node.flood, ALICE, 100_000, lambda number: {"id": str(number), "pad": "x" * 1000})
        await trio.sleep(1)
        delivered = node.delivered(ALICE)
        assert 500 < delivered < 2000
        assert await alive(bob)
        # With its only recipient gone the flood ends, and the nursery with it.
        node.drop(ALICE)
        assert await alive(bob)
    assert node.delivered(ALICE) == delivered


# --- the topic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phoenix", "payload"), [("1.7.24", {}), ("1.8.12", {"reason": "channel_crash"})])
async def test_a_crashed_topic_says_phx_error_and_the_socket_lives(phoenix: str, payload: dict[str, str]) -> None:
    async with joined(phoenix=phoenix) as (node, client):
        node.crash_topic(ALICE)
        assert await client.receive() == ["1", "1", A, "phx_error", payload]
        await client.send("1", "2", A, "message", {})
        assert await client.receive() == [None, "2", A, "phx_reply", UNMATCHED]
        assert (await client.join(A, ref="3"))["status"] == "ok"
        assert node.joins(ALICE) == 2


async def test_a_closed_topic_says_phx_close() -> None:
    async with joined() as (node, client):
        node.close_topic()
        assert await client.receive() == ["1", "1", A, "phx_close", {}]
        assert node.dids == ()
        assert await alive(client)


async def test_a_forgotten_topic_says_nothing_until_it_is_pushed_to() -> None:
    async with joined() as (node, client):
        node.forget_topic(ALICE)
        assert await nothing_comes(client)
        await client.send("1", "2", A, "ack", {"ids": []})
        assert await client.receive() == [None, "2", A, "phx_reply", UNMATCHED]


async def test_a_mute_topic_answers_leaves_and_heartbeats_only() -> None:
    async with joined() as (node, client):
        node.mute(ALICE)
        await client.send("1", "2", A, "dispatch_reply", {})
        assert await nothing_comes(client)
        assert await alive(client)
        node.unmute(ALICE)
        await client.send("1", "3", A, "dispatch_reply", {})
        assert (await client.receive())[1] == "3"
        node.mute(ALICE)
        await client.send("1", "4", A, "phx_leave", {})
        assert (await client.receive())[1] == "4"


# --- upgrades -----------------------------------------------------------------------------------------------------


async def test_refused_upgrades_get_the_status_and_then_it_passes(memory: bool) -> None:
    async with CloudNode(memory=memory) as node:
        node.refuse_upgrades(503, count=2, body=b"busy", headers={"Retry-After": "3"})
        for _ in range(2):
            with pytest.raises(UpgradeRefused) as caught:
                async with RawClient.connect(node):
                    pass
            assert (caught.value.status, caught.value.body) == (503, b"busy")
            assert caught.value.headers["retry-after"] == "3"
        async with RawClient.connect(node) as client:
            assert await alive(client)
        assert [request.status for request in node.requests] == [503, 503, 101]
        assert (node.statistics().upgrades, node.statistics().refused_upgrades) == (1, 2)


async def test_upgrades_are_refused_until_the_node_behaves() -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_upgrades(403)
        for _ in range(3):
            with pytest.raises(UpgradeRefused):
                async with RawClient.connect(node):
                    pass
        node.behave()
        async with RawClient.connect(node):
            assert len(node.connections) == 1


async def test_an_ignored_upgrade_is_never_answered() -> None:
    async with CloudNode(memory=True) as node:
        node.ignore_upgrades(count=1)
        with trio.move_on_after(10) as scope:
            async with RawClient.connect(node):
                pass
        assert scope.cancelled_caught
        async with RawClient.connect(node):
            assert [request.status for request in node.requests] == [0, 101]


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switching", b"\x00\x01\x02\r\n\r\n"])
async def test_an_upgrade_is_answered_with_any_bytes(memory: bool, data: bytes) -> None:
    async with CloudNode(memory=memory) as node:
        node.answer_upgrades(data, count=1)
        with pytest.raises(TransportClosed):
            async with RawClient.connect(node):
                pass
        async with RawClient.connect(node) as client:
            assert await alive(client)


async def test_our_connector_learns_the_status_of_a_refused_upgrade(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, trio.open_nursery() as nursery:
        node.refuse_upgrades(403, count=1)
        node.answer_upgrades(b"", count=1)
        endpoint = Endpoint(url=node.url, api_key=Secret("key"))
        for status in (403, None):
            with pytest.raises(ConnectFailed) as caught:
                await node.connector.open(nursery, endpoint)
            assert caught.value.status == status
        transport = await node.connector.open(nursery, endpoint)
        await transport.close(timeout=1)


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_stop_ends_upgrades_that_are_under_way_too(memory: bool, abrupt: bool) -> None:
    async with CloudNode(memory=memory) as node, trio.open_nursery() as nursery:
        node.ignore_upgrades(count=1)

        async def wait() -> None:
            with pytest.raises(TransportClosed):
                async with RawClient.connect(node):
                    pass

        nursery.start_soon(wait)
        await node.wait_for(lambda: node.requests)
        await node.stop(abrupt=abrupt)


async def test_a_delayed_upgrade_is_answered_late() -> None:
    async with CloudNode(memory=True) as node:
        node.delay_upgrades(9, count=1)
        began = trio.current_time()
        async with RawClient.connect(node):
            assert trio.current_time() - began == pytest.approx(9)


# --- joins --------------------------------------------------------------------------------------------------------


async def test_joins_are_refused_by_reason_so_many_times() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        node.refuse_joins("e.join.plugin.child.not-beneath-parent", did=ALICE, count=2)
        assert (await client.join(B, ref="1"))["status"] == "ok"
        for ref in ("2", "3"):
            reply = await client.join(A, ref=ref)
            assert reply == {"status": "error", "response": {"reason": "e.join.plugin.child.not-beneath-parent"}}
        assert (await client.join(A, ref="4"))["status"] == "ok"
        assert node.statistics().refused_joins == {A: 2}


async def test_a_delayed_join_holds_up_the_whole_socket_and_no_other() -> None:
    async with CloudNode(memory=True) as node:
        async with RawClient.connect(node) as client, RawClient.connect(node) as other:
            node.delay_joins(8, count=1)
            began = trio.current_time()
            await client.send("1", "1", A, "phx_join", {"payload_types": ["*"]})
            await client.send(None, "2", "phoenix", "heartbeat", {})
            await node.wait_for(lambda: node.frames(event="phx_join"))
            assert await alive(other)
            assert (await client.receive())[1] == "1"
            assert (await client.receive())[1] == "2"
            assert trio.current_time() - began == pytest.approx(8)


@pytest.mark.parametrize("payload", [None, [], "ok", 7, {}, {"status": "ok", "response": None}])
async def test_joins_are_answered_with_any_payload(payload: object) -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        node.answer_joins(payload, count=1)
        assert await client.join(A) == payload
        assert node.dids == (ALICE,)


async def test_an_ignored_join_runs_without_a_reply() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        node.ignore_joins(count=1)
        await client.send("1", "1", A, "phx_join", {"payload_types": ["*"]})
        await node.wait_joined(ALICE)
        assert await nothing_comes(client)
        assert await alive(client)


async def test_the_next_join_is_given_another_did() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        node.assign_did(BOB)
        assert (await client.join(A))["response"]["did"] == BOB
        assert node.dids == (BOB,)
        node.deliver(BOB, {"id": "m"})
        frame = await client.receive()
        assert frame[2] == A
        assert frame[4]["context"]["recipient"] == BOB
        assert (await client.join(A, ref="2"))["response"]["did"] == ALICE


# --- replies ------------------------------------------------------------------------------------------------------


async def test_delayed_replies_come_late_and_out_of_order() -> None:
    async with joined() as (node, client):
        node.delay_replies(7, count=1)
        began = trio.current_time()
        await client.send("1", "2", A, "dispatch_reply", {})
        await client.send("1", "3", A, "dispatch_reply", {})
        assert (await client.receive())[1] == "3"
        assert (await client.receive())[1] == "2"
        assert trio.current_time() - began == pytest.approx(7)


async def test_a_delayed_reply_dies_with_its_topic() -> None:
    async with joined() as (node, client):
        node.delay_replies(7)
        await client.send("1", "2", A, "dispatch_reply", {})
        await node.wait_for(lambda: node.frames(event="dispatch_reply"))
        node.crash_topic()
        assert (await client.receive())[3] == "phx_error"
        assert await nothing_comes(client, 20)


async def test_replies_are_repeated_dropped_and_replaced() -> None:
    async with both() as (node, alice, bob):
        node.repeat_replies(3, did=ALICE, event="dispatch_reply", count=1)
        node.drop_replies(did=ALICE, event="message", count=1)
        node.answer_pushes([1], did=BOB, count=1)
        await alice.send("1", "2", A, "message", {"to": [BOB]})
        await alice.send("1", "3", A, "dispatch_reply", {})
        await alice.send("1", "4", A, "dispatch_reply", {})
        assert [(await alice.receive())[1] for _ in range(4)] == ["3", "3", "3", "4"]
        assert (await bob.receive())[3] == "message"
        await bob.send("1", "2", B, "dispatch_reply", {})
        assert await bob.receive() == ["1", "2", B, "phx_reply", [1]]


async def test_heartbeats_are_ignored_until_told_otherwise() -> None:
    async with joined() as (node, client):
        node.ignore_heartbeats()
        assert not await alive(client)
        await client.send("1", "2", A, "dispatch_reply", {})
        assert (await client.receive())[1] == "2"
        node.ignore_heartbeats(False)
        assert await alive(client, "hb2")


# --- frames that nobody asked for ---------------------------------------------------------------------------------


async def test_frames_nobody_asked_for_are_sent_as_told(memory: bool) -> None:
    async with both(memory) as (node, alice, bob):
        node.push(ALICE, "any", [1])
        node.deliver(ALICE, {"id": "m"}, {"authorized": False})
        node.send_stale(ALICE, "message", {}, join_ref="0")
        node.send_foreign(ALICE, "message", {})
        node.send_reply(ALICE, "99", OK)
        node.send_frame(Frame(None, None, "t", "e", {}), ALICE)
        node.send_frame(Frame(None, None, "t", "e", b"\x01"), ALICE)
        node.send_raw("{not json", ALICE)
        node.send_raw(b"\x00", ALICE)
        assert await alice.receive() == ["1", None, A, "any", [1]]
        message = {"context": {"authorized": False}, "plaintext": {"id": "m"}}
        assert await alice.receive() == ["1", None, A, "message", message]
        assert await alice.receive() == ["0", None, A, "message", {}]
        assert await alice.receive() == ["1", None, "plugins:did:web:foreign", "message", {}]
        assert await alice.receive() == ["1", "99", A, "phx_reply", OK]
        assert await alice.receive() == [None, None, "t", "e", {}]
        assert await alice.receive() == b"\x02\x01\x01te\x01"
        assert await alice.receive_raw() == "{not json"
        assert await alice.receive_raw() == b"\x00"
        assert await nothing_comes(bob, 1)


async def test_bytes_below_the_framing_break_the_client_and_not_the_node() -> None:
    async with both() as (node, alice, bob):
        node.send_wire(b"\x81\x7f", ALICE)
        node.drop(ALICE)
        with pytest.raises(TransportClosed):
            await alice.receive()
        assert await alive(bob)


async def test_a_flood_arrives_whole_and_in_order(memory: bool) -> None:
    async with joined(memory) as (node, client), trio.open_nursery() as nursery:
        nursery.start_soon(node.flood, ALICE, 3000)
        for number in range(3000):
            assert (await client.receive())[4]["plaintext"]["id"] == str(number)
        assert node.delivered(ALICE) == 3000


async def test_a_behaviour_for_a_did_that_is_not_connected_is_an_error() -> None:
    async with joined() as (node, _):
        for act in (node.drop, node.go_silent, node.crash_topic, node.mute, node.resume):
            with pytest.raises(NotConnected):
                act(BOB)


# --- a client that misbehaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        b"\x81\x02hi",  # a frame without a mask
        b"\xc1\x80\x00\x00\x00\x00",  # a reserved bit
        b"\x83\x80\x00\x00\x00\x00",  # an opcode that is none
        b"\x80\x80\x00\x00\x00\x00",  # a continuation of nothing
        b"\x88\x81\x00\x00\x00\x00\x03",  # a close frame with half a code
        b"\x09\x80\x00\x00\x00\x00",  # a ping in fragments
    ],
)
async def test_a_breach_of_rfc_6455_closes_that_socket_with_1002(memory: bool, wire: bytes) -> None:
    async with both(memory) as (node, alice, bob):
        await alice.send_wire(wire)
        assert await alice.closed() == 1002
        await node.wait_for(lambda: node.dids == (BOB,))
        assert await alive(bob)


async def test_half_a_frame_and_a_reset_end_that_socket_only(memory: bool) -> None:
    async with both(memory) as (node, alice, bob):
        await alice.send_wire(b"\x81\xfe\xff")
        alice.reset()
        await node.wait_for(lambda: node.dids == (BOB,))
        assert await alive(bob)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_REFS = st.sampled_from([None, "1", "2", "", 1, 2, -1])
_FRAMES = st.tuples(
    _REFS,
    _REFS,
    st.sampled_from([A, B, "plugins:", "phoenix", "x", "", 7]),
    st.sampled_from(["phx_join", "phx_leave", "phx_close", "message", "ack", "dispatch_reply", "heartbeat", "\u0000"]),
    st.sampled_from([{"payload_types": ["*"]}, {"to": [ALICE]}, {"to": [BOB, 7, None]}]) | _JSON,
).map(json.dumps)
_MESSAGES = st.lists(_FRAMES | _FRAMES | st.text() | st.binary() | _JSON.map(json.dumps), max_size=20)


@given(_MESSAGES, st.sampled_from(["1.7.24", "1.8.11", "1.8.12"]), st.sampled_from(["2.0.0", None]))
@settings(max_examples=150, deadline=None)
async def test_whatever_a_client_sends_the_node_goes_on(messages: list[str], phoenix: str, vsn: str | None) -> None:
    async with CloudNode(memory=True, phoenix=phoenix) as node:
        async with RawClient.connect(node, vsn=vsn) as fuzzer:
            for message in messages:
                with contextlib.suppress(TransportClosed):
                    await fuzzer.send_raw(message)
            await trio.testing.wait_all_tasks_blocked()
            held = {did: len(node.channels_of(did)) for did in node.dids}
            assert sum(held.values()) == sum(len(socket.channels) for socket in node.connections)
        await node.wait_for(lambda: not node.connections)
        assert node.dids == ()
        async with RawClient.connect(node) as client:
            assert (await client.join(B))["status"] == "ok"


_REQUEST = (
    b"GET /plugin_socket/websocket?api_key=k&vsn=2.0.0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@given(
    st.integers(0, len(_REQUEST)), st.integers(0, 30), st.binary(max_size=40) | st.sampled_from([b"//[", b"\xff", b":"])
)
@settings(max_examples=150, deadline=None)
async def test_whatever_request_a_client_makes_the_node_goes_on(start: int, length: int, junk: bytes) -> None:
    async with CloudNode(memory=True) as node:
        stream = await node.open_stream()
        await stream.send_all(_REQUEST[:start] + junk + _REQUEST[start + length :])
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        async with RawClient.connect(node) as client:
            assert (await client.join(A))["status"] == "ok"


async def test_what_is_deep_goes_through_and_what_is_deeper_ends_that_socket_only() -> None:
    async with both() as (_, alice, bob):
        for depth, passes in ((200, True), (300, False)):
            nested = "[" * depth + "]" * depth
            await alice.send_raw(f'["1","2","{A}","message",{{"to":["{BOB}"],"body":{nested}}}]')
            if passes:
                assert (await bob.receive())[3] == "message"
            else:
                assert await alice.closed() == 1011
        assert await alive(bob)


async def test_frames_of_the_wrong_types_end_that_socket_only() -> None:
    for text in ('["1","1","t",7,{}]', '[{},"1","t","e",{}]', '["1","1",null,"e",{}]', "[" * 5000):
        async with both() as (_, alice, bob):
            await alice.send_raw(text)
            assert await alice.closed() == 1011
            assert await alive(bob)
