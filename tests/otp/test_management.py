"""Management calls (rows M) and the drawing of a tree."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints

from layr8_actors.errors import (
    ActorNotRunning,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartError,
    SupervisorNotRunning,
)
from layr8_actors.otp import Actor, Backoff, ChildCounts, ChildState, ChildType, Restart, Strategy, format_tree

PLAIN = Backoff(initial=1, jitter=0)


async def test_C3_child_adm(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor([])
    for request in (supervisor.start_child(lab.child("x")), supervisor.terminate_child("x")):
        with pytest.raises(SupervisorNotRunning):
            await request
    async with lab.running([lab.child("a")]) as supervisor:
        with pytest.raises(ChildAlreadyStarted) as started:
            await supervisor.start_child(lab.child("a"))
        assert started.value.handle == "a1"
        for forbidden in (supervisor.restart_child, supervisor.delete_child):
            with pytest.raises(ChildRunning):
                await forbidden("a")
        for request in (supervisor.restart_child, supervisor.delete_child, supervisor.terminate_child):
            with pytest.raises(ChildNotFound):
                await request("nobody")
        with pytest.raises(ChildNotFound):
            supervisor.whereis("nobody")
        assert supervisor.count_children() == ChildCounts(specs=1, active=1, supervisors=0, workers=1)

        await supervisor.terminate_child("a")
        await supervisor.terminate_child("a")  # M3: idempotent
        assert supervisor.count_children() == ChildCounts(specs=1, active=0, supervisors=0, workers=1)
        with pytest.raises(ActorNotRunning, match="stopped"):
            supervisor.whereis("a")
        with pytest.raises(ChildAlreadyPresent):
            await supervisor.start_child(lab.child("a"))
        assert await supervisor.restart_child("a") == "a2"
        assert supervisor.whereis("a") == "a2"

        await supervisor.terminate_child("a")
        await supervisor.delete_child("a")
        assert supervisor.count_children() == ChildCounts(0, 0, 0, 0)
        with pytest.raises(ChildNotFound):
            await supervisor.delete_child("a")
        assert await supervisor.start_child(lab.child("a")) == "a3"
        assert supervisor.restarts_used() == 0
    for call in (supervisor.which_children, supervisor.count_children, supervisor.restarts_used):
        with pytest.raises(SupervisorNotRunning):
            call()


async def test_M1_a_child_that_does_not_start_is_not_added_and_disturbs_nobody(lab: Any) -> None:
    lab.fail_starts["b"] = 1
    async with lab.running(lab.children("a"), max_restarts=0) as supervisor:
        with pytest.raises(ChildStartError) as caught:
            await supervisor.start_child(lab.child("b"))
        assert isinstance(caught.value.__cause__, lab.Crash)
        assert [child.id for child in supervisor.which_children()] == ["a"]
        assert supervisor.restarts_used() == 0
        assert await supervisor.start_child(lab.child("b")) == "b2"


async def test_M1_a_cancelled_caller_does_not_cancel_the_start(lab: Any) -> None:
    lab.start_delay["b"] = 10
    async with lab.running(lab.children("a")) as supervisor:
        with trio.move_on_after(1) as scope:
            await supervisor.start_child(lab.child("b"))
        assert scope.cancelled_caught
        assert supervisor.which_children()[1].state is ChildState.STARTING
        await trio.sleep(10)
        assert supervisor.whereis("b") == "b1"


async def test_M3_a_temporary_child_that_is_terminated_is_dropped(lab: Any) -> None:
    async with lab.running([lab.child("a", restart=Restart.TEMPORARY)]) as supervisor:
        await supervisor.terminate_child("a")
        with pytest.raises(ChildNotFound):
            await supervisor.terminate_child("a")


async def test_M4_a_restart_by_hand_that_fails_leaves_the_child_stopped(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("ab"), strategy=Strategy.ONE_FOR_ALL) as supervisor:
        await supervisor.terminate_child("b")
        lab.fail_starts["b"] = 1
        with pytest.raises(ChildStartError):
            await supervisor.restart_child("b")
        assert supervisor.which_children()[1].state is ChildState.STOPPED
        lab.crash("a")
        await settle()
        assert lab.starts == {"a": 2, "b": 2}  # and it is still stopped by hand


async def test_M4_F5_a_child_that_waits_for_its_restart_can_only_be_terminated(lab: Any) -> None:
    async with lab.running(lab.children("a"), backoff=PLAIN, max_seconds=100) as supervisor:
        lab.crash("a")
        await trio.sleep(0.5)
        for forbidden in (supervisor.restart_child, supervisor.delete_child):
            with pytest.raises(ChildRestarting):
                await forbidden("a")
        with pytest.raises(ChildAlreadyPresent):
            await supervisor.start_child(lab.child("a"))


async def test_M7_children_are_listed_in_start_order_with_what_is_known_of_them(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("x"), name="inner")
    async with lab.running([lab.child("b"), inner.child_spec(), lab.child("a")]) as supervisor:
        await trio.sleep(2)
        lab.crash("a")
        await settle()
        b, sub, a = supervisor.which_children()
        assert (b.id, b.handle, b.state, b.incarnation, b.restarts) == ("b", "b1", ChildState.RUNNING, 1, 0)
        assert (b.started_at, b.next_restart_at, b.last_exit) == (0, None, None)
        assert (sub.id, sub.handle, sub.type) == ("inner", inner, ChildType.SUPERVISOR)
        assert (a.incarnation, a.restarts, a.started_at, a.handle) == (2, 1, 2, "a2")
        assert str(a.last_exit) == "error: Crash('a')"
        assert supervisor.count_children() == ChildCounts(specs=3, active=3, supervisors=1, workers=2)


async def test_M8_reading_never_waits_for_a_child_that_starts_or_stops(lab: Any) -> None:
    lab.start_delay["b"] = 10
    lab.cleanup["a"] = 10
    async with lab.running(lab.children("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.start_child, lab.child("b"))
            await trio.sleep(1)
            with assert_no_checkpoints():
                assert [child.state.value for child in supervisor.which_children()] == ["running", "starting"]
            nursery.start_soon(supervisor.terminate_child, "a")
            await trio.sleep(10)
            with assert_no_checkpoints():
                assert [child.state.value for child in supervisor.which_children()] == ["stopping", "running"]
            assert supervisor.count_children().active == 2


async def test_management_calls_checkpoint(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        with assert_checkpoints():
            await supervisor.terminate_child("a")
        with assert_checkpoints():
            await supervisor.restart_child("a")


async def test_a_child_may_manage_its_siblings(lab: Any) -> None:
    class Boss(Actor):
        async def handle_cast(self, message: Any) -> None:
            lab.log.append(await supervisor.start_child(lab.child("b")))
            await supervisor.terminate_child("a")
            await supervisor.terminate_child("boss")

    async with lab.running([lab.child("a"), Boss.child_spec("boss")]) as supervisor:
        await supervisor.whereis("boss").cast("go")
        await trio.sleep(1)
        assert [child.state.value for child in supervisor.which_children()] == ["stopped", "stopped", "running"]


async def test_format_tree_draws_the_live_tree(lab: Any, settle: Any) -> None:
    inner = lab.supervisor(lab.children("xy"), name="inner", strategy=Strategy.REST_FOR_ONE)
    specs = [lab.child("first"), inner.child_spec(), lab.child("last")]
    async with lab.running(specs, name="root") as supervisor:
        lab.crash("x")
        await supervisor.terminate_child("last")
        await settle()
        assert format_tree(supervisor).splitlines() == [
            "root  one_for_one  restarts 0/3 in 5 s",
            "├─ first  running     incarnation 1  restarts 0",
            "├─ inner  running     incarnation 1  restarts 0  rest_for_one 1/3 in 5 s",
            "│  ├─ x  running     incarnation 2  restarts 1  last exit error: Crash('x')",
            "│  └─ y  running     incarnation 2  restarts 1  last exit shutdown",
            "└─ last   stopped     incarnation 1  restarts 0  last exit shutdown",
        ]
    assert format_tree(supervisor) == "root  not running"
