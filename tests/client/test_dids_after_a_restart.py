"""A supervisor restarts a client: the DIDs that were joined are joined again, their handles work again, or are told."""

from __future__ import annotations

import pytest
import trio

from layr8_actors import AlreadyConnected, ChannelClosed, JoinRejected, Message, NotConnected
from layr8_actors.channel.events import GaveUp
from layr8_actors.client import DidHandlers, JoinedDid
from layr8_actors.client.events import DidNotRejoined
from layr8_actors.otp import ChildSpec, Strategy, Supervisor
from layr8_actors.telemetry import Event
from tests.client.agents import (
    ALICE,
    BOB,
    PROTOCOL,
    REQUEST,
    RESPONSE,
    agent,
    echo_agent,
    of,
    plaintext,
    request_to,
    settle,
    settled_once,
    statuses,
    strict_node,
    tasks,
)

CAROL = "did:web:node.test:carol"
DAVE = "did:web:node.test:dave"
PERMANENT = "e.join.plugin.parent.not-found"


def answering(name: str) -> DidHandlers:
    handlers = DidHandlers()

    @handlers.handle(REQUEST)
    def answer(message: Message) -> Message:
        return message.reply(RESPONSE, name)

    return handlers


def app(*children: ChildSpec, strategy: Strategy = Strategy.ONE_FOR_ONE) -> Supervisor:
    return Supervisor(children, strategy=strategy, name="app", on_event=lambda event: None)


async def test_each_did_is_joined_again_and_its_handle_sends_asks_and_handles_as_before() -> None:
    before = tasks()
    async with strict_node() as node, echo_agent(node):
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL, answering("carol"))
            dave = await alice.join_did(DAVE, answering("dave"), protocols=["https://example.org/more/1.0"])
            for turn in (2, 3):
                await alice.close()  # a permanent child: it runs again
                await trio.sleep(1)
                for joined, name in ((carol, "carol"), (dave, "dave")):
                    await joined.connect()
                    assert node.joins(joined.did) == turn
                    assert (await joined.request(request_to(BOB, turn), timeout=5)).body == turn
                    assert (await alice.request(request_to(joined.did), timeout=5)).body == name
            joins = [frame.payload["payload_types"] for frame in node.frames(DAVE, event="phx_join")]
            assert joins == joins[:1] * 3
            assert "https://example.org/more/1.0" in joins[0]
            assert carol.statistics().messages_handled == 1  # of this run
            await settle()
            assert settled_once(node)
    assert node.dids == ()
    assert tasks() - before <= 0


async def test_a_crash_that_ends_the_run_brings_them_back_too() -> None:
    async with strict_node() as node:
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL, answering("carol"))
            node.refuse_joins(PERMANENT, did=ALICE, count=3)
            node.drop(ALICE)
            await trio.sleep(200)  # three refusals, 30 s apart, end the run with JoinRejected
            await alice.connect()
            await carol.connect()
            assert (await alice.request(request_to(CAROL), timeout=5)).body == "carol"


async def test_one_that_was_left_stays_away_and_one_that_is_left_meanwhile_too() -> None:
    async with strict_node() as node:
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL)
            dave = await alice.join_did(DAVE)
            await carol.leave()
            async with node.down():
                await alice.close()
                await trio.sleep(5)  # the next run waits for the node
                assert dave.state.status.value == "waiting"
                await dave.leave()
                assert dave.state.status.value == "closed"
            await alice.connect()
            await trio.sleep(5)
            assert (node.joins(CAROL), node.joins(DAVE)) == (1, 1)
            for left in (carol, dave):
                with pytest.raises(ChannelClosed):
                    await left.send(request_to(BOB))
            await alice.join_did(DAVE)


async def test_what_is_called_in_between_is_told_at_once_and_connect_waits_for_the_join() -> None:
    async with strict_node() as node, echo_agent(node) as bob:
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL, protocols=[PROTOCOL])
            node.delay_joins(8, did=ALICE)
            await alice.close()
            with pytest.raises(ChannelClosed):
                await carol.send(request_to(BOB))
            assert carol.capabilities
            await trio.sleep(2)  # the next run has begun, and waits for its join
            with pytest.raises(NotConnected):
                await carol.send(request_to(BOB))
            assert (carol.did, carol.capabilities, carol.delegation) == (CAROL, (), None)
            start = trio.current_time()
            await carol.connect()
            assert trio.current_time() - start > 5
            assert (await carol.request(request_to(BOB), timeout=5)).from_ == bob.did


async def test_a_refused_rejoin_is_tried_again_and_stops_no_other_one() -> None:
    async with strict_node() as node:
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL, answering("carol"))
            dave = await alice.join_did(DAVE, answering("dave"))
            node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", did=CAROL, count=2)
            await alice.close()
            await trio.sleep(0.5)
            await dave.connect()
            assert carol.state.status.value == "waiting"
            with pytest.raises(NotConnected):
                await carol.send(request_to(DAVE))
            await carol.connect()
            assert (await alice.request(request_to(CAROL), timeout=5)).body == "carol"
            assert node.joins(DAVE) == 2


