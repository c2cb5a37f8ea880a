"""A stop that is bounded as a whole, and children that will not end (rows D6 and D11, on both kinds of supervisors)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import InvalidOption
from layr8_actors.otp import (
    Actor,
    Backoff,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    ExitKind,
    ExitReason,
    Strategy,
    Supervisor,
)
from layr8_actors.otp.events import ChildStopped, StopTimeout, SupervisorStopped


class Slow(Actor):
    def __init__(self, log: list[str], name: str, cleanup: float) -> None:
        self.log = log
        self.name = name
        self.cleanup = cleanup

    async def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"terminate {self.name}")
        await trio.sleep(self.cleanup)
        self.log.append(f"terminated {self.name}")


def slow(lab: Any, name: str, cleanup: float, shutdown: float = math.inf) -> ChildSpec:
    return Slow.child_spec(name, lab.log, name, cleanup, shutdown=shutdown)


async def stubborn(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_D11_what_the_deadline_finds_is_cut_short_in_order_with_no_task_left(lab: Any, how: str) -> None:
    supervisor = lab.supervisor([slow(lab, name, 4.0) for name in "abc"], shutdown_deadline=6)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            if how == "stop":
                await supervisor.stop()
            else:
                scope.cancel()
    assert scope.cancelled_caught is (how == "cancel")
    assert trio.current_time() == 6
    # c had its 4 s, b the 2 s that were left, a was killed before its turn: OTP's order all the same.
    assert lab.log == ["terminate c", "terminated c", "terminate b"]
    assert [(event.id, event.reason.kind) for event in lab.of(ChildStopped)] == [
        ("c", ExitKind.SHUTDOWN),
        ("b", ExitKind.KILLED),
        ("a", ExitKind.KILLED),
    ]
    assert lab.of(SupervisorStopped)[0].reason.kind is ExitKind.SHUTDOWN


async def test_D11_a_stop_within_the_deadline_is_not_touched_by_it(lab: Any) -> None:
    async with lab.running([slow(lab, name, 1.0) for name in "abc"], shutdown_deadline=3.5):
        pass
    assert trio.current_time() == 3
    assert {event.reason.kind for event in lab.of(ChildStopped)} == {ExitKind.SHUTDOWN}


async def test_D11_the_grace_of_a_child_still_counts_below_the_deadline(lab: Any) -> None:
    async with lab.running([slow(lab, "a", 9.0), slow(lab, "b", 9.0, shutdown=1.0)], shutdown_deadline=4):
        pass
    assert [(event.id, event.at) for event in lab.of(ChildStopped)] == [("b", 1), ("a", 4)]


async def test_D11_a_deadline_of_zero_gives_nobody_any_time(lab: Any) -> None:
    async with lab.running([slow(lab, name, 9.0) for name in "ab"], shutdown_deadline=0):
        pass
    assert trio.current_time() == 0
    assert {event.reason.kind for event in lab.of(ChildStopped)} == {ExitKind.KILLED}


async def test_D11_it_bounds_the_whole_tree_below_it(lab: Any) -> None:
    inner = lab.supervisor([slow(lab, name, 100.0) for name in "xyz"], name="inner")
    pool = DynamicSupervisor(name="pool")
    async with lab.running([inner.child_spec(), pool.child_spec()], shutdown_deadline=5) as supervisor:
        for name in "pq":
            await pool.start_child(slow(lab, name, 100.0))
        await supervisor.stop()
        assert trio.current_time() == 5
        assert not inner.running
        assert not pool.running
    assert sorted(lab.log) == ["terminate p", "terminate q"]  # the pool stops first, so the rest had no turn


async def test_D11_a_dynamic_supervisor_has_one_too(lab: Any) -> None:
    async with lab.running_dynamic(shutdown_deadline=5) as supervisor:
        for name, cleanup in (("a", 1.0), ("b", 100.0), ("c", 3.0)):
            await supervisor.start_child(slow(lab, name, cleanup))
    assert trio.current_time() == 5
    assert {event.id: event.reason.kind for event in lab.of(ChildStopped)} == {
        "a-1": ExitKind.SHUTDOWN,
        "b-2": ExitKind.KILLED,
        "c-3": ExitKind.SHUTDOWN,
    }


async def test_D6_D11_who_shields_itself_outlives_the_deadline_reported_and_not_abandoned(lab: Any) -> None:
    specs = [lab.child("a"), ChildSpec("stubborn", partial(stubborn, 20.0), shutdown=4.0), slow(lab, "c", 1.0)]
    async with lab.running(specs, shutdown_deadline=2) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == 20
    # Killed at 2, then reported once per grace.
    assert [(event.id, event.waited) for event in lab.of(StopTimeout)] == [
        ("stubborn", 5),
        ("stubborn", 9),
        ("stubborn", 13),
        ("stubborn", 17),
    ]
    assert lab.log[-1] == "stop a"


async def test_D6_in_a_parallel_stop_each_stubborn_child_is_reported_by_its_own_grace(lab: Any) -> None:
    async with lab.running_dynamic() as supervisor:
        for seconds, grace in ((9.5, 2.0), (7.0, 3.0), (1.0, 5.0)):
            await supervisor.start_child(ChildSpec("s", partial(stubborn, seconds), shutdown=grace))
        await supervisor.stop()
        assert trio.current_time() == 9.5
    reports = sorted((event.at, event.id) for event in lab.of(StopTimeout))
    assert reports == [(4, "s-1"), (6, "s-1"), (6, "s-2"), (8, "s-1")]
    assert all("in stubborn" in "".join(event.stack) for event in lab.of(StopTimeout))
    kinds = {event.id: event.reason.kind for event in lab.of(ChildStopped)}
    assert kinds == {"s-1": ExitKind.KILLED, "s-2": ExitKind.KILLED, "s-3": ExitKind.SHUTDOWN}


async def test_D6_D3_who_is_killed_at_the_end_of_its_grace_and_goes_is_not_reported_as_stuck(make_lab: Any) -> None:
    """The actor's own time for terminate and the grace end in one instant, and Trio draws lots for who is first."""
    for _ in range(30):
        lab = make_lab()
        async with lab.running([slow(lab, name, 100.0, shutdown=1.0) for name in "abc"], parallel_shutdown=True):
            await trio.sleep(1)
        assert {event.reason.kind for event in lab.of(ChildStopped)} == {ExitKind.KILLED}
        assert not lab.of(StopTimeout)


