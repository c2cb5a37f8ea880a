"""What comes under a join stays tied to it: on_join, on_push, message_join_ref, and sends that name their join."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, open_channel
from layr8_actors.channel.events import FrameIgnored
from layr8_actors.errors import Disconnected, InvalidOption
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


class Lane:
    """Callbacks that write down what they got and under which join, and that can be held up."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, str | None]] = []
        self.channel: Channel | None = None
        self.gate = trio.Event()
        self.gate.set()

    async def _note(self, kind: str, value: Any) -> None:
        assert self.channel is not None
        self.seen.append((kind, value, self.channel.message_join_ref))
        await self.gate.wait()

    def callbacks(self) -> Callbacks:
        return Callbacks(
            on_message=lambda payload: self._note("message", payload["n"]),
            on_push=lambda event, payload: self._note(event, payload),
            on_join=lambda response: self._note("join", response["did"]),
        )


def message(node: Any, number: int) -> None:
    node.socket.say(Frame(node.socket.join_ref, None, TOPIC, "message", {"n": number}))


def push(node: Any, event: str, payload: Any) -> None:
    node.socket.say(Frame(node.socket.join_ref, None, TOPIC, event, payload))


async def test_joins_messages_and_pushes_come_in_one_lane_in_the_order_of_the_wire(node: Any) -> None:
    lane = Lane()
    async with open_channel(node.options(callbacks=lane.callbacks())) as channel:
        lane.channel = channel
        assert channel.message_join_ref is None
        await channel.connect(PROTOCOLS)
        message(node, 1)
        push(node, "delegated_credentials", {"revision": 2})
        message(node, 2)
        await settle()
        join_ref = node.socket.join_ref
        assert lane.seen == [
            ("join", "did:web:node.test:alice", join_ref),
            ("message", 1, join_ref),
            ("delegated_credentials", {"revision": 2}, join_ref),
            ("message", 2, join_ref),
        ]
        assert channel.statistics().pushes_received == 1
        assert channel.statistics().messages_received == 2


async def test_what_waits_when_the_link_is_renewed_still_tells_the_join_it_came_under(node: Any) -> None:
    lane = Lane()
    async with open_channel(node.options(callbacks=lane.callbacks())) as channel:
        lane.channel = channel
        await channel.connect(PROTOCOLS)
        first = node.socket.join_ref
        await settle()
        lane.gate = trio.Event()
        message(node, 1)
        message(node, 2)
        await settle()
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        second = node.socket.join_ref
        message(node, 3)
        await settle()
        lane.gate.set()
        await settle()
        assert [entry[0::2] for entry in lane.seen] == [
            ("join", first),
            ("message", first),
            ("message", first),
            ("join", second),
            ("message", second),
        ]


async def test_joins_that_nothing_came_under_do_not_pile_up_behind_a_slow_on_message(node: Any) -> None:
    lane = Lane()
    async with open_channel(node.options(callbacks=lane.callbacks())) as channel:
        lane.channel = channel
        await channel.connect(PROTOCOLS)
        await settle()
        lane.gate = trio.Event()
        message(node, 1)
        await settle()
        for _ in range(5):
            node.socket.drop()
            await settle()
            await channel.connect(PROTOCOLS)
        assert len(channel._record.backlog.joins) == 1
        lane.gate.set()
        await settle()
        assert lane.seen[-1] == ("join", "did:web:node.test:alice", node.socket.join_ref)
        assert len(lane.seen) == 3


@pytest.mark.parametrize("how", ["send_msg", "send_fire_and_forget"])
async def test_an_answer_that_names_its_join_goes_out_under_that_join_and_under_no_other(node: Any, how: str) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        join_ref = node.socket.join_ref
        send = getattr(channel, how)
        await send("dispatch_reply", {"n": 1}, join_ref=join_ref)
        await settle()
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        with pytest.raises(Disconnected, match="the join it belongs to is over") as caught:
            await send("dispatch_reply", {"n": 2}, join_ref=join_ref)
        assert not caught.value.written
        await send("dispatch_reply", {"n": 3}, join_ref=node.socket.join_ref)
        await settle()
        assert [frame.payload["n"] for socket in node.sockets for frame in socket.pushes] == [1, 3]
        assert channel.statistics().replies_waiting == 0


async def test_pushes_of_other_events_are_ignored_where_nobody_asked_for_them(node: Any) -> None:
    seen: list[Any] = []
    async with open_channel(node.options(callbacks=Callbacks(seen.append))) as channel:
        await channel.connect(PROTOCOLS)
        push(node, "delegated_credentials", {})
        await settle()
        assert not seen
        assert channel.statistics().pushes_received == 0
        assert [event.why for event in node.seen(FrameIgnored)] == ["unhandled event 'delegated_credentials'"]


async def test_pushes_count_towards_the_bound_of_the_inbox(node: Any) -> None:
    lane = Lane()
    async with open_channel(node.options(callbacks=lane.callbacks(), inbox_capacity=4)) as channel:
        lane.channel = channel
        await channel.connect(PROTOCOLS)
        await settle()
        lane.gate = trio.Event()
        for number in range(10):
            push(node, "presence", {"n": number})
            await settle()
        assert channel.statistics().reading_paused
        lane.gate.set()
        await settle()
        assert [value["n"] for kind, value, _ in lane.seen if kind == "presence"] == list(range(10))


@pytest.mark.parametrize("name", ["on_push", "on_join"])
def test_on_push_and_on_join_need_an_on_message(name: str) -> None:
    with pytest.raises(InvalidOption, match="on_push or an on_join"):
        Callbacks(**{name: print})
