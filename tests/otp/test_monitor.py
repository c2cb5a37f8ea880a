"""Pids, waits for an end and monitors (rows L)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints

from layr8_actors.errors import ActorNotRunning, ChildNotFound, SupervisionError, SupervisorNotRunning
from layr8_actors.otp import Actor, ActorRef, Backoff, Down, ExitKind, ExitReason, Monitor, Pid, Restart
from layr8_actors.otp.events import ChildExited


class Watcher(Actor):
    """Keeps what it is told, and does what it is told."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, float):
            await trio.sleep(message)
        elif callable(message):
            await message(self)
        elif isinstance(message, Exception):
            raise message
        else:
            self.log.append(message)

    async def handle_down(self, down: Down) -> None:
        self.log.append((down.id, down.reason.kind.value, trio.current_time()))


def watch(target: ActorRef | Pid, monitors: list[Monitor] | None = None) -> Callable[[Actor], Awaitable[None]]:
    async def act(actor: Actor) -> None:
        monitor = actor.monitor(target)
        if monitors is not None:
            monitors.append(monitor)

    return act


# --- L1: the end of a run ---------------------------------------------------------------------------------------------


async def test_L1_wait_exit_gives_the_reason_to_many_also_after_the_end(lab: Any, settle: Any) -> None:
    error = ValueError("crash")
    reasons: list[ExitReason] = []

    async def wait(pid: Pid) -> None:
        reasons.append(await pid.wait_exit())

    async with lab.running([lab.child("a"), lab.child("b", restart=Restart.TEMPORARY)]) as supervisor:
        pid = supervisor.pid("b")
        assert (pid.id, pid.path, pid.incarnation, pid.handle, pid.reason) == ("b", ("supervisor", "b"), 1, "b1", None)
        assert repr(pid) == "<Pid supervisor/b #1 alive>"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, pid)
            nursery.start_soon(wait, pid)
            await settle()
            lab.end("b", error)
        with assert_checkpoints():
            await wait(pid)
        assert reasons == [ExitReason(ExitKind.ERROR, error)] * 3
        assert repr(pid) == "<Pid supervisor/b #1 error: ValueError('crash')>"
        assert not pid.alive
    assert (await pid.wait_exit()).error is error


