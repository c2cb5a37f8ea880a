"""Random lives of a durable client with further DIDs under a supervisor, on a node that fails.

Whatever happens to the link, the topics, the run and the program: what the node was told is handled is handled, by the
DID that it came for, in order within its thread; each message that a DID stored to be sent arrives from that DID; and
every DID that was not left comes back. A life that fails names its seed.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import trio

from layr8_actors import Client, Layr8Error, LinkStatus, Message
from layr8_actors.channel.events import CallbackFailed
from layr8_actors.client import DidHandlers, JoinedDid
from layr8_actors.client.durable import MemoryStore, QueueOptions
from layr8_actors.client.events import FunctionFailed
from layr8_actors.otp import Supervisor
from layr8_actors.otp.events import ChildExited, LimitReached, ShutdownError
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel
from tests.client.agents import ALICE, BOB, REQUEST, agent, config, of, plaintext, request_to, settle, tasks

LIVES = 4
DIDS = [f"did:web:node.test:tenant-{number}" for number in range(3)]
GHOST = "e.connect.plugin.failed: protocols_already_bound"


class Patient(DispatchingChannel):
    """It waits longer than any handler works."""

    dispatch_timeout = 10_000.0


class Life:
    """A client that comes and goes with its program, and the ledger of what was asked of it."""

    def __init__(self, node: CloudNode, dice: random.Random, events: list[Event]) -> None:
        self.node = node
        self.dice = dice
        self.events = events
        often = QueueOptions(max_attempts=10_000)
        self.store = MemoryStore(inbox=often, outbox=often, clock=trio.current_time, on_event=events.append)
        self.given = 0
        self.back = 0
        self.handled: list[tuple[str, str, int]] = []
        self.sent: set[tuple[str, str]] = set()
        self.arrived: Counter[tuple[str, str]] = Counter()
        self.joined: dict[str, JoinedDid] = {}

    def handlers_of(self, did: str) -> DidHandlers:
        handlers = DidHandlers()

        @handlers.handle(REQUEST, timeout=3)
        async def work(message: Message) -> None:
            await trio.sleep(self.dice.choice([0, 0.1, 1, 5]))
            self.handled.append((did, message.thread, message.body))

        return handlers

    async def program(self, seconds: float) -> None:
        """Run the client for so long under a supervisor, while things happen."""
        client = Client(config(self.node, ALICE, self.events, shutdown_grace=1), durable=self.store)
        client.handle_all(lambda message: self.handled.append((ALICE, message.thread, message.body)))
        self.joined = {}
        end = trio.current_time() + seconds
        limits = {"max_restarts": 1000, "on_event": self.events.append}
        async with Supervisor([client.child_spec()], name="app", **limits):  # type: ignore[arg-type]
            with contextlib.suppress(Layr8Error), trio.move_on_after(20):
                await client.connect()
                for did in await client.waiting_dids():
                    self.joined[did] = await client.join_did(did, self.handlers_of(did))
            while trio.current_time() < end:
                await self.something(client)
                await trio.sleep(self.dice.choice([0, 0, 0.01, 0.5, 2]))
            if self.dice.random() < 0.5:
                await self.all_are_back(client)

    async def all_are_back(self, client: Client) -> None:
        """Wait until everybody is joined who was not left."""
        self.node.behave()
        await trio.sleep(10)  # a restart may be under way
        back = {did: joined for did, joined in self.joined.items() if joined.state.status is not LinkStatus.CLOSED}
        with trio.fail_after(100):
            await client.connect()
            for joined in back.values():
                await joined.connect()
            assert set(back) <= set(self.node.dids)
        self.back += len(back)
        queues = {f"{box} of {did}" for box in ("inbox", "outbox") for did in back}
        with trio.fail_after(1000):
            while queues & set(await self.store.live()):
                await trio.sleep(1)

    async def last_program(self) -> None:
        """Join everybody, and let all be done."""
        client = Client(config(self.node, ALICE, self.events), durable=self.store)
        async with Supervisor([client.child_spec()], name="app", on_event=self.events.append):
            await client.connect()
            for did in DIDS:
                await client.join_did(did, self.handlers_of(did))
            while await self.store.live():
                await trio.sleep(1)
            assert set(self.node.dids) >= {ALICE, *DIDS}

    async def send(self, joined: JoinedDid) -> None:
        self.given += 1
        sent = await joined.send_durably(request_to(BOB, id=f"{self.given}"))
        self.sent.add((sent.from_, sent.id))

    async def something(self, client: Client) -> None:
        node, did = self.node, self.dice.choice(DIDS)
        joined = self.joined.get(did)
        happens = self.dice.choice(
            ["message"] * 6
            + ["send"] * 3
            + ["join"] * 3
            + ["leave", "restart", "drop", "drop twice", "crash", "close", "refuse", "delay"]
        )
        with contextlib.suppress(Layr8Error), trio.move_on_after(self.dice.choice([0.01, 1, 10])):
            match happens:
                case "message":
                    self.given += 1
                    thread = f"{did} {self.given % 2}"
                    node.deliver(did, plaintext(self.given, to=[did], thid=thread, body=self.given))
                case "send" if joined is not None:
                    await self.send(joined)
                case "join":
                    self.joined[did] = await client.join_did(did, self.handlers_of(did))
                case "leave" if joined is not None:
                    await joined.leave()
                case "restart":
                    await client.close()
                case "drop":
                    node.drop()
                case "drop twice":  # the second time before the join of the first one was answered
                    node.delay_joins(3, did=ALICE, count=1)
                    node.drop()
                    if joined is not None:
                        await self.send(joined)
                    await trio.sleep(2)
                    node.drop()
                case "crash":
                    node.crash_topic(did)
                case "close":
                    node.close_topic(did)
                case "refuse":
                    node.refuse_joins(GHOST, did=did, count=1)
                case "delay":
                    node.delay_joins(self.dice.choice([0.5, 3]), did=self.dice.choice([ALICE, did]), count=1)
                case _:
                    pass


async def one_life(seed: int) -> Life:
    events: list[Event] = []
    before = tasks()
    async with CloudNode(memory=True, channels={"plugins:": Patient}) as node:
        life = Life(node, random.Random(seed), events)
        bob = agent(node, BOB)
        bob.handle(REQUEST)(lambda message: life.arrived.update([(message.from_, message.id)]))
        async with bob:
            for _ in range(3):
                await life.program(life.dice.uniform(2, 20))
            node.behave()
            await settle()
            with trio.fail_after(3000):
                await life.last_program()
            await settle()
    assert tasks() == before
    given = [one for one in node.dispatches if one.did in DIDS]
    handled = {(did, body) for did, _, body in life.handled}
    assert {(one.did, one.message["body"]) for one in given if one.status == "handled"} <= handled
    assert handled <= {(one.did, one.message["body"]) for one in given}, "each by the DID that it came for"
    assert set(life.arrived) == life.sent
    assert not node.stray_replies
    exits = [event for event in of(events, ChildExited, ShutdownError) if event.reason.error is not None]
    assert [*exits, *of(events, CallbackFailed, FunctionFailed, LimitReached)] == []
    for lane in {(did, thread) for did, thread, _ in life.handled}:
        firsts = list(dict.fromkeys(body for did, thread, body in life.handled if (did, thread) == lane))
        assert firsts == sorted(firsts)
    return life


async def test_in_random_lives_each_did_handles_what_was_acknowledged_and_sends_what_it_stored() -> None:
    happened: Counter[str] = Counter()
    for seed in range(LIVES):
        try:
            life = await one_life(seed)
        except Exception as error:
            error.add_note(f"in the life of seed {seed}")
            raise
        happened += Counter(handled=len(life.handled), sent=len(life.sent), back=life.back)
    # They were lives and no deaths.
    assert min(happened.values()) > LIVES
