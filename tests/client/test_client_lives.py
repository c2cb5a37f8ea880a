"""Random lives of two clients that talk to each other, and ask each other from within handlers, on a node that fails.

The node waits for each dispatch_reply. Its ledger says of each message that it handed over whether it was settled once,
or the join that it came under has ended; ours says of each request that it had an outcome. A life that fails names its
seed.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import pytest
import trio

from layr8_actors import PASS, Client, Layr8Error, Message, Pass, RequestTimeout
from layr8_actors.channel.events import CallbackFailed
from layr8_actors.client import HandlerFunction
from layr8_actors.client.events import DispatchReplyDiscarded, FunctionFailed
from layr8_actors.errors import ActorNotRunning
from layr8_actors.otp import Supervisor
from layr8_actors.otp.events import ChildExited, ChildStopped, LimitReached, ShutdownError
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel
from tests.client.agents import ALICE, BOB, EXACT, PROTOCOL, REQUEST, RESPONSE, agent, of, plaintext, settle, tasks

DIDS = [ALICE, BOB]
HANDLER_TIMEOUT = 4.0
LONGEST_REQUEST = 8.0
LIVES = 40
TURN = f"{PROTOCOL}/turn"
FIRST = f"{PROTOCOL}/first"


class Patient(DispatchingChannel):
    """It waits longer than any handler works: each message of a join that lasts has to be settled by a client."""

    dispatch_timeout = 10_000.0


class Life:
    """Two clients, and the ledger of what was asked of them.

    Args:
        node: theirs.
        dice: every choice.
    """

    def __init__(self, node: CloudNode, dice: random.Random) -> None:
        self.node = node
        self.dice = dice
        self.events: list[Event] = []
        self.asked = 0
        self.outcomes: Counter[str] = Counter()
        self.at_work: Counter[tuple[str, str]] = Counter()
        self.most_at_work = 0
        self.clients: dict[str, Client] = {}
        for did in DIDS:
            limits = {"max_handlers": 3, "max_queued": 4, "handler_timeout": HANDLER_TIMEOUT, "shutdown_grace": 2}
            client = agent(node, did, self.events, **limits)
            client.handle(TURN)(self.handler(did))
            client.handle(FIRST, accept_first=True)(self.handler(did))
            client.handle(RESPONSE)(lambda message: None)
            self.clients[did] = client

    def handler(self, did: str) -> HandlerFunction:
        async def handle(message: Message) -> Message | Pass | None:
            lane = did, message.thread
            self.at_work[lane] += 1
            self.most_at_work = max(self.most_at_work, self.at_work[lane])
            try:
                return await self.act(did, message)
            finally:
                self.at_work[lane] -= 1

        return handle

    async def act(self, did: str, message: Message) -> Message | Pass | None:
        dice = self.dice
        kind = dice.choice(
            ["answer"] * 4 + ["nothing", "pass", "fail", "group", "slow", "for ever", "cleanup", "wrong"]
        )
        if message.body["depth"] and dice.random() < 0.5:
            await self.ask(did, message.body["depth"] - 1)  # what it raises is the handler's failure
        match kind:
            case "nothing":
                return None
            case "pass":
                return PASS
            case "fail":
                raise ValueError(message.id)
            case "group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    raise KeyError(message.id)
            case "slow":
                await trio.sleep(dice.uniform(0.1, 3))
            case "for ever":
                await trio.sleep_forever()
            case "cleanup":
                try:
                    await trio.sleep(dice.uniform(0, 2 * HANDLER_TIMEOUT))
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.5)
            case "wrong":
                return message.reply(RESPONSE, {"a": {1}})
        return message.reply(RESPONSE, message.body)

    async def ask(self, did: str, depth: int) -> None:
        """Make a request of somebody, perhaps of the asker itself; and note its outcome, whatever it is."""
        self.asked += 1
        dice = self.dice
        outcome = "lost"
        message = Message(type=dice.choice([TURN, TURN, FIRST]), to=[dice.choice(DIDS)], body={"depth": depth})
        try:
            timeout = dice.uniform(0.5, LONGEST_REQUEST)
            begun = trio.current_time()
            response = await self.clients[did].request(message, timeout=timeout, survive_reconnect=dice.random() < 0.3)
            outcome = "answered"
            assert response.thid == message.id
            assert response.body == message.body
        except RequestTimeout:
            assert trio.current_time() - begun == pytest.approx(timeout)
            outcome = "timeout"
            raise
        except Layr8Error as error:
            outcome = type(error).__name__
            raise
        except trio.Cancelled:
            outcome = "cancelled"
            raise
        finally:
            self.outcomes[outcome] += 1

    async def asker(self, did: str) -> None:
        try:
            if self.dice.random() < 0.2:
                with trio.move_on_after(self.dice.uniform(0, 3)):
                    await self.ask(did, 2)
            else:
                await self.ask(did, 2)
        except Layr8Error:
            pass  # it is in the ledger

    async def teller(self, did: str, thread: str) -> None:
        body = {"depth": 1}
        try:
            await self.clients[did].send(Message(type=TURN, to=[self.dice.choice(DIDS)], body=body, thid=thread))
        except Layr8Error as error:
            self.outcomes[f"send {type(error).__name__}"] += 1

    def fail(self, tree: Supervisor) -> None:
        """Let one thing go wrong, if it can now."""
        dice, node = self.dice, self.node
        did = dice.choice(DIDS)
        fault = dice.choice(["drop", "drop", "crash topic", "mute", "dispatcher", "actor", "client", "refuse"])
        try:
            match fault:
                case "drop":
                    node.drop(did)
                case "crash topic":
                    node.crash_topic(did)
                case "mute":
                    node.drop_replies(did=did, count=2)
                case "dispatcher":
                    self.clients[did].supervisor.exit_child("dispatcher", ValueError("staged"))
                case "actor":
                    actor = dice.choice(["inbox", "router", "connection"])
                    self.clients[did].channel.supervisor.exit_child(actor, ValueError("staged"))
                case "client":
                    tree.exit_child(did, ValueError("staged"))
                case _:
                    node.refuse_joins("join crashed", did=did, count=1)
        except Layr8Error:
            return  # it is down just now


async def live(life: Life, steps: int) -> None:
    dice = life.dice
    specs = [client.child_spec(id=did) for did, client in life.clients.items()]
    async with (
        Supervisor(specs, max_restarts=1000, on_event=life.events.append) as tree,
        trio.open_nursery() as nursery,
    ):
        for client in life.clients.values():
            await client.connect()
        for number in range(steps):
            did = dice.choice(DIDS)
            what = dice.random()
            if what < 0.45:
                nursery.start_soon(life.asker, did)
            elif what < 0.6:
                nursery.start_soon(life.teller, did, f"t{number % 3}")
            elif what < 0.9:
                await trio.sleep(dice.choice([0, 0, 0.3, 2.0]))
            else:
                life.fail(tree)
                if dice.random() < 0.3:
                    await trio.sleep(dice.uniform(0, 5))
        await trio.sleep(1000)
        check_all_is_quiet(life)


def check_all_is_quiet(life: Life) -> None:
    """What has to be so when nobody asks any more and all that failed is up again."""
    for client in life.clients.values():
        statistics = client.statistics()
        assert client.state.joined
        assert statistics.requests_waiting == 0
        assert (statistics.handlers_running, statistics.messages_waiting, statistics.threads) == (0, 0, 0)
    assert life.outcomes["lost"] == 0
    assert sum(count for outcome, count in life.outcomes.items() if not outcome.startswith("send")) == life.asked
    assert +life.at_work == {}
    assert life.most_at_work <= 1, "one at a time within a thread"
    node = life.node
    assert node.stray_replies == []
    last_join = {did: node.received(did, event="phx_join")[-1] for did in DIDS}
    for dispatch in node.dispatches:
        assert len(dispatch.replies) <= 1
        join = last_join[dispatch.did]
        if dispatch.join_ref == join.frame.ref and dispatch.at > join.at:
            assert len(dispatch.replies) == 1, "its join lasts"


async def one_life(seed: int) -> Life:
    before = tasks()
    async with CloudNode(memory=True, channels={"plugins:": Patient}) as node:
        life = Life(node, random.Random(seed))
        await live(life, 120)
        await settle()
    # Crashes are those that were staged; one of them may meet a client that is just being stopped.
    exits = [event for event in of(life.events, ChildExited, ShutdownError) if type(event) is not ChildStopped]
    assert {str(event.reason.error) for event in exits} <= {"staged"}
    assert not of(life.events, CallbackFailed, FunctionFailed, LimitReached)
    ends = sum(node.joins(did) for did in DIDS)
    unsettled = sum(not dispatch.replies for dispatch in node.dispatches)
    assert unsettled <= ends, "one at most is pending under each join that ended"
    assert len(of(life.events, DispatchReplyDiscarded)) <= ends
    await settle()
    assert tasks() == before
    return life


async def test_in_random_lives_each_message_is_settled_once_and_each_request_has_an_outcome() -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(LIVES):
        try:
            outcomes += (await one_life(seed)).outcomes
        except Exception as error:
            error.add_note(f"in the life of seed {seed}")
            raise
    # They were lives and no deaths: whatever can become of a request did, and most often.
    assert {"answered", "timeout", "cancelled", "ProblemReportError", "Disconnected", "ChannelClosed"} <= set(outcomes)
    assert outcomes["answered"] > LIVES


async def test_a_flood_among_crashes_is_handled_message_by_message_and_the_node_told_once_of_each() -> None:
    """A node that hands over all at once, a queue of two, and crashes while the inbox waits for room in it."""
    most = 80
    for seed in range(8):
        dice = random.Random(seed)
        handled: Counter[str] = Counter()
        async with CloudNode(memory=True) as node:
            alice = agent(
                node,
                max_handlers=2,
                max_queued=2,
                channel={"backoff": EXACT, "max_restarts": 40, "max_seconds": 2000.0, "inbox_capacity": 8},
            )
            await among_crashes(node, alice, dice, handled, most)
        told = Counter(frame.payload["message_id"] for frame in node.frames(ALICE, event="dispatch_reply"))
        assert told == {str(number): 1 for number in range(most)}, f"seed {seed}"
        assert set(handled.values()) == {1}, "nothing is handled twice"
        statistics = alice.statistics()
        assert sum(handled.values()) == most
        assert (statistics.handlers_running, statistics.messages_waiting, statistics.threads) == (0, 0, 0)
        assert node.joins(ALICE) == 1


async def among_crashes(node: CloudNode, alice: Client, dice: random.Random, handled: Counter[str], most: int) -> None:
    @alice.handle(REQUEST)
    async def handle(message: Message) -> None:
        handled[message.id] += 1
        await trio.sleep(dice.choice([0, 0.1, 1]))

    async with alice, trio.open_nursery() as nursery:
        nursery.start_soon(node.flood, ALICE, most, lambda number: plaintext(number, thid=f"t{number % 5}"))
        for _ in range(10):
            for _ in range(dice.randrange(6)):
                await trio.lowlevel.checkpoint()
            await trio.sleep(dice.choice([0, 0.05, 1]))
            supervisor, id = dice.choice([(alice.supervisor, "dispatcher"), (alice.channel.supervisor, "inbox")])
            with contextlib.suppress(ActorNotRunning):  # it is down just now
                supervisor.exit_child(id, ValueError("staged"))
        await trio.sleep(300)
