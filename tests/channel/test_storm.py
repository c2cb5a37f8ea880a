"""Storms by seed: crashes, drops, refusals and cancellations in any order, and what must hold whatever happens."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel import Channel, open_channel
from layr8_actors.errors import (
    ActorNotRunning,
    ChannelClosed,
    ConnectFailed,
    Disconnected,
    Layr8Error,
    NotConnected,
    ReplyTimeout,
)
from layr8_actors.phoenix import Frame

ACTORS = ["inbox", "router", "connection", "heartbeat", "reconnector"]
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


class Storm:
    """One run: the node counts what it sends into a socket and what the channel reads from it."""

    def __init__(self, node: Any, calls: Any, seed: int) -> None:
        self.node = node
        self.calls = calls
        self.random = random.Random(seed)
        self.next_id = 0
        self.dead_join_ref: Any = None  # of the topic that the node has ended: it sends nothing under it any more
        self.read: list[int] = []
        self.sends = 0
        self.outcomes: list[object] = []
        self.trace: list[str] = []

    def watch(self, socket: Any) -> None:
        """Write down the numbers that the channel takes out of this socket."""
        receive = socket.receive

        async def watched() -> list[str | bytes]:
            batch: list[str | bytes] = await receive()
            for data in batch:
                frame = json.loads(data)
                if frame[3] == "message":
                    self.read.append(int(frame[4]["plaintext"]["id"]))
            return batch

        if not hasattr(socket, "watched"):
            socket.watched = True
            socket.receive = watched

    async def send(self, channel: Channel) -> None:
        try:
            with trio.move_on_after(self.random.choice([0.0, 0.5, 100.0])) as scope:
                self.outcomes.append(await channel.send_msg("message", {"n": self.sends}))
            if scope.cancelled_caught:
                self.outcomes.append("cancelled by its caller")
        except (NotConnected, Disconnected, ReplyTimeout, ChannelClosed) as error:
            self.outcomes.append(error)

    async def step(self, channel: Channel, nursery: trio.Nursery) -> None:
        action = self.random.choice(
            ["kill", "crash", "drop", "topic", "say", "say", "send", "send", "wait", "wait", "turns", "refuse", "deaf"]
        )
        self.trace.append(action)
        node = self.node
        match action:
            case "kill" | "crash":
                actor = self.random.choice(ACTORS)
                self.trace[-1] += f" {actor}"
                try:
                    channel.supervisor.exit_child(actor, RuntimeError("storm") if action == "crash" else None)
                except ActorNotRunning:
                    self.trace[-1] += " (not running)"
            case "drop":
                node.socket.drop(self.random.choice([1000, 1006, 1012]))
            case "topic" if channel.state.joined:
                self.dead_join_ref = ref = node.socket.join_ref
                node.socket.say(Frame(ref, ref, TOPIC, self.random.choice(["phx_error", "phx_close"]), {}))
            case "say" if channel.state.joined and node.socket.open and node.socket.join_ref != self.dead_join_ref:
                for _ in range(self.random.randint(1, 5)):
                    node.socket.message(self.next_id)
                    self.next_id += 1
            case "send":
                for _ in range(self.random.randint(1, 4)):
                    self.sends += 1
                    nursery.start_soon(self.send, channel)
            case "wait":
                await trio.sleep(self.random.choice([0.1, 1.0, 5.0, 40.0]))
            case "turns":
                for _ in range(self.random.randint(1, 12)):
                    await trio.lowlevel.checkpoint()
            case "refuse":
                refused = ConnectFailed("ws://node.test/plugin_socket/websocket", "connection refused")
                node.dial_error = self.random.choice([None, refused])
                node.join_refusal = self.random.choice([None, "e.connect.plugin.failed: protocols_already_bound"])
            case "deaf":
                node.mute = self.random.random() < 0.3

    def check(self) -> None:
        assert len(self.outcomes) == self.sends, "a caller was left waiting, or told twice"
        assert self.node.most_at_once <= 1, "two sockets at once"
        expected = ["disconnect", "reconnect"] * (len(self.calls.order) // 2 + 1)
        assert self.calls.order == expected[: len(self.calls.order)], "callbacks do not alternate"
        assert self.calls.ids == self.read, "what was read was lost, doubled or reordered"


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_the_weather_nobody_hangs_and_nothing_read_is_lost_or_doubled(
    node: Any, calls: Any, seed: int
) -> None:
    storm = Storm(node, calls, seed)
    opened = node.open

    async def open_watched(nursery: trio.Nursery, endpoint: Any) -> Any:
        socket = await opened(nursery, endpoint)
        storm.watch(socket)
        return socket

    node.open = open_watched
    try:
        options = node.options(callbacks=calls.callbacks(), max_restarts=200, max_seconds=10_000, inbox_capacity=8)
        async with open_channel(options) as channel:
            await channel.connect(PROTOCOLS)
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    await storm.step(channel, nursery)
                node.dial_error = node.join_refusal = None
                node.mute = False
                with trio.fail_after(3000):
                    await channel.connect(PROTOCOLS)
                with trio.fail_after(3000):
                    while True:
                        try:
                            assert (await channel.send_msg("message", {"last": True})).ok
                            break
                        except Layr8Error:
                            await trio.sleep(1)
                await trio.sleep(200)
                await wait_all_tasks_blocked()
            storm.check()
            statistics = channel.statistics()
            assert (statistics.frames_waiting, statistics.bytes_waiting, statistics.messages_waiting) == (0, 0, 0)
            assert not statistics.reading_paused
            if seed % 2:
                channel.supervisor.exit_child(storm.random.choice(ACTORS), RuntimeError("as it closes"))
        assert node.open_sockets == 0
        storm.check()
        statistics = channel.statistics()
        assert (statistics.frames_waiting, statistics.bytes_waiting, statistics.messages_waiting) == (0, 0, 0)
    except BaseException:
        print(f"seed {seed}: " + ", ".join(storm.trace))
        print("\n".join(f"{event.at:9.3f} {event.describe()}" for event in node.events[-200:]))
        raise