async def test_one_that_the_node_refuses_for_good_is_told_and_the_others_are_back() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL)
            dave = await alice.join_did(DAVE, answering("dave"))
            node.refuse_joins(PERMANENT, did=CAROL, count=3)
            await alice.close()
            with pytest.raises(ChannelClosed) as closed:
                await trio.sleep(1)
                await carol.connect()  # which waits for three refusals, 30 s apart
            assert isinstance(closed.value.__cause__, JoinRejected)
            with pytest.raises(ChannelClosed):
                await carol.send(request_to(DAVE))
            assert [event.topic for event in of(events, GaveUp)] == [f"plugins:{CAROL}"]
            assert (await alice.request(request_to(dave.did), timeout=5)).body == "dave"
            # The next restart tries it again, as it does the client's own DID.
            await alice.close()
            await trio.sleep(1)
            await carol.connect()


async def test_a_did_that_the_channel_cannot_take_any_more_is_told_and_an_event_says_so() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, "", events)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL)
            dave = await alice.join_did(DAVE)
            node.assign_did(CAROL)  # the node gives the client that very DID
            await alice.close()
            await trio.sleep(5)
            await dave.connect()
            (told,) = of(events, DidNotRejoined)
            assert (told.did, type(told.error)) == (CAROL, AlreadyConnected)
            with pytest.raises(ChannelClosed) as closed:
                await carol.connect()
            assert closed.value.__cause__ is told.error
            assert (carol.state.status.value, carol.state.last_error) == ("closed", told.error)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ONE, Strategy.REST_FOR_ONE])
async def test_a_service_that_joins_its_did_when_it_starts_may_be_restarted_with_the_client_or_not(
    strategy: Strategy,
) -> None:
    async with strict_node() as node:
        alice = agent(node)
        handles: list[JoinedDid] = []

        async def service(*, task_status: trio.TaskStatus[None]) -> None:
            await alice.connect()
            handles.append(await alice.join_did(CAROL, answering(f"of service {len(handles) + 1}")))
            task_status.started()
            await trio.sleep_forever()

        async with app(alice.child_spec(), ChildSpec("service", service), strategy=strategy):
            for number in (1, 2, 3):
                await handles[-1].connect()
                current = number if strategy is Strategy.REST_FOR_ONE else 1
                assert (await alice.request(request_to(CAROL), timeout=5)).body == f"of service {current}"
                assert len(handles) == current
                await alice.close()
                await trio.sleep(1)
            for former in handles[:-1]:
                with pytest.raises(ChannelClosed):
                    await former.send(request_to(ALICE))
            with pytest.raises(AlreadyConnected):
                await (await alice.join_did(DAVE)).send(request_to(ALICE))
                await alice.join_did(DAVE)


async def test_whoever_takes_a_did_over_is_not_confused_by_others_who_want_it_too() -> None:
    async with strict_node() as node:
        alice = agent(node)
        async with app(alice.child_spec()):
            await alice.connect()
            carol = await alice.join_did(CAROL, answering("before"))
            await alice.close()
            await trio.sleep(1)
            await carol.connect()
            won: list[JoinedDid] = []
            lost: list[AlreadyConnected] = []

            async def take() -> None:
                try:
                    won.append(await alice.join_did(CAROL, answering("after")))
                except AlreadyConnected as error:
                    lost.append(error)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take)
            assert (len(won), len(lost)) == (1, 2)
            assert (await alice.request(request_to(CAROL), timeout=5)).body == "after"
            await carol.leave()  # the handle of before leaves nothing that is not its own
            assert (await alice.request(request_to(CAROL), timeout=5)).body == "after"


async def test_a_run_that_is_begun_by_hand_begins_without_them_and_their_handles_are_told() -> None:
    async with strict_node() as node:
        alice = agent(node)
        async with alice:
            carol = await alice.join_did(CAROL)
        async with alice:
            with pytest.raises(ChannelClosed):
                await carol.connect()
            with pytest.raises(ChannelClosed):
                await carol.request(request_to(BOB))
            dave = await alice.join_did(DAVE)
        async with trio.open_nursery() as nursery:
            await alice.start_link(nursery)
            await alice.connect()
            with pytest.raises(ChannelClosed):
                await dave.connect()
            await alice.join_did(DAVE)
            await alice.close()
        async with app(alice.child_spec()):
            await alice.connect()
            await trio.sleep(1)
            assert (node.joins(CAROL), node.joins(DAVE)) == (1, 2)


async def test_a_restart_that_is_cancelled_at_any_moment_leaves_nothing() -> None:
    for turns in range(0, 120, 17):
        before = tasks()
        async with strict_node() as node:
            alice = agent(node)
            async with app(alice.child_spec()):
                await alice.connect()
                carol = await alice.join_did(CAROL)
                await alice.join_did(DAVE)
                await alice.close()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            with pytest.raises(ChannelClosed):
                await carol.send(request_to(BOB))
            assert node.dids == ()
        assert tasks() == before


async def test_messages_for_a_did_come_as_soon_as_it_is_back() -> None:
    async with strict_node() as node:
        alice = agent(node)
        got: list[str] = []
        handlers = DidHandlers()
        handlers.handle(REQUEST)(lambda message: got.append(message.id))
        async with app(alice.child_spec()):
            await alice.connect()
            await alice.join_did(CAROL, handlers)
            await alice.close()
            await node.wait_joined(CAROL, 2)
            node.deliver(CAROL, plaintext(1, to=[CAROL]))
            await settle()
            assert got == ["1"]
            assert statuses(node, CAROL) == {"1": ["handled"]}
