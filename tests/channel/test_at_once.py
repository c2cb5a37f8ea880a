"""Messages that are taken in the task that has read them: in order with those that go by the lane, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.channel import open_channel
from layr8_actors.channel.events import CallbackFailed
from layr8_actors.channel.options import AtOnceCallbacks
from layr8_actors.otp.events import ChildExited
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


class Taker:
    """Takes at once what it is told to, and all else in the lane, where it may be held up."""

    def __init__(self) -> None:
        self.at_once: list[str] = []
        self.got: list[str] = []
        self.refuses: set[str] = set()
        self.raises: set[str] = set()
        self.open = trio.Event()
        self.open.set()

    def take(self, payload: Any) -> bool:
        id = payload["plaintext"]["id"]
        if id in self.raises:
            raise ValueError(id)
        if id in self.refuses:
            return False
        self.at_once.append(id)
        self.got.append(id)
        return True

    async def on_message(self, payload: Any) -> None:
        await self.open.wait()
        self.got.append(payload["plaintext"]["id"])

    def callbacks(self) -> AtOnceCallbacks:
        return AtOnceCallbacks(on_message=self.on_message, take_at_once=self.take)


async def test_what_can_be_taken_at_once_is_and_does_not_count_as_waiting(node: Any) -> None:
    taker = Taker()
    async with open_channel(node.options(callbacks=taker.callbacks(), inbox_capacity=4)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        for number in range(100):
            node.socket.message(number)
        await settle()
        assert taker.at_once == [str(number) for number in range(100)]
        statistics = channel.statistics()
        assert statistics.messages_received == statistics.messages_delivered == 100
        assert statistics.reading_pauses == 0
        assert channel._record.backlog.frames == channel._record.backlog.size == 0


async def test_what_comes_behind_one_that_waits_goes_behind_it(node: Any) -> None:
    taker = Taker()
    taker.refuses = {"2", "7"}
    taker.open = trio.Event()
    async with open_channel(node.options(callbacks=taker.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        for number in range(5):
            node.socket.message(number)
        await settle()
        for number in range(5, 10):
            node.socket.message(number)
            await settle()
        assert taker.got == ["0", "1"]
        taker.open.set()
        await settle()
        assert taker.got == [str(number) for number in range(10)]
        node.socket.message(10)
        await settle()
        assert taker.at_once == ["0", "1", "10"]
        assert channel.statistics().messages_delivered == 11
        assert channel._record.backlog.frames == channel._record.backlog.size == 0


async def test_what_it_raises_is_reported_and_costs_nothing_else(node: Any) -> None:
    taker = Taker()
    taker.raises = {"1"}
    async with open_channel(node.options(callbacks=taker.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        for number in range(3):
            node.socket.message(number)
        await settle()
        assert taker.got == ["0", "2"]
        (failed,) = node.seen(CallbackFailed)
        assert (failed.callback, str(failed.error)) == ("on_message", "1")
        assert not [event for event in node.seen(ChildExited) if type(event) is ChildExited]
        assert channel.statistics().callbacks_failed == 1


@pytest.mark.parametrize("actor", ["inbox", "router"])
async def test_a_crash_loses_no_message_and_repeats_none(node: Any, actor: str) -> None:
    taker = Taker()
    async with open_channel(node.options(callbacks=taker.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        for turns in range(6):
            node.socket.message(2 * turns)
            channel.supervisor.exit_child(actor, ValueError("staged"))
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            node.socket.message(2 * turns + 1)
            await trio.sleep(100)  # restarts that go on and on are delayed
        assert taker.got == [str(number) for number in range(12)]


async def test_a_push_of_another_event_keeps_its_place(node: Any) -> None:
    taker = Taker()
    callbacks = AtOnceCallbacks(
        on_message=taker.on_message,
        on_push=lambda event, payload: taker.got.append(event),
        take_at_once=taker.take,
    )
    async with open_channel(node.options(callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        node.socket.message(0)
        node.socket.say(Frame(node.socket.join_ref, None, node.topic, "delegated_credentials", {}))
        node.socket.message(1)
        await settle()
        assert taker.got == ["0", "delegated_credentials", "1"]


async def test_what_comes_under_a_join_is_taken_after_the_join_is_told(node: Any) -> None:
    order: list[Any] = []
    taker = Taker()
    taker.got = order
    callbacks = AtOnceCallbacks(
        on_message=taker.on_message, on_join=lambda response: order.append("join"), take_at_once=taker.take
    )
    async with open_channel(node.options(callbacks=callbacks)) as channel:
        node.hold_joins = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.connect, PROTOCOLS)
            await settle()
            node.release_joins()
            node.socket.message(0)
            await settle()
            node.socket.message(1)
            await settle()
        assert order == ["join", "0", "1"]
