"""An actor that finishes what is queued before an asked stop ends it (row G16, its option), and what that may cost."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.errors import ActorDied, ActorNotRunning, CallingSelf
from layr8_actors.otp import Actor, ActorRef, Call, Continue, Down, ExitKind, ExitReason, Overflow, Reply
from layr8_actors.otp.events import ChildExited, ChildStopped, StopTimeout


class Echo(Call[str]):
    pass


class Drainer(Actor):
    drain = True

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def handle_call(self, request: Echo, reply: Reply[str]) -> None:
        await trio.sleep(1)
        self.log.append("answered")
        reply.send("echo")

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        if callable(message):
            await message(self)
        else:
            await trio.sleep(1)
            self.log.append(message)

    async def handle_down(self, down: Down) -> None:
        self.log.append(f"down {down.id}")

    async def handle_timeout(self) -> None:
        self.log.append("timeout")

    async def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"terminate {reason.kind.value}")


class Lone(Drainer):
    helpers = False


@pytest.mark.parametrize("kind", [Drainer, Lone])
async def test_G16_what_is_in_hand_and_queued_is_finished_within_the_grace(
    lab: Any, settle: Any, kind: type[Drainer]
) -> None:
    outcomes: list[str] = []

    async def call(ref: ActorRef) -> None:
        outcomes.append(await ref.call(Echo()))

    async with lab.running([kind.child_spec("d", lab.log, shutdown=10)]) as supervisor:
        ref = supervisor.whereis("d")
        ref.cast_nowait("in hand")
        await settle()
        ref.cast_nowait("queued")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, ref)
            await settle()
            nursery.start_soon(supervisor.stop)
            await settle()
            assert not ref.running
            with pytest.raises(ActorNotRunning):
                await ref.call(Echo())  # from the stop on, calls are refused
            ref.cast_nowait("behind the stop")
        assert outcomes == ["echo"]
        assert lab.log == ["in hand", "queued", "answered", "terminate shutdown"]
        assert trio.current_time() == 3
        (stopped,) = lab.of(ChildStopped)
        assert (stopped.reason.kind, stopped.dropped) == (ExitKind.SHUTDOWN, 1)


@pytest.mark.parametrize("kind", [Drainer, Lone])
async def test_G16_D3_the_grace_is_the_end_of_it(lab: Any, settle: Any, kind: type[Drainer]) -> None:
    async with lab.running([kind.child_spec("d", lab.log, shutdown=2.5)]) as supervisor:
        for number in range(5):
            supervisor.whereis("d").cast_nowait(number)
        await settle()
        await supervisor.stop()
        assert trio.current_time() == 2.5
        assert lab.log == [0, 1]
        (stopped,) = lab.of(ChildStopped)
        assert (stopped.reason.kind, stopped.dropped) == (ExitKind.KILLED, 2)
        assert not lab.of(StopTimeout)


async def test_G16_an_idle_one_ends_at_once(lab: Any, settle: Any) -> None:
    async with lab.running([Drainer.child_spec("d", lab.log)]) as supervisor:
        await settle()
        await supervisor.stop()
        assert trio.current_time() == 0
        assert lab.log == ["terminate shutdown"]


async def test_G16_a_stop_of_its_ref_drains_too(lab: Any, settle: Any) -> None:
    async with lab.running([Drainer.child_spec("d", lab.log)]) as supervisor:
        ref = supervisor.whereis("d")
        ref.cast_nowait("one")
        ref.cast_nowait("two")
        await ref.stop()
        assert lab.log == ["one", "two", "terminate normal"]


async def test_G16_a_down_that_is_queued_takes_no_messages_place(lab: Any, settle: Any) -> None:
    async def watch(actor: Actor) -> None:
        actor.monitor(ActorRef("nobody"))

    async with lab.running([Drainer.child_spec("d", lab.log)]) as supervisor:
        ref = supervisor.whereis("d")
        ref.cast_nowait("in hand")
        await settle()
        for message in (watch, "one", "two"):
            ref.cast_nowait(message)
        await trio.sleep(1.5)  # at the first of them, with a Down behind the second
        await supervisor.stop()
        assert lab.log == ["in hand", "one", "two", "down nobody", "terminate shutdown"]


async def test_G16_what_becomes_due_meanwhile_is_not_begun(lab: Any, settle: Any) -> None:
    class Late(Drainer):
        async def init(self) -> Continue:
            return Continue()

        async def handle_continue(self, term: Any) -> None:
            self.deadline = trio.current_time() + 1
            self.send_after(1, "timer")
            await trio.sleep(2)

    async with lab.running([Late.child_spec("d", lab.log)]) as supervisor:
        supervisor.whereis("d").cast_nowait("queued")
        await trio.sleep(0.5)
        await supervisor.stop()
        assert lab.log == ["queued", "terminate shutdown"]


async def test_G16_a_crash_while_it_drains_is_the_end_of_it(lab: Any, settle: Any) -> None:
    async with lab.running([Drainer.child_spec("d", lab.log)]) as supervisor:
        ref = supervisor.whereis("d")
        ref.cast_nowait("one")
        await settle()
        ref.cast_nowait(ValueError("two"))
        ref.cast_nowait("three")
        await supervisor.stop()
        assert lab.log == ["one", "terminate error"]
        assert lab.of(ChildStopped)[0].dropped == 1
        assert not [event for event in lab.of(ChildExited) if not isinstance(event, ChildStopped)]


async def test_G16_with_a_mailbox_that_drops_it_ends_all_the_same(lab: Any, settle: Any) -> None:
    ref = ActorRef("d", mailbox_capacity=2, overflow=Overflow.DROP_OLD)
    async with lab.running([Drainer.child_spec(ref, lab.log)]) as supervisor:
        for message in range(3):
            ref.cast_nowait(message)
            await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop)
            await settle()
            for message in range(3, 6):
                ref.cast_nowait(message)
        assert lab.log == [0, 4, 5, "terminate shutdown"]


async def test_G16_M10_a_draining_handler_that_waits_for_its_own_end_is_told(lab: Any, settle: Any) -> None:
    async def stop(actor: Actor) -> None:
        with pytest.raises(CallingSelf, match="is being stopped"):
            await supervisor.stop()
        lab.log.append("told")

    async with lab.running([Drainer.child_spec("d", lab.log)]) as supervisor:
        supervisor.whereis("d").cast_nowait(stop)
        await trio.sleep(1)
        assert lab.log == ["told", "terminate shutdown"]
        assert not supervisor.running
        assert trio.current_time() == 1


async def test_G9_a_call_that_was_queued_behind_the_drained_ones_is_refused(lab: Any, settle: Any) -> None:
    """A caller that waits for room when the stop begins is not in the queue, so it is told."""
    ref = ActorRef("d", mailbox_capacity=1)
    outcomes: list[Any] = []

    async def call() -> None:
        try:
            outcomes.append(await ref.call(Echo()))
        except ActorDied as error:
            outcomes.append(str(error))

    async with lab.running([Drainer.child_spec(ref, lab.log)]) as supervisor:
        ref.cast_nowait("in hand")
        await settle()
        ref.cast_nowait("queued")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await settle()
            nursery.start_soon(supervisor.stop)
        assert lab.log == ["in hand", "queued", "terminate shutdown"]
        assert outcomes == ["actor 'd' ended before it answered (shutdown)"]
