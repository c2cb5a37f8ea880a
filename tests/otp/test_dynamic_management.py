"""Stopping a dynamic supervisor and managing its children (rows D2, M4, M5, M6, M9)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.errors import (
    ChildNotFound,
    MaxChildrenReached,
    SupervisorNotRunning,
)
from layr8_actors.otp import (
    Actor,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    ExitKind,
)
from layr8_actors.otp.events import ChildStopped
from tests.otp.dynamic import PLAIN, ids, start

# --- D2 ---------------------------------------------------------------------------------------------------------------


async def test_D2_all_stop_at_once_and_the_slowest_sets_the_time(lab: Any) -> None:
    lab.cleanup = {"a": 0.1, "b": 0.3, "c": 0.2}
    async with lab.running_dynamic() as supervisor:
        for id in "abc":
            await start(supervisor, lab.child(id))
        lab.took()
        await supervisor.stop()
        assert lab.took() == ["stop a", "stop c", "stop b"]
        assert trio.current_time() == pytest.approx(0.3)


async def test_D2_each_child_has_a_kill_timer_of_its_own(lab: Any) -> None:
    class Slow(Actor):
        async def terminate(self, reason: Any) -> None:
            await trio.sleep(100)

    async with lab.running_dynamic() as supervisor:
        for grace in (3.0, 1.0, 2.0):
            await start(supervisor, Slow.child_spec(f"grace{grace:g}", shutdown=grace))
        await supervisor.stop()
        ends = sorted((event.uptime, event.id) for event in lab.of(ChildStopped))
        assert ends == [(1, "grace1-2"), (2, "grace2-3"), (3, "grace3-1")]
        assert {event.reason.kind for event in lab.of(ChildStopped)} == {ExitKind.KILLED}


@pytest.mark.parametrize("parallel", [True, False])
async def test_D2_a_static_supervisor_may_stop_in_parallel_too(lab: Any, parallel: bool) -> None:
    lab.cleanup = dict.fromkeys("abc", 0.3)
    async with lab.running(lab.children("abc"), parallel_shutdown=parallel) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == pytest.approx(0.3 if parallel else 0.9)


async def test_D2_D11_outer_cancellation_stops_all_at_once_too(lab: Any) -> None:
    lab.cleanup = dict.fromkeys("abc", 2.0)
    supervisor = DynamicSupervisor()
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for id in "abc":
                await start(supervisor, lab.child(id))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    assert not any(lab.live.values())


async def test_C11_terminates_with_mixed_children(lab: Any) -> None:
    """Elixir DynamicSupervisor: one that ends, one that raises, one that is brutal, one that waits for its restart."""

    async def stuck(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    lab.cleanup_error["raises"] = ValueError("in cleanup")
    async with lab.running_dynamic(backoff=Backoff(initial=50, maximum=50, jitter=0), max_seconds=1000) as supervisor:
        for spec in (
            lab.child("good"),
            lab.child("raises"),
            ChildSpec("brutal", stuck, shutdown=0.0),
            ChildSpec("late", stuck, shutdown=1.0),
            lab.child("crashed"),
        ):
            await start(supervisor, spec)
        lab.crash("crashed")
        await trio.sleep(1)
        await supervisor.stop()
        assert trio.current_time() == 4
    kinds = {event.id: event.reason.kind for event in lab.of(ChildStopped)}
    assert kinds == {
        "good-1": ExitKind.SHUTDOWN,
        "raises-2": ExitKind.ERROR,
        "brutal-3": ExitKind.KILLED,
        "late-4": ExitKind.KILLED,
    }
    assert lab.starts["crashed"] == 1


# --- M5, M6 -----------------------------------------------------------------------------------------------------------


async def test_M5_a_child_is_stopped_by_any_pid_it_ever_had_or_by_its_id(lab: Any, settle: Any) -> None:
    async with lab.running_dynamic() as supervisor:
        old = await start(supervisor, lab.child("a"))
        lab.crash("a")
        await settle()
        assert not old.alive
        await supervisor.terminate_child(old)  # the one of the run before: not in Elixir
        assert ids(supervisor) == []
        await start(supervisor, lab.child("b"))
        await supervisor.terminate_child(supervisor.pid("b-2"))
        await start(supervisor, lab.child("c"))
        await supervisor.terminate_child("c-3")
        assert ids(supervisor) == []


async def test_M5_a_foreign_pid_or_one_of_an_earlier_run_is_not_found(lab: Any) -> None:
    other = DynamicSupervisor(name="dynamic_supervisor")
    async with other, lab.running_dynamic() as supervisor:
        foreign = await start(other, lab.child("w"))
        await start(supervisor, lab.child("w"))
        assert foreign.path == ("dynamic_supervisor", "w-1") == supervisor.pid("w-1").path
        for unknown in (foreign, "w-2", ""):
            with pytest.raises(ChildNotFound):
                await supervisor.terminate_child(unknown)
        assert foreign.alive
        assert ids(supervisor) == ["w-1"]
    async with other:
        await start(other, lab.child("w"))
        with pytest.raises(ChildNotFound):
            await other.terminate_child(foreign)


async def test_M6_a_full_supervisor_starts_nothing(lab: Any, settle: Any) -> None:
    async with lab.running_dynamic(max_children=2, backoff=PLAIN, max_seconds=100) as supervisor:
        a, _b = await start(supervisor, lab.child("a")), await start(supervisor, lab.child("b"))
        with pytest.raises(MaxChildrenReached) as caught:
            await supervisor.start_child(lab.child("c"))
        assert caught.value.max_children == 2
        assert lab.starts["c"] == 0
        lab.crash("a")
        await settle()
        assert supervisor.count_children().active == 1
        with pytest.raises(MaxChildrenReached):  # who waits for its restart keeps its slot
            await supervisor.start_child(lab.child("c"))
        await trio.sleep(2)
        with pytest.raises(MaxChildrenReached):  # and who came back has it
            await supervisor.start_child(lab.child("c"))
        await supervisor.terminate_child(a)
        await start(supervisor, lab.child("c"))


async def test_M6_a_cap_of_zero_refuses_all(lab: Any) -> None:
    async with lab.running_dynamic(max_children=0) as supervisor:
        with pytest.raises(MaxChildrenReached):
            await supervisor.start_child(lab.child("a"))
        assert lab.log == []


async def test_M4_neither_restart_child_nor_delete_child_exists() -> None:
    assert not hasattr(DynamicSupervisor, "restart_child")
    assert not hasattr(DynamicSupervisor, "delete_child")


async def test_M9_a_dynamic_supervisor_that_is_gone_says_so(lab: Any) -> None:
    supervisor = DynamicSupervisor()
    for request in (supervisor.start_child(lab.child("a")), supervisor.terminate_child("a")):
        with pytest.raises(SupervisorNotRunning):
            await request
