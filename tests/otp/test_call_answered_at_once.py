"""The short way of a call: an idle actor whose handler waits for nothing answers before any time-out is set up."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from layr8_actors.errors import CallTimeout
from layr8_actors.otp import Actor, ActorRef, Call, Supervisor


class Ask(Call[int]):
    def __init__(self, after: float | None = None) -> None:
        self.after = after


class Answering(Actor):
    """Answers at once, or later, and counts."""

    helpers = False

    def __init__(self, handled: list[Ask]) -> None:
        self.handled = handled

    async def handle_call(self, request, reply):
        self.handled.append(request)
        if request.after is not None:
            await trio.sleep(request.after)
        reply.send(len(self.handled))


async def test_a_call_in_a_cancelled_scope_is_cancelled_though_the_answer_would_come_at_once():
    handled: list[Ask] = []
    ref = ActorRef("answering")
    async with Supervisor([Answering.child_spec(ref, handled)]):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.call(Ask())
        assert scope.cancelled_caught
        assert await ref.call(Ask()) == 2  # it was sent, and handled
    assert len(handled) == 2


async def test_an_answer_that_was_given_is_not_lost_to_a_cancellation_in_the_same_turn():
    class Cancelling(Answering):
        async def handle_call(self, request, reply):
            reply.send(7)
            scope.cancel()

    ref = ActorRef("cancelling")
    async with Supervisor([Cancelling.child_spec(ref, [])]):
        with trio.CancelScope() as scope:
            assert await ref.call(Ask()) == 7


async def test_an_answer_that_takes_a_while_is_waited_for_until_the_timeout_and_no_longer():
    ref = ActorRef("answering")
    async with Supervisor([Answering.child_spec(ref, [])]):
        begin = trio.current_time()
        assert await ref.call(Ask(after=2.0), timeout=3.0) == 1
        with pytest.raises(CallTimeout):
            await ref.call(Ask(after=4.0), timeout=3.0)
        assert trio.current_time() - begin == 5.0


async def test_callers_of_a_busy_actor_wait_in_order_without_spinning():
    handled: list[Ask] = []
    ref = ActorRef("answering")
    answers = {}

    async def ask(number, after):
        answers[number] = await ref.call(Ask(after))

    async with Supervisor([Answering.child_spec(ref, handled)]):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0, 1.0)
            await trio.testing.wait_all_tasks_blocked()
            for number in (1, 2, 3):
                nursery.start_soon(ask, number, None)
                # That this returns shows that the caller is parked: a task that spins is never blocked.
                await trio.testing.wait_all_tasks_blocked()
    assert answers == {0: 1, 1: 2, 2: 3, 3: 4}