async def test_L1_a_cancelled_wait_changes_nothing(lab: Any, settle: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        pid = supervisor.pid("a")
        with trio.move_on_after(1) as scope:
            await pid.wait_exit()
        assert scope.cancelled_caught
        await supervisor.terminate_child("a")
        assert (await pid.wait_exit()).kind is ExitKind.SHUTDOWN


async def test_L1_the_run_is_over_only_when_its_cleanup_is(lab: Any) -> None:
    lab.cleanup["a"] = 3
    async with lab.running(lab.children("a")) as supervisor:
        pid = supervisor.pid("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.terminate_child, "a")
            assert (await pid.wait_exit()).kind is ExitKind.SHUTDOWN
            assert trio.current_time() == 3


async def test_L1_a_pid_of_what_does_not_run_is_refused(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        await supervisor.terminate_child("a")
        with pytest.raises(ActorNotRunning):
            supervisor.pid("a")
        with pytest.raises(ChildNotFound):
            supervisor.pid("nobody")
    with pytest.raises(SupervisorNotRunning):
        supervisor.pid("a")


async def test_L1_a_pid_may_be_had_while_the_child_starts(lab: Any, settle: Any) -> None:
    lab.start_delay["b"] = 2
    async with lab.running(lab.children("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.start_child, lab.child("b"))
            await settle()
            pid = supervisor.pid("b")
            assert pid.handle is None
        assert pid.handle == "b1"
        assert supervisor.pid("b") is pid


@pytest.mark.parametrize(
    ("how", "kind"), [("crash", "error"), ("stop", "shutdown"), ("kill", "killed"), ("normal", "normal")]
)
async def test_L1_a_monitor_tells_of_one_end_exactly_once(lab: Any, settle: Any, how: str, kind: str) -> None:
    target = ActorRef("target")
    specs = [Watcher.child_spec(target, []), Watcher.child_spec("watcher", lab.log)]
    async with lab.running(specs) as supervisor:
        monitors: list[Monitor] = []
        supervisor.whereis("watcher").cast_nowait(watch(target, monitors))
        await settle()
        assert monitors[0].active
        assert monitors[0].pid is target.pid is supervisor.pid("target")
        await trio.sleep(1)
        if how == "crash":
            target.cast_nowait(ValueError())
        elif how == "stop":
            await supervisor.terminate_child("target")
        elif how == "kill":
            supervisor.exit_child("target")
        else:
            await target.stop()
        await settle()
        assert lab.log == [("target", kind, 1.0)]
        assert not monitors[0].active
        if how == "stop":
            await supervisor.restart_child("target")
        supervisor.exit_child("target")  # of the next run nobody asked
        await settle()
        assert len(lab.log) == 1


async def test_L1_each_monitor_is_told(lab: Any, settle: Any) -> None:
    target = ActorRef("target")
    async with lab.running([Watcher.child_spec(target, []), Watcher.child_spec("w", lab.log)]) as supervisor:
        for _ in range(3):
            supervisor.whereis("w").cast_nowait(watch(target))
        await settle()
        supervisor.exit_child("target")
        await settle()
        assert lab.log == [("target", "killed", 0.0)] * 3


async def test_L1_the_end_of_what_is_over_already_is_told_at_once(lab: Any, settle: Any) -> None:
    dead, never = ActorRef("dead"), ActorRef("never")
    downs: list[Down] = []

    class Keeps(Watcher):
        async def handle_down(self, down: Down) -> None:
            downs.append(down)

    specs = [Watcher.child_spec(dead, [], restart=Restart.TEMPORARY), Keeps.child_spec("w", lab.log)]
    async with lab.running(specs) as supervisor:
        pid = supervisor.pid("dead")
        error = ValueError()
        dead.cast_nowait(error)
        await settle()
        watcher = supervisor.whereis("w")
        for target in (pid, dead, never):
            watcher.cast_nowait(watch(target))
        await settle()
        assert [(down.id, down.reason.kind, down.pid) for down in downs] == [
            ("dead", ExitKind.ERROR, pid),  # by its pid: how that run ended
            ("dead", ExitKind.NOPROC, None),  # by its ref: nobody runs
            ("never", ExitKind.NOPROC, None),
        ]
        assert downs[0].reason.error is error
        assert trio.current_time() == 0


async def test_L1_a_pid_of_an_actor_without_a_supervisor_knows_its_end_too(settle: Any) -> None:
    ref = ActorRef("alone")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: Watcher.child_spec(ref, []).start(task_status=task_status))
        pid = ref.pid
        assert pid is not None
        assert pid is ref.pid
        assert (pid.path, pid.incarnation, pid.handle) == (("alone",), 1, ref)
        await ref.stop()
        assert (await pid.wait_exit()).kind is ExitKind.NORMAL
    assert ref.pid is None


# --- L2: order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 3, 100])
async def test_L2_the_end_is_told_behind_all_that_the_dead_had_sent_past_the_bound_of_the_mailbox(
    lab: Any, settle: Any, capacity: int
) -> None:
    watcher = ActorRef("w", mailbox_capacity=capacity)
    target = ActorRef("target")

    async def send_and_die(actor: Actor) -> None:
        for number in range(capacity):
            watcher.cast_nowait(number)
        raise ValueError

    async with lab.running([Watcher.child_spec(watcher, lab.log), Watcher.child_spec(target, [])]):
        watcher.cast_nowait(watch(target))
        await settle()
        watcher.cast_nowait(1.0)  # it is busy while all this happens
        await settle()
        target.cast_nowait(send_and_die)
        await settle()
        assert watcher.statistics().depth == capacity  # full, and the end is on its way all the same
        await trio.sleep(0.5)
        blocked: list[bool] = []

        async def later() -> None:
            blocked.append(await watcher.cast("later"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
        await settle()
        assert lab.log == [*range(capacity), ("target", "error", 1.0), "later"]
        assert blocked == [True]


async def test_L2_the_ends_of_many_are_told_in_their_order_each_in_its_place(lab: Any, settle: Any) -> None:
    targets = [ActorRef(f"t{number}") for number in range(3)]
    specs = [Watcher.child_spec(target, [], restart=Restart.TEMPORARY) for target in targets]
    async with lab.running([*specs, Watcher.child_spec("w", lab.log)]) as supervisor:
        watcher = supervisor.whereis("w")
        for target in targets:
            watcher.cast_nowait(watch(target))
        watcher.cast_nowait(1.0)
        await settle()
        for target in targets:
            watcher.cast_nowait(f"before {target.id}")
            await target.stop()
        watcher.cast_nowait("last")
        await trio.sleep(2)
        assert lab.log == [
            "before t0",
            ("t0", "normal", 1.0),
            "before t1",
            ("t1", "normal", 1.0),
            "before t2",
            ("t2", "normal", 1.0),
            "last",
        ]


# --- L3: enough -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "queued", "after"])
async def test_L3_a_monitor_that_is_cancelled_tells_nothing_any_more(lab: Any, settle: Any, when: str) -> None:
    target = ActorRef("target")
    monitors: list[Monitor] = []
    async with lab.running([Watcher.child_spec(target, []), Watcher.child_spec("w", lab.log)]) as supervisor:
        watcher = supervisor.whereis("w")
        watcher.cast_nowait(watch(target, monitors))
        await settle()
        if when == "before":
            with assert_no_checkpoints():
                monitors[0].cancel()
        watcher.cast_nowait(1.0)
        await settle()
        supervisor.exit_child("target")
        await settle()
        if when == "queued":
            monitors[0].cancel()
            monitors[0].cancel()  # idempotent
        await trio.sleep(2)
        if when == "after":
            monitors[0].cancel()
        assert lab.log == ([("target", "killed", 1.0)] if when == "after" else [])
        assert not monitors[0].active


@pytest.mark.parametrize("keep", [False, True])
async def test_L3_the_monitors_of_a_run_end_with_it_even_where_its_mailbox_is_kept(
    lab: Any, settle: Any, keep: bool
) -> None:
    watcher, target = ActorRef("w", keep_mailbox=keep), ActorRef("target")
    async with lab.running([Watcher.child_spec(watcher, lab.log), Watcher.child_spec(target, [])]) as supervisor:
        watcher.cast_nowait(watch(target))
        await settle()
        watcher.cast_nowait(1.0)
        await settle()
        supervisor.exit_child("target")  # its Down is queued
        await settle()
        watcher.cast_nowait(watch(target))
        supervisor.exit_child("w")  # and now the one who asked is gone
        await trio.sleep(5)
        supervisor.exit_child("target")
        await settle()
        told = [entry for entry in lab.log if isinstance(entry, tuple)]
        assert told == ([("target", "killed", 5.0)] if keep else [])  # of the wish that was kept with the mailbox
        assert len(lab.of(ChildExited)) == 3


# --- L4: identity -----------------------------------------------------------------------------------------------------


async def test_L4_a_restart_is_a_new_identity_and_the_ref_follows_it(lab: Any, settle: Any) -> None:
    target = ActorRef("target")
    specs = [Watcher.child_spec(target, lab.log), Watcher.child_spec("w", lab.log)]
    options = {"backoff": Backoff(initial=1, jitter=0), "max_seconds": 100}
    async with lab.running(specs, **options) as supervisor:
        first = target.pid
        assert first is not None
        supervisor.whereis("w").cast_nowait(watch(first))
        await settle()
        supervisor.exit_child("target")
        await settle()
        assert target.pid is None  # the gap
        assert lab.log == [("target", "killed", 0.0)]
        await target.wait_running()
        second = target.pid
        assert second is not None
        assert (first.alive, second.alive) == (False, True)
        assert (first.incarnation, second.incarnation) == (1, 2)
        assert first.path == second.path
        assert first.reason == ExitReason(ExitKind.KILLED)
        target.cast_nowait("same ref")
        await settle()
        assert lab.log[-1] == "same ref"


async def test_L1_who_has_no_handle_down_logs_it(lab: Any, settle: Any, caplog: Any) -> None:
    class Forgetful(Actor):
        async def init(self) -> None:
            self.monitor(ActorRef("nobody"))

    async with lab.running([Forgetful.child_spec("f")], max_restarts=0):
        await settle()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Forgetful has no handle_down: nobody ended (noproc)"
    ]


def test_L1_an_actor_that_does_not_run_can_watch_nobody() -> None:
    with pytest.raises(SupervisionError, match="does not run yet"):
        Actor().monitor(ActorRef("x"))
