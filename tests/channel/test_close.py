"""The end of a channel: in order, bounded, once, and with nothing left."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, LinkStatus, open_channel
from layr8_actors.channel.events import LinkClosed, LinkLost
from layr8_actors.errors import ChannelClosed, InvalidOption

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def test_close_writes_what_is_queued_leaves_with_the_join_ref_and_closes_with_1000(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(100):
            await channel.send_fire_and_forget("message", {"n": number})
        await channel.close()
        socket = node.socket
        assert [frame.payload["n"] for frame in socket.pushes] == list(range(100))
        assert (socket.frames[-1].event, socket.frames[-1].join_ref) == ("phx_leave", socket.join_ref)
        assert (socket.ended_by, socket.close_code) == ("close", 1000)
        assert channel.state.status is LinkStatus.CLOSED
        assert calls.order == []
        assert (len(node.seen(LinkClosed)), node.seen(LinkLost)) == (1, [])


async def test_close_writes_what_is_queued_behind_a_write_that_takes_its_time_before_it_leaves(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        socket = node.socket
        socket.stop_reading()
        for number in range(50):
            await channel.send_fire_and_forget("message", {"n": number})
            await settle()  # the writer is in its first write, and the rest waits
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.close)
            await trio.sleep(4)
            socket.writable.set()
        assert [frame.payload["n"] for frame in socket.pushes] == list(range(50))
        assert (socket.frames[-1].event, socket.close_code) == ("phx_leave", 1000)
        assert channel.statistics().sends_discarded == 0


async def test_from_the_call_of_close_on_everybody_is_told_that_the_channel_is_closed(node: Any) -> None:
    """A close that is cancelled goes on by itself, and nothing has happened yet when the next one asks."""
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.close()
        assert node.socket.open
        for ask in (channel.send_msg, channel.send_fire_and_forget):
            with pytest.raises(ChannelClosed):
                await ask("message", {})
        with pytest.raises(ChannelClosed):
            await channel.connect(PROTOCOLS)


async def test_leaving_the_block_closes_too(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
    assert (node.socket.frames[-1].event, node.open_sockets) == ("phx_leave", 0)


async def test_close_is_idempotent_and_may_be_called_by_many_at_once(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(channel.close)
        await channel.close()
        assert [frame.event for frame in node.socket.frames].count("phx_leave") == 1


@pytest.mark.parametrize("state", ["idle", "connecting", "joining", "waiting"])
async def test_close_in_every_state_ends_at_once_and_nothing_is_dialled_afterwards(node: Any, state: str) -> None:
    async with open_channel(node.options()) as channel, trio.open_nursery() as nursery:
        if state in ("connecting", "joining"):
            node.dial_gate = trio.Event() if state == "connecting" else None
            node.hold_joins = state == "joining"

            @nursery.start_soon
            async def connect() -> None:
                with pytest.raises(ChannelClosed):
                    await channel.connect(PROTOCOLS)

            await settle()
        if state == "waiting":
            await channel.connect(PROTOCOLS)
            node.socket.drop()
            await settle()
        assert channel.state.status.value == state
        start = trio.current_time()
        await channel.close()
        assert trio.current_time() - start < 0.1
        dials = node.dials
        await trio.sleep(300)
        assert (node.dials, node.open_sockets, node.dialling) == (dials, 0, 0)


async def test_close_of_a_peer_that_stopped_reading_ends_by_its_deadline(node: Any) -> None:
    async with open_channel(node.options(close_timeout=3)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {})
        start = trio.current_time()
        await channel.close()
        assert trio.current_time() - start == pytest.approx(3, abs=0.2)
        assert node.open_sockets == 0


async def test_a_sender_who_waits_while_the_channel_is_closed_gets_channel_closed(node: Any) -> None:
    node.mute = True
    errors: list[Exception] = []

    async def send(channel: Channel) -> None:
        try:
            await channel.send_msg("message", {})
        except Exception as error:
            errors.append(error)

    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, channel)
            await settle()
            await channel.close()
        assert [type(error) for error in errors] == [ChannelClosed]


async def test_a_cancelled_nursery_closes_the_channel_in_order_within_its_deadline(node: Any) -> None:
    async with trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, node.options())
        await channel.connect(PROTOCOLS)
        await channel.send_fire_and_forget("message", {"last": "words"})
        start = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start < 0.1
    assert [frame.event for frame in node.socket.frames] == ["phx_join", "message", "phx_leave"]
    assert (node.open_sockets, channel.state.status) == (0, LinkStatus.CLOSED)
    assert (len(node.seen(LinkClosed)), node.seen(LinkLost)) == (1, [])


async def test_close_from_within_a_callback_ends_that_callback_and_the_channel(node: Any) -> None:
    channels: list[Channel] = []
    after: list[str] = []

    async def on_message(payload: Any) -> None:
        try:
            await channels[0].close()
            after.append("close returned")
        finally:
            after.append("cleaned up")

    async with trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, node.options(callbacks=Callbacks(on_message)))
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        node.socket.message(1)
    assert after == ["cleaned up"]
    assert (node.open_sockets, channel.state.status) == (0, LinkStatus.CLOSED)


async def test_a_callback_that_will_not_end_is_given_its_grace_and_no_more_than_its_own_shield_takes(node: Any) -> None:
    async def on_message(payload: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)

    async with open_channel(node.options(callbacks=Callbacks(on_message))) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.message(1)
        await settle()
        start = trio.current_time()
        await channel.close()
        assert trio.current_time() - start == pytest.approx(2, abs=0.2)


async def test_the_error_of_the_block_comes_out_as_it_is(node: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_channel(node.options()) as channel:
            await channel.connect(PROTOCOLS)
            raise ZeroDivisionError
    assert node.open_sockets == 0


async def test_a_deadline_around_the_block_ends_it(node: Any) -> None:
    with trio.move_on_after(5) as scope:
        async with open_channel(node.options()) as channel:
            await channel.connect(PROTOCOLS)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert node.open_sockets == 0


async def test_options_of_another_type_are_refused(node: Any) -> None:
    for bad in (None, {"ws_url": "ws://node.test"}):
        with pytest.raises(InvalidOption, match="options"):
            async with open_channel(bad):  # type: ignore[arg-type]
                raise AssertionError("the block ran")
        with pytest.raises(InvalidOption, match="options"):
            Channel.child_spec(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", range(40))
async def test_a_channel_cancelled_at_any_checkpoint_of_its_life_leaves_no_socket_and_no_task(
    node: Any, moment: int
) -> None:
    """Cancel after n scheduler turns of a whole life: open, connect, send, receive, close."""
    tasks = trio.lowlevel.current_statistics().tasks_living

    async def live() -> None:
        async with open_channel(node.options()) as channel:
            await channel.connect(PROTOCOLS)
            await channel.send_msg("message", {})
            node.socket.message(1)
            await anext(channel.messages())
            await channel.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        for _ in range(moment):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (node.open_sockets, node.dialling) == (0, 0)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
