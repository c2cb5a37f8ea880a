"""How many handlers run at once, in which order, and what a flood of messages does to the memory and to the socket."""

from __future__ import annotations

from collections import defaultdict
from contextvars import ContextVar

import pytest
import trio

from layr8_actors import Message, RequestTimeout
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REQUEST,
    RESPONSE,
    agent,
    legacy_node,
    plaintext,
    request_to,
    settle,
)


async def test_handlers_run_at_once_up_to_the_limit() -> None:
    ended_at: list[float] = []
    async with legacy_node() as node:
        alice = agent(node, max_handlers=3)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            assert alice.statistics().handlers_running <= 3
            await trio.sleep(1)
            ended_at.append(trio.current_time())

        async with alice:
            begun = trio.current_time()
            for number in range(9):
                node.deliver(ALICE, plaintext(number))
            await settle()
            assert (alice.statistics().handlers_running, alice.statistics().messages_waiting) == (3, 6)
            await trio.sleep(10)
            assert alice.statistics().messages_handled == 9
            assert [round(at - begun) for at in ended_at] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_a_thread_is_handled_one_message_at_a_time_in_order_and_no_thread_waits_for_another() -> None:
    running: set[str] = set()
    order: dict[str, list[int]] = defaultdict(list)
    async with legacy_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            assert message.thid not in running
            running.add(message.thid)
            await trio.sleep(1 if message.thid == "quick" else 10)
            running.discard(message.thid)
            order[message.thid].append(message.body)

        async with alice:
            for number in range(5):
                for thread in ("slow", "quick", "slower"):
                    node.deliver(ALICE, plaintext(f"{thread} {number}", thid=thread, body=number))
            await trio.sleep(5.5)
            assert order == {"quick": [0, 1, 2, 3, 4]}
            await trio.sleep(50)
            assert order == {thread: [0, 1, 2, 3, 4] for thread in ("slow", "quick", "slower")}
            assert alice.statistics().threads == 0


async def test_a_message_without_a_thread_begins_one_and_those_that_answer_it_wait_behind_it() -> None:
    done: list[str] = []
    async with legacy_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await trio.sleep(10 if message.id == "first" else 0)
            done.append(message.id)

        async with alice:
            node.deliver(ALICE, plaintext("first"))
            node.deliver(ALICE, plaintext("second", thid="first"))
            node.deliver(ALICE, plaintext("other"))
            await trio.sleep(20)
            assert done == ["other", "first", "second"]


async def test_a_failure_does_not_hold_up_its_thread() -> None:
    done: list[str] = []
    async with legacy_node() as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            if message.id == "first":
                raise ValueError("first")
            done.append(message.id)

        async with alice:
            node.deliver(ALICE, plaintext("first", thid="t"))
            node.deliver(ALICE, plaintext("second", thid="t"))
            await settle()
            assert done == ["second"]


async def test_a_response_does_not_wait_behind_the_handlers_of_its_thread() -> None:
    async with legacy_node() as node, agent(node, BOB):
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: alice.request(request_to(thid="t")))
        async with alice:
            node.deliver(ALICE, plaintext("m1", thid="t"))
            await settle()
            node.deliver(ALICE, plaintext("r", RESPONSE, thid="t"))
            await settle()
            assert alice.statistics().responses == 1
            assert alice.statistics().handlers_running == 0


async def test_what_a_handler_leaves_in_context_variables_is_unknown_to_the_next_one() -> None:
    bound: ContextVar[str] = ContextVar("bound", default="nothing")
    seen: list[str] = []
    async with legacy_node() as node:
        alice = agent(node, max_handlers=1)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            seen.append(bound.get())
            bound.set(message.id)
            await trio.sleep(1)

        async with alice:
            for number in range(3):
                node.deliver(ALICE, plaintext(number))
            await trio.sleep(10)
            assert seen == ["nothing"] * 3


# --- backpressure ----------------------------------------------------------------------------------------------------


