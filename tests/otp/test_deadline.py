"""An actor's own time-out: ``deadline`` and ``handle_timeout`` (row G21; OTP: gen_server's Timeout)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel

from layr8_actors.errors import ActorDied, InvalidOption
from layr8_actors.otp import Actor, ActorRef, Call, Continue, ExitKind, ExitReason, Reply
from layr8_actors.otp.events import ChildExited


class Ask(Call[float]):
    pass


class Box:
    """What outlives the incarnations of a Sleeper, and what it does."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.actors: list[Sleeper] = []
        self.first_deadline = math.inf
        self.on_timeout: Callable[[Sleeper], Awaitable[None]] | None = None


class Sleeper(Actor):
    def __init__(self, box: Box) -> None:
        self.box = box
        box.actors.append(self)
        self.deadline = box.first_deadline

    async def handle_call(self, request: Ask, reply: Reply[float]) -> None:
        reply.send(trio.current_time())

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        if inspect.iscoroutinefunction(message):
            await message(self)
        else:
            self.box.log.append((trio.current_time(), message))

    async def handle_timeout(self) -> None:
        self.box.log.append((trio.current_time(), "timeout", self.deadline))
        if self.box.on_timeout is not None:
            await self.box.on_timeout(self)

    async def terminate(self, reason: ExitReason) -> None:
        self.box.log.append((trio.current_time(), f"terminate {reason.kind.value}"))


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def ref() -> ActorRef:
    return ActorRef("sleeper", keep_mailbox=True)


async def test_it_comes_once_at_the_exact_time_and_the_deadline_is_over_by_then(
    lab: Any, box: Box, ref: ActorRef
) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        box.actors[0].deadline = start + 7.25
        await trio.sleep(100)
        assert box.log == [(start + 7.25, "timeout", math.inf)]
        assert await ref.call(Ask()) == start + 100


