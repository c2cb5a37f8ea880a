"""A request of a caller who is alone is written in the caller's own task, and keeps every promise of the writer's."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.channel import Channel, open_channel
from layr8_actors.channel.link import Link
from layr8_actors.errors import Disconnected, ReplyTimeout, TransportClosed
from layr8_actors.phoenix import Frame, Heartbeat as HeartbeatState

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
STEPS = 12


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


def writers() -> int:
    """Tasks of this Trio run that write for a channel."""
    tasks = [trio.lowlevel.current_root_task()]
    for task in tasks:
        if task is not None:
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sum(task is not None and task.name.endswith("Connection._write") for task in tasks)


def sent(node: Any) -> list[Any]:
    return [frame.payload for frame in node.socket.pushes]


async def test_one_who_is_alone_writes_by_itself_and_two_at_once_by_the_writer(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        for number in range(3):
            assert (await channel.send_msg("message", {"n": number})).ok
            assert writers() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_msg, "message", {"n": "one"})
            nursery.start_soon(channel.send_msg, "message", {"n": "other"})
        assert writers() == 1
        assert (await channel.send_msg("message", {"n": 3})).ok
        assert channel.statistics().sent == 6
    assert len(sent(node)) == 6


async def test_it_does_not_overtake_what_is_queued_or_being_written(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        await channel.send_fire_and_forget("message", 1)
        await channel.send_msg("message", 2)
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", 3)
        await settle()  # the writer is at it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_msg, "message", 4)
            await settle()
            assert sent(node) == [1, 2]
            node.socket.writable.set()
    assert sent(node) == [1, 2, 3, 4]


async def test_one_that_is_cancelled_before_it_begins_writes_nothing(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send_msg("message", {})
        assert scope.cancelled_caught
        await settle()
        assert sent(node) == []
        assert writers() == 0
        assert (await channel.send_msg("message", {})).ok
        assert writers() == 0  # what was cancelled counts no more as one who is at it


async def test_it_always_checkpoints_also_where_the_reply_is_there_at_once(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        with trio.testing.assert_checkpoints():
            await channel.send_msg("message", {})


@pytest.mark.parametrize("step", range(STEPS))
async def test_one_that_is_cancelled_at_any_step_leaves_nothing_and_the_next_is_alone_again(
    node: Any, step: int
) -> None:
    replies: list[tuple[Any, Frame]] = []
    node.on_push = lambda socket, frame: replies.append((socket, frame))
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()

        async def cancel(scope: trio.CancelScope) -> None:
            for number in range(step):
                if number == STEPS // 2 and replies:
                    socket, frame = replies.pop()
                    socket.reply(frame)
                await trio.lowlevel.checkpoint()
            scope.cancel()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, scope)
                await channel.send_msg("message", "first")
        await settle()
        node.on_push = None
        assert (await channel.send_msg("message", "second")).ok
        assert sent(node) in (["first", "second"], ["second"])
        assert writers() == 0
        assert channel.statistics().replies_waiting == 0


async def test_where_the_socket_takes_nothing_it_is_queued_and_not_written_once_nobody_waits(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000, reply_timeout=2)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", "in the writer's hands")
        await settle()
        with pytest.raises(ReplyTimeout) as caught:
            await channel.send_msg("message", "late")
        assert not caught.value.written
        node.socket.writable.set()
        await settle()
        assert sent(node) == ["in the writer's hands"]


async def test_where_it_is_refused_the_writer_writes_it(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()

        def refuse(message: str | bytes) -> bool:
            raise trio.WouldBlock

        node.socket.send_nowait = refuse
        assert (await channel.send_msg("message", {})).ok
        assert writers() == 1


class Half:
    """In place of a socket's ``send_nowait`` and ``send``: begins each message, and finishes none before it is let."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.begun: list[str | bytes] = []
        self.may_finish = trio.Event()
        self.batches: list[list[str | bytes]] = []
        self.fails = False
        self._send = socket.send
        socket.send_nowait, socket.send = self.send_nowait, self.send

    def send_nowait(self, message: str | bytes) -> bool:
        if self.begun:
            raise trio.WouldBlock
        self.begun.append(message)
        return False

    async def send(self, batch: list[str | bytes]) -> None:
        self.batches.append(list(batch))
        await self.may_finish.wait()
        if self.fails:
            raise TransportClosed(1006)
        begun, self.begun = self.begun, []
        await self._send([*begun, *batch])


async def test_the_writer_finishes_what_was_begun_before_anything_that_comes_later(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000, outbox_capacity=2)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        half = Half(node.socket)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_msg, "message", 0)
            await settle()
            assert half.batches == [[]]
            accepted: list[int] = []

            async def forget(number: int) -> None:
                await channel.send_fire_and_forget("message", number)
                accepted.append(number)

            for number in (1, 2, 3):
                nursery.start_soon(forget, number)
                await settle()
            assert accepted == [1, 2]  # a peer that takes nothing holds up who sends, as ever
            half.may_finish.set()
        await settle()
        assert sent(node) == [0, 1, 2, 3]


async def test_where_the_rest_cannot_be_written_the_link_is_lost_and_the_request_counts_as_written(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        half = Half(node.socket)
        half.fails = True
        half.may_finish.set()
        node.socket.drop()
        with pytest.raises(Disconnected) as caught:
            await channel.send_msg("message", {})
        assert caught.value.written


async def test_the_caller_of_what_was_begun_may_go_and_the_rest_is_written_all_the_same(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000, reply_timeout=1)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        half = Half(node.socket)
        with pytest.raises(ReplyTimeout) as caught:
            await channel.send_msg("message", "cut")
        assert caught.value.written
        half.may_finish.set()
        await settle()
        assert sent(node) == ["cut"]
        assert (await _ask(channel)).ok


async def _ask(channel: Channel) -> Any:
    return await channel.send_msg("message", "next")


async def test_closing_writes_the_rest_before_it_leaves(node: Any) -> None:
    async with open_channel(node.options(heartbeat_interval=1000)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        half = Half(node.socket)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_settled, scope)
                await channel.send_msg("message", "cut")
        half.may_finish.set()
    assert [frame.event for frame in node.socket.frames] == ["phx_join", "message", "phx_leave"]


async def _cancel_when_settled(scope: trio.CancelScope) -> None:
    await settle()
    scope.cancel()


class Socket:
    """A transport whose synchronous write does as it is told."""

    def __init__(self, at_once: bool | type[Exception]) -> None:
        self.at_once = at_once
        self.written: list[Any] = []

    def send_nowait(self, message: str) -> bool:
        if isinstance(self.at_once, type):
            raise self.at_once
        self.written.append(message)
        return self.at_once

    async def send(self, batch: list[str]) -> None:
        self.written.append(batch)


@pytest.mark.parametrize(
    ("at_once", "batch", "written"),
    [
        (True, ["join"], ["join"]),
        (False, ["join"], ["join", []]),
        (trio.WouldBlock, ["join"], [["join"]]),
        (True, ["join", "heartbeat"], [["join", "heartbeat"]]),
    ],
    ids=["whole", "the rest is left to send", "not at once", "more than one"],
)
async def test_the_first_batch_of_a_link_is_written_whole_in_whichever_way(
    at_once: Any, batch: list[str | bytes], written: list[Any]
) -> None:
    socket: Any = Socket(at_once)
    link = Link(1, socket, HeartbeatState(30, 30, 0), 0, 8)
    await link.send_first(batch)
    assert socket.written == written
