"""A client over a store: what came is stored and then acknowledged, what goes is stored and then sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from layr8_actors import (
    PASS,
    Client,
    HandlerTimeout,
    InvalidOption,
    LocalProtocolError,
    Message,
    NotConnected,
    Pass,
    RestartLimitExceeded,
)
from layr8_actors.client.durable import (
    MemoryQueue,
    MemoryStore,
    QueueOptions,
    RejectMessage,
    SnoozeMessage,
    SqliteStore,
)
from layr8_actors.client.durable.events import HandlerFailed as AttemptFailed, MessageDead
from layr8_actors.client.events import HandlerFailed
from layr8_actors.errors import MessageNotStored, StoreClosed, StoreLocked
from layr8_actors.otp import Supervisor
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REPORT,
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
)


class Store(MemoryStore):
    """Queues in memory, on virtual time, which outlive the clients of a test."""

    def __init__(self, max_attempts: int = 20) -> None:
        options = QueueOptions(max_attempts=max_attempts)
        self.events: list[Event] = []
        super().__init__(inbox=options, outbox=options, clock=trio.current_time, on_event=self.events.append)
        self.broken: Exception | None = None
        put = self.inbox.put

        async def put_unless_broken(id: str, body: bytes, *, key: str | None = None) -> bool:
            if self.broken is not None:
                await trio.lowlevel.checkpoint()
                raise self.broken
            return await put(id, body, key=key)

        self.inbox.put = put_unless_broken  # type: ignore[method-assign]


def durable_agent(node: CloudNode, store: Any, events: list[Event] | None = None, **changes: Any) -> Client:
    return Client(config(node, ALICE, events, **changes), durable=store)


def bob_on(node: CloudNode) -> tuple[Client, list[Message]]:
    """A Bob who keeps whatever he gets."""
    got: list[Message] = []
    bob = agent(node, BOB)
    bob.handle_all(got.append)
    return bob, got


async def test_a_message_is_stored_then_the_node_is_told_and_then_it_is_handled_and_answered() -> None:
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        seen: list[tuple[str, list[str]]] = []

        @alice.handle(REQUEST)
        async def answer(message: Message) -> Message:
            await trio.sleep(5)
            seen.append((message.id, statuses(node)[message.id]))
            assert message.context.authorized
            return message.reply(RESPONSE, {"n": message.body["n"]})

        bob, got = bob_on(node)
        async with bob, alice:
            node.deliver(ALICE, plaintext(1, body={"n": 7}), {"authorized": True})
            await settle()
            assert statuses(node) == {"1": ["handled"]}
            assert (await store.inbox.statistics()).claimed == 1
            await trio.sleep(6)
        assert seen == [("1", ["handled"])]
        assert [(m.type, m.body, m.thid, m.from_) for m in got] == [(RESPONSE, {"n": 7}, "1", ALICE)]
        assert (await store.inbox.statistics()).remembered == 1
        assert settled_once(node)


async def test_a_node_of_acks_is_told_when_the_message_is_stored_and_not_before() -> None:
    store = Store()
    async with legacy_node() as node:
        alice = durable_agent(node, store)
        alice.handle(REQUEST)(lambda message: None)
        async with alice:
            store.broken = StoreLocked("agent.db", "busy")
            node.deliver(ALICE, plaintext(1))
            await settle()
            assert not node.received(ALICE, event="ack")
            store.broken = None
            node.deliver(ALICE, plaintext(2))
            await settle()
            assert [frame.frame.payload for frame in node.received(ALICE, event="ack")] == [{"ids": ["2"]}]


async def test_what_cannot_be_stored_is_not_accepted_and_the_sender_is_told_without_our_paths() -> None:
    store, events = Store(), list[Event]()
    store.broken = StoreLocked("/home/alice/agent.db", "busy")
    async with strict_node() as node:
        alice = durable_agent(node, store, events)
        alice.handle(REQUEST)(lambda message: None)
        bob, got = bob_on(node)
        async with bob, alice:
            node.deliver(ALICE, plaintext(1))
            await settle()
        assert statuses(node) == {"1": ["error"]}
        assert [message.type for message in got] == [REPORT]
        assert "/home" not in repr(got[0].to_plaintext())
        (failed,) = of(events, HandlerFailed)
        assert isinstance(failed.error, MessageNotStored)
        assert failed.error.__cause__ is store.broken
        assert (await store.inbox.statistics()).live == 0


async def test_a_message_that_the_node_delivers_again_is_handled_once_and_another_senders_id_is_another_message() -> (
    None
):
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        seen: list[str] = []
        alice.handle(REQUEST)(lambda message: seen.append(message.from_))
        async with alice:
            for sender in (BOB, BOB, "did:web:node.test:mallory"):
                node.deliver(ALICE, {**plaintext(1), "from": sender})
                await settle()
            assert all(dispatch.status == "handled" for dispatch in node.dispatches)
        assert seen == [BOB, "did:web:node.test:mallory"]


async def test_messages_of_one_thread_are_handled_in_order_and_others_beside_them() -> None:
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        seen: list[str] = []

        @alice.handle(REQUEST)
        async def slowly(message: Message) -> None:
            await trio.sleep(1 if message.id == "1" else 0.1)
            seen.append(message.id)

        async with alice:
            for number, thread in ((1, "a"), (2, "a"), (3, "b")):
                node.deliver(ALICE, plaintext(number, thid=thread))
            await trio.sleep(3)
        assert seen == ["3", "1", "2"]


async def test_a_handler_that_fails_is_tried_again_and_the_answer_goes_out_once() -> None:
    store, events = Store(), list[Event]()
    async with strict_node() as node:
        alice = durable_agent(node, store, events)
        attempts: list[float] = []

        @alice.handle(REQUEST, timeout=10)
        async def flaky(message: Message) -> Message:
            attempts.append(trio.current_time())
            if len(attempts) == 1:
                raise ConnectionError("the database is away")
            if len(attempts) == 2:
                await trio.sleep_forever()
            if len(attempts) == 3:
                raise SnoozeMessage(60)
            return message.reply(RESPONSE)

        bob, got = bob_on(node)
        async with bob, alice:
            node.deliver(ALICE, plaintext(1))
            await trio.sleep(200)
        assert len(attempts) == 4
        assert [type(event.error) for event in of(events, AttemptFailed)] == [ConnectionError, HandlerTimeout]
        assert [message.type for message in got] == [RESPONSE]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such fruit"),
        RejectMessage("no such fruit"),
        ExceptionGroup("of a nursery", [RejectMessage("no such fruit")]),
    ],
    ids=["raised", "rejected", "rejected in a nursery"],
)
async def test_a_message_that_is_given_up_is_a_dead_letter_and_its_sender_gets_one_report(error: Exception) -> None:
    store = Store(max_attempts=3)
    async with strict_node() as node:
        alice = durable_agent(node, store)
        attempts: list[str] = []

        @alice.handle(REQUEST)
        def fail(message: Message) -> None:
            attempts.append(message.id)
            raise error

        bob, got = bob_on(node)
        async with bob, alice:
            node.deliver(ALICE, plaintext(1))
            node.deliver(ALICE, plaintext(2, REPORT, body={"code": "e"}))
            await trio.sleep(100)
        assert len(attempts) == (3 if isinstance(error, ValueError) else 1)
        assert [(message.type, message.thid, message.body["comment"]) for message in got] == [
            (REPORT, "1", "no such fruit")
        ]
        assert [event.id for event in of(store.events, MessageDead)] == [f"{BOB} 1"]


async def test_pass_of_a_durable_handler_is_refused_so_that_the_sender_is_told_and_the_message_is_kept() -> None:
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        called: list[str] = []

        @alice.handle(REQUEST)
        def not_mine(message: Message) -> Pass:
            called.append(message.id)
            return PASS

        bob, got = bob_on(node)
        async with bob, alice:
            node.deliver(ALICE, plaintext(1))
            await trio.sleep(100)
            assert statuses(node) == {"1": ["handled"]}  # it was stored, and no other plugin gets it any more
        assert called == ["1"]
        assert [(message.type, message.thid) for message in got] == [(REPORT, "1")]
        assert "no other plugin" in got[0].body["comment"]
        (dead,) = await store.inbox.dead_letters()
        assert (dead.id, dead.attempts) == (f"{BOB} 1", 1)
        assert "passed" in dead.reason
        assert [event.id for event in of(store.events, MessageDead)] == [dead.id]


async def test_a_handler_that_is_cut_off_by_the_end_is_called_again_by_the_next_run() -> None:
    store = Store(max_attempts=1)
    async with strict_node() as node:
        alice = durable_agent(node, store)
        begun: list[str] = []

        @alice.handle(REQUEST)
        async def work(message: Message) -> Message:
            begun.append(message.id)
            if len(begun) == 1:
                await trio.sleep_forever()
            return message.reply(RESPONSE)

        bob, got = bob_on(node)
        async with bob:
            async with alice:
                node.deliver(ALICE, plaintext(1))
                await settle()
            assert not got
            async with alice:
                await settle()
        assert begun == ["1", "1"]
        assert [message.type for message in got] == [RESPONSE]
        assert settled_once(node)


async def test_a_durable_handler_may_send_and_request_and_responses_are_not_stored() -> None:
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        bodies: list[Any] = []

        @alice.handle(REQUEST)
        async def ask(message: Message) -> None:
            bodies.append((await alice.request(request_to(BOB, "deep"), timeout=5)).body)

        bob = agent(node, BOB)
        bob.handle(REQUEST)(lambda message: message.reply(RESPONSE, message.body))
        async with bob, alice:
            node.deliver(ALICE, plaintext(1))
            await settle()
        assert bodies == ["deep"]
        assert (await store.inbox.statistics()).remembered == 1
        assert settled_once(node)


async def test_what_is_sent_durably_waits_for_the_node_and_goes_out_in_order_and_once() -> None:
    store = Store()
    async with strict_node() as node:
        bob, got = bob_on(node)
        alice = durable_agent(node, store)
        with pytest.raises(NotConnected):
            await alice.send_durably(request_to(BOB))
        async with bob, trio.open_nursery() as nursery:
            async with node.down():
                await alice.start_link(nursery)
                for number in range(5):
                    sent = await alice.send_durably(request_to(BOB, number, id=f"{number}", thid="t"))
                    assert sent.from_ == ALICE
                await alice.send_durably(request_to(BOB, 0, id="0", thid="t"))
                await trio.sleep(100)
                assert (await store.outbox.statistics()).live == 5
            await trio.sleep(100)
            assert [message.body for message in got] == [0, 1, 2, 3, 4]
            assert (await store.outbox.statistics()).remembered == 5
            with pytest.raises(InvalidOption):
                await alice.send_durably("text")  # type: ignore[arg-type]
            with pytest.raises(LocalProtocolError):
                await alice.send_durably(request_to(BOB, object()))
            await alice.close()
            await bob.close()


async def test_what_is_stored_before_the_did_is_known_goes_out_under_the_did_of_the_join() -> None:
    store = Store()
    async with strict_node() as node:
        bob, got = bob_on(node)
        alice = Client(config(node, "", None), durable=store)
        async with bob, trio.open_nursery() as nursery:
            node.delay_joins(10, count=1)
            await alice.start_link(nursery)
            assert (await alice.send_durably(request_to(BOB))).from_ == ""
            await trio.sleep(30)
            assert [message.from_ for message in got] == [alice.did]
            assert alice.did
            nursery.cancel_scope.cancel()


async def test_what_the_node_refuses_is_tried_again_until_it_is_a_dead_letter() -> None:
    store = Store(max_attempts=2)
    async with strict_node() as node, durable_agent(node, store) as alice:
        await alice.send_durably(request_to("did:web:nowhere", id="lost"))
        await trio.sleep(100)
        (dead,) = await store.outbox.dead_letters()
        assert (dead.id, dead.attempts) == ("lost", 2)
        assert "not-found" in dead.reason


async def test_a_message_whose_handler_is_gone_in_the_next_program_is_a_dead_letter() -> None:
    store = Store()
    async with strict_node() as node:
        first = durable_agent(node, store)

        @first.handle(REQUEST)
        async def never_done(message: Message) -> None:
            await trio.sleep_forever()

        async with first:
            node.deliver(ALICE, plaintext(1))
            await settle()
        async with durable_agent(node, store):
            await settle()
        (dead,) = await store.inbox.dead_letters()
        assert "no handler" in dead.reason


async def test_a_store_that_is_not_open_ends_the_client_after_its_restarts_and_says_so(tmp_path: Path) -> None:
    async with strict_node() as node:
        alice = Client(config(node), durable=SqliteStore(tmp_path / "agent.db"))
        with pytest.raises(RestartLimitExceeded) as failed:
            async with alice:
                await trio.sleep(60)
        assert isinstance(failed.value.__cause__, StoreClosed)


async def test_a_client_without_a_store_sends_nothing_durably_and_what_is_no_store_is_refused() -> None:
    async with strict_node() as node:
        async with agent(node) as alice:
            with pytest.raises(InvalidOption, match="durable"):
                await alice.send_durably(request_to(BOB))
        with pytest.raises(InvalidOption, match="SqliteStore"):
            Client(config(node), durable=MemoryQueue())  # type: ignore[arg-type]


async def test_under_a_supervisor_a_durable_client_is_restarted_with_what_it_had() -> None:
    store = Store()
    async with strict_node() as node:
        alice = durable_agent(node, store)
        seen: list[str] = []

        @alice.handle(REQUEST)
        async def work(message: Message) -> None:
            await trio.sleep(1)
            seen.append(message.id)

        async with Supervisor([alice.child_spec()], name="app", on_event=lambda event: None):
            await alice.connect()
            node.deliver(ALICE, plaintext(1))
            await settle()
            await alice.close()  # a permanent child: it runs again
            await trio.sleep(1)
            await alice.connect()
            await trio.sleep(3)
        assert seen == ["1"]


async def test_cancelled_at_any_moment_nothing_that_was_acknowledged_is_lost() -> None:
    for moment in range(0, 60, 3):
        store = Store()
        async with strict_node() as node:
            alice = durable_agent(node, store)
            seen: list[str] = []

            @alice.handle(REQUEST)
            async def work(message: Message) -> None:
                await trio.sleep(0.02)
                seen.append(message.id)  # noqa: B023 - the client lives within this turn

            with trio.move_on_after(moment / 1000):
                async with alice:
                    for number in range(3):
                        node.deliver(ALICE, plaintext(number))
                    await trio.sleep_forever()
            told = {id for id, said in statuses(node).items() if "handled" in said}
            async with alice:
                await trio.sleep(1)
            assert told <= set(seen)
            assert (await store.inbox.statistics()).live == 0


async def test_the_outbox_goes_on_after_a_link_that_is_lost_again_before_its_join_was_answered() -> None:
    store = Store()
    async with strict_node() as node:
        bob, got = bob_on(node)
        async with bob, durable_agent(node, store) as alice:
            node.delay_joins(3, did=ALICE, count=1)
            node.drop(ALICE)
            await alice.send_durably(request_to(BOB, 1))
            await trio.sleep(2)  # there is a socket, and the join is not answered yet
            node.drop()
            await alice.connect()
            await trio.sleep(100)
            assert [message.body for message in got] == [1]
