"""Messages that an actor sends itself later (row G21): in order, past the bound, and never to the next incarnation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_no_checkpoints

from layr8_actors.errors import InvalidOption, SupervisionError
from layr8_actors.otp import Actor, ActorRef, Strategy
from layr8_actors.otp.actor_timers import Timer


class Ticker(Actor):
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def handle_cast(self, message: Any) -> None:
        if callable(message):
            message(self)
        elif isinstance(message, float):
            await trio.sleep(message)
        elif isinstance(message, Exception):
            raise message
        else:
            self.log.append((trio.current_time(), message))

    async def handle_timeout(self) -> None:
        self.log.append((trio.current_time(), "timeout"))


def later(delay: float, message: object, timers: list[Timer] | None = None) -> Callable[[Actor], None]:
    def act(actor: Actor) -> None:
        with assert_no_checkpoints():
            timer = actor.send_after(delay, message)
        if timers is not None:
            timers.append(timer)

    return act


async def test_G21_messages_come_at_their_time_in_order_of_it(lab: Any) -> None:
    async with lab.running([Ticker.child_spec("t", lab.log)]) as supervisor:
        ref = supervisor.whereis("t")
        for delay in (3, 1, 2, 1):
            ref.cast_nowait(later(delay, f"after {delay}"))
        await trio.sleep(10)
        assert lab.log == [(1, "after 1"), (1, "after 1"), (2, "after 2"), (3, "after 3")]


async def test_G21_a_timer_dies_with_its_incarnation(lab: Any, settle: Any) -> None:
    ref = ActorRef("t", keep_mailbox=True)
    async with lab.running([lab.child("a"), Ticker.child_spec(ref, lab.log)], strategy=Strategy.ONE_FOR_ALL) as sup:
        ref.cast_nowait(later(5, "of the first run"))
        await trio.sleep(1)
        ref.cast_nowait(ValueError("crash"))
        await settle()
        ref.cast_nowait(later(5, "of the second run"))
        await settle()
        lab.crash("a")  # the actor is stopped with its group
        await trio.sleep(1)
        ref.cast_nowait(later(5, "of the third run"))
        await trio.sleep(20)
        assert [entry for entry in lab.log if isinstance(entry, tuple)] == [(7, "of the third run")]
        assert sup.which_children()[1].incarnation == 3


async def test_G18_G21_a_due_message_needs_no_room_in_the_mailbox(lab: Any, settle: Any) -> None:
    ref = ActorRef("t", mailbox_capacity=1)
    async with lab.running([Ticker.child_spec(ref, lab.log)]):
        ref.cast_nowait(later(1, "due"))
        await settle()
        ref.cast_nowait(2.0)  # busy when it falls due
        await settle()
        assert ref.statistics().depth == 0  # a timer takes no room
        ref.cast_nowait("queued")
        await trio.sleep(2)
        await settle()
        assert lab.log == [(2, "due"), (2, "queued")]  # the next batch of messages comes after what is due


@pytest.mark.parametrize("when", ["early", "due", "late"])
async def test_G21_a_timer_can_be_cancelled_until_it_is_handled(lab: Any, settle: Any, when: str) -> None:
    timers: list[Timer] = []
    async with lab.running([Ticker.child_spec("t", lab.log)]) as supervisor:
        ref = supervisor.whereis("t")
        ref.cast_nowait(later(1, "tick", timers))
        await settle()
        (timer,) = timers
        assert timer.active
        if when == "early":
            assert timer.cancel() is True
        elif when == "due":
            ref.cast_nowait(2.0)
            await trio.sleep(1.5)  # due, and the actor is busy
            assert timer.cancel() is True
        await trio.sleep(5)
        assert timer.cancel() is False
        assert not timer.active
        assert lab.log == ([(1, "tick")] if when == "late" else [])


async def test_G21_the_earliest_of_a_deadline_and_a_timer_is_first(lab: Any) -> None:
    def both(actor: Actor) -> None:
        actor.deadline = trio.current_time() + 2
        actor.send_after(1, "one")
        actor.send_after(3, "three")

    async with lab.running([Ticker.child_spec("t", lab.log)]) as supervisor:
        supervisor.whereis("t").cast_nowait(both)
        await trio.sleep(5)
        assert lab.log == [(1, "one"), (2, "timeout"), (3, "three")]


async def test_G21_a_timer_that_always_sets_the_next_one_starves_nobody(lab: Any, settle: Any) -> None:
    class Busy(Ticker):
        turns = 0

        async def handle_cast(self, message: Any) -> None:
            if message == "tick":
                type(self).turns += 1
                if type(self).turns < 10_000:
                    self.send_after(0, "tick")
            else:
                await super().handle_cast(message)

    async with lab.running([Busy.child_spec("t", lab.log)]) as supervisor:
        ref = supervisor.whereis("t")
        ref.cast_nowait("tick")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        ref.cast_nowait("message")
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert lab.log == [(0, "message")]
        assert Busy.turns < 1000


async def test_G21_another_task_may_set_one_while_the_actor_waits(lab: Any, settle: Any) -> None:
    actors: list[Ticker] = []

    class Known(Ticker):
        async def init(self) -> None:
            actors.append(self)

    async with lab.running([Known.child_spec("t", lab.log)]):
        await settle()
        actors[0].send_after(2, "from outside")
        await trio.sleep(5)
        assert lab.log == [(2, "from outside")]


async def test_G21_a_crash_in_its_handler_is_a_crash_of_the_actor_that_names_it(lab: Any) -> None:
    async with lab.running([Ticker.child_spec("t", lab.log)]) as supervisor:
        supervisor.whereis("t").cast_nowait(later(1, ValueError("tick")))
        await trio.sleep(2)
        (exited,) = [event for event in lab.events if type(event).__name__ == "ChildExited"]
        assert exited.doing == "handle_cast ValueError"
        assert exited.uptime == 1


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, True, "5"])
async def test_G21_a_delay_that_is_no_number_of_seconds_is_refused(lab: Any, settle: Any, delay: Any) -> None:
    refused: list[str] = []

    def act(actor: Actor) -> None:
        with pytest.raises(InvalidOption, match="delay"):
            actor.send_after(delay, "x")
        refused.append("refused")

    async with lab.running([Ticker.child_spec("t", lab.log)]) as supervisor:
        supervisor.whereis("t").cast_nowait(act)
        await settle()
        assert refused == ["refused"]


def test_G21_an_actor_that_does_not_run_has_no_timers() -> None:
    with pytest.raises(SupervisionError, match="does not run yet"):
        Actor().send_after(1, "x")
