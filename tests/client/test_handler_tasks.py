"""Which task a handler runs in, and that what one leaves behind in it is nobody else's."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors import Client, HandlerTimeout, Layr8Error, Message
from layr8_actors.client.events import HandlerFailed, HandlerInterrupted
from layr8_actors.otp.events import ChildExited
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REQUEST,
    RESPONSE,
    agent,
    legacy_node,
    of,
    plaintext,
    settle,
    settled_once,
    statuses,
    strict_node,
    tasks_named,
)


@pytest.mark.parametrize("answers", [False, True])
async def test_handlers_that_do_not_wait_share_a_task(answers: bool) -> None:
    seen: list[trio.lowlevel.Task] = []
    async with legacy_node() as node, agent(node, BOB):
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> Message | None:
            seen.append(trio.lowlevel.current_task())
            return message.reply(RESPONSE) if answers else None

        async with alice:
            for _ in range(3):
                for _ in range(20):
                    node.deliver(ALICE, plaintext(len(node.dispatches)))
                await settle()
            assert len(seen) == 60
            assert len(set(seen)) <= 2  # the second is called in case a handler of the first should wait
            assert alice.statistics().messages_handled == 60


async def test_the_tasks_that_wait_for_messages_end_after_a_while() -> None:
    async with legacy_node() as node:
        alice = agent(node, handler_timeout=7)
        forever = agent(node, BOB, handler_timeout=float("inf"))
        for client in (alice, forever):
            client.handle(REQUEST)(lambda message: None)
        async with alice, forever:
            for _ in range(2):
                for did in (ALICE, BOB):
                    node.deliver(did, plaintext(to=[did]))
                await settle()
                assert tasks_named("HandlerTask.run") == 2
                await trio.sleep(31)
                assert tasks_named("HandlerTask.run") == 0
            assert alice.statistics().messages_handled == forever.statistics().messages_handled == 2


async def test_a_handler_that_waits_holds_up_no_other_one_and_has_its_task_to_itself() -> None:
    seen: list[trio.lowlevel.Task] = []
    begun_at: list[float] = []
    async with legacy_node() as node:
        alice = agent(node, max_handlers=50)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            seen.append(trio.lowlevel.current_task())
            begun_at.append(trio.current_time())
            await trio.sleep(5)

        async with alice:
            begun = trio.current_time()
            for number in range(100):
                node.deliver(ALICE, plaintext(number))
            await trio.sleep(20)
            assert len(set(seen)) == 100
            assert [at - begun for at in begun_at] == pytest.approx([0] * 50 + [5] * 50, abs=0.01)


async def test_a_lock_that_a_handler_keeps_is_broken_as_it_is_where_a_task_ends() -> None:
    events: list[Event] = []
    lock = trio.Lock()
    async with strict_node() as node:
        alice = agent(node, events=events)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await lock.acquire()

        async with alice:
            node.deliver(ALICE, plaintext(1))
            await settle()
            node.deliver(ALICE, plaintext(2))
            await settle()
            (failed,) = of(events, HandlerFailed)
            assert isinstance(failed.error, trio.BrokenResourceError)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_scope_that_a_handler_leaves_open_is_its_own_failure_and_cancels_nobody(waits: bool) -> None:
    events: list[Event] = []
    done: list[str] = []
    async with legacy_node() as node:
        alice = agent(node, events=events)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            if message.id == "careless":
                trio.CancelScope(deadline=trio.current_time() + 1).__enter__()
                if waits:
                    await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(10)
                done.append(message.id)

        async with alice:
            for id in ("careless", "careful", "another"):
                node.deliver(ALICE, plaintext(id))
            await trio.sleep(20)
            (failed,) = of(events, HandlerFailed)
            assert failed.message_id == "careless"
            assert isinstance(failed.error, RuntimeError)
            assert sorted(done) == ["another", "careful"]
            assert not [event for event in events if type(event) is ChildExited]


async def test_context_variables_of_a_handler_that_does_not_wait_are_unknown_to_the_next_one() -> None:
    bound: ContextVar[Any] = ContextVar("bound", default="nothing")
    before: ContextVar[Any] = ContextVar("before")
    before.set("outside")
    seen: list[Any] = []
    async with legacy_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        def handle(message: Message) -> None:
            seen.append((bound.get(), before.get()))
            if message.body == "new":
                bound.set(message.id)
            elif message.body == "changed":
                before.set("inside")

        async with alice:
            for number in range(9):
                node.deliver(ALICE, plaintext(number, body=("new", "changed", "neither")[number % 3]))
            await settle()
            assert seen == [("nothing", "outside")] * 9


async def test_each_handler_sees_its_own_deadline_also_right_behind_another_one() -> None:
    seen: list[float] = []
    async with legacy_node() as node:
        alice = agent(node, handler_timeout=30)

        def note(message: Message) -> None:
            seen.append(trio.current_effective_deadline() - trio.current_time())

        alice.handle(REQUEST)(note)
        alice.handle(RESPONSE, timeout=5)(note)
        alice.handle_all(note)
        async with alice:
            for number in range(6):
                node.deliver(ALICE, plaintext(number, (REQUEST, RESPONSE)[number % 2]))
            await settle()
            assert seen == [30, 5] * 3
            await trio.sleep(29)
            node.deliver(ALICE, plaintext("later"))
            await settle()
            assert seen[6:] == [30]


async def test_a_message_that_comes_as_its_task_is_about_to_end_is_handled_all_the_same() -> None:
    handled: list[str] = []
    async with legacy_node() as node:
        alice = agent(node, handler_timeout=5)
        alice.handle(REQUEST)(lambda message: handled.append(message.id))
        async with alice, trio.open_nursery() as nursery:
            begun = trio.current_time()
            node.deliver(ALICE, plaintext("first"))
            await settle()

            async def deliver(turns: int) -> None:
                await trio.sleep_until(begun + 5)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                node.deliver(ALICE, plaintext(f"after {turns}"))

            for turns in range(12):
                nursery.start_soon(deliver, turns)
            await trio.sleep(10)
            assert sorted(handled) == sorted(["first", *(f"after {turns}" for turns in range(12))])


async def test_a_task_that_is_called_at_the_moment_of_its_end_gives_the_message_its_whole_time() -> None:
    done: list[str] = []
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with legacy_node() as node:
        alice = agent(node, handler_timeout=5)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            if message.body == "wait":
                await trio.sleep(4)
            done.append(message.id)

        async with alice:
            node.deliver(ALICE, plaintext("first"))
            await settle()
            assert alice._tree is not None
            assert alice._tree._reception.take_at_once({"plaintext": plaintext("second", body="wait")})
            clock.jump(5)  # the task is called, and its scope is cancelled before it comes to it
            await trio.sleep(10)
            assert done == ["first", "second"]
            assert alice.statistics().messages_failed == 0


async def test_many_handlers_that_wait_begin_within_a_few_turns() -> None:
    turn = 0
    begun_in: list[int] = []
    async with legacy_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            begun_in.append(turn)
            await trio.sleep(1)

        async with alice, trio.open_nursery() as nursery:

            async def count_turns() -> None:
                nonlocal turn
                while True:
                    await trio.lowlevel.checkpoint()
                    turn += 1

            nursery.start_soon(count_turns)
            for number in range(64):
                node.deliver(ALICE, plaintext(number))
            await node.wait_for(lambda: len(begun_in) == 64)
            nursery.cancel_scope.cancel()
        assert begun_in[-1] - begun_in[0] <= 16


async def test_of_the_tasks_that_were_called_in_vain_two_stay() -> None:
    async with legacy_node() as node:
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: None)

        @alice.handle(RESPONSE)
        async def take_long(message: Message) -> None:
            await trio.sleep(20)

        async with alice:
            for number in range(20):
                node.deliver(ALICE, plaintext(f"slow {number}", RESPONSE))
            await settle()
            for number in range(40):
                node.deliver(ALICE, plaintext(number))
            await settle()
            assert alice.statistics().messages_handled == 40
            assert tasks_named("HandlerTask.run") == 20 + 2


async def test_once_a_client_ends_nothing_more_is_begun_while_a_handler_takes_its_grace() -> None:
    gate = trio.Event()
    async with CloudNode(memory=True) as node:
        alice = agent(node, max_handlers=2, max_queued=1000)
        alice.handle(REQUEST)(lambda message: None)

        @alice.handle(RESPONSE)
        async def take_long(message: Message) -> None:
            if message.body == "gate":
                await gate.wait()
            else:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)

        async with alice:
            node.deliver(ALICE, plaintext("slow", RESPONSE))
            node.deliver(ALICE, plaintext("gate", RESPONSE, body="gate"))
            for number in range(900):
                node.deliver(ALICE, plaintext(number))
            await settle()
            assert alice.statistics().messages_waiting == 900
            gate.set()
            await alice.close()
            told = [frame.payload["status"] for frame in node.frames(ALICE, event="dispatch_reply")]
            assert len(told) == 902
            assert told.count("pass") > 300


async def test_a_handler_whose_client_ends_before_it_could_begin_is_cut_off_at_once() -> None:
    """A node of acks is to be told first, and there is no room for that when the client is asked to end."""
    events: list[Event] = []
    async with legacy_node() as node:
        alice = agent(node, events=events, shutdown_grace=60, channel={"outbox_capacity": 1, "close_timeout": 60})

        @alice.handle(REQUEST)
        async def take_for_ever(message: Message) -> None:
            await trio.sleep_forever()

        async with alice, trio.open_nursery() as nursery:
            node.stop_reading()
            while not alice.channel.statistics().outbox_waiting:
                nursery.start_soon(try_to_send, alice)
                await settle()
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            assert alice.statistics().handlers_running == 1
            nursery.start_soon(alice.close)
            await settle()
            begun = trio.current_time()
            node.resume()
            await settle()
            assert [event.message_id for event in of(events, HandlerInterrupted)] == ["m1"]
            await alice.close()
            assert trio.current_time() - begun < 5


async def try_to_send(client: Client) -> None:
    with contextlib.suppress(Layr8Error):
        await client.send(Message(type=REQUEST, to=[ALICE], body="x" * 200_000))


async def test_handlers_that_do_not_wait_let_others_have_their_turn() -> None:
    turn = 0
    handled_in: list[int] = []
    gate = trio.Event()
    async with legacy_node() as node:
        alice = agent(node, max_queued=1000, max_handlers=1)
        alice.handle(RESPONSE)(lambda message: gate.wait())
        alice.handle(REQUEST)(lambda message: handled_in.append(turn))
        async with alice, trio.open_nursery() as nursery:
            node.deliver(ALICE, plaintext("in front", RESPONSE))
            for number in range(500):
                node.deliver(ALICE, plaintext(number))
            await settle()
            assert alice.statistics().messages_waiting == 500

            async def count_turns() -> None:
                nonlocal turn
                while True:
                    await trio.lowlevel.checkpoint()
                    turn += 1

            nursery.start_soon(count_turns)
            gate.set()
            await node.wait_for(lambda: len(handled_in) == 500)
            nursery.cancel_scope.cancel()
        assert max(handled_in.count(turn) for turn in set(handled_in)) <= 64


async def test_what_a_handler_raises_when_its_deadline_cuts_it_off_is_its_error_and_no_timeout() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events, handler_timeout=5)

        async def fail_at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cannot undo it")

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_at_the_end)
                await trio.sleep_forever()

        async with alice:
            node.deliver(ALICE, plaintext("m1"))
            await trio.sleep(10)
            (failed,) = of(events, HandlerFailed)
            assert not isinstance(failed.error, HandlerTimeout)
            assert isinstance(failed.error, ExceptionGroup)
            assert failed.error.subgroup(ValueError)
            assert statuses(node) == {"m1": ["error"]}
            assert settled_once(node)


async def test_a_handler_that_swallows_its_cancellation_has_said_what_it_says() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events, handler_timeout=5)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> Message:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                pass
            return message.reply(RESPONSE, "in time after all")

        async with alice, agent(node, BOB):
            for number in range(3):
                node.deliver(ALICE, plaintext(number))
            await trio.sleep(20)
            assert of(events, HandlerFailed) == []
            answers = [frame.payload["body"] for frame in node.frames(ALICE, event="message")]
            assert answers == ["in time after all"] * 3
