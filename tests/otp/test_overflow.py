"""What becomes of messages for a full mailbox (row G18), and of requests whose caller is gone (row G17)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from layr8_actors.errors import ActorDied, InvalidOption, MailboxFull, SupervisionError
from layr8_actors.otp import Actor, ActorRef, Call, Overflow, Reply


class Echo(Call[str]):
    def __init__(self, text: str) -> None:
        self.text = text


class Impatient(Echo):
    skip_if_abandoned = True


class Worker(Actor):
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def handle_call(self, request: Echo, reply: Reply[str]) -> None:
        self.log.append(request.text)
        reply.send(request.text)

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, float):
            await trio.sleep(message)
        else:
            self.log.append(message)


async def ask(ref: ActorRef, text: str, outcomes: list[Any]) -> None:
    try:
        outcomes.append(await ref.call(Echo(text), timeout=1000))
    except SupervisionError as error:
        outcomes.append(type(error))


async def test_G18_drop_new_refuses_what_comes_when_it_is_full(lab: Any, settle: Callable[[], Awaitable[None]]) -> None:
    ref = ActorRef("w", mailbox_capacity=2, overflow=Overflow.DROP_NEW)
    async with lab.running([Worker.child_spec(ref, lab.log)]):
        ref.cast_nowait(1.0)
        await settle()
        assert [ref.cast_nowait(number) for number in range(3)] == [True, True, False]
        with assert_checkpoints():
            assert await ref.cast("waits for nothing") is False
        with assert_checkpoints(), pytest.raises(MailboxFull, match="'w' is full, and this request was dropped"):
            await ref.call(Echo("refused"))
        assert trio.current_time() == 0
        assert ref.statistics().dropped == 3
        assert ref.statistics().depth == 2
        await trio.sleep(2)
        assert lab.log == [0, 1]


async def test_G18_drop_old_lets_the_oldest_give_way_and_tells_its_caller(lab: Any, settle: Any) -> None:
    ref = ActorRef("w", mailbox_capacity=2, overflow=Overflow.DROP_OLD)
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec(ref, lab.log)]):
        ref.cast_nowait(1.0)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ref, "oldest", outcomes)
            await settle()
            assert await ref.cast("second")
            assert ref.cast_nowait("third")
            await settle()
            assert outcomes == [MailboxFull]
            assert trio.current_time() == 0
            nursery.start_soon(ask, ref, "newest", outcomes)
        assert outcomes == [MailboxFull, "newest"]
        assert lab.log == ["third", "newest"]
        assert ref.statistics().dropped == 2


@pytest.mark.parametrize("capacity", [1, 2, 5])
async def test_G18_drop_old_never_refuses_a_burst_to_an_actor_that_waits(lab: Any, settle: Any, capacity: int) -> None:
    ref = ActorRef("w", mailbox_capacity=capacity, overflow=Overflow.DROP_OLD)
    async with lab.running([Worker.child_spec(ref, lab.log)]):
        await settle()
        assert all(ref.cast_nowait(number) for number in range(10))
        await settle()
        handled = [entry for entry in lab.log if isinstance(entry, int)]
        assert handled == list(range(10))[-len(handled) :]  # the newest, in order
        assert capacity <= len(handled) <= capacity + 1  # the one handed over is not in the queue any more
        assert ref.statistics().dropped == 10 - len(handled)


@pytest.mark.parametrize("overflow", [Overflow.DROP_NEW, Overflow.DROP_OLD])
async def test_G8_G18_a_mailbox_that_drops_is_silent_about_nobody_too(
    lab: Any, settle: Any, overflow: Overflow
) -> None:
    ref = ActorRef("w", mailbox_capacity=1, overflow=overflow, keep_mailbox=True)
    async with lab.running([Worker.child_spec(ref, lab.log)]):
        assert ref.cast_nowait("x") is True
    assert ref.cast_nowait("nobody") is False  # its kept mailbox is closed
    assert await ref.cast("nobody") is False


async def test_G3_G18_callers_in_a_mailbox_that_drops_learn_of_a_death_too(lab: Any, settle: Any) -> None:
    ref = ActorRef("w", overflow=Overflow.DROP_OLD)
    outcomes: list[Any] = []
    async with lab.running([Worker.child_spec(ref, lab.log)]) as supervisor:
        ref.cast_nowait(100.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ref, "queued", outcomes)
            await settle()
            supervisor.exit_child("w")
        assert outcomes == [ActorDied]
        assert trio.current_time() == 0


def test_S2_a_bad_overflow_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"Overflow\.WAIT"):
        ActorRef("w", overflow="drop_old")  # type: ignore[arg-type]


@pytest.mark.parametrize(("request_type", "handled"), [(Echo, ["late", "next"]), (Impatient, ["next"])])
async def test_G17_a_queued_request_whose_caller_is_gone_may_be_skipped(
    lab: Any, settle: Any, request_type: type[Echo], handled: list[str]
) -> None:
    async with lab.running([Worker.child_spec("w", lab.log)]) as supervisor:
        ref = supervisor.whereis("w")
        ref.cast_nowait(2.0)
        await settle()
        with trio.move_on_after(1) as scope:
            await ref.call(request_type("late"), timeout=1000)
        assert scope.cancelled_caught
        assert await ref.call(request_type("next")) == "next"
        assert lab.log == handled


async def test_G17_a_request_that_was_begun_is_finished_even_of_that_kind(lab: Any) -> None:
    class Slow(Worker):
        async def handle_call(self, request: Echo, reply: Reply[str]) -> None:
            await trio.sleep(2)
            await super().handle_call(request, reply)

    async with lab.running([Slow.child_spec("w", lab.log)]) as supervisor:
        with trio.move_on_after(1):
            await supervisor.whereis("w").call(Impatient("begun"), timeout=1000)
        await trio.sleep(2)
        assert lab.log == ["begun"]
