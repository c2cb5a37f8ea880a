"""Supervisors of children that come and go (row T12, and what rows R, S, F, I and E say of them)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import (
    ChildNotFound,
    ChildStartError,
    InvalidOption,
    RestartLimitExceeded,
    SupervisorNotRunning,
)
from layr8_actors.otp import (
    Actor,
    AutoShutdown,
    ChildCounts,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    Ignore,
    Restart,
    Shutdown,
)
from layr8_actors.otp.events import ChildEvent, ChildExited, LimitReached, RestartScheduled
from tests.otp.dynamic import PLAIN, ids, start

# --- T12 --------------------------------------------------------------------------------------------------------------


async def test_T12_one_spec_may_be_started_many_times_and_each_child_is_alone(lab: Any, settle: Any) -> None:
    spec = lab.child("w")
    async with lab.running_dynamic() as supervisor:
        pids = [await start(supervisor, spec) for _ in range(3)]
        assert [pid.handle for pid in pids] == ["w1", "w2", "w3"]
        assert ids(supervisor) == ["w-1", "w-2", "w-3"] == [pid.id for pid in pids]
        lab.crash("w")  # the lab lets the one started last crash
        await settle()
        assert [pid.alive for pid in pids] == [True, True, False]
        assert [child.incarnation for child in supervisor.which_children()] == [1, 1, 2]  # one_for_one
        assert supervisor.count_children() == ChildCounts(specs=3, active=3, supervisors=0, workers=3)


async def test_T12_each_actor_has_a_ref_of_its_own_which_follows_its_restarts(lab: Any, settle: Any) -> None:
    class Worker(Actor):
        async def handle_cast(self, message: Any) -> None:
            if message is None:
                raise ValueError
            lab.log.append((self.ref.id, message))

    spec = Worker.child_spec("worker")
    async with lab.running_dynamic() as supervisor:
        first, second = (await start(supervisor, spec)).handle, (await start(supervisor, spec)).handle
        assert first is not second
        first.cast_nowait(None)
        await settle()
        first.cast_nowait("a")
        second.cast_nowait("b")
        await settle()
        assert sorted(lab.log) == [("worker-1", "a"), ("worker-2", "b")]
        assert supervisor.whereis("worker-1") is first
        assert [child.incarnation for child in supervisor.which_children()] == [2, 1]


async def test_T12_an_id_is_never_used_twice(lab: Any) -> None:
    async with lab.running_dynamic() as supervisor:
        first = await start(supervisor, lab.child("w"))
        await supervisor.terminate_child(first)
        second = await start(supervisor, lab.child("w"))
        assert (first.id, second.id) == ("w-1", "w-2")
        with pytest.raises(ChildNotFound):
            await supervisor.terminate_child(first)
        assert second.alive


def test_T12_S4_it_has_neither_strategy_nor_auto_shutdown() -> None:
    options: list[dict[str, Any]] = [
        {"auto_shutdown": AutoShutdown.ANY_SIGNIFICANT},
        {"strategy": None},
        {"children": []},
    ]
    for option in options:
        with pytest.raises(TypeError):
            DynamicSupervisor(**option)


async def test_S4_it_refuses_a_significant_child_and_changes_nothing(lab: Any) -> None:
    async with lab.running_dynamic() as supervisor:
        with pytest.raises(InvalidOption, match="significant"):
            await supervisor.start_child(lab.child("a", restart=Restart.TEMPORARY, significant=True))
        assert ids(supervisor) == []


@pytest.mark.parametrize("value", [-1, 1.5, True, math.nan, "many"])
def test_S2_a_bad_max_children_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="max_children"):
        DynamicSupervisor(max_children=value)


# --- who stays in the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "comes_back"), [(None, False), (Shutdown(), False), (Shutdown("x"), False), (ValueError("odd"), True)]
)
async def test_C6_R4_a_transient_child_is_restarted_unless_it_ended_cleanly_and_is_forgotten_then(
    lab: Any, settle: Any, error: Exception | None, comes_back: bool
) -> None:
    async with lab.running_dynamic() as supervisor:
        pid = await start(supervisor, lab.child("a", restart=Restart.TRANSIENT))
        lab.end("a", error)
        assert (await pid.wait_exit()).error is error
        await settle()
        if comes_back:
            assert supervisor.which_children()[0].handle == "a2"
            assert supervisor.count_children() == ChildCounts(specs=1, active=1, supervisors=0, workers=1)
        else:
            assert supervisor.count_children() == ChildCounts(0, 0, 0, 0)
            with pytest.raises(ChildNotFound):
                supervisor.whereis("a-1")


async def test_R3_a_temporary_child_that_crashes_is_forgotten_and_disturbs_nobody(lab: Any, settle: Any) -> None:
    async with lab.running_dynamic(max_restarts=0) as supervisor:
        await start(supervisor, lab.child("a"))
        await start(supervisor, lab.child("t", restart=Restart.TEMPORARY))
        lab.crash("t")
        await settle()
        assert ids(supervisor) == ["a-1"]
        assert supervisor.restarts_used() == 0


async def test_R1_a_permanent_child_that_just_returns_comes_back(lab: Any, settle: Any) -> None:
    async with lab.running_dynamic() as supervisor:
        await start(supervisor, lab.child("a"))
        lab.end("a")
        await settle()
        assert supervisor.whereis("a-1") == "a2"


async def test_S7_ignore_drops_the_child_at_its_start_and_in_a_restart(lab: Any, settle: Any) -> None:
    runs: list[int] = []

    async def once(*, task_status: trio.TaskStatus[None]) -> None:
        runs.append(1)
        if len(runs) > 1:
            raise Ignore
        task_status.started()
        await trio.sleep(1)

    async def never(*, task_status: trio.TaskStatus[None]) -> None:
        raise Ignore

    async with lab.running_dynamic() as supervisor:
        assert await supervisor.start_child(ChildSpec("never", never)) is None
        assert ids(supervisor) == []
        pid = await start(supervisor, ChildSpec("once", once))
        await trio.sleep(2)
        assert ids(supervisor) == []
        assert (pid.alive, len(runs)) == (False, 2)


async def test_F3_terminate_during_the_wait_for_a_restart_removes_the_child(lab: Any) -> None:
    async with lab.running_dynamic(backoff=PLAIN, max_seconds=100) as supervisor:
        pid = await start(supervisor, lab.child("a"))
        lab.crash("a")
        await trio.sleep(0.5)
        assert supervisor.which_children()[0].state is ChildState.RESTARTING
        assert supervisor.count_children() == ChildCounts(specs=1, active=0, supervisors=0, workers=1)  # F5
        await supervisor.terminate_child(pid)
        assert ids(supervisor) == []
        await trio.sleep(10)
        assert lab.starts["a"] == 1


async def test_I4_I7_the_window_sums_over_all_and_giving_up_ends_it(lab: Any, settle: Any) -> None:
    with pytest.raises(RestartLimitExceeded) as caught:
        async with lab.running_dynamic(max_restarts=1, name="pool") as supervisor:
            for id in "ab":
                await start(supervisor, lab.child(id))
            lab.crash("a")
            await settle()
            lab.crash("b")
            await trio.sleep_forever()
    assert (caught.value.supervisor, caught.value.child_id) == ("pool", "b-2")
    assert [event.id for event in lab.of(LimitReached)] == ["b-2"]


async def test_I6_M1_a_start_that_fails_changes_nothing(lab: Any) -> None:
    async with lab.running_dynamic(max_restarts=0) as supervisor:
        await start(supervisor, lab.child("a"))
        lab.fail_starts["b"] = 1
        with pytest.raises(ChildStartError) as caught:
            await supervisor.start_child(lab.child("b"))
        assert isinstance(caught.value.__cause__, lab.Crash)
        assert ids(supervisor) == ["a-1"]
        assert supervisor.restarts_used() == 0


# --- the same in a tree ----------------------------------------------------------------------------------------------


async def test_E3_in_a_tree_a_restarted_one_begins_empty(lab: Any, settle: Any) -> None:
    pool = DynamicSupervisor(name="pool", max_restarts=0, on_event=lab.events.append)
    async with lab.running([pool.child_spec()], name="root") as root:
        await start(pool, lab.child("a"))
        lab.crash("a")
        await settle()
        assert root.restarts_used() == 1
        assert pool.which_children() == []
        assert isinstance(lab.of(ChildExited)[-1].error, RestartLimitExceeded)
        assert {event.path for event in lab.events if isinstance(event, ChildEvent)} == {"root", "root/pool"}


async def test_D10_a_start_that_the_stop_overtakes_is_refused_and_leaves_nothing(lab: Any, settle: Any) -> None:
    lab.start_delay["slow"] = 100
    supervisor = DynamicSupervisor(on_event=lab.events.append)
    refused: list[str] = []

    async def ask(id: str) -> None:
        with pytest.raises(SupervisorNotRunning):
            await supervisor.start_child(lab.child(id))
        refused.append(id)

    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for id in ("slow", "queued"):
            nursery.start_soon(ask, id)
            await settle()
        await supervisor.stop()
    assert sorted(refused) == ["queued", "slow"]
    assert trio.current_time() == 0
    assert not any(lab.live.values())


async def test_T7_a_hot_crash_loop_ends_with_the_window_and_starves_nobody(lab: Any) -> None:
    async def hot(runs: list[int], *, task_status: trio.TaskStatus[None]) -> None:
        runs.append(1)
        task_status.started()

    runs: list[int] = []
    with pytest.raises(RestartLimitExceeded):
        async with lab.running_dynamic(max_restarts=50) as supervisor:
            await start(supervisor, ChildSpec("hot", partial(hot, runs)))
            await trio.sleep_forever()
    assert len(runs) == 51
    assert len(lab.of(RestartScheduled)) == 50
