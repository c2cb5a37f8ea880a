"""connect: what goes on the wire, and how it fails and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Channel, LinkStatus, open_channel
from layr8_actors.channel.events import AssignedDidChanged
from layr8_actors.errors import (
    AlreadyConnected,
    ChannelClosed,
    ConnectFailed,
    InvalidOption,
    JoinRejected,
    JoinTimeout,
    NotConnected,
    RemoteProtocolError,
)
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
DID = "did:web:node.test:alice"
TOPIC = f"plugins:{DID}"


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def assert_nothing_is_left_and_connect_works_again(channel: Channel, node: Any) -> None:
    assert node.open_sockets == 0
    assert node.dialling == 0
    assert channel.state.status is LinkStatus.IDLE
    dials = node.dials
    await trio.sleep(300)
    assert node.dials == dials, "a failed connect went on dialling"
    node.dial_error = None
    node.join_refusal = None
    node.hold_joins = False
    node.join_response = {"did": DID, "capabilities": []}
    await channel.connect(PROTOCOLS)
    assert (channel.state.joined, node.open_sockets) == (True, 1)


async def test_nothing_is_dialled_before_connect(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await trio.sleep(100)
        assert (node.dials, channel.state.status) == (0, LinkStatus.IDLE)
        with pytest.raises(NotConnected):
            await channel.send_msg("message", {})


async def test_the_first_frame_is_the_join_with_join_ref_equal_to_ref_and_the_payload_of_the_contract(
    node: Any,
) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect([*PROTOCOLS, *PROTOCOLS, "*"])
        join = node.socket.frames[0]
        assert join == Frame(
            "1",
            "1",
            TOPIC,
            "phx_join",
            {
                "payload_types": [PROTOCOLS[0], "*"],
                "reply_protocol": True,
                "did_spec": {
                    "mode": "Create",
                    "storage": "persistent",
                    "type": "plugin",
                    "verificationMethods": [
                        {"purpose": "authentication"},
                        {"purpose": "assertionMethod"},
                        {"purpose": "keyAgreement"},
                    ],
                },
            },
        )
        assert (channel.assigned_did, channel.capabilities) == (DID, ("reply_protocol/1",))
        assert node.endpoints[0].api_key.reveal() == "s3cr3t-k3y"


async def test_a_blank_did_joins_the_bare_topic_and_takes_messages_on_it_and_on_the_assigned_one(
    node: Any, calls: Any
) -> None:
    node.join_response = {"did": "did:web:node.test:0123456789ab"}
    async with open_channel(node.options(agent_did="", callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        join = node.socket.frames[0]
        assert (join.topic, join.payload["did_spec"]["storage"]) == ("plugins:", "ephemeral")
        assert channel.assigned_did == "did:web:node.test:0123456789ab"
        for number, topic in enumerate(("plugins:", "plugins:did:web:node.test:0123456789ab")):
            node.topic = topic
            node.socket.message(number)
        await settle()
        assert calls.ids == [0, 1]
        await channel.close()
        assert node.socket.frames[-1].topic == "plugins:", "the leave has to name the topic that was joined"


async def test_a_did_that_changes_at_a_rejoin_is_surfaced(node: Any) -> None:
    node.join_response = {"did": "did:web:node.test:first"}
    async with open_channel(node.options(agent_did="")) as channel:
        await channel.connect(PROTOCOLS)
        node.join_response = {"did": "did:web:node.test:second"}
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        assert channel.assigned_did == "did:web:node.test:second"
        (event,) = node.seen(AssignedDidChanged)
        assert (event.before, event.after) == ("did:web:node.test:first", "did:web:node.test:second")


async def test_a_refused_dial_raises_connect_failed_and_leaves_nothing(node: Any) -> None:
    node.dial_error = ConnectFailed("ws://node.test/plugin_socket/websocket", "HTTP 403", status=403)
    async with open_channel(node.options()) as channel:
        with pytest.raises(ConnectFailed) as caught:
            await channel.connect(PROTOCOLS)
        assert caught.value.status == 403
        assert caught.value.permanent
        await assert_nothing_is_left_and_connect_works_again(channel, node)


async def test_a_refused_join_raises_join_rejected_with_the_reason_and_leaves_nothing(node: Any) -> None:
    node.join_refusal = "e.connect.plugin.failed: protocols_already_bound"
    async with open_channel(node.options()) as channel:
        with pytest.raises(JoinRejected) as caught:
            await channel.connect(PROTOCOLS)
        assert (caught.value.reason, caught.value.permanent) == (node.join_refusal, False)
        assert node.socket.ended_by == "close"
        await assert_nothing_is_left_and_connect_works_again(channel, node)


async def test_a_dial_that_hangs_raises_connect_failed_after_connect_timeout(node: Any) -> None:
    node.dial_gate = trio.Event()
    async with open_channel(node.options()) as channel:
        start = trio.current_time()
        with pytest.raises(ConnectFailed, match="within 10 s"):
            await channel.connect(PROTOCOLS)
        assert trio.current_time() - start == pytest.approx(10, abs=0.1)
        node.dial_gate = None
        await assert_nothing_is_left_and_connect_works_again(channel, node)


async def test_a_join_that_is_not_answered_raises_join_timeout_after_join_timeout(node: Any) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel:
        start = trio.current_time()
        with pytest.raises(JoinTimeout):
            await channel.connect(PROTOCOLS)
        assert trio.current_time() - start == pytest.approx(10, abs=0.1)
        await assert_nothing_is_left_and_connect_works_again(channel, node)


@pytest.mark.parametrize("how", ["drop", "crash"])
async def test_a_join_that_is_cut_off_fails_at_once_and_not_after_its_timeout(node: Any, how: str) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cut_off() -> None:
                await settle()
                if how == "drop":
                    node.socket.drop(1011)
                else:
                    ref = node.socket.join_ref
                    node.socket.say(Frame(ref, ref, TOPIC, "phx_error", {}))

            with pytest.raises(ConnectFailed):
                await channel.connect(PROTOCOLS)
        assert trio.current_time() < 1
        await assert_nothing_is_left_and_connect_works_again(channel, node)


@pytest.mark.parametrize(
    "response",
    [None, [], "ok", {"did": {}}, {"did": ""}, {"did": DID, "capabilities": None}, {"capabilities": [1]}],
    ids=repr,
)
async def test_a_join_answered_with_nonsense_raises_a_protocol_error_and_leaves_nothing(
    node: Any, response: Any
) -> None:
    node.handle = lambda socket, frame: socket.say(
        Frame(frame.join_ref, frame.ref, frame.topic, "phx_reply", {"status": "ok", "response": response})
    )
    async with open_channel(node.options()) as channel:
        with pytest.raises(RemoteProtocolError):
            await channel.connect(PROTOCOLS)
        del node.handle
        await assert_nothing_is_left_and_connect_works_again(channel, node)


async def test_a_blank_did_that_the_node_does_not_assign_is_a_protocol_error(node: Any) -> None:
    node.join_response = {}
    async with open_channel(node.options(agent_did="")) as channel:
        with pytest.raises(RemoteProtocolError, match="assigned none"):
            await channel.connect(PROTOCOLS)
        assert node.open_sockets == 0


async def test_a_key_provider_is_asked_before_every_dial_and_its_failure_fails_only_the_attempt(node: Any) -> None:
    answers: list[Any] = ["first", RuntimeError("vault says s3cr3t-k3y is sealed"), "third", None]

    async def provider() -> str:
        await trio.lowlevel.checkpoint()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    async with open_channel(node.options(api_key=provider)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        assert [endpoint.api_key.reveal() for endpoint in node.endpoints] == ["first", "third"]
        assert "s3cr3t" not in "".join(event.describe() for event in node.events)
        await channel.close()
    async with open_channel(node.options(api_key=provider)) as channel:
        with pytest.raises(InvalidOption, match="api_key"):
            await channel.connect(PROTOCOLS)


@pytest.mark.parametrize("protocols", [[], "https://didcomm.org/basicmessage/2.0", [""], [1], None, b"x"])
async def test_protocols_that_no_node_takes_are_refused_before_anything_is_dialled(node: Any, protocols: Any) -> None:
    async with open_channel(node.options()) as channel:
        with pytest.raises(InvalidOption, match="protocols"):
            await channel.connect(protocols)
        assert node.dials == 0


@pytest.mark.parametrize("moment", ["connecting", "joining"])
async def test_a_cancelled_connect_leaves_nothing(node: Any, moment: str) -> None:
    if moment == "connecting":
        node.dial_gate = trio.Event()
    else:
        node.hold_joins = True
    async with open_channel(node.options()) as channel:
        with trio.move_on_after(1):
            await channel.connect(PROTOCOLS)
        await settle()
        node.dial_gate = None
        await assert_nothing_is_left_and_connect_works_again(channel, node)


@pytest.mark.parametrize("turns", range(12))
async def test_a_connect_cancelled_after_any_number_of_turns_leaves_nothing(node: Any, turns: int) -> None:
    async with open_channel(node.options()) as channel:
        node.hold_joins = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.connect, PROTOCOLS)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await settle()
        await assert_nothing_is_left_and_connect_works_again(channel, node)


async def test_connect_called_again_at_once_after_a_cancelled_one_joins_over_one_socket(node: Any) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel:
        with trio.move_on_after(1):
            await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.connect, PROTOCOLS)
            await settle()
            node.release_joins()
        # Whether it takes over the old attempt or makes its own depends on who runs first; either way one socket stays.
        assert (channel.state.joined, node.open_sockets, node.most_at_once) == (True, 1, 1)


async def test_connect_called_while_the_socket_of_a_cancelled_one_is_closed_waits_for_its_end(node: Any) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel:
        with trio.move_on_after(1):
            await channel.connect(PROTOCOLS)
        node.socket.stop_reading()  # the close handshake takes its time
        await settle()
        node.hold_joins = False
        assert channel.state.status is LinkStatus.LEAVING
        await channel.connect(PROTOCOLS)
        assert (node.dials, node.open_sockets, node.most_at_once) == (2, 1, 1)


async def test_two_callers_of_connect_share_one_attempt_and_each_gets_an_error_of_its_own(node: Any) -> None:
    node.dial_error = ConnectFailed("ws://node.test/plugin_socket/websocket", "HTTP 503", status=503)
    errors: list[Exception] = []

    async def connect(channel: Channel) -> None:
        try:
            await channel.connect(PROTOCOLS)
        except ConnectFailed as error:
            errors.append(error)

    async with open_channel(node.options()) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, channel)
            nursery.start_soon(connect, channel)
        assert node.dials == 1
        assert errors[0] is not errors[1]
        assert [(type(error), str(error), error.status) for error in errors] == [  # type: ignore[attr-defined]
            (ConnectFailed, str(node.dial_error), 503)
        ] * 2


async def test_one_of_two_callers_who_is_cancelled_does_not_take_the_attempt_from_the_other(node: Any) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.connect, PROTOCOLS)
            with trio.move_on_after(1):
                await channel.connect(PROTOCOLS)
            node.release_joins()
        assert (channel.state.joined, node.dials) == (True, 1)


async def test_connect_again_is_a_no_op_with_the_same_protocols_and_refused_with_others(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await channel.connect(PROTOCOLS)
        assert node.joins == 1
        with pytest.raises(AlreadyConnected):
            await channel.connect(["https://didcomm.org/trust-ping/2.0"])
        assert channel.state.joined


async def test_connect_after_close_raises_channel_closed(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.close()
        with pytest.raises(ChannelClosed):
            await channel.connect(PROTOCOLS)


async def test_connect_that_waits_while_the_channel_is_closed_is_released(node: Any) -> None:
    node.hold_joins = True
    async with open_channel(node.options()) as channel, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close() -> None:
            await settle()
            await channel.close()

        with pytest.raises(ChannelClosed):
            await channel.connect(PROTOCOLS)
