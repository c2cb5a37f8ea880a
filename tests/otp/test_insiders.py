"""Who is part of a tree and asks for what would end or wait for itself (row M10): nobody ever waits for its own end."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from layr8_actors.errors import CallingSelf
from layr8_actors.otp import Actor, ChildSpec, Continue, DynamicSupervisor, ExitKind, ExitReason, Restart
from layr8_actors.otp.events import ChildStopped, StopTimeout


def asks(request: Callable[[], Awaitable[Any]], log: list[Any], *, shielded: bool = True) -> ChildSpec:
    """A child that asks for something two seconds after its start, shielded or not, with an infinite grace."""

    async def child(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(2)
        with trio.CancelScope(shield=shielded):
            try:
                log.append(await request())
            except CallingSelf as error:
                log.append(str(error))
                raise
            except trio.Cancelled:
                log.append("cancelled")
                raise
        log.append("went on")

    return ChildSpec("asks", child, shutdown=math.inf)


@pytest.mark.parametrize("what", ["stop", "terminate", "stop outer", "terminate inner"])
@pytest.mark.parametrize("shielded", [False, True])
async def test_M10_a_caller_that_asks_for_its_own_end_is_ended_or_told_never_stuck(
    lab: Any, what: str, shielded: bool
) -> None:
    log: list[Any] = []
    requests: dict[str, Callable[[], Awaitable[Any]]] = {
        "stop": lambda: inner.stop(),
        "terminate": lambda: inner.terminate_child("asks"),
        "stop outer": lambda: outer.stop(),
        "terminate inner": lambda: outer.terminate_child("inner"),
    }
    inner = lab.supervisor([lab.child("a"), asks(requests[what], log, shielded=shielded)], name="inner")
    outer = lab.supervisor([inner.child_spec(restart=Restart.TRANSIENT), lab.child("last")], name="outer")
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            await nursery.start(outer.run)
            await trio.sleep(2.5)
            assert lab.live["a"] == (1 if what == "terminate" else 0)
            assert outer.running is (what != "stop outer")
            await outer.stop()
    if shielded:
        (told,) = log
        assert "'outer/inner/asks' is being stopped, and its supervisor waits for that" in told
    else:
        assert log == ["cancelled"]
    assert not lab.of(StopTimeout)


async def test_M10_a_request_in_the_cleanup_of_an_asked_stop_is_refused_at_once(lab: Any) -> None:
    log: list[str] = []

    class Untidy(Actor):
        async def terminate(self, reason: ExitReason) -> None:
            for request in (supervisor.start_child(lab.child("late")), supervisor.terminate_child("other")):
                with pytest.raises(CallingSelf):
                    await request
            log.append(f"told at {trio.current_time():g}")

    specs = [lab.child("other"), Untidy.child_spec("untidy", shutdown=math.inf)]
    async with lab.running(specs) as supervisor:
        await trio.sleep(1)
        await supervisor.terminate_child("untidy")
        assert log == ["told at 1"]
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.SHUTDOWN


async def test_M10_terminate_after_a_crash_may_ask_for_the_end_without_waiting(lab: Any, settle: Any) -> None:
    outcomes: list[str] = []

    class Fatalist(Actor):
        async def handle_cast(self, message: Any) -> None:
            raise ValueError(message)

        async def terminate(self, reason: ExitReason) -> None:
            try:
                await supervisor.stop()
            except CallingSelf:
                outcomes.append("told")

    async with lab.running([lab.child("a"), Fatalist.child_spec("f", shutdown=math.inf)]) as supervisor:
        supervisor.whereis("f").cast_nowait("crash")
        await settle()
        assert outcomes == ["told"]
        assert not supervisor.running
        assert trio.current_time() == 0


@pytest.mark.parametrize("dynamic", [False, True])
async def test_M10_a_start_that_asks_its_own_supervisor_is_refused_at_once(lab: Any, dynamic: bool) -> None:
    class Nosy(Actor):
        async def init(self) -> None:
            with pytest.raises(CallingSelf, match="is starting"):
                await supervisor.start_child(lab.child("sibling"))
            lab.log.append("refused")

    supervisor: Any = lab.supervisor([])
    if dynamic:
        supervisor = DynamicSupervisor(on_event=lab.events.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.start_child(Nosy.child_spec("nosy"))
        assert lab.log == ["refused"]
        assert trio.current_time() == 0
        await supervisor.stop()


async def test_M10_who_is_up_may_ask_while_a_sibling_below_still_starts(lab: Any, settle: Any) -> None:
    class Asks(Actor):
        async def init(self) -> Continue:
            return Continue()

        async def handle_continue(self, term: Any) -> None:
            lab.log.append(await outer.start_child(lab.child("late")))

    lab.start_delay["slow"] = 5
    inner = lab.supervisor([Asks.child_spec("asks"), lab.child("slow")], name="inner")
    outer = lab.supervisor([inner.child_spec()], name="outer")
    async with trio.open_nursery() as nursery:
        await nursery.start(outer.run)
        await settle()
        assert lab.log == ["start slow", "start late", "late1"]
        await outer.stop()


async def test_M10_a_helper_task_of_a_child_belongs_to_it(lab: Any) -> None:
    async def child(*, task_status: trio.TaskStatus[None]) -> None:
        async def helper() -> None:
            with trio.CancelScope(shield=True), pytest.raises(CallingSelf):
                await supervisor.stop()
            lab.log.append("helper told")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper)
            task_status.started()
            await trio.sleep_forever()

    async with lab.running([ChildSpec("c", child, shutdown=math.inf)]) as supervisor:
        await trio.sleep(1)
        assert lab.log == ["helper told"]
        assert not supervisor.running


async def test_M10_a_helper_of_an_actor_lives_until_its_terminate_has_run(lab: Any) -> None:
    class Helped(Actor):
        async def init(self) -> None:
            self.nursery.start_soon(self.ask)

        async def ask(self) -> None:
            await trio.sleep(1)
            try:
                await supervisor.stop()
            except trio.Cancelled:
                lab.log.append(f"cancelled at {trio.current_time():g}")
                raise

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(2)

    async with lab.running([Helped.child_spec("h")]) as supervisor:
        await trio.sleep(10)
        assert lab.log == ["cancelled at 3"]
        assert not supervisor.running


@pytest.mark.parametrize("again", range(20))  # Trio draws lots for who is first in the instant when the grace ends
async def test_M10_a_killed_helper_that_shields_its_wait_is_released(lab: Any, again: int) -> None:
    class Helped(Actor):
        async def init(self) -> None:
            self.nursery.start_soon(self.ask)

        async def ask(self) -> None:
            await trio.sleep(1)
            with trio.CancelScope(shield=True), pytest.raises(CallingSelf):
                await supervisor.stop()
            lab.log.append(f"told at {trio.current_time():g}")

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(1000)

    async with lab.running([Helped.child_spec("h", shutdown=4)]) as supervisor:
        await trio.sleep(10)
        assert lab.log == ["told at 5"]
        assert not supervisor.running
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.KILLED


async def test_M10_a_helper_that_shields_its_wait_is_released_once_terminate_has_run(lab: Any) -> None:
    class Helped(Actor):
        async def init(self) -> None:
            self.nursery.start_soon(self.ask)

        async def ask(self) -> None:
            await trio.sleep(1)
            with trio.CancelScope(shield=True), pytest.raises(CallingSelf):
                await supervisor.stop()
            lab.log.append(f"told at {trio.current_time():g}")

        async def terminate(self, reason: ExitReason) -> None:
            await trio.sleep(2)

    async with lab.running([Helped.child_spec("h", shutdown=math.inf)]) as supervisor:
        await trio.sleep(10)
        assert lab.log == ["told at 3"]
        assert not supervisor.running


async def test_M10_who_is_no_part_of_the_tree_waits_as_usual(lab: Any) -> None:
    """A task of a sibling tree that asks for the end of this one waits for it, however long that takes."""
    lab.cleanup["a"] = 3
    other = lab.supervisor(lab.children("a"), name="other")

    class Neighbour(Actor):
        async def handle_cast(self, message: Any) -> None:
            await other.stop()
            lab.log.append(f"done at {trio.current_time():g}")

    mine = lab.supervisor([Neighbour.child_spec("n")], name="mine")
    async with lab.running([mine.child_spec(), other.child_spec()], max_restarts=3):
        mine.whereis("n").cast_nowait("go")
        await trio.sleep(10)
        assert "done at 3" in lab.log
