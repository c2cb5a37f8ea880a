"""Further DIDs on the socket of a client: their own handlers, sends, requests and settlements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from layr8_actors import (
    AlreadyConnected,
    ChannelClosed,
    Client,
    Disconnected,
    InvalidOption,
    JoinRejected,
    Message,
    NotConnected,
)
from layr8_actors.client import DidHandlers
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REQUEST,
    RESPONSE,
    agent,
    echo_agent,
    legacy_node,
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


def keeping(got: list[tuple[str, str]], name: str) -> DidHandlers:
    handlers = DidHandlers()

    @handlers.handle(REQUEST)
    def keep(message: Message) -> Message:
        got.append((name, message.id))
        return message.reply(RESPONSE, name)

    return handlers


async def sleep(message: Message) -> None:
    await trio.sleep(10)


async def test_each_did_has_its_handlers_and_is_told_of_on_its_own_topic_over_one_socket() -> None:
    got: list[tuple[str, str]] = []
    before = tasks()
    async with strict_node() as node:
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: got.append(("alice", message.id)))
        alice.handle_all(lambda message: got.append(("all", message.id)))
        async with alice:
            carol = await alice.join_did(CAROL, keeping(got, "carol"))
            dave = await alice.join_did(DAVE)
            assert (carol.did, dave.did, len(node.connections)) == (CAROL, DAVE, 1)
            assert carol.state.status.value == "joined"
            for number, did in enumerate((ALICE, CAROL, DAVE)):
                node.deliver(did, plaintext(number, to=[did]))
            node.deliver(CAROL, plaintext("other", f"{REQUEST}-of-another-kind", to=[CAROL]))
            await settle()
            # Carol's own handlers go first; what she has none for, and all of Dave's, goes to the client's.
            assert sorted(got) == [("alice", "0"), ("alice", "2"), ("all", "other"), ("carol", "1")]
            assert settled_once(node)
            assert statuses(node, CAROL) == {"1": ["handled"], "other": ["handled"]}
            assert statuses(node, DAVE) == {"2": ["handled"]}
            assert carol.statistics().messages_handled == 2
        assert node.dids == ()
    assert tasks() == before


async def test_each_did_sends_and_asks_as_itself_and_its_answers_come_to_it() -> None:
    async with strict_node() as node:
        senders: list[str] = []
        bob = agent(node, BOB)

        @bob.handle(REQUEST)
        def echo(message: Message) -> Message:
            senders.append(message.from_)
            return message.reply(RESPONSE, message.body)

        async with bob, agent(node) as alice:
            carol = await alice.join_did(CAROL, protocols=["https://example.org/echo/1.0"])
            assert (await carol.request(request_to(BOB, 1), timeout=5)).to == (CAROL,)
            assert (await alice.request(request_to(BOB, 2), timeout=5)).to == (ALICE,)
            assert (await carol.send(request_to(BOB, 3))).from_ == CAROL
            await settle()
        assert senders == [CAROL, ALICE, CAROL]
        assert settled_once(node)


async def test_a_handler_of_one_did_may_ask_another_one_of_the_same_socket() -> None:
    async with strict_node() as node, agent(node) as alice:
        handlers = DidHandlers()

        @handlers.handle(REQUEST)
        async def answer(message: Message) -> Message:
            return message.reply(RESPONSE, "of carol")

        await alice.join_did(CAROL, handlers)
        assert (await alice.request(request_to(CAROL), timeout=5)).body == "of carol"


async def test_a_drop_fails_the_requests_of_all_dids_and_each_is_joined_again() -> None:
    async with strict_node() as node:
        quiet = agent(node, BOB)
        quiet.handle(REQUEST)(lambda message: None)
        told: list[str] = []
        handlers = DidHandlers()
        handlers.on_reconnect(lambda: told.append("back"))
        handlers.on_disconnect(lambda error: told.append("lost"))
        async with quiet, agent(node) as alice:
            carol = await alice.join_did(CAROL, handlers)
            errors: list[str] = []

            async def ask(who: Any) -> None:
                with pytest.raises(Disconnected):
                    await who.request(request_to(BOB), timeout=60)
                errors.append(who.did)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, alice)
                nursery.start_soon(ask, carol)
                await settle()
                node.drop(ALICE)
            await trio.sleep(5)
            assert sorted(errors) == [ALICE, CAROL]
            assert told == ["lost", "back"]
            assert node.joins(CAROL) == 2
            await carol.send(request_to(BOB))


async def test_what_the_node_does_to_one_topic_fails_no_request_of_another_did() -> None:
    async with strict_node() as node:
        quiet = agent(node, BOB)
        quiet.handle(REQUEST)(sleep)
        async with quiet, agent(node) as alice:
            carol = await alice.join_did(CAROL)
            outcomes: dict[str, str] = {}

            async def ask(who: Any) -> None:
                try:
                    await who.request(request_to(BOB), timeout=3)
                except Exception as error:
                    outcomes[who.did] = type(error).__name__

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, alice)
                nursery.start_soon(ask, carol)
                await settle()
                node.crash_topic(CAROL)
            assert outcomes == {ALICE: "RequestTimeout", CAROL: "Disconnected"}


async def test_one_refused_rejoin_stops_no_other_did_and_is_tried_again() -> None:
    async with strict_node() as node, agent(node) as alice:
        got: list[tuple[str, str]] = []
        await alice.join_did(CAROL, keeping(got, "carol"))
        await alice.join_did(DAVE, keeping(got, "dave"))
        node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", did=CAROL, count=1)
        node.drop(ALICE)
        await trio.sleep(20)
        assert set(node.dids) == {ALICE, CAROL, DAVE}
        for did in (CAROL, DAVE):
            node.deliver(did, plaintext(did, to=[did]))
        await settle()
        assert sorted(got) == [("carol", CAROL), ("dave", DAVE)]


async def test_leave_cancels_its_handlers_tells_the_node_and_leaves_the_others_alone() -> None:
    before = tasks()
    async with strict_node() as node:
        async with echo_agent(node), agent(node) as alice:
            handlers = DidHandlers()
            handlers.handle(REQUEST)(sleep)
            carol = await alice.join_did(CAROL, handlers)
            node.deliver(CAROL, plaintext(1, to=[CAROL]))
            await settle()
            await carol.leave()
            await carol.leave()
            assert statuses(node, CAROL) == {"1": ["error"]}
            assert CAROL not in node.dids
            with pytest.raises(ChannelClosed):
                await carol.send(request_to(BOB))
            assert (await alice.request(request_to(BOB, 1), timeout=5)).body == 1
            left: list[int] = []
            for _ in range(4):
                again = await alice.join_did(CAROL, handlers)
                assert again.state.status.value == "joined"
                await again.leave()
                await settle()
                left.append(tasks())
            assert left == left[:1] * 4
    assert tasks() == before


async def test_a_join_that_fails_or_is_cancelled_leaves_nothing_and_may_be_tried_again() -> None:
    async with strict_node() as node, agent(node) as alice:
        node.refuse_joins("e.join.plugin.parent.not-found", did=CAROL, count=1)
        with pytest.raises(JoinRejected):
            await alice.join_did(CAROL)
        node.delay_joins(10, did=CAROL, count=1)
        with trio.move_on_after(1) as scope:
            await alice.join_did(CAROL)
        assert scope.cancelled_caught
        carol = await alice.join_did(CAROL)
        with pytest.raises(AlreadyConnected):
            await alice.join_did(CAROL)
        with pytest.raises(AlreadyConnected):
            await alice.join_did(ALICE)
        assert carol.state.status.value == "joined"
        for wrong in ({"did": ""}, {"did": DAVE, "handlers": "none"}, {"did": DAVE, "protocols": "one"}):
            with pytest.raises(InvalidOption):
                await alice.join_did(**wrong)  # type: ignore[arg-type]


async def cancelled_after(turns: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Cancel a call after so many turns of the loop, and return whether that came too late."""
    done: list[object] = []

    async def calling() -> None:
        done.append(await call())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(calling)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return bool(done)


