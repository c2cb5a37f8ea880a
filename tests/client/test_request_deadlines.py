"""One clock for the deadlines of all requests: each ends at its own time, whatever becomes of the clock."""

from __future__ import annotations

import contextlib
import functools
import math

import pytest
import trio

from layr8_actors import Client, Message, NotConnected, RequestTimeout
from layr8_actors.client.request_deadlines import OVER_KEPT, RequestDeadlines
from layr8_actors.client.requests import Pending
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
    tasks_named,
)


async def ended_after(client: Client, timeout: float, into: dict[float, float]) -> None:
    """Ask in vain, and note after how many seconds it ended."""
    begun = trio.current_time()
    with pytest.raises(RequestTimeout):
        await client.request(request_to(BOB), timeout=timeout)
    into[timeout] = trio.current_time() - begun


async def test_each_request_ends_at_its_own_time_whatever_the_order() -> None:
    ended: dict[float, float] = {}
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        for timeout in (5.0, 1.0, 3.0, 0.0, 2.0, 4.0):
            nursery.start_soon(ended_after, alice, timeout, ended)
            await settle()
        await trio.sleep(2.5)
        nursery.start_soon(ended_after, alice, 0.25, ended)
        await trio.sleep(5)
        assert ended == {timeout: pytest.approx(timeout, abs=0.001) for timeout in (0, 0.25, 1, 2, 3, 4, 5)}
        assert list(ended) == [0, 1, 2, 0.25, 3, 4, 5]


@pytest.mark.parametrize("end", ["crash", "close"])
async def test_deadlines_hold_while_the_dispatcher_ends_and_a_handler_takes_its_time_with_that(end: str) -> None:
    ended: dict[float, float] = {}
    async with legacy_node() as node, agent(node, BOB):
        alice = agent(node, shutdown_grace=100)

        @alice.handle(REQUEST)
        async def clean_up_slowly(message: Message) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)

        async with alice, trio.open_nursery() as nursery:
            node.deliver(ALICE, plaintext())
            nursery.start_soon(ended_after, alice, 2.0, ended)
            nursery.start_soon(ended_after, alice, 20.0, ended)
            await trio.sleep(1)
            if end == "crash":
                alice.supervisor.exit_child("dispatcher", ValueError("staged"))
            else:
                nursery.start_soon(alice.close)
            nursery.start_soon(ended_after, alice, 3.0, ended)
            await trio.sleep(5)
            assert ended == {2: pytest.approx(2), 3: pytest.approx(3)}
            if end == "crash":
                await trio.sleep(20)
                assert ended[20] == pytest.approx(20)
            else:
                nursery.cancel_scope.cancel()


async def test_after_a_crash_of_the_dispatcher_the_next_one_keeps_the_time() -> None:
    ended: dict[float, float] = {}
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice, trio.open_nursery() as nursery:
        nursery.start_soon(ended_after, alice, 10.0, ended)
        await trio.sleep(1)
        alice.supervisor.exit_child("dispatcher", ValueError("staged"))
        await trio.sleep(1)
        nursery.start_soon(ended_after, alice, 2.0, ended)
        await trio.sleep(20)
        assert ended == {10: pytest.approx(10), 2: pytest.approx(2)}


async def test_the_clock_ends_once_nobody_waits_whose_deadline_is_to_come() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice:
        assert tasks_named("RequestDeadlines.run") == 0
        async with trio.open_nursery() as nursery:
            for timeout in (5, math.inf):
                nursery.start_soon(functools.partial(alice.request, request_to(BOB), timeout=timeout))
            await trio.sleep(1)
            assert tasks_named("RequestDeadlines.run") == 1
            nursery.cancel_scope.cancel()
        await trio.sleep(5)
        assert tasks_named("RequestDeadlines.run") == 0


async def test_requests_that_are_answered_do_not_gather() -> None:
    waiting: dict[str, Pending] = {}
    deadlines = RequestDeadlines(waiting)
    deadlines.start_clock = lambda: True
    for number in range(10 * OVER_KEPT):
        thread = str(number)
        waiting[thread] = pending = Pending(Message(type=REQUEST), thread, 30, False)
        assert deadlines.add(pending)
        pending.finish(Message(type=RESPONSE))
        del waiting[thread]
        assert len(deadlines._heap) <= OVER_KEPT + 3
    forever = Pending(Message(type=REQUEST), "forever", math.inf, False)
    before = len(deadlines._heap)
    assert deadlines.add(forever)
    assert len(deadlines._heap) <= before


async def test_requests_that_are_cancelled_do_not_gather_either() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(alice.request, request_to(BOB))
                await settle()
                nursery.cancel_scope.cancel()
        assert alice._tree is not None
        assert len(alice._tree.record.requests.deadlines._heap) <= OVER_KEPT + 2 * 200


async def test_one_who_asks_again_and_again_while_the_link_is_down_can_be_cancelled() -> None:
    attempts = 0
    async with legacy_node() as node, agent(node) as alice, node.down():
        with trio.CancelScope() as scope:
            scope.cancel()
            while attempts < 3:
                attempts += 1
                with contextlib.suppress(NotConnected):
                    await alice.request(request_to(BOB))
        assert scope.cancelled_caught
        assert attempts == 1


async def test_a_request_that_is_cancelled_by_its_caller_at_any_step_leaves_nothing() -> None:
    async with legacy_node() as node, agent(node, BOB), agent(node) as alice:
        for turns in range(8):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alice.request, request_to(BOB))
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert alice.statistics().requests_waiting == 0
            assert alice.channel.statistics().replies_waiting == 0
