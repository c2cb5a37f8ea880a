"""Pushes whose outcome is told to a function: the outcomes of send_msg, each once, and none left behind."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.channel import Channel, Reply, open_channel
from layr8_actors.channel.events import SendsDiscarded
from layr8_actors.errors import (
    ChannelClosed,
    Disconnected,
    InvalidOption,
    LocalProtocolError,
    NotConnected,
    RemoteProtocolError,
    ReplyTimeout,
)
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


def push(channel: Channel, told: list[Any], payload: Any = None) -> Any:
    pushed = channel.encoded("message", payload or {}, told.append)
    assert pushed is not None
    assert pushed.queue()
    return pushed


async def test_a_reply_is_told_at_once_and_only_once(node: Any) -> None:
    held: list[Frame] = []
    node.on_push = lambda socket, frame: held.append(frame)
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        told: list[Any] = []
        push(channel, told, {"n": 1})
        await settle()
        assert told == []
        assert channel.statistics().replies_waiting == 1
        for _ in range(2):
            node.socket.reply(held[0], "error", {"reason": "e.route.not-found"})
        await settle()
        (reply,) = told
        assert isinstance(reply, Reply)
        assert (reply.status, reply.reason) == ("error", "e.route.not-found")
        statistics = channel.statistics()
        assert (statistics.sent, statistics.replies, statistics.replies_unclaimed) == (1, 1, 1)
        assert statistics.replies_waiting == 0


@pytest.mark.parametrize("end", ["drop", "close", "topic", "router"])
async def test_what_ends_the_wait_is_told_to_each_with_an_error_of_its_own(node: Any, end: str) -> None:
    node.mute = True
    told: list[Any] = []
    async with open_channel(node.options()) as channel:
        node.mute = False
        await channel.connect(PROTOCOLS)
        node.on_push = lambda socket, frame: None
        for _ in range(3):
            push(channel, told)
        await settle()
        match end:
            case "drop":
                node.socket.drop()
            case "close":
                await channel.close()
            case "topic":
                node.socket.say(Frame(node.socket.join_ref, None, node.topic, "phx_error", {}))
            case _:
                channel.supervisor.exit_child("router", ValueError("staged"))
        await settle()
        assert [type(error) for error in told] == [ChannelClosed if end == "close" else Disconnected] * 3
        assert len({id(error) for error in told}) == 3
        if end != "close":
            assert [error.written for error in told] == [True] * 3


async def test_one_that_is_not_written_says_so(node: Any) -> None:
    told: list[Any] = []
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        push(channel, told)
        await settle()
        push(channel, told)
        node.socket.drop()
        await settle()
        assert [error.written for error in told] == [True, False]


async def test_no_reply_in_time_is_told_at_that_time_and_counts(node: Any) -> None:
    node.on_push = lambda socket, frame: None
    told: list[Any] = []
    async with open_channel(node.options(reply_timeout=5)) as channel:
        await channel.connect(PROTOCOLS)
        begun = trio.current_time()
        push(channel, told)
        await trio.sleep(4.99)
        assert told == []
        await trio.sleep(0.02)
        (error,) = told
        assert isinstance(error, ReplyTimeout)
        assert error.written
        assert trio.current_time() - begun < 5.1
        assert channel.statistics().reply_timeouts == 1
        assert channel.statistics().replies_waiting == 0


async def test_three_in_a_row_that_are_not_answered_end_the_topic_as_those_of_send_msg_do(node: Any) -> None:
    node.on_push = lambda socket, frame: None
    told: list[Any] = []
    async with open_channel(node.options(reply_timeout=5)) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(3):
            push(channel, told)
        await trio.sleep(6)
        assert [type(error) for error in told] == [ReplyTimeout] * 3
        assert [frame.event for frame in node.socket.frames if frame.event == "phx_leave"] == ["phx_leave"]


async def test_a_reply_that_is_no_reply_is_told_as_such(node: Any) -> None:
    node.on_push = lambda socket, frame: socket.say(
        Frame(frame.join_ref, frame.ref, frame.topic, "phx_reply", {"status": 7})
    )
    told: list[Any] = []
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        push(channel, told)
        await settle()
        assert [type(error) for error in told] == [RemoteProtocolError]


async def test_one_that_is_withdrawn_is_told_nothing_and_never_written_if_it_was_not_by_then(node: Any) -> None:
    told: list[Any] = []
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        kept = push(channel, told, {"n": "kept"})
        withdrawn = push(channel, told, {"n": "withdrawn"})
        withdrawn.withdraw()
        withdrawn.withdraw()
        await settle()
        assert [frame.payload for frame in node.socket.pushes] == [{"n": "kept"}]
        assert len(told) == 1
        kept.withdraw()
        unused = channel.encoded("message", {}, told.append)
        assert unused is not None
        unused.withdraw()
        await trio.sleep(100)
        assert len(told) == 1
        assert channel.statistics().replies_waiting == 0
        assert channel.statistics().reply_timeouts == 0


async def test_where_there_is_no_room_it_is_withdrawn_and_nothing_overtakes_those_who_wait_for_room(node: Any) -> None:
    told: list[Any] = []
    async with open_channel(node.options(outbox_capacity=2)) as channel, trio.open_nursery() as nursery:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        for number in range(4):
            nursery.start_soon(channel.send_msg, "message", {"n": number})
            await settle()
        assert not channel.has_room
        pushed = channel.encoded("message", {"n": "no"}, told.append)
        assert pushed is not None
        assert not pushed.queue()
        assert not channel.send_nowait("ack", {"ids": []})
        assert channel.statistics().replies_waiting == 4
        node.socket.writable.set()
        await settle()
        assert [frame.payload for frame in node.socket.pushes] == [{"n": number} for number in range(4)]
        assert channel.has_room
        assert channel.send_nowait("ack", {"ids": ["x"]})
        await settle()
        assert node.socket.pushes[-1].payload == {"ids": ["x"]}
        assert told == []
        assert channel.statistics().sent == 5


async def test_what_send_msg_refuses_is_refused_and_nothing_waits(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        with pytest.raises(NotConnected):
            channel.encoded("message", {}, print)
        with pytest.raises(NotConnected):
            channel.send_nowait("ack", {"ids": []})
        await channel.connect(PROTOCOLS)
        for event, payload, error in (
            ("", {}, InvalidOption),
            ("phx_leave", {}, LocalProtocolError),
            ("message", {"x": object()}, LocalProtocolError),
        ):
            with pytest.raises(error):
                channel.encoded(event, payload, print)
            with pytest.raises(error):
                channel.send_nowait(event, payload)
        with pytest.raises(Disconnected):
            channel.encoded("message", {}, print, join_ref="of another join")
        with pytest.raises(Disconnected):
            channel.send_nowait("ack", {}, join_ref="of another join")
        assert channel.statistics().replies_waiting == 0
        assert channel.statistics().sent == 0


async def test_while_nobody_could_tell_that_no_reply_came_there_is_none_to_be_had(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        channel.supervisor.exit_child("router", ValueError("staged"))
        while channel.encoded("message", {}, print) is not None:  # until the router has ended
            await trio.lowlevel.checkpoint()
        assert channel.statistics().replies_waiting <= 1
        await settle()
        told: list[Any] = []
        push(channel, told)
        await settle()
        assert [type(outcome) for outcome in told] == [Reply]
        assert not node.seen(SendsDiscarded)