async def warmed_up(node: CloudNode, client: Client) -> None:
    """What serves further DIDs is there from the first one on, and so is the writer of a link on which users send."""
    dave = await client.join_did(DAVE)
    node.deliver(DAVE, plaintext("warm", to=[DAVE]))
    await settle()
    await dave.leave()
    await trio.sleep(20)


async def test_a_join_that_is_cancelled_at_any_step_leaves_nothing_and_may_be_called_again() -> None:
    turns, late = 0, False
    async with strict_node() as node, agent(node) as alice:
        await warmed_up(node, alice)
        await trio.sleep(1)  # until its inbox hibernates
        before = tasks()
        while not late:
            late = await cancelled_after(turns, lambda: alice.join_did(CAROL))
            if not late:
                await trio.sleep(20)  # the node's own timers run out
                assert tasks() - before in (0, 1)  # the writer, which comes and goes
                assert CAROL not in node.dids
                carol = await alice.join_did(CAROL)
                await carol.leave()
                await trio.sleep(20)  # the node's own timers run out
                assert tasks() - before in (0, 1)  # the writer, which comes and goes
                assert CAROL not in node.dids
            turns += 1
    assert turns > 5


async def test_a_leave_that_is_cancelled_at_any_step_is_finished_by_the_next_one() -> None:
    turns, late = 0, False
    async with strict_node() as node, agent(node) as alice:
        await warmed_up(node, alice)
        await trio.sleep(1)  # until its inbox hibernates
        before = tasks()
        while not late:
            handlers = DidHandlers()
            handlers.handle(REQUEST)(sleep)
            carol = await alice.join_did(CAROL, handlers)
            node.deliver(CAROL, plaintext(turns, to=[CAROL]))
            await settle()
            late = await cancelled_after(turns, carol.leave)
            await carol.leave()
            await trio.sleep(20)
            assert statuses(node, CAROL)[str(turns)] == ["error"]
            assert tasks() - before in (0, 1)  # the writer, which comes and goes
            assert CAROL not in node.dids
            turns += 1
    assert turns > 3


