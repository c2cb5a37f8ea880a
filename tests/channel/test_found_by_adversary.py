"""What a reader with bad intentions found, each held down by a test."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel import Callbacks, Channel, LinkStatus, open_channel
from layr8_actors.errors import (
    ConnectFailed,
    Disconnected,
    InvalidOption,
    JoinRejected,
    NotConnected,
    RestartLimitExceeded,
    TransportClosed,
)
from layr8_actors.otp.events import ChildExited
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


@pytest.mark.parametrize("how", ["drop", "phx_error"])
async def test_an_on_message_that_waits_for_the_link_with_a_full_inbox_behind_it_gets_the_link_back(
    node: Any, how: str
) -> None:
    delivered: list[str] = []
    channels: list[Channel] = []

    async def on_message(payload: Any) -> None:
        if not channels[0].state.joined:
            await channels[0].connect(PROTOCOLS)
        delivered.append(payload["plaintext"]["id"])
        await trio.sleep(1)

    async with open_channel(node.options(callbacks=Callbacks(on_message), inbox_capacity=4)) as channel:
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        for number in range(50):
            node.socket.message(number)
        await wait_all_tasks_blocked()
        if how == "drop":
            node.socket.drop()
        else:
            ref = node.socket.join_ref
            node.socket.say(Frame(ref, ref, TOPIC, "phx_error", {}))
        assert len(delivered) < 5
        await trio.sleep(100)
        assert len(delivered) == 50
        assert (channel.state.status, node.joins) == (LinkStatus.JOINED, 2)


async def test_a_burst_far_beyond_the_inbox_does_not_keep_on_message_from_its_replies(node: Any) -> None:
    replies: list[bool] = []
    channels: list[Channel] = []

    async def on_message(payload: Any) -> None:
        replies.append((await channels[0].send_msg("message", {})).ok)

    async with open_channel(node.options(callbacks=Callbacks(on_message), inbox_capacity=4)) as channel:
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        for number in range(2000):
            node.socket.message(number)
            if number % 37 == 0:
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(replies) == 2000
        assert all(replies)
        assert trio.current_time() - start < 1


@pytest.mark.parametrize("attempt", range(20))
async def test_a_request_that_is_said_not_to_be_written_never_reaches_the_wire(node: Any, attempt: int) -> None:
    errors: list[Disconnected] = []
    node.mute = True

    async def send(channel: Channel, number: int) -> None:
        with pytest.raises(Disconnected) as caught:
            await channel.send_msg("message", {"n": number})
        if not caught.value.written:
            errors.append(caught.value)
            unwritten.add(number)

    unwritten: set[int] = set()
    async with open_channel(node.options(outbox_capacity=3)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {"n": "the writer is stuck in this"})
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(send, channel, number)
            await wait_all_tasks_blocked()
            channel.supervisor.exit_child("router", RuntimeError("injected"))
            for _ in range(attempt % 5):
                await trio.lowlevel.checkpoint()
            node.socket.writable.set()
            with trio.fail_after(1):
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        written = {frame.payload["n"] for frame in node.socket.pushes}
        assert unwritten
        assert not unwritten & written


async def test_a_fire_and_forget_that_waits_for_room_when_the_link_is_lost_says_that_nothing_was_sent(
    node: Any,
) -> None:
    async with open_channel(node.options(outbox_capacity=1)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {"n": 0})
        await wait_all_tasks_blocked()
        await channel.send_fire_and_forget("message", {"n": 1})
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def lose() -> None:
                await wait_all_tasks_blocked()
                node.socket.drop()

            with pytest.raises(Disconnected) as caught:
                await channel.send_fire_and_forget("message", {"n": 2})
            assert not caught.value.written


async def test_thousands_of_callers_of_connect_at_once_are_all_served(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        async with trio.open_nursery() as nursery:
            for _ in range(3000):
                nursery.start_soon(channel.connect, PROTOCOLS)
        assert (node.dials, node.joins) == (1, 1)
        node.socket.drop()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(3000):
                nursery.start_soon(channel.connect, PROTOCOLS)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await channel.connect(PROTOCOLS)


async def test_a_crowd_that_connects_while_the_reconnector_is_away_costs_no_other_actor(node: Any) -> None:
    """Each caller left a nudge in its mailbox; they filled it, and who had news for it crashed of MailboxFull."""
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(2):  # the first restart is immediate, the second one is not
            channel.supervisor.exit_child("reconnector", RuntimeError("injected"))
            await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(1100):
                nursery.start_soon(channel.connect, PROTOCOLS)
            await wait_all_tasks_blocked()
            node.socket.drop()
        assert {event.id for event in node.seen(ChildExited)} == {"reconnector"}
        assert (channel.state.status, node.joins) == (LinkStatus.JOINED, 2)


async def test_a_give_up_comes_out_as_itself_while_the_block_waits_for_messages(node: Any) -> None:
    with pytest.raises(JoinRejected):
        async with open_channel(node.options()) as channel:
            await channel.connect(PROTOCOLS)
            node.join_refusal = "e.join.plugin.parent.not-found"
            node.socket.drop()
            async for _ in channel.messages():
                pass


async def test_a_give_up_comes_out_as_itself_while_the_block_waits_for_a_reply(node: Any) -> None:
    node.mute = True
    with pytest.raises(RestartLimitExceeded):
        async with open_channel(node.options(max_restarts=0)) as channel, trio.open_nursery() as nursery:
            await channel.connect(PROTOCOLS)
            nursery.start_soon(channel.send_msg, "message", {})
            await wait_all_tasks_blocked()
            channel.supervisor.exit_child("router", RuntimeError("injected"))


@pytest.mark.parametrize("actor", ["router", "reconnector"])
async def test_the_true_reason_of_a_lost_link_survives_a_crash_at_the_same_moment(
    node: Any, calls: Any, actor: str
) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.drop(1012)
        channel.supervisor.exit_child(actor, RuntimeError("injected"))
        await trio.sleep(10)
        (error,) = calls.disconnects
        assert isinstance(error, TransportClosed)
        assert error.code == 1012


async def test_the_status_of_a_refused_dial_survives_a_crash_at_the_same_moment(node: Any) -> None:
    node.dial_gate = trio.Event()
    node.dial_error = ConnectFailed("ws://node.test/plugin_socket/websocket", "HTTP 403", status=403)
    async with open_channel(node.options()) as channel, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def crash() -> None:
            await wait_all_tasks_blocked()
            node.dial_gate.set()
            channel.supervisor.exit_child("reconnector", RuntimeError("injected"))

        with pytest.raises(ConnectFailed) as caught:
            await channel.connect(PROTOCOLS)
        assert caught.value.status == 403


@pytest.mark.parametrize("event", [None, 5, b"message", "", ["message"]])
async def test_an_event_that_would_crash_the_topic_or_the_socket_is_refused(node: Any, event: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with pytest.raises(InvalidOption, match="event"):
            await channel.send_msg(event, {})
        with pytest.raises(InvalidOption, match="event"):
            await channel.send_fire_and_forget(event, {})
        assert node.socket.pushes == []


async def test_the_attempts_of_a_link_that_has_stood_are_forgotten(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.drop()
        await wait_all_tasks_blocked()
        await channel.connect(PROTOCOLS)
        assert channel.state.attempt == 1
        await trio.sleep(31)
        assert channel.state.attempt == 0


async def test_the_context_of_the_blocks_error_is_the_blocks_own(node: Any) -> None:
    with pytest.raises(ValueError, match="second") as caught:
        async with open_channel(node.options()):
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                raise ValueError("second")  # noqa: B904 - the implicit context is what is tested
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert not caught.value.__suppress_context__


async def test_an_answer_to_the_join_that_is_read_as_its_time_runs_out_is_taken(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.hold_joins = True
        ref = node.socket.join_ref
        node.socket.say(Frame(ref, ref, TOPIC, "phx_error", {}))
        await trio.sleep(2)
        assert channel.state.status is LinkStatus.JOINING
        assert channel._record.machine.deadline is not None
        await trio.sleep_until(channel._record.machine.deadline)
        node.release_joins()
        await trio.sleep(60)
        assert channel.state.joined
        assert (await channel.send_msg("message", {})).ok
        assert calls.order == ["disconnect", "reconnect"]


async def test_not_connected_is_still_what_a_send_without_a_join_gets(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        with pytest.raises(NotConnected):
            await channel.send_msg("message", {})
