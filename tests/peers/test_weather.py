"""Bad weather by seed over a whole CloudNode: everything of the peers' rows at once, with a clock that jumps.

The storms in tests/channel are of a scripted node; here are a real WebSocket, bad keys, callbacks that raise, send and
connect, a hook that raises, actors stopped by hand, and a loop that is blocked. It found what
channel/test_stopped_alone.py keeps.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layr8_actors import Callbacks, Channel, NotConnected, open_channel
from layr8_actors.errors import ActorNotRunning, Layr8Error, SupervisionError
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, KEY, PROTOCOLS, options, plaintext, settle, tasks

ACTORS = ("inbox", "router", "connection", "heartbeat", "reconnector")
PROBE = "probe"
ACTIONS = (
    *("drop", "close", "crash topic", "forget topic", "go silent", "stop reading", "resume", "mute", "garbage"),
    *("deliver", "deliver", "send", "send", "send", "connect", "wait", "wait", "turns", "block"),
    *("key", "upgrade", "join", "crash actor", "stop actor"),
)


class Weather:
    """One run: what happens, and what it came to."""

    def __init__(self, node: CloudNode, seed: int) -> None:
        self.node = node
        self.random = random.Random(seed)
        self.channel: Channel
        self.key_trouble = ""
        self.delivered = 0
        self.handled: list[int] = []
        self.order: list[str] = []
        self.sends = self.outcomes = 0
        self.trace: list[str] = []
        self.events: list[Event] = []

    # --- the user's code ---

    async def api_key(self) -> str:
        match self.key_trouble:
            case "hangs":
                await trio.sleep_forever()
            case "raises":
                raise RuntimeError("no vault")
            case "empty":
                return ""
            case "slow":
                await trio.sleep(3)
        return KEY

    async def on_message(self, message: Any) -> None:
        if message["plaintext"]["id"] != PROBE:
            self.handled.append(int(message["plaintext"]["id"]))
        await self._misbehave()

    async def on_disconnect(self, error: Exception) -> None:
        self.order.append("disconnect")
        await self._misbehave()

    async def on_reconnect(self) -> None:
        self.order.append("reconnect")
        await self._misbehave()

    async def _misbehave(self) -> None:
        match self.random.randrange(12):
            case 0:
                raise KeyError("a bug of the user's")
            case 1:
                await trio.sleep(self.random.choice([0.1, 2.0, 20.0]))
            case 2:
                await self.channel.send_fire_and_forget("dispatch_reply", {"message_id": "x", "status": "handled"})
            case 3:
                await self.channel.send_msg("message", plaintext(id=PROBE))
            case 4:
                await self.channel.connect(PROTOCOLS)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if self.random.random() < 0.02:
            raise ValueError("a bug of the hook's")

    async def send(self) -> None:
        try:
            with trio.move_on_after(self.random.choice([0.0, 0.5, 100.0])):
                await self.channel.send_msg("message", plaintext(id=PROBE))
        except Layr8Error:
            pass
        self.outcomes += 1

    async def connect(self) -> None:
        with trio.move_on_after(self.random.choice([0.0, 0.5, 100.0])):
            await self.channel.connect(PROTOCOLS)

    # --- what happens ---

    async def step(self, nursery: trio.Nursery) -> None:
        action = self.random.choice(ACTIONS)
        self.trace.append(f"{trio.current_time():.1f} {action}")
        try:
            await self._do(action, nursery)
        except (NotConnected, ActorNotRunning):
            self.trace[-1] += " (nobody there)"

    async def _do(self, action: str, nursery: trio.Nursery) -> None:
        node, choice = self.node, self.random.choice
        match action:
            case "drop":
                node.drop(reset=choice([True, False]))
            case "close":
                node.close(choice([1000, 1001, 1012]))
            case "crash topic" | "forget topic" | "go silent" | "stop reading" | "resume":
                getattr(node, action.replace(" ", "_"))()
            case "mute":
                choice([node.mute, node.unmute])()
            case "garbage":
                garbage: list[str | bytes] = ["x", "[]", b"\xff", '["1",null,"t","e",{}]']
                node.send_raw(choice(garbage))
            case "deliver":
                for _ in range(self.random.randint(1, 20)):
                    node.deliver(ALICE, plaintext(self.delivered, padding="x" * choice([0, 5000])))
                    self.delivered += 1
            case "send":
                for _ in range(self.random.randint(1, 8)):
                    self.sends += 1
                    nursery.start_soon(self.send)
            case "connect":
                nursery.start_soon(self.connect)
            case "wait":
                await trio.sleep(choice([0.1, 1.0, 5.0, 40.0]))
            case "turns":
                for _ in range(self.random.randint(1, 12)):
                    await trio.lowlevel.checkpoint()
            case "block":
                clock = trio.lowlevel.current_clock()
                assert isinstance(clock, MockClock)
                clock.jump(choice([1, 16, 31, 100, 3600]))
            case "key":
                self.key_trouble = choice(["", "", "hangs", "raises", "empty", "slow"])
            case "upgrade":
                node.refuse_upgrades(choice([301, 404, 429, 503]), count=1)
                if choice([True, False]):
                    node.ignore_upgrades(count=1)
                else:
                    node.delay_upgrades(2, count=1)
            case "join":
                match choice(["ignore", "refuse", "nonsense", "delay"]):
                    case "ignore":
                        node.ignore_joins(count=1)
                    case "refuse":
                        node.refuse_joins("join crashed", count=2)
                    case "nonsense":
                        node.answer_joins([], count=1)
                    case "delay":
                        node.delay_joins(12, count=1)
            case "crash actor":
                self.channel.supervisor.exit_child(choice(ACTORS), RuntimeError("weather"))
            case "stop actor":
                # Not inbox and router: nothing but their mailbox has what waits in it, and a stop by hand empties that.
                actor = choice(["connection", "heartbeat", "reconnector"])
                try:
                    await self.channel.supervisor.terminate_child(actor)
                    await trio.sleep(choice([0.0, 0.0, 3.0]))
                    await self.channel.supervisor.restart_child(actor)
                except SupervisionError:
                    self.trace[-1] += " (it was just being restarted)"

    async def clear_up(self) -> None:
        """The node is well again: within an hour and a half the channel is joined and answered."""
        self.node.behave()
        self.node.resume()
        self.node.unmute()
        self.key_trouble = ""
        with trio.fail_after(5000):
            while True:
                try:
                    await self.channel.connect(PROTOCOLS)
                    assert (await self.channel.send_msg("message", plaintext(id=PROBE))).ok
                    break
                except Layr8Error:
                    await trio.sleep(1)
        await trio.sleep(500)
        await settle()

    def check(self) -> None:
        statistics = self.channel.statistics()
        assert self.channel.state.joined
        assert len(self.node.connections) == 1
        assert self.outcomes == self.sends, "a caller was left waiting"
        assert (statistics.replies_waiting, statistics.messages_waiting, statistics.outbox_waiting) == (0, 0, 0)
        assert self.handled == sorted(set(self.handled)), "a message was doubled or out of order"
        assert self.order == ["disconnect", "reconnect"] * (len(self.order) // 2), "callbacks do not alternate"


@pytest.mark.parametrize("seed", range(24))
async def test_when_the_weather_clears_it_is_joined_once_nobody_waits_and_nothing_is_left(seed: int) -> None:
    async with CloudNode(memory=True, capacity=2048 if seed % 2 else 65536) as node:
        before = tasks()
        weather = Weather(node, seed)
        given = options(
            node,
            api_key=weather.api_key,
            on_event=weather.on_event,
            callbacks=Callbacks(weather.on_message, weather.on_disconnect, weather.on_reconnect),
            inbox_capacity=8,
            outbox_capacity=4,
            max_restarts=500,
            max_seconds=100_000,
        )
        try:
            async with open_channel(given) as weather.channel:
                await weather.channel.connect(PROTOCOLS)
                async with trio.open_nursery() as nursery:
                    for _ in range(60):
                        await weather.step(nursery)
                    await weather.clear_up()
                weather.check()
            await node.wait_for(lambda: node.statistics().sockets == 0, timeout=30)
            await settle()
            assert tasks() == before
        except BaseException:
            print("\n".join([*weather.trace, *(event.describe() for event in weather.events[-60:])]))
            raise