async def test_D6_the_stack_shows_the_tasks_of_a_child_down_to_its_helpers(lab: Any) -> None:
    async def crowd(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(stubborn, 3.0, task_status=trio.TASK_STATUS_IGNORED), name="the helper")
            task_status.started()

    async with lab.running([ChildSpec("crowd", crowd, shutdown=1.0)]) as supervisor:
        await trio.sleep(0.5)
        await supervisor.stop()
    (report,) = lab.of(StopTimeout)
    assert [line for line in report.stack if line.startswith("task ")] == ["task supervisor/crowd", "task the helper"]


async def test_C14_stopping_still_works_with_hung_services(lab: Any) -> None:
    """suture: a service that never answers the stop holds up neither the stop of the others nor the report of it."""
    async with lab.running_dynamic() as supervisor:
        for spec in (lab.child("good"), ChildSpec("hung", partial(stubborn, 60.0), shutdown=10.0), lab.child("fine")):
            await supervisor.start_child(spec)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop)
            await trio.sleep(1)
            assert sorted(lab.log[-2:]) == ["stop fine", "stop good"]
            await trio.sleep(25)
            assert [event.id for event in lab.of(StopTimeout)] == ["hung-2"]
            assert supervisor.running  # suture gives it up, we never do
    assert trio.current_time() == 60


@pytest.mark.parametrize("value", [-1, math.nan, True, "5"])
def test_S2_D11_a_bad_deadline_is_refused(value: Any) -> None:
    for kind in (Supervisor, DynamicSupervisor):
        with pytest.raises(InvalidOption, match="shutdown_deadline"):
            kind(shutdown_deadline=value)


async def test_D8_a_supervisor_says_that_it_is_stopping(lab: Any) -> None:
    lab.cleanup["a"] = 2
    supervisor = lab.supervisor(lab.children("a"))
    assert not supervisor.stopping
    async with supervisor:
        assert not supervisor.stopping
        supervisor.request_stop()
        assert supervisor.stopping
        await trio.sleep(1)
        assert supervisor.running
        assert supervisor.stopping
    assert not supervisor.stopping


async def test_B9_D8_a_stop_while_a_restart_still_stops_a_sibling_starts_nothing_any_more(lab: Any) -> None:
    """A child added during the wait of its group is stopped when the wait is over, and the group is started then."""
    lab.cleanup["b"] = 4
    options = {"strategy": Strategy.ONE_FOR_ALL, "backoff": Backoff(initial=1, jitter=0), "max_seconds": 100}
    async with lab.running(lab.children("a"), **options) as supervisor:
        lab.crash("a")
        await trio.sleep(0.5)
        await supervisor.start_child(lab.child("b"))
        lab.start_delay["a"] = 20
        await trio.sleep(1)
        assert supervisor.which_children()[1].state is ChildState.STOPPING
        await supervisor.stop()
        assert lab.starts == {"a": 1, "b": 1}
        assert trio.current_time() == 5  # when b is gone