async def test_peer_bug_12_a_flood_runs_no_more_handlers_than_allowed_and_stops_the_reading() -> None:
    """B12: 5000 messages were 5000 handlers, which ran on after close."""
    gate = trio.Event()
    handled: list[str] = []
    most = 0
    async with CloudNode(memory=True, capabilities=[], capacity=4096) as node:
        alice = agent(node, max_handlers=4, max_queued=8, channel={"inbox_capacity": 16})

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            nonlocal most
            most = max(most, alice.statistics().handlers_running)
            await gate.wait()
            handled.append(message.id)

        async with alice, trio.open_nursery() as nursery:
            nursery.start_soon(node.flood, ALICE, 1500, plaintext)
            await settle()
            statistics = alice.statistics()
            assert statistics.handlers_running == 4
            assert statistics.messages_waiting == 8
            assert alice.channel.statistics().messages_received < 200, "the socket is left to backpressure"
            assert alice.channel.statistics().reading_pauses == 1
            await trio.sleep(20)
            assert alice.channel.statistics().messages_received < 200
            assert node.joins(ALICE) == 1, "heartbeats go on meanwhile"
            gate.set()
            await node.wait_for(lambda: len(node.frames(ALICE, event="ack")) == 1500)
            await settle()
            assert most == 4
            assert sorted(map(int, handled)) == list(range(1500))


async def test_peer_bug_12_nothing_is_handled_after_close() -> None:
    """B12: handlers ran on after close, and their replies vanished."""
    handled: list[str] = []
    async with legacy_node() as node:
        alice = agent(node, max_handlers=2)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await trio.sleep(1)
            handled.append(message.id)

        async with alice:
            for number in range(10):
                node.deliver(ALICE, plaintext(number))
            await trio.sleep(1.5)
        assert len(handled) == 2
        await trio.sleep(60)
        assert len(handled) == 2
        assert alice.statistics().handlers_running == 0


@pytest.mark.parametrize("asks_after", [0, 1])
async def test_a_request_is_answered_though_the_queue_in_front_of_its_response_is_full(asks_after: int) -> None:
    """All handlers wait for a response that stands behind more messages than may wait: reading goes on to it."""
    responses: list[str] = []
    async with legacy_node() as node, agent(node, BOB):
        alice = agent(node, max_handlers=1, max_queued=4, channel={"inbox_capacity": 4})

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            if message.id == "0":
                await trio.sleep(asks_after)
                responses.append((await alice.request(request_to(thid="asked"))).id)

        async with alice:
            for number in range(40):
                node.deliver(ALICE, plaintext(number))
            await trio.sleep(asks_after + 1)
            node.deliver(ALICE, plaintext("r", RESPONSE, thid="asked"))
            await settle()
            assert responses == ["r"]
            assert alice.statistics().messages_handled == 40


@pytest.mark.parametrize("bound", ["count", "bytes"])
async def test_reading_ahead_for_a_response_is_bounded_too(bound: str) -> None:
    size = 10 if bound == "count" else 40_000
    async with CloudNode(memory=True, capabilities=[]) as node, agent(node, BOB):
        tuning = {"inbox_capacity": 4, "max_message_size": 100_000}
        alice = agent(node, max_handlers=1, max_queued=4, channel=tuning)
        timed_out: list[RequestTimeout] = []

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            if message.id == "0":
                try:
                    await alice.request(request_to(), timeout=10)
                except RequestTimeout as error:
                    timed_out.append(error)

        async with alice, trio.open_nursery() as nursery:
            nursery.start_soon(node.flood, ALICE, 200, lambda number: plaintext(number, body="x" * size))
            await settle()
            waiting = alice.statistics().messages_waiting
            # 16 times max_queued; or beyond max_queued the inbox's own 200,000 bytes, which the fifth message reaches.
            assert waiting == (64 if bound == "count" else 4 + 5)
            await trio.sleep(11)
            await node.wait_for(lambda: len(node.frames(ALICE, event="ack")) == 200)
            assert len(timed_out) == 1
