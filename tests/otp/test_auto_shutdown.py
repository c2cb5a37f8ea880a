"""Significant children and the supervisors that end with them (rows A, E2, and S4 for what is allowed)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from layr8_actors.errors import RestartLimitExceeded
from layr8_actors.otp import AutoShutdown, Backoff, ChildState, ExitKind, Restart, Strategy, Supervisor
from layr8_actors.otp.events import ChildExited, ChildStopped, RestartScheduled, SupervisorStopped

ANY = {"auto_shutdown": AutoShutdown.ANY_SIGNIFICANT}
ALL = {"auto_shutdown": AutoShutdown.ALL_SIGNIFICANT}


def significant(lab: Any, id: str, restart: Restart = Restart.TEMPORARY) -> Any:
    return lab.child(id, restart=restart, significant=True)


@pytest.mark.parametrize("auto_shutdown", [AutoShutdown.ANY_SIGNIFICANT, AutoShutdown.ALL_SIGNIFICANT])
async def test_A1_A2_the_end_of_the_only_significant_child_ends_the_supervisor_in_reverse_and_cleanly(
    lab: Any, auto_shutdown: AutoShutdown
) -> None:
    specs = [lab.child("a"), significant(lab, "main", Restart.TRANSIENT), lab.child("b")]
    supervisor = lab.supervisor(specs, auto_shutdown=auto_shutdown)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(1)
        lab.end("main")
    # run returned normally, and nobody had asked for it
    assert lab.log[3:] == ["stop main", "stop b", "stop a"]
    assert trio.current_time() == 1
    assert lab.of(SupervisorStopped)[0].reason.kind is ExitKind.SHUTDOWN
    assert not supervisor.running


async def test_A1_any_the_first_of_several_is_enough(lab: Any) -> None:
    supervisor = lab.supervisor([significant(lab, id) for id in "xyz"], **ANY)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.end("y")
    assert lab.log[3:] == ["stop y", "stop z", "stop x"]


async def test_A1_the_end_of_a_child_that_is_not_significant_means_nothing(lab: Any, settle: Any) -> None:
    async with lab.running([significant(lab, "x"), lab.child("b", restart=Restart.TEMPORARY)], **ANY) as supervisor:
        lab.end("b")
        await settle()
        assert supervisor.running
        assert [child.id for child in supervisor.which_children()] == ["x"]


async def test_A2_all_the_last_one_counts_and_one_that_waits_for_its_restart_has_not_ended(
    lab: Any, settle: Any
) -> None:
    specs = [significant(lab, "x", Restart.TRANSIENT), significant(lab, "y"), lab.child("other")]
    supervisor = lab.supervisor(specs, backoff=Backoff(initial=5, jitter=0), max_seconds=100, **ALL)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.crash("x")
        await settle()
        lab.end("y")
        await settle()
        assert supervisor.running
        assert supervisor.which_children()[0].state is ChildState.RESTARTING
        await trio.sleep(6)
        assert lab.starts["x"] == 2
        lab.end("x")
    assert trio.current_time() == 6
    assert not supervisor.running


async def test_A2_two_that_end_in_one_instant_end_it_once(lab: Any) -> None:
    supervisor = lab.supervisor([significant(lab, "x"), significant(lab, "y"), lab.child("b")], **ALL)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.end("x")
        lab.end("y")
    assert len(lab.of(SupervisorStopped)) == 1
    assert lab.log[-1] == "stop b"


@pytest.mark.parametrize("flags", [ANY, ALL], ids=["any", "all"])
async def test_A3_a_crash_of_a_transient_one_is_a_restart_and_of_a_temporary_one_an_end(
    lab: Any, settle: Any, flags: dict[str, Any]
) -> None:
    specs = [significant(lab, "transient", Restart.TRANSIENT), lab.child("b")]
    async with lab.running(specs, **flags) as supervisor:
        lab.crash("transient")
        await settle()
        assert lab.starts == {"transient": 2, "b": 1}
        assert supervisor.running
    lab.took()
    supervisor = lab.supervisor([significant(lab, "temporary"), lab.child("b")], **flags)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.crash("temporary")
    assert lab.took()[2:] == ["stop temporary", "stop b"]
    assert [event.id for event in lab.of(ChildExited) if type(event) is ChildExited] == ["transient", "temporary"]


async def test_A4_being_stopped_by_hand_or_with_its_group_does_not_end_it(lab: Any, settle: Any) -> None:
    specs = [lab.child("a"), significant(lab, "x"), significant(lab, "y", Restart.TRANSIENT)]
    async with lab.running(specs, strategy=Strategy.ONE_FOR_ALL, **ANY) as supervisor:
        await supervisor.terminate_child("y")
        await settle()
        assert supervisor.running
        await supervisor.restart_child("y")
        lab.crash("a")
        await settle()
        assert supervisor.running
        assert [child.id for child in supervisor.which_children()] == ["a", "y"]  # T4: the temporary one is gone
        assert lab.starts == {"a": 2, "x": 1, "y": 3}


async def test_A4_all_who_is_stopped_by_hand_counts_as_ended_once_another_one_ends(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor([significant(lab, "x", Restart.TRANSIENT), significant(lab, "y")], **ALL)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.terminate_child("x")
        await settle()
        assert supervisor.running
        lab.end("y")
    assert not supervisor.running


@pytest.mark.parametrize("climbs", [True, False])
async def test_A5_C8_significant_escalation(lab: Any, settle: Any, climbs: bool) -> None:
    inner = lab.supervisor([lab.child("z"), significant(lab, "x")], name="inner", **ANY)
    below = inner.child_spec(restart=Restart.TRANSIENT, significant=climbs)
    outer = lab.supervisor([lab.child("a"), below, lab.child("b")], name="outer", max_restarts=0, **ANY)
    async with trio.open_nursery() as nursery:
        await nursery.start(outer.run)
        lab.took()
        lab.end("x")
        await settle()
        assert not inner.running
        assert outer.running is not climbs
        if not climbs:
            assert outer.which_children()[1].state is ChildState.STOPPED  # E2: a clean end, not restarted
            assert outer.which_children()[1].last_exit.clean
            await outer.stop()
    assert lab.took() == ["stop x", "stop z", "stop b", "stop a"]


async def test_E2_a_permanent_supervisor_that_ended_by_itself_is_restarted(lab: Any, settle: Any) -> None:
    inner = lab.supervisor([significant(lab, "x")], name="inner", **ANY)
    async with lab.running([inner.child_spec()]) as outer:
        lab.end("x")
        await settle()
        assert lab.starts["x"] == 2
        assert outer.restarts_used() == 1


async def test_A1_one_that_ends_while_a_later_child_starts_ends_it_afterwards(lab: Any) -> None:
    lab.start_delay["slow"] = 3
    supervisor = lab.supervisor([significant(lab, "x"), lab.child("slow")], **ANY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        lab.end("x")
    assert lab.log == ["start x", "start slow", "stop x", "stop slow"]
    assert trio.current_time() == 3


async def test_A1_a_significant_child_added_by_hand_counts(lab: Any) -> None:
    supervisor = lab.supervisor([lab.child("a")], **ANY)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await supervisor.start_child(significant(lab, "x"))
        lab.end("x")
    assert lab.log[2:] == ["stop x", "stop a"]


@pytest.mark.parametrize("rival", ["stop", "cancel", "crash", "limit"])
async def test_A1_in_one_instant_with_another_reason_to_end_it_ends_once_and_leaves_nothing(
    lab: Any, settle: Any, rival: str
) -> None:
    lab.cleanup["a"] = 2
    specs = [lab.child("a"), significant(lab, "x"), lab.child("c")]
    supervisor = lab.supervisor(specs, max_restarts=0 if rival == "limit" else 3, **ANY)
    failures: list[Exception] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[Any]) -> None:
                try:
                    await supervisor.run(task_status=task_status)
                except RestartLimitExceeded as error:
                    failures.append(error)

            await nursery.start(run)
            lab.end("x")
            if rival == "stop":
                supervisor.request_stop()
            elif rival == "cancel":
                scope.cancel()
            else:
                lab.crash("c")
    assert scope.cancelled_caught is (rival == "cancel")
    assert sorted(lab.log[3:]) == ["stop a", "stop c", "stop x"]
    assert lab.log[-1] == "stop a"
    assert trio.current_time() == 2
    assert len(failures) <= (1 if rival == "limit" else 0)
    assert lab.starts["x"] == lab.starts["a"] == 1
    assert len(lab.of(SupervisorStopped)) == 1
    assert len([event for event in lab.of(ChildStopped) if event.id == "a"]) == 1


async def test_A1_a_block_ends_with_it_and_without_an_error(lab: Any) -> None:
    after = "not reached"
    async with lab.supervisor([significant(lab, "x")], **ANY):
        lab.end("x")
        await trio.sleep(math.inf)
        after = "reached"
    assert after == "not reached"


async def test_A1_a_block_whose_stop_was_asked_for_goes_on(lab: Any) -> None:
    async with lab.supervisor([significant(lab, "x")], **ANY) as supervisor:
        await supervisor.stop()
        await trio.sleep(1)
    assert trio.current_time() == 1


async def test_A1_nothing_is_restarted_while_it_ends(lab: Any) -> None:
    lab.cleanup["b"] = 5
    supervisor: Supervisor = lab.supervisor([lab.child("a"), significant(lab, "x"), lab.child("b")], **ANY)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        lab.end("x")
        await trio.sleep(1)
        lab.crash("a")
    assert lab.starts == {"a": 1, "x": 1, "b": 1}
    assert not lab.of(RestartScheduled)