async def test_without_a_deadline_it_never_comes(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        await trio.sleep(3600)
        assert box.log == []


@pytest.mark.parametrize("second", [3.0, 30.0])
async def test_another_task_moves_it_to_earlier_or_later_while_the_actor_waits(
    lab: Any, box: Box, ref: ActorRef, second: float, settle: Any
) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        box.actors[0].deadline = start + 10
        await settle()
        box.actors[0].deadline = start + second
        await trio.sleep(100)
        assert box.log == [(start + second, "timeout", math.inf)]


async def test_it_can_be_called_off(lab: Any, box: Box, ref: ActorRef, settle: Any) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        box.actors[0].deadline = trio.current_time() + 10
        await settle()
        box.actors[0].deadline = math.inf
        await trio.sleep(100)
        assert box.log == []


async def test_it_is_called_off_even_in_the_instant_when_it_is_due(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        for _ in range(20):
            box.actors[0].deadline = due = trio.current_time() + 10
            await trio.sleep_until(due)
            box.actors[0].deadline = math.inf  # which of the two tasks was first is Trio's choice
            before = len(box.log)
            await trio.sleep(1)
            assert len(box.log) == before
        assert await ref.call(Ask()) == due + 1


async def test_it_can_be_set_in_the_constructor_and_by_each_handler(lab: Any, box: Box, ref: ActorRef) -> None:
    start = box.first_deadline = trio.current_time() + 1

    async def again(actor: Sleeper) -> None:
        if len(box.log) < 4:
            actor.deadline = trio.current_time() + 2

    box.on_timeout = again
    async with lab.running([Sleeper.child_spec(ref, box)]):
        await trio.sleep(100)
        assert [entry[0] for entry in box.log] == [start, start + 2, start + 4, start + 6]


async def test_it_can_be_set_in_init_and_handle_continue(lab: Any, ref: ActorRef) -> None:
    log: list[float] = []

    class Starter(Actor):
        async def init(self) -> Continue:
            self.deadline = trio.current_time()
            return Continue()

        async def handle_continue(self, term: Any) -> None:
            log.append(-1)
            await trio.sleep(1)
            log.append(-2)

        async def handle_timeout(self) -> None:
            log.append(trio.current_time())

    start = trio.current_time()
    async with lab.running([Starter.child_spec(ref)]):
        await trio.sleep(5)
    assert log == [-1, -2, start + 1]


async def test_a_handler_is_never_interrupted_by_it_and_it_comes_right_after(lab: Any, box: Box, ref: ActorRef) -> None:
    async def slow(actor: Sleeper) -> None:
        actor.deadline = trio.current_time() + 1
        await trio.sleep(5)
        box.log.append((trio.current_time(), "slept"))

    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        ref.cast_nowait(slow)
        await trio.sleep(2)
        box.actors[0].deadline = start + 3  # by another task, while the handler runs
        await trio.sleep(50)
        assert box.log == [(start + 5, "slept"), (start + 5, "timeout", math.inf)]


async def test_one_that_comes_while_its_own_handler_runs_waits_for_its_end(lab: Any, box: Box, ref: ActorRef) -> None:
    async def slow(actor: Sleeper) -> None:
        if len(box.log) == 1:
            actor.deadline = trio.current_time() + 1
            await trio.sleep(5)

    box.on_timeout = slow
    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        box.actors[0].deadline = start + 1
        await trio.sleep(50)
        assert [entry[0] for entry in box.log] == [start + 1, start + 6]


async def test_no_message_is_lost_when_it_fires_as_one_arrives(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        for number in range(200):
            due = trio.current_time() + 1
            box.actors[0].deadline = due
            await trio.sleep_until(due)
            ref.cast_nowait(number)
            assert await ref.call(Ask()) == due
    messages = [entry[1] for entry in box.log if isinstance(entry[1], int)]
    assert messages == list(range(200))
    assert [entry[1] for entry in box.log].count("timeout") == 200


async def test_a_message_of_the_same_instant_comes_after_it(lab: Any, box: Box, ref: ActorRef, settle: Any) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        await settle()
        ref.cast_nowait("message")  # takes the actor's task out of its wait, and only then the deadline passes
        box.actors[0].deadline = trio.current_time()
        await trio.sleep(1)
        assert sorted(entry[1] for entry in box.log) == ["message", "timeout"]
        assert len(box.log) == 2


async def test_messages_leave_it_as_it_is(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        box.actors[0].deadline = start + 10
        for _ in range(9):
            await trio.sleep(1)
            await ref.call(Ask())
        await trio.sleep(20)
        assert box.log == [(start + 10, "timeout", math.inf)]


async def test_one_that_is_always_due_starves_nobody(lab: Any, box: Box, ref: ActorRef) -> None:
    async def again(actor: Sleeper) -> None:
        actor.deadline = -math.inf

    box.on_timeout = again
    async with lab.running([Sleeper.child_spec(ref, box)]) as supervisor:
        box.actors[0].deadline = trio.current_time()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await supervisor.stop()
    assert 0 < len(box.log) < 20


async def test_G21_it_dies_with_the_incarnation(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]):
        start = trio.current_time()
        first = box.actors[0]
        first.deadline = start + 10
        ref.cast_nowait(ValueError("crash"))
        await trio.sleep(1)
        assert len(box.actors) == 2
        first.deadline = start + 20  # that of an incarnation that is gone changes nothing
        assert box.actors[1].deadline == math.inf
        await trio.sleep(100)
    assert [entry[1] for entry in box.log] == ["terminate error", "terminate shutdown"]


async def test_a_stop_goes_in_front_of_one_that_became_due_meanwhile(lab: Any, box: Box, ref: ActorRef) -> None:
    async with lab.running([Sleeper.child_spec(ref, box)]) as supervisor:
        due = trio.current_time() + 10
        box.actors[0].deadline = due + 1

        async def slow(actor: Sleeper) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(14)

        ref.cast_nowait(slow)
        await trio.sleep_until(due)
        await supervisor.stop()
    assert [entry[1] for entry in box.log] == ["terminate shutdown"]


async def test_a_stop_cancels_its_handler(lab: Any, box: Box, ref: ActorRef) -> None:
    async def slow(actor: Sleeper) -> None:
        await trio.sleep(1000)
        box.log.append("never")

    box.on_timeout = slow
    async with lab.running([Sleeper.child_spec(ref, box)]) as supervisor:
        start = trio.current_time()
        box.actors[0].deadline = start + 1
        await trio.sleep(2)
        await supervisor.stop()
    assert box.log == [(start + 1, "timeout", math.inf), (start + 2, "terminate shutdown")]


async def test_a_kill_hits_its_handler(lab: Any, box: Box, ref: ActorRef) -> None:
    async def slow(actor: Sleeper) -> None:
        await trio.sleep(1000)

    box.on_timeout = slow
    async with lab.running([Sleeper.child_spec(ref, box)]) as supervisor:
        box.actors[0].deadline = trio.current_time() + 1
        await trio.sleep(2)
        supervisor.exit_child("sleeper")
        await trio.sleep(1)
        assert [event.reason.kind for event in lab.of(ChildExited)] == [ExitKind.KILLED]
        assert len(box.actors) == 2


async def test_its_crash_is_a_crash_of_the_actor(lab: Any, box: Box, ref: ActorRef) -> None:
    async def crash(actor: Sleeper) -> None:
        await trio.sleep(1)
        raise lab.Crash("in handle_timeout")

    box.on_timeout = crash
    async with lab.running([Sleeper.child_spec(ref, box)]):
        box.actors[0].deadline = trio.current_time() + 1
        await trio.sleep(1.5)
        with pytest.raises(ActorDied) as caught:
            await ref.call(Ask())
        assert isinstance(caught.value.__cause__, lab.Crash)


async def test_by_default_it_does_nothing(lab: Any) -> None:
    class Plain(Actor):
        async def init(self) -> None:
            self.deadline = trio.current_time() + 1

        async def handle_call(self, request: Ask, reply: Reply[float]) -> None:
            reply.send(self.deadline)

    ref = ActorRef("plain")
    async with lab.running([Plain.child_spec(ref)]):
        await trio.sleep(2)
        assert await ref.call(Ask()) == math.inf


@pytest.mark.parametrize("deadline", [math.nan, True, "soon", None])
def test_a_deadline_that_is_no_time_is_refused(deadline: Any) -> None:
    with pytest.raises(InvalidOption, match="deadline"):
        Actor().deadline = deadline
