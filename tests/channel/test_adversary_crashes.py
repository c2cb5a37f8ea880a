"""Random crashes, drops and bad nodes by seed; whatever happens, nobody hangs and nothing is lost, doubled or left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, LinkStatus, Reply, open_channel
from layr8_actors.errors import ChannelClosed, ConnectFailed, Disconnected, Layr8Error, NotConnected, SupervisionError
from layr8_actors.otp import Backoff
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"
ACTORS = ["inbox", "router", "connection", "heartbeat", "reconnector"]
SEEDS_PER_TEST = 25


class Night:
    """One channel and its node, to which things happen by chance."""

    def __init__(self, node: Any, seed: int) -> None:
        self.node = node
        self.random = random.Random(seed)
        self.order: list[str] = []
        self.got: list[int] = []
        self.outcomes: list[tuple[int, Any, float]] = []
        self.started = 0
        self.said = 0
        self.slow = self.random.random() < 0.4

    async def on_message(self, payload: Any) -> None:
        self.got.append(int(payload["plaintext"]["id"]))
        if self.slow:
            await trio.sleep(self.random.choice([0, 0.001, 0.05]))

    def options(self) -> Any:
        return self.node.options(
            inbox_capacity=self.random.choice([1, 2, 5, 1024]),
            outbox_capacity=self.random.choice([1, 3, 1024]),
            heartbeat_interval=self.random.choice([30, 1]),
            backoff=Backoff(initial=self.random.choice([0.01, 1]), maximum=2),
            max_restarts=40,  # wide, so that it is the crashes that are looked at, and not the end by the budget
            max_seconds=1500,
            callbacks=Callbacks(
                self.on_message, lambda error: self.order.append("down"), lambda: self.order.append("up")
            ),
        )

    async def send(self, channel: Channel) -> None:
        number, self.started = self.started, self.started + 1
        begun = trio.current_time()
        outcome: Any
        try:
            outcome = await channel.send_msg("message", {"i": number})
        except Layr8Error as error:
            outcome = error
        self.outcomes.append((number, outcome, trio.current_time() - begun))

    async def connect(self, channel: Channel) -> None:
        try:
            with trio.move_on_after(self.random.choice([0.001, 0.01, 100])):
                await channel.connect(PROTOCOLS)
        except Layr8Error:
            pass  # looked at after the night

    def joined_socket(self) -> Any:
        socket = self.node.sockets[-1] if self.node.sockets else None
        alive = socket is not None and socket.open and any(frame.event == "phx_join" for frame in socket.frames)
        return socket if alive else None

    def happen(self, nursery: trio.Nursery, channel: Channel) -> None:
        node, chance, socket = self.node, self.random.random(), self.joined_socket()
        if chance < 0.3:
            nursery.start_soon(self.send, channel)
        elif chance < 0.55 and socket is not None:
            for _ in range(self.random.choice([1, 3, 12])):
                self.said += 1
                socket.message(self.said)
        elif chance < 0.68:
            for name in self.random.sample(ACTORS, self.random.choice([1, 1, 2])):
                try:
                    channel.supervisor.exit_child(name, self.random.choice([None, ValueError("injected")]))
                except SupervisionError:
                    pass  # it is down already
        elif chance < 0.72 and socket is not None:
            socket.drop(self.random.choice([1000, 1006, 1012]))
        elif chance < 0.76 and socket is not None:
            event = self.random.choice(["phx_error", "phx_close"])
            socket.say(Frame(socket.join_ref, socket.join_ref, TOPIC, event, {}))
        elif chance < 0.80:
            node.hold_joins = not node.hold_joins
            if not node.hold_joins:
                node.release_joins()
        elif chance < 0.83:
            node.mute = not node.mute
        elif chance < 0.86:
            node.dial_error = ConnectFailed("ws://node.test", "refused") if node.dial_error is None else None
        elif chance < 0.89:
            self.open_gate() if node.dial_gate is not None else setattr(node, "dial_gate", trio.Event())
        elif chance < 0.93 and socket is not None:
            socket.stop_reading() if self.random.random() < 0.5 else socket.writable.set()
        elif chance < 0.97:
            nursery.start_soon(self.connect, channel)
        elif socket is not None:
            socket.say("garbage")

    def open_gate(self) -> None:
        node = self.node
        if node.dial_gate is not None:
            node.dial_gate.set()
            node.dial_gate = None

    def calm(self) -> None:
        node = self.node
        node.release_joins()
        node.mute = False
        node.dial_error = None
        self.open_gate()
        for socket in node.sockets:
            socket.writable.set()

    async def run(self) -> None:
        node, chance = self.node, self.random
        async with trio.open_nursery() as nursery, open_channel(self.options()) as channel:
            nursery.start_soon(self.connect, channel)
            for _ in range(chance.randrange(0, 30)):
                await trio.lowlevel.checkpoint()
            for _ in range(chance.randrange(10, 80)):
                for _ in range(chance.choice([0, 0, 1, 2, 5])):
                    await trio.lowlevel.checkpoint()
                if chance.random() < 0.15:
                    await trio.sleep(chance.choice([0.001, 0.1, 1, 3]))
                self.happen(nursery, channel)
                assert node.open_sockets + node.dialling <= 1
            self.calm()
            with trio.fail_after(600):
                while channel.state.status is not LinkStatus.JOINED:
                    try:
                        await channel.connect(PROTOCOLS)
                    except ConnectFailed:
                        await trio.sleep(5)  # an actor of the first attempt was crashed just now
            await trio.sleep(120)
            assert (await channel.send_msg("message", {"i": "last"})).ok
            statistics = channel.statistics()
            assert len(self.got) == statistics.messages_received
            assert statistics.messages_received == statistics.messages_delivered + statistics.messages_interrupted
            assert (statistics.replies_waiting, statistics.reading_paused) == (0, False)

    def judge(self) -> None:
        node = self.node
        assert (node.open_sockets, node.dialling) == (0, 0)
        assert node.most_at_once == 1
        assert self.order == (["down", "up"] * len(self.order))[: len(self.order)]
        assert self.got == sorted(set(self.got))
        seen = Counter(frame.payload.get("i") for socket in node.sockets for frame in socket.pushes)
        assert max(seen.values()) == 1
        assert len(self.outcomes) == self.started
        for number, outcome, seconds in self.outcomes:
            assert seconds <= 15.01
            assert not (isinstance(outcome, Reply) and not seen[number])
            assert not (isinstance(outcome, NotConnected) and seen[number])


@pytest.mark.parametrize("block", range(6))
async def test_after_a_night_of_crashes_and_drops_it_is_joined_and_nothing_is_lost_doubled_or_left(
    node: Any, block: int
) -> None:
    for seed in range(block * SEEDS_PER_TEST, (block + 1) * SEEDS_PER_TEST):
        fresh = type(node)()
        night = Night(fresh, seed)
        try:
            await night.run()
            night.judge()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


# --- one thing, at each turn of the scheduler -------------------------------------------------------------------------


async def outcome_of(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except Layr8Error as error:
        return error


@pytest.mark.parametrize("turns", range(20))
async def test_a_connect_cancelled_at_any_turn_leaves_nothing_and_can_be_called_again(node: Any, turns: int) -> None:
    async with open_channel(node.options()) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.connect, PROTOCOLS)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.sleep(1)
        assert channel.state.joined == bool(node.open_sockets)
        with trio.fail_after(1):
            await channel.connect(PROTOCOLS)
        assert (node.open_sockets, node.most_at_once) == (1, 1)


@pytest.mark.parametrize("another", ["nothing", "close", "cancelled close", "connect", "drop"])
async def test_a_close_at_any_turn_ends_everybody_with_a_typed_error(node: Any, another: str) -> None:
    for turns in range(30):
        fresh = type(node)()
        outcomes: list[Any] = []
        async with open_channel(fresh.options()) as channel, trio.open_nursery() as nursery:

            async def connect(channel: Channel = channel, outcomes: list[Any] = outcomes) -> None:
                outcomes.append(await outcome_of(lambda: channel.connect(PROTOCOLS)))

            async def send(channel: Channel = channel, outcomes: list[Any] = outcomes) -> None:
                for _ in range(6):
                    outcomes.append(await outcome_of(lambda: channel.send_msg("message", {})))
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(connect)
            nursery.start_soon(send)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if another == "close":
                nursery.start_soon(channel.close)
            elif another == "cancelled close":
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await channel.close()
            elif another == "connect":
                nursery.start_soon(connect)
            elif another == "drop" and fresh.sockets:
                fresh.socket.drop()
            with trio.fail_after(6):
                await channel.close()
        assert (fresh.open_sockets, fresh.dialling) == (0, 0)
        allowed = (type(None), Reply, ChannelClosed, NotConnected, Disconnected, ConnectFailed)
        assert all(isinstance(outcome, allowed) for outcome in outcomes)