async def test_two_leaves_at_once_and_one_while_the_client_closes_leave_once() -> None:
    async with strict_node() as node:
        async with agent(node) as alice:
            for close in (False, True):
                carol = await alice.join_did(CAROL)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(carol.leave)
                    nursery.start_soon(alice.close if close else carol.leave)
                await carol.leave()
                await settle()
        assert len(node.frames(CAROL, event="phx_leave")) == 2


async def test_handlers_cannot_be_added_after_their_join_and_a_client_that_does_not_run_joins_nothing() -> None:
    async with strict_node() as node:
        alice = agent(node)
        with pytest.raises(NotConnected):
            await alice.join_did(CAROL)
        handlers = DidHandlers()
        async with alice:
            carol = await alice.join_did(CAROL, handlers)
            with pytest.raises(AlreadyConnected):
                handlers.handle_all(lambda message: None)
        with pytest.raises(ChannelClosed):
            await carol.request(request_to(BOB))


async def test_close_ends_the_handlers_of_all_tells_the_node_of_each_and_leaves_the_clients_own_did_last() -> None:
    async with strict_node() as node:
        alice = agent(node)
        alice.handle(REQUEST)(sleep)
        async with alice:
            await alice.join_did(CAROL)
            await alice.join_did(DAVE)
            for did in (ALICE, CAROL, DAVE):
                node.deliver(did, plaintext(did, to=[did]))
            await settle()
        told = [(frame.event, frame.topic) for frame in node.frames()]
        leaves = [topic for event, topic in told if event == "phx_leave"]
        assert leaves == [f"plugins:{did}" for did in (DAVE, CAROL, ALICE)]
        for did in (ALICE, CAROL, DAVE):
            assert statuses(node, did) == {did: ["error"]}
            assert told.index(("dispatch_reply", f"plugins:{did}")) < told.index(("phx_leave", f"plugins:{did}"))


async def test_requests_of_a_further_did_end_with_the_client() -> None:
    async with strict_node() as node:
        quiet = agent(node, BOB)
        quiet.handle(REQUEST)(lambda message: None)
        async with quiet, trio.open_nursery() as nursery:
            async with agent(node) as alice:
                carol = await alice.join_did(CAROL)

                async def ask() -> None:
                    with pytest.raises(ChannelClosed):
                        await carol.request(request_to(BOB), timeout=60, survive_reconnect=True)

                nursery.start_soon(ask)
                await settle()


async def test_on_a_node_of_acks_each_did_acks_on_its_own_topic() -> None:
    node: CloudNode = legacy_node()
    async with node, agent(node) as alice:
        got: list[tuple[str, str]] = []
        await alice.join_did(CAROL, keeping(got, "carol"))
        node.deliver(CAROL, plaintext(1, to=[CAROL]))
        await settle()
        (ack,) = node.received(CAROL, event="ack")
        assert (ack.frame.topic, ack.frame.payload) == (f"plugins:{CAROL}", {"ids": ["1"]})
        assert got == [("carol", "1")]


async def test_a_join_while_the_did_is_just_being_left_waits_for_that() -> None:
    async with strict_node() as node, agent(node) as alice:
        handlers = DidHandlers()

        @handlers.handle(REQUEST)
        async def slow_to_end(message: Message) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)

        carol = await alice.join_did(CAROL, handlers)
        node.deliver(CAROL, plaintext(1, to=[CAROL]))
        await settle()
        start = trio.current_time()
        with trio.move_on_after(1):
            await carol.leave()  # it goes on by itself
        again = await alice.join_did(CAROL)
        assert trio.current_time() - start == pytest.approx(2, abs=0.1)
        assert again.state.status.value == "joined"
        assert node.joins(CAROL) == 2


async def test_a_did_that_the_node_has_refused_for_good_may_be_joined_anew() -> None:
    async with strict_node() as node, agent(node) as alice:
        got: list[tuple[str, str]] = []
        carol = await alice.join_did(CAROL, keeping(got, "before"))
        node.refuse_joins("e.join.plugin.parent.not-found", did=CAROL, count=3)
        node.crash_topic(CAROL)
        await settle()
        with pytest.raises(ChannelClosed) as closed:
            await carol.connect()
        assert isinstance(closed.value.__cause__, JoinRejected)
        again = await alice.join_did(CAROL, keeping(got, "after"))
        node.deliver(CAROL, plaintext(1, to=[CAROL]))
        await settle()
        assert got == [("after", "1")]
        with pytest.raises(ChannelClosed):
            await carol.send(request_to(BOB))
        await carol.leave()
        assert again.state.status.value == "joined"
