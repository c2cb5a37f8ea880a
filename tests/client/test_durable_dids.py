"""Further DIDs of a durable client: each has queues of its own, which wait until it is joined."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import ChannelClosed, Client, InvalidOption, JoinRejected, Message
from layr8_actors.client import DidHandlers, JoinedDid
from layr8_actors.client.durable import MemoryStore
from layr8_actors.client.events import MessagesWaitForDid
from layr8_actors.otp import Supervisor
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REQUEST,
    RESPONSE,
    agent,
    config,
    legacy_node,
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


def new_store() -> MemoryStore:
    return MemoryStore(clock=trio.current_time, on_event=lambda event: None)


def durable_agent(node: CloudNode, store: Any, events: list[Event] | None = None) -> Client:
    return Client(config(node, ALICE, events), durable=store)


def handlers_of(handle: Any) -> DidHandlers:
    handlers = DidHandlers()
    handlers.handle(REQUEST)(handle)
    return handlers


async def never_done(message: Message) -> None:
    await trio.sleep_forever()


def answering(seen: list[tuple[str, str]], name: str) -> DidHandlers:
    def answer(message: Message) -> Message:
        seen.append((name, message.id))
        return message.reply(RESPONSE, name)

    return handlers_of(answer)


def bob_on(node: CloudNode) -> tuple[Client, list[Message]]:
    got: list[Message] = []
    bob = agent(node, BOB)
    bob.handle_all(got.append)
    return bob, got


async def test_what_comes_for_a_further_did_is_stored_then_the_node_is_told_and_then_it_is_handled() -> None:
    store = new_store()
    async with strict_node() as node:
        seen: list[tuple[str, list[str]]] = []

        async def answer(message: Message) -> Message:
            await trio.sleep(5)
            seen.append((message.id, statuses(node, CAROL)[message.id]))
            return message.reply(RESPONSE, "of carol")

        bob, got = bob_on(node)
        async with bob, durable_agent(node, store) as alice:
            await alice.join_did(CAROL, handlers_of(answer))
            node.deliver(CAROL, plaintext(1, to=[CAROL]))
            await settle()
            assert statuses(node, CAROL) == {"1": ["handled"]}
            assert await store.live() == {f"inbox of {CAROL}": 1}
            await trio.sleep(6)
            assert seen == [("1", ["handled"])]
            assert [(message.type, message.body, message.from_) for message in got] == [(RESPONSE, "of carol", CAROL)]
            assert await store.live() == {}
        assert settled_once(node)


async def test_a_node_of_acks_is_told_when_the_message_of_a_further_did_is_stored_and_not_before() -> None:
    store = new_store()
    async with legacy_node() as node, durable_agent(node, store) as alice:
        stored: list[int] = []
        inbox = store.queue(f"inbox of {CAROL}")
        put = inbox.put

        async def slow_put(id: str, body: bytes, *, key: str | None = None) -> bool:
            await trio.sleep(1)
            stored.append(len(node.received(CAROL, event="ack")))
            return await put(id, body, key=key)

        inbox.put = slow_put  # type: ignore[method-assign]
        await alice.join_did(CAROL, handlers_of(lambda message: None))
        node.deliver(CAROL, plaintext(1, to=[CAROL]))
        await trio.sleep(2)
        assert stored == [0]
        assert [frame.frame.payload for frame in node.received(CAROL, event="ack")] == [{"ids": ["1"]}]


async def test_what_is_stored_for_a_did_waits_until_it_is_joined_and_no_other_did_handles_it() -> None:
    store, events = new_store(), list[Event]()
    async with strict_node() as node:
        seen: list[tuple[str, str]] = []
        async with durable_agent(node, store) as alice:
            await alice.join_did(CAROL, handlers_of(never_done))
            for number in range(3):
                node.deliver(CAROL, plaintext(number, to=[CAROL], thid="t"))
            await settle()
        alice = durable_agent(node, store, events)
        alice.handle_all(lambda message: seen.append(("alice", message.id)))
        bob, got = bob_on(node)
        async with bob, alice:
            await alice.join_did(DAVE, answering(seen, "dave"))
            await trio.sleep(200)
            assert seen == []
            assert await alice.waiting_dids() == {CAROL: 3}
            assert {(event.did, event.messages) for event in of(events, MessagesWaitForDid)} == {(CAROL, 3)}
            assert len(of(events, MessagesWaitForDid)) == 2  # after 60 s and 180 s, then ever less often
            await alice.join_did(CAROL, answering(seen, "carol"))
            await settle()
            assert seen == [("carol", "0"), ("carol", "1"), ("carol", "2")]
            assert await alice.waiting_dids() == {}
            await trio.sleep(500)
            assert len(of(events, MessagesWaitForDid)) == 2
        assert [(message.thid, message.from_) for message in got] == [("t", CAROL)] * 3


async def test_what_came_for_a_client_whose_own_did_was_another_one_waits_for_that_did_too() -> None:
    store = new_store()
    async with strict_node() as node:
        seen: list[tuple[str, str]] = []
        alice = durable_agent(node, store)
        alice.handle(REQUEST)(never_done)
        async with alice:
            for number in range(3):
                node.deliver(ALICE, plaintext(number, thid="t"))
            await settle()
        dave = Client(config(node, DAVE), durable=store)
        dave.handle_all(lambda message: seen.append(("dave", message.id)))
        async with dave:
            await settle()
            assert await store.live() == {f"inbox of {ALICE}": 3}
            assert await dave.waiting_dids() == {ALICE: 3}
            node.deliver(DAVE, plaintext("of dave", to=[DAVE]))
            await settle()
            await dave.join_did(ALICE, answering(seen, "alice"))
            await settle()
        assert seen == [("dave", "of dave"), ("alice", "0"), ("alice", "1"), ("alice", "2")]
        assert await store.inbox.dead_letters() == []


async def test_one_id_to_two_dids_is_a_message_of_each_and_a_second_delivery_is_none() -> None:
    store = new_store()
    async with strict_node() as node:
        seen: list[tuple[str, str]] = []
        alice = durable_agent(node, store)
        alice.handle(REQUEST)(lambda message: seen.append(("alice", message.id)))
        async with alice:
            await alice.join_did(CAROL, answering(seen, "carol"))
            for did in (ALICE, CAROL, ALICE, CAROL):
                node.deliver(did, plaintext(1, to=[ALICE, CAROL]))
                await settle()
        assert sorted(seen) == [("alice", "1"), ("carol", "1")]
        assert settled_once(node)


async def test_what_a_did_sends_durably_goes_out_as_itself_once_it_is_joined_also_in_a_later_run() -> None:
    store = new_store()
    async with strict_node() as node:
        bob, got = bob_on(node)
        async with bob:
            async with durable_agent(node, store) as alice:
                carol = await alice.join_did(CAROL)
                assert (await carol.send_durably(request_to(BOB, 0))).from_ == CAROL
                await settle()
                assert [(message.body, message.from_) for message in got] == [(0, CAROL)]
                await carol.leave()
                await carol.send_durably(request_to(BOB, 1))
                await trio.sleep(10)
                assert await alice.waiting_dids() == {CAROL: 1}
            async with durable_agent(node, store) as alice:
                await trio.sleep(10)
                assert len(got) == 1
                await alice.join_did(CAROL)
                await settle()
        assert [(message.body, message.from_) for message in got] == [(0, CAROL), (1, CAROL)]
        async with agent(node) as alice:
            carol = await alice.join_did(CAROL)
            with pytest.raises(InvalidOption, match="durable"):
                await carol.send_durably(request_to(BOB))


async def test_a_leave_gives_back_what_its_handlers_had_and_the_next_join_goes_on_with_it() -> None:
    store = new_store()
    async with strict_node() as node, durable_agent(node, store) as alice:
        begun: list[str] = []

        async def work(message: Message) -> None:
            begun.append(message.id)
            await trio.sleep(1)

        carol = await alice.join_did(CAROL, handlers_of(work))
        node.deliver(CAROL, plaintext(1, to=[CAROL]))
        await settle()
        await carol.leave()
        await trio.sleep(10)
        assert await alice.waiting_dids() == {CAROL: 1}
        carol = await alice.join_did(CAROL, handlers_of(work))
        await trio.sleep(2)
        assert begun == ["1", "1"]
        assert await store.live() == {}


async def test_a_join_that_the_node_refuses_has_handled_nothing_of_what_is_stored_and_leaves_nothing() -> None:
    store = new_store()
    await store.queue(f"inbox of {CAROL}").put("1", b'{"plaintext": {"id": "1", "type": "%s"}}' % REQUEST.encode())
    async with strict_node() as node, durable_agent(node, store) as alice:
        await trio.sleep(1)  # until its inbox hibernates
        before = tasks()
        seen: list[tuple[str, str]] = []
        node.refuse_joins("e.join.plugin.parent.not-found", did=CAROL, count=1)
        with pytest.raises(JoinRejected):
            await alice.join_did(CAROL, answering(seen, "carol"))
        await trio.sleep(20)
        assert seen == []
        assert [child.id for child in alice.supervisor.which_children()] == [
            "channel",
            "dispatcher",
            "inbox",
            "outbox",
            "look",
        ]
        assert tasks() - before in (0, 1)  # the channel's supervisor of topics stays, once there was one
        await alice.join_did(CAROL, answering(seen, "carol"))
        await settle()
        assert seen == [("carol", "1")]


async def test_a_stuck_handler_of_one_did_holds_up_no_other_did() -> None:
    store = new_store()
    async with strict_node() as node:
        seen: list[tuple[str, str]] = []
        alice = Client(config(node, max_handlers=2), durable=store)
        async with alice:
            await alice.join_did(CAROL, handlers_of(never_done))
            await alice.join_did(DAVE, answering(seen, "dave"))
            for number in range(5):
                node.deliver(CAROL, plaintext(number, to=[CAROL]))
            node.deliver(DAVE, plaintext("to dave", to=[DAVE]))
            await settle()
            assert seen == [("dave", "to dave")]


@pytest.mark.parametrize("durable", [False, True])
async def test_a_handler_may_leave_its_own_did_which_ends_the_handler_and_is_left_whole(durable: bool) -> None:
    store = new_store() if durable else None
    before = tasks()
    async with strict_node() as node:
        async with durable_agent(node, store) as alice:
            ended: list[str] = []
            joined: list[JoinedDid] = []

            async def leave(message: Message) -> None:
                try:
                    await joined[0].leave()
                except trio.Cancelled:
                    ended.append(message.id)
                    raise

            joined.append(await alice.join_did(CAROL, handlers_of(leave)))
            node.deliver(CAROL, plaintext(1, to=[CAROL]))
            await trio.sleep(20)
            assert ended == ["1"]
            assert CAROL not in node.dids
            assert statuses(node, CAROL) == {"1": ["handled" if durable else "error"]}
            with pytest.raises(ChannelClosed):
                await joined[0].send(request_to(BOB))
            await alice.join_did(CAROL)
    assert tasks() == before


async def test_a_supervisors_restart_goes_on_with_what_was_stored_for_each_did() -> None:
    store = new_store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        seen: list[str] = []

        async def work(message: Message) -> None:
            await trio.sleep(1)
            seen.append(message.id)

        async with Supervisor([alice.child_spec()], name="app", on_event=lambda event: None):
            await alice.connect()
            carol = await alice.join_did(CAROL, handlers_of(work))
            node.deliver(CAROL, plaintext(1, to=[CAROL]))
            await settle()
            await alice.close()
            await trio.sleep(1)
            await carol.connect()
            await trio.sleep(3)
            assert seen == ["1"]


async def test_cancelled_at_any_moment_nothing_that_was_acknowledged_to_a_did_is_lost() -> None:
    for moment in range(0, 60, 7):
        store = new_store()
        async with strict_node() as node:
            seen: list[str] = []

            async def work(message: Message) -> None:
                await trio.sleep(0.02)
                seen.append(message.id)  # noqa: B023 - the client lives within this turn

            with trio.move_on_after(moment / 1000):
                async with durable_agent(node, store) as alice:
                    await alice.join_did(CAROL, handlers_of(work))
                    for number in range(3):
                        node.deliver(CAROL, plaintext(number, to=[CAROL]))
                    await trio.sleep_forever()
            told = {id for id, said in statuses(node, CAROL).items() if "handled" in said}
            async with durable_agent(node, store) as alice:
                await alice.join_did(CAROL, handlers_of(work))
                await trio.sleep(1)
            assert told <= set(seen)
            assert await store.live() == {}
