"""Every function, callback and option of Layr8.Channel against a CloudNode over a real socket, under virtual time."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trustme

from layr8_actors import (
    Backoff,
    Callbacks,
    Channel,
    ChannelClosed,
    ChannelOptions,
    ConnectFailed,
    Disconnected,
    JoinRejected,
    JoinTimeout,
    LinkStatus,
    NotConnected,
    ReplyTimeout,
    open_channel,
)
from layr8_actors.otp import Supervisor
from layr8_actors.testing import CloudNode

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
ALICE = "did:web:node.test:alice"
BOB = "did:web:node.test:bob"
QUICK = Backoff(initial=0.05, maximum=0.2, factor=2, jitter=0.5, reset_after=30)


transport: Any = "auto"


@pytest.fixture(autouse=True, params=["websockets", "trio-websocket"])
def _each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "transport", request.param)


def options(node: CloudNode, did: str = ALICE, **changes: Any) -> ChannelOptions:
    given = {"ws_url": node.url, "api_key": "good-key", "agent_did": did, "transport": transport}
    return ChannelOptions(**{**given, "on_event": lambda event: None, **changes})


def plaintext(number: int, to: str, sender: str = ALICE) -> dict[str, Any]:
    return {
        "id": str(number),
        "type": "https://didcomm.org/basicmessage/2.0/message",
        "from": sender,
        "to": [to],
        "body": {"content": f"message {number}"},
    }


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


# --- the functions ----------------------------------------------------------------------------------------------------


async def test_two_agents_exchange_messages_with_send_msg_and_on_message() -> None:
    got: dict[str, list[Any]] = {ALICE: [], BOB: []}
    async with CloudNode() as node:
        async with (
            open_channel(options(node, ALICE, callbacks=Callbacks(got[ALICE].append))) as alice,
            open_channel(options(node, BOB, callbacks=Callbacks(got[BOB].append))) as bob,
        ):
            await alice.connect(PROTOCOLS)
            await bob.connect(PROTOCOLS)
            for number in range(20):
                assert (await alice.send_msg("message", plaintext(number, BOB))).ok
                assert (await bob.send_msg("message", plaintext(number, ALICE, BOB))).ok
            await until(lambda: len(got[ALICE]) == len(got[BOB]) == 20)
        assert [message["plaintext"]["id"] for message in got[BOB]] == [str(number) for number in range(20)]
        assert got[ALICE][0]["plaintext"] == plaintext(0, ALICE, BOB)


async def test_start_link_with_the_seeds_arguments_and_close() -> None:
    spec = {"mode": "Require", "storage": "persistent", "label": "Alice"}
    async with CloudNode() as node, trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, options(node, did_spec=spec, callbacks=Callbacks(print)))
        await channel.connect(PROTOCOLS)
        (join,) = node.frames(event="phx_join")
        assert join.payload["did_spec"]["mode"] == "Require"
        assert join.payload["did_spec"]["storage"] == "persistent"
        assert join.payload["did_spec"]["label"] == "Alice"
        assert join.payload["payload_types"] == PROTOCOLS
        await channel.close()
        (leave,) = node.frames(event="phx_leave")
        assert leave.join_ref == join.ref
        assert node.connections == ()
        with pytest.raises(ChannelClosed):
            await channel.connect(PROTOCOLS)


async def test_child_spec_runs_a_channel_in_a_supervisor() -> None:
    async with CloudNode() as node, trio.open_nursery() as nursery:
        supervisor = Supervisor([Channel.child_spec(options(node), protocols=PROTOCOLS)], on_event=lambda event: None)
        await nursery.start(supervisor.run)
        await node.wait_joined(ALICE)
        channel = supervisor.whereis("channel")
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok
        await supervisor.stop()
        assert node.connections == ()


async def test_send_fire_and_forget_and_send_ack_reach_the_node() -> None:
    got: list[Any] = []
    async with CloudNode() as node, open_channel(options(node, callbacks=Callbacks(got.append))) as channel:
        await channel.connect(PROTOCOLS)
        await channel.send_fire_and_forget("message", plaintext(7, ALICE))
        await channel.send_ack(["id-1", "id-2"])
        await until(lambda: got and node.frames(event="ack"))
        assert got[0]["plaintext"]["id"] == "7"
        (ack,) = node.frames(event="ack")
        assert ack.payload == {"ids": ["id-1", "id-2"]}
        assert all(frame.join_ref == "1" for frame in node.frames(ALICE) if frame.event in ("ack", "message"))


async def test_messages_can_be_iterated() -> None:
    async with CloudNode() as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        messages = channel.messages()
        await node.flood(ALICE, 100)
        with trio.fail_after(30):
            got = [await anext(messages) for _ in range(100)]
        assert len({str(message) for message in got}) == 100


async def test_a_refused_message_is_a_reply_with_the_reason() -> None:
    async with CloudNode() as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        reply = await channel.send_msg("message", plaintext(1, "did:web:nobody"))
        assert reply.status == "error"
        assert reply.reason.startswith("e.route.not-found")


async def test_assigned_did_and_capabilities_come_from_the_join() -> None:
    async with CloudNode(capabilities=["reply_protocol/1", "wildcard/1"]) as node:
        async with open_channel(options(node, "")) as channel:
            assert (channel.assigned_did, channel.capabilities) == ("", ())
            await channel.connect(PROTOCOLS)
            assert channel.assigned_did == node.dids[0]
            assert channel.capabilities == ("reply_protocol/1", "wildcard/1")


async def test_state_and_statistics_tell_what_runs() -> None:
    async with CloudNode() as node, open_channel(options(node)) as channel:
        assert channel.state.status is LinkStatus.IDLE
        await channel.connect(PROTOCOLS)
        assert channel.state.joined
        await channel.send_msg("message", plaintext(1, ALICE))
        statistics = channel.statistics()
        assert statistics.transport == transport
        assert (statistics.link, statistics.links_opened, statistics.sent, statistics.replies) == (1, 1, 1, 1)
    assert channel.state.status is LinkStatus.CLOSED


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "rst", "1000", "1012"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_disconnect_and_on_reconnect_fire_once_per_drop_and_rejoin(how: str, kind: str) -> None:
    order: list[Any] = []

    async def on_disconnect(error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        order.append(error)

    async def on_reconnect() -> None:
        await trio.lowlevel.checkpoint()
        order.append("reconnect")

    if kind == "async":
        callbacks = Callbacks(None, on_disconnect, on_reconnect)
    else:
        callbacks = Callbacks(None, order.append, lambda: order.append("reconnect"))
    async with CloudNode() as node, open_channel(options(node, callbacks=callbacks, backoff=QUICK)) as channel:
        await channel.connect(PROTOCOLS)
        for turn in range(3):
            if how in ("fin", "rst"):
                node.drop(reset=how == "rst")
            else:
                node.close(int(how))
            await node.wait_joined(ALICE, turn + 2, timeout=60)
            await until(lambda turn=turn: len(order) == 2 * (turn + 1))  # type: ignore[misc]
        assert [entry for entry in order if entry == "reconnect"] == ["reconnect"] * 3
        assert [type(entry).__name__ for entry in order[::2]] == ["TransportClosed"] * 3
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok


async def test_a_node_that_restarts_is_joined_again() -> None:
    async with CloudNode() as node, open_channel(options(node, backoff=QUICK)) as channel:
        await channel.connect(PROTOCOLS)
        async with node.down():
            await until(lambda: not channel.state.joined)
            with pytest.raises(NotConnected):
                await channel.send_msg("message", plaintext(1, ALICE))
            await trio.sleep(3)
        await node.wait_joined(ALICE, 2, timeout=60)
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok


async def test_a_crashed_a_closed_and_a_forgotten_topic_are_joined_again_on_the_same_socket() -> None:
    async with CloudNode() as node, open_channel(options(node, backoff=QUICK)) as channel:
        await channel.connect(PROTOCOLS)
        for turn, end in enumerate((node.crash_topic, node.close_topic, node.forget_topic)):
            end(ALICE)
            if end == node.forget_topic:  # the node says nothing of it: only a push shows it
                with pytest.raises(Disconnected):
                    await channel.send_msg("message", plaintext(1, ALICE))
            await node.wait_joined(ALICE, turn + 2, timeout=60)
            await channel.connect(PROTOCOLS)
            assert (await channel.send_msg("message", plaintext(1, ALICE))).ok
        assert channel.statistics().links_opened == 1


async def test_a_node_that_goes_silent_is_noticed_by_the_heartbeat() -> None:
    order: list[Any] = []
    callbacks = Callbacks(None, order.append, lambda: order.append("reconnect"))
    async with CloudNode() as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.go_silent()
        await until(lambda: order, 100)
        node.resume()
        node.behave()
        await node.wait_joined(ALICE, 2, timeout=200)
        await until(lambda: len(order) == 2)
        assert "heartbeat" in str(order[0])


# --- what fails -------------------------------------------------------------------------------------------------------


async def test_connect_that_is_refused_each_way_raises_its_own_error_and_then_succeeds_on_a_node_that_is_well() -> None:
    async with CloudNode() as node, open_channel(options(node, join_timeout=2, connect_timeout=2)) as channel:
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def fails(kind: type[Exception]) -> Any:
            with pytest.raises(kind) as caught:
                await channel.connect(PROTOCOLS)
            await until(lambda: not node.connections)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            node.behave()
            return caught.value

        node.refuse_upgrades(403, count=1)
        assert (await fails(ConnectFailed)).status == 403
        node.refuse_upgrades(503, count=1)
        assert not (await fails(ConnectFailed)).permanent
        node.ignore_upgrades(count=1)
        await fails(ConnectFailed)
        node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", count=1)
        assert not (await fails(JoinRejected)).permanent
        node.refuse_joins("e.join.plugin.child.not-beneath-parent", count=1)
        assert (await fails(JoinRejected)).permanent
        node.ignore_joins(count=1)
        await fails(JoinTimeout)
        async with node.down():
            await fails(ConnectFailed)
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok


async def test_a_host_that_does_not_exist_is_connect_failed() -> None:
    refused = ChannelOptions(ws_url="ws://no-such-host.invalid/plugin_socket/websocket", api_key="good-key")
    async with open_channel(refused) as channel:
        with pytest.raises(ConnectFailed, match=r"no-such-host\.invalid"):
            await channel.connect(PROTOCOLS)


async def test_a_mute_topic_ends_a_send_with_reply_timeout() -> None:
    async with CloudNode() as node, open_channel(options(node, reply_timeout=3)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute(ALICE)
        with pytest.raises(ReplyTimeout) as caught:
            await channel.send_msg("message", plaintext(1, ALICE))
        assert caught.value.written


async def test_a_restricted_key_is_told_by_the_status_and_the_header_mode_keeps_it_out_of_the_url() -> None:
    async with CloudNode(api_keys={"good-key"}) as node:
        async with open_channel(options(node, api_key="bad-key")) as channel:
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
            assert (caught.value.status, caught.value.permanent) == (403, True)
        async with open_channel(options(node, auth="header")) as channel:
            await channel.connect(PROTOCOLS)
            assert "api_key" not in str(node.requests[-1])


async def test_wss_through_an_ssl_context_and_a_localhost_name(free_of_leaks: None) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("agent.localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with CloudNode() as node, trio.open_nursery() as nursery:

        async def terminate_tls(stream: trio.SocketStream) -> None:
            """What a TLS front does: decrypt, and pass on to the node."""
            secure = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
            plain = await trio.open_tcp_stream("127.0.0.1", node.port)
            async with secure, plain, trio.open_nursery() as both:
                both.start_soon(_copy, secure, plain, both.cancel_scope)
                both.start_soon(_copy, plain, secure, both.cancel_scope)

        listeners = await nursery.start(trio.serve_tcp, terminate_tls, 0)
        port = listeners[0].socket.getsockname()[1]
        url = f"wss://agent.localhost:{port}/plugin_socket/websocket"
        async with open_channel(options(node, ws_url=url, ssl_context=client)) as channel:
            await channel.connect(PROTOCOLS)
            assert (await channel.send_msg("message", plaintext(1, ALICE))).ok
        async with open_channel(options(node, ws_url=url)) as distrustful:
            with pytest.raises(ConnectFailed, match="certificate"):
                await distrustful.connect(PROTOCOLS)
        nursery.cancel_scope.cancel()


async def _copy(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()
        return
    scope.cancel()


@pytest.fixture
def free_of_leaks() -> None:
    """Marks a test whose streams must all be closed: an unclosed one is a ResourceWarning, hence an error."""


# --- load -------------------------------------------------------------------------------------------------------------


async def test_a_flood_into_a_slow_consumer_is_slowed_down_and_arrives_once_and_in_order() -> None:
    got: list[int] = []

    async def on_message(payload: Any) -> None:
        got.append(int(payload["plaintext"]["n"]))
        if len(got) % 100 == 0:
            await trio.sleep(0.5)

    callbacks = Callbacks(on_message)
    async with (
        CloudNode() as node,
        open_channel(options(node, callbacks=callbacks, inbox_capacity=64)) as channel,
        trio.open_nursery() as nursery,
    ):
        await channel.connect(PROTOCOLS)

        @nursery.start_soon
        async def flood() -> None:
            await node.flood(ALICE, 5000, lambda number: {"n": number})

        await until(lambda: len(got) == 5000, 200)
        assert got == list(range(5000))
        assert channel.statistics().drops == 0


async def test_a_thousand_sends_in_flight_all_get_their_own_reply() -> None:
    replies: list[Any] = []

    async def send(channel: Channel, number: int) -> None:
        replies.append((number, await channel.send_msg("message", plaintext(number, "did:web:nobody"))))

    async with CloudNode() as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(send, channel, number)
        assert sorted(number for number, _ in replies) == list(range(1000))
        assert all(reply.status == "error" for _, reply in replies)
