"""CloudNode over memory and over TCP: joins, routing, heartbeats, leaves, upgrades, and its own life."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trio
import trustme
from wsproto.events import CloseConnection, TextMessage

from layr8_actors.errors import ConnectFailed, InvalidOption, TransportClosed
from layr8_actors.testing import CloudNode, JoinReply, NodeChannel, PluginChannel, RawClient, UpgradeRefused
from layr8_actors.transport import Endpoint, Secret

ALICE = "did:web:node.test:alice"
BOB = "did:web:node.test:bob"
A = f"plugins:{ALICE}"
B = f"plugins:{BOB}"
OK = {"status": "ok", "response": {}}


@pytest.fixture(params=["memory", "tcp"])
def memory(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "memory")


async def test_a_join_is_answered_with_the_did_and_the_capabilities(memory: bool) -> None:
    async with CloudNode(memory=memory, capabilities=["reply_protocol/1"]) as node, RawClient.connect(node) as client:
        reply = await client.join(A)
        assert reply == {"status": "ok", "response": {"did": ALICE, "capabilities": ["reply_protocol/1"]}}
        await node.wait_joined(ALICE)
        assert node.dids == (ALICE,)
        assert node.joins(ALICE) == 1


async def test_a_blank_topic_gets_an_ephemeral_did_from_the_seed() -> None:
    dids = []
    for seed in (1, 1, 2):
        async with CloudNode(memory=True, seed=seed) as node, RawClient.connect(node) as client:
            dids.append((await client.join("plugins:"))["response"]["did"])
            assert node.dids == (dids[-1],)
            assert node.frames(dids[-1])[0].topic == "plugins:"
    assert dids[0] == dids[1] != dids[2]
    prefix, _, digits = dids[0].rpartition(":")
    assert prefix == "did:web:node.test"
    assert len(digits) == 12
    int(digits, 16)


@pytest.mark.parametrize("payload", [{}, {"payload_types": []}, {"payload_types": "x"}, [], 7])
async def test_a_join_without_protocols_is_refused(payload: object) -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        reply = await client.join(A, payload=payload)
        assert reply == {
            "status": "error",
            "response": {"reason": "e.join.plugin.protocol.missing: No protocol specified"},
        }
        assert node.statistics().refused_joins == {A: 1}
        assert node.dids == ()


async def test_the_same_did_with_the_same_protocols_binds_only_once() -> None:
    async with CloudNode(memory=True) as node:
        async with RawClient.connect(node) as one, RawClient.connect(node) as two:
            assert (await one.join(A, payload={"payload_types": ["a", "b"]}))["status"] == "ok"
            refused = await two.join(A, payload={"payload_types": ["b", "a"]})
            assert refused["response"]["reason"] == "e.connect.plugin.failed: protocols_already_bound"
            assert (await two.join(A, ref="2", payload={"payload_types": ["a"]}))["status"] == "ok"
            assert (await one.join(A, ref="3", payload={"payload_types": ["a", "b"]}))["status"] == "ok"
        await node.wait_for(lambda: not node.connections)
        assert node.dids == ()


async def test_a_node_that_is_not_exclusive_binds_twice() -> None:
    async with CloudNode(memory=True, exclusive=False) as node:
        async with RawClient.connect(node) as one, RawClient.connect(node) as two:
            assert (await one.join(A))["status"] == "ok"
            assert (await two.join(A))["status"] == "ok"


async def test_a_message_is_routed_by_its_recipients(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, RawClient.connect(node) as alice, RawClient.connect(node) as bob:
        await alice.join(A)
        await bob.join(B)
        plaintext = {"id": "m", "type": "t", "from": ALICE, "to": [BOB], "body": {}}
        await alice.send("1", "2", A, "message", plaintext)
        assert await alice.receive() == ["1", "2", A, "phx_reply", OK]
        context = {"recipient": BOB, "authorized": True, "sender_credentials": []}
        assert await bob.receive() == ["1", None, B, "message", {"context": context, "plaintext": plaintext}]
        assert node.delivered(BOB) == 1
        assert [frame.event for frame in node.frames(ALICE)] == ["phx_join", "message"]


async def test_a_message_to_somebody_unknown_is_refused_and_reaches_nobody() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as alice:
        await alice.join(A)
        for to in ([ALICE, BOB], [], None, "x"):
            await alice.send("1", "2", A, "message", {"id": "m", "to": to})
            reply = await alice.receive()
            assert reply[4]["status"] == "error"
            assert reply[4]["response"]["reason"].startswith("e.route.not-found: ")
        assert node.delivered(ALICE) == 0


async def test_ack_is_not_answered_and_dispatch_reply_is() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as alice:
        await alice.join(A)
        await alice.send("1", "2", A, "ack", {"ids": ["m"]})
        await alice.send("1", "3", A, "dispatch_reply", {"message_id": "m", "status": "handled"})
        assert await alice.receive() == ["1", "3", A, "phx_reply", OK]
        assert [frame.payload for frame in node.frames(ALICE, event="ack")] == [{"ids": ["m"]}]


async def test_heartbeats_are_answered_and_counted(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, RawClient.connect(node) as client:
        await client.send(None, "9", "phoenix", "heartbeat", {})
        assert await client.receive() == [None, "9", "phoenix", "phx_reply", OK]
        assert node.statistics().heartbeats == 1


async def test_a_leave_is_answered_then_the_topic_closed(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, RawClient.connect(node) as client:
        await client.join(A)
        await client.send("1", "2", A, "phx_leave", {})
        assert await client.receive() == ["1", "2", A, "phx_reply", OK]
        assert await client.receive() == ["1", "1", A, "phx_close", {}]
        assert node.dids == ()
        assert (await client.join(A, ref="3"))["status"] == "ok"


async def test_a_frame_that_is_none_closes_the_socket_with_1011_and_no_other(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, RawClient.connect(node) as bad, RawClient.connect(node) as good:
        await bad.join(A)
        await bad.send_raw("{}")
        with pytest.raises(TransportClosed) as caught:
            await bad.receive()
        assert caught.value.code == 1011
        assert (await good.join(A))["status"] == "ok"
        assert node.statistics().bad_frames == 1


async def test_an_idle_socket_is_closed_with_1002_and_traffic_keeps_it_open() -> None:
    async with CloudNode(memory=True, idle_timeout=60) as node, RawClient.connect(node) as client:
        for _ in range(3):
            await trio.sleep(59)
            await client.send(None, "9", "phoenix", "heartbeat", {})
            assert (await client.receive())[1] == "9"
        began = trio.current_time()
        assert await client.closed() == 1002
        assert trio.current_time() - began == pytest.approx(60)


async def test_a_client_that_does_not_answer_the_close_is_dropped_after_the_close_timeout() -> None:
    async with CloudNode(memory=True, close_timeout=5) as node, RawClient.connect(node) as client:
        await client.join(A)
        began = trio.current_time()
        node.close(1012)
        assert node.connections == ()
        await node.wait_for(lambda: node.statistics().sockets == 0)
        assert trio.current_time() - began == pytest.approx(5)


# --- upgrades -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api_keys", "key", "status"),
    [(None, "anything", 101), (None, "", 403), (None, None, 403), (["good"], "good", 101), (["good"], "bad", 403)],
)
async def test_keys_are_checked_at_the_upgrade(api_keys: list[str] | None, key: str | None, status: int) -> None:
    async with CloudNode(memory=True, api_keys=api_keys) as node:
        if status == 101:
            async with RawClient.connect(node, api_key=key):
                pass
        else:
            with pytest.raises(UpgradeRefused) as caught:
                async with RawClient.connect(node, api_key=key):
                    pass
            assert (caught.value.status, caught.value.body) == (403, b"")
        assert [request.status for request in node.requests] == [status]


async def test_the_key_may_come_in_the_header_and_is_never_shown() -> None:
    async with CloudNode(memory=True, api_keys=["s3cret"]) as node:
        async with RawClient.connect(node, api_key=None, headers=[("X-Api-Key", "s3cret")]):
            pass
        async with RawClient.connect(node, api_key="s3cret"):
            pass
        header, query = node.requests
        assert header.api_key == query.api_key == "s3cret"
        assert dict(header.query) == {"vsn": "2.0.0"}
        assert query.url == "/plugin_socket/websocket?api_key=***&vsn=2.0.0"
        assert "s3cret" not in f"{header!r} {header} {query!r} {query} {node!r} {node.statistics()!r}"


@pytest.mark.parametrize(
    ("vsn", "status"), [("2.0.7", 101), ("1.0.0", 101), ("2.1.0", 403), ("2", 403), ("banana", 403), ("3.0.0", 403)]
)
async def test_only_a_vsn_that_phoenix_knows_is_accepted(vsn: str, status: int) -> None:
    async with CloudNode(memory=True) as node:
        with contextlib.suppress(UpgradeRefused):
            async with RawClient.connect(node, vsn=vsn):
                pass
        assert [request.status for request in node.requests] == [status]


async def test_another_path_is_not_found(memory: bool) -> None:
    async with CloudNode(memory=memory) as node:
        with pytest.raises(UpgradeRefused) as caught:
            async with RawClient.connect(node, path="/plugin_socket?vsn=2.0.0&api_key=k"):
                pass
        assert (caught.value.status, caught.value.body) == (404, b"not found")


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"],
    ids=["TLS", "bad host", "POST"],
)
async def test_what_is_no_upgrade_is_answered_with_400_and_the_node_goes_on(memory: bool, garbage: bytes) -> None:
    async with CloudNode(memory=memory) as node:
        stream = await node.open_stream()
        await stream.send_all(garbage + b"\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
        await stream.aclose()
        assert answer.startswith(b"HTTP/1.1 400 ")
        async with RawClient.connect(node) as client:
            assert (await client.join(A))["status"] == "ok"


async def test_a_connection_that_asks_for_nothing_is_dropped_after_the_upgrade_timeout() -> None:
    async with CloudNode(memory=True, upgrade_timeout=60) as node:
        stream = await node.open_stream()
        await stream.send_all(b"GET /plugin")
        began = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(60)
        await stream.aclose()


# --- the node's own life ------------------------------------------------------------------------------------------


async def test_our_connector_reaches_the_node_over_memory_and_over_tcp(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, trio.open_nursery() as nursery:
        transport = await node.connector.open(nursery, Endpoint(url=node.url, api_key=Secret("key")))
        await transport.send([f'["1","1","{A}","phx_join",{{"payload_types":["*"]}}]'])
        await node.wait_joined(ALICE)
        (reply,) = await transport.receive()
        assert ALICE in str(reply)
        await transport.close(timeout=5)
        await node.wait_for(lambda: not node.connections)


async def test_leaving_the_block_ends_sockets_and_tasks(memory: bool) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with CloudNode(memory=memory) as node:
        async with RawClient.connect(node) as client:
            await client.join(A)
            stream = client.stream
            port = node.port
            async with RawClient.connect(node) as other:
                await node.__aexit__(None, None, None)
                assert await client.closed() == 1006
                assert await other.closed() == 1006
                assert trio.lowlevel.current_statistics().tasks_living == tasks
                with pytest.raises((OSError, RuntimeError)):
                    await node.open_stream()
        assert stream is not None
        await node.__aenter__()
        assert memory or node.port == port


async def test_an_error_of_the_test_comes_out_of_the_block_bare() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with CloudNode(memory=True):
            raise KeyError("mine")


class BrokenChannel(NodeChannel):
    async def join(self, payload: object) -> JoinReply:
        raise ZeroDivisionError("a bug in the node")


async def test_an_error_of_the_node_comes_out_of_the_block() -> None:
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with CloudNode(memory=True, channels={"plugins:": BrokenChannel}) as node:
            async with RawClient.connect(node) as client:
                with pytest.raises(TransportClosed):
                    await client.join(A)


async def test_a_stopped_node_refuses_connections_and_starts_again_on_its_port(memory: bool) -> None:
    async with CloudNode(memory=memory) as node:
        url = node.url
        async with RawClient.connect(node) as joined, RawClient.connect(node) as idle:
            await joined.join(A)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.stop)
                assert await joined.closed() == 1012
                assert await idle.closed() == 1000
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectFailed):
                await node.connector.open(nursery, Endpoint(url=node.url, api_key=Secret("key")))
        await node.start()
        assert node.url == url
        async with RawClient.connect(node) as client:
            await client.join(A)
            assert node.joins(ALICE) == 2
            async with node.down(abrupt=True):
                assert await client.closed() == 1006
                with pytest.raises(ConnectionRefusedError if memory else OSError, match=r"refused|stopped|connect"):
                    await node.open_stream()
        async with RawClient.connect(node) as client:
            assert (await client.join(A))["status"] == "ok"


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with CloudNode() as first:
        second = CloudNode(port=first.port)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        await first.stop()
        async with second, RawClient.connect(second) as client:
            assert (await client.join(A))["status"] == "ok"
            with pytest.raises(OSError, match="in use"):
                await first.start()
        await first.start()
        await first.start()
        async with RawClient.connect(first) as client:
            assert (await client.join(A))["status"] == "ok"
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_cancelled_at_its_beginning_it_leaves_nothing(memory: bool) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        scope.cancel()
        async with CloudNode(memory=memory):
            pytest.fail("the block was entered")
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_cancelled_in_its_block_it_leaves_nothing(memory: bool) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(5) as scope:
        async with CloudNode(memory=memory) as node, RawClient.connect(node) as client:
            await client.join(A)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert node.connections == ()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_outside_of_its_block_a_node_says_so() -> None:
    node = CloudNode(memory=True)
    for act in (node.start, node.stop):
        with pytest.raises(RuntimeError, match="does not run"):
            await act()
    with pytest.raises(ConnectionRefusedError):
        await node.open_stream()
    async with node:
        with pytest.raises(RuntimeError, match="runs already"):
            await node.__aenter__()


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.test", 403), ("http://[", 403), ("http://localhost:4410", 101)]
)
async def test_an_origin_has_to_be_the_nodes_own(origin: str, status: int) -> None:
    async with CloudNode(memory=True) as node:
        with contextlib.suppress(UpgradeRefused):
            async with RawClient.connect(node, headers=[("Origin", origin)]):
                pass
        assert [request.status for request in node.requests] == [status]


async def test_it_serves_tls() -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    for memory in (True, False):
        async with CloudNode(memory=memory, ssl_context=server) as node, trio.open_nursery() as nursery:
            endpoint = Endpoint(url=node.url, api_key=Secret("key"), ssl_context=client)
            transport = await node.connector.open(nursery, endpoint)
            await transport.send(['[null,"1","phoenix","heartbeat",{}]'])
            assert len(await transport.receive()) == 1
            await transport.close(timeout=5)
            transport = await node.connector.open(nursery, endpoint)
            await transport.send(['[null,"1","phoenix","heartbeat",{}]'])
            await transport.receive()  # from here on the node has it among its sockets
            node.drop(reset=True)
            with pytest.raises(TransportClosed) as caught:
                await transport.receive()
            assert caught.value.code == 1006
            stream = await node.open_stream()
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
            await stream.aclose()


async def test_waiting_for_what_does_not_happen_says_what_did() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node):
        with pytest.raises(TimeoutError, match="upgrades=1"):
            await node.wait_joined(ALICE, timeout=30)


@pytest.mark.parametrize(
    "options", [{"phoenix": "1.5"}, {"idle_timeout": 0}, {"close_timeout": "1"}, {"api_keys": "one"}]
)
def test_a_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=f"^{next(iter(options))}: "):
        CloudNode(**options)  # type: ignore[arg-type]


async def test_a_channel_class_of_ones_own_answers_events_of_ones_own() -> None:
    class Greeter(PluginChannel):
        def handle_in(self, event: str, payload: object, ref: str | int | None) -> None:
            if event == "hello":
                self.reply(ref, "ok", {"greeting": payload})
            else:
                super().handle_in(event, payload, ref)

    async with CloudNode(memory=True, channels={"plugins:": Greeter}) as node, RawClient.connect(node) as client:
        await client.join(A)
        await client.send("1", "2", A, "hello", "you")
        assert await client.reply("2") == {"status": "ok", "response": {"greeting": "you"}}
        await client.send("1", "3", A, "nosuch", {})
        assert await client.receive() == ["1", "1", A, "phx_error", {}]


async def test_what_comes_in_one_read_with_a_close_frame_is_still_acted_on() -> None:
    async with CloudNode(memory=True) as node, RawClient.connect(node) as client:
        await client.join(A)
        leave = client._wire.send(TextMessage(data=f'["1", "2", "{A}", "phx_leave", {{}}]'))
        await client.send_wire(leave + client._wire.send(CloseConnection(code=1000)))
        assert (await client.reply("2"))["status"] == "ok"
        assert await client.closed() == 1000
        assert len(node.frames(event="phx_leave")) == 1
