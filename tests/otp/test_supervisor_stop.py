"""Stopping: order, grace, children that will not (rows D), and Ctrl-C in the supervisor's own task."""

from __future__ import annotations

import math
import signal
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layr8_actors.errors import SupervisorNotRunning
from layr8_actors.otp import (
    BRUTAL_KILL,
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    ChildState,
    ExitKind,
    ExitReason,
    Restart,
    Strategy,
    Supervisor,
)
from layr8_actors.otp.events import (
    ChildExited,
    ChildStopped,
    RestartScheduled,
    ShutdownError,
    StopTimeout,
    SupervisorStopped,
)


class Ending(Actor):
    """Notes the reason it is told, and takes its time over it."""

    def __init__(self, log: list[str], cleanup: float = 0.0, error: Exception | None = None) -> None:
        self.log = log
        self.cleanup = cleanup
        self.error = error

    async def handle_cast(self, message: Any) -> None:
        if isinstance(message, Exception):
            raise message
        await message()

    async def terminate(self, reason: ExitReason) -> None:
        self.log.append(f"terminate {reason.kind.value}")
        await trio.sleep(self.cleanup)
        self.log.append(f"terminated after {trio.current_time():g}")
        if self.error is not None:
            raise self.error


async def test_D1_children_stop_one_after_another_in_reverse(lab: Any) -> None:
    lab.cleanup = dict.fromkeys("abc", 0.3)
    async with lab.running(lab.children("abc")) as supervisor:
        lab.took()
        await supervisor.stop()
        assert lab.took() == ["stop c", "stop b", "stop a"]
        assert trio.current_time() == pytest.approx(0.9)


async def test_D3_a_child_that_overruns_its_grace_is_killed(lab: Any) -> None:
    async with lab.running([Ending.child_spec("slow", lab.log, 500.0, shutdown=0.1)]) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == pytest.approx(0.1)
        assert lab.log == ["terminate shutdown"]
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.KILLED


async def test_D3_a_child_that_ends_within_its_grace_is_not(lab: Any) -> None:
    async with lab.running([Ending.child_spec("quick", lab.log, 0.05, shutdown=0.1)]) as supervisor:
        await supervisor.stop()
        assert lab.log == ["terminate shutdown", "terminated after 0.05"]
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.SHUTDOWN


async def test_D4_a_brutal_kill_runs_no_terminate(lab: Any, settle: Any) -> None:
    async with lab.running([Ending.child_spec("actor", lab.log, shutdown=BRUTAL_KILL)]) as supervisor:
        await supervisor.stop()
        assert lab.log == []
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.KILLED


async def test_D5_infinity_waits_as_long_as_it_takes(lab: Any) -> None:
    async with lab.running([Ending.child_spec("actor", lab.log, 10.0**6, shutdown=math.inf)]) as supervisor:
        await supervisor.stop()
        assert lab.log[-1] == "terminated after 1e+06"


async def test_D5_a_subtree_whose_own_grace_runs_out_is_cut_short_and_leaks_nothing(lab: Any) -> None:
    specs = [Ending.child_spec(id, lab.log, 100.0, shutdown=1000) for id in "xyz"]
    inner = lab.supervisor(specs, name="inner")
    async with lab.running([inner.child_spec(shutdown=2)]) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == pytest.approx(2)
        assert not inner.running
    assert lab.log == ["terminate shutdown"]  # of z; x and y were killed before it was their turn


async def stubborn(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def test_D6_a_child_that_cannot_be_killed_is_reported_and_never_abandoned(lab: Any) -> None:
    spec = ChildSpec("stubborn", partial(stubborn, 23.0), shutdown=5.0)
    async with lab.running([lab.child("a"), spec]) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == 23
    reports = lab.of(StopTimeout)
    assert [(event.id, event.waited) for event in reports] == [("stubborn", 10), ("stubborn", 15), ("stubborn", 20)]
    assert any("in stubborn" in line for line in reports[0].stack)
    assert lab.log == ["start a", "stop a"]
    assert lab.of(ChildStopped)[0].reason.kind is ExitKind.KILLED


async def test_D6_a_start_that_cannot_be_called_off_is_reported_too(lab: Any) -> None:
    async def never(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(58)

    supervisor = lab.supervisor([ChildSpec("never", never, start_timeout=10, shutdown=0.0)])
    with pytest.raises(Exception, match="not ready within 10 s"):
        await supervisor.run()
    assert trio.current_time() == 58
    assert len(lab.of(StopTimeout)) == 9


async def test_D7_an_unexpected_reason_while_stopping_is_reported_and_the_rest_is_stopped(lab: Any) -> None:
    lab.cleanup_error["b"] = ValueError("cleanup")
    async with lab.running(lab.children("abc")) as supervisor:
        await supervisor.stop()
    assert lab.log[3:] == ["stop c", "stop b", "stop a"]
    assert [(event.id, repr(event.error)) for event in lab.of(ShutdownError)] == [("b", "ValueError('cleanup')")]


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_D8_D9_whatever_dies_during_the_stop_stays_dead_and_holds_nothing_up(
    lab: Any, strategy: Strategy
) -> None:
    lab.cleanup["c"] = 10
    async with lab.running(lab.children("abc"), strategy=strategy, max_restarts=0) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop)
            await trio.sleep(1)
            lab.crash("b")
            lab.end("a")
    assert lab.log[3:] == ["stop b", "stop a", "stop c"] or lab.log[3:] == ["stop a", "stop b", "stop c"]
    assert trio.current_time() == 10
    assert not lab.of(RestartScheduled)


async def test_D10_requests_that_come_while_stopping_are_refused(lab: Any, settle: Any) -> None:
    lab.cleanup["a"] = 10
    async with lab.running(lab.children("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop)
            await settle()
            with pytest.raises(SupervisorNotRunning):
                await supervisor.start_child(lab.child("b"))
            assert supervisor.which_children()[0].state is ChildState.STOPPING
        with pytest.raises(SupervisorNotRunning):
            await supervisor.terminate_child("a")


async def test_D10_a_request_that_waits_when_the_stop_begins_is_refused(lab: Any, settle: Any) -> None:
    refused: list[str] = []

    async def ask(supervisor: Any, id: str) -> None:
        with pytest.raises(SupervisorNotRunning):
            await supervisor.start_child(lab.child(id))
        refused.append(id)

    lab.start_delay["b"] = 100
    async with lab.running(lab.children("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, supervisor, "b")  # in its start
            await settle()
            nursery.start_soon(ask, supervisor, "c")  # queued behind
            await settle()
            await supervisor.stop()
    assert sorted(refused) == ["b", "c"]
    assert trio.current_time() == 0
    assert lab.starts == {"a": 1, "b": 1}


async def test_D11_under_outer_cancellation_the_stop_has_the_same_order_and_grace(lab: Any) -> None:
    specs = [
        Ending.child_spec("db", lab.log, 2.0, shutdown=5.0),
        Ending.child_spec("cache", lab.log, 3.0, shutdown=5.0),
        Ending.child_spec("web", lab.log, 500.0, shutdown=1.0),
    ]
    after = "not reached"
    with trio.move_on_after(10) as scope:
        await lab.supervisor(specs).run()
        after = "reached"
    assert scope.cancelled_caught
    assert after == "not reached"
    assert trio.current_time() == 16
    assert lab.log == [
        "terminate shutdown",
        "terminate shutdown",
        "terminated after 14",
        "terminate shutdown",
        "terminated after 16",
    ]
    assert [(event.id, event.reason.kind) for event in lab.of(ChildStopped)] == [
        ("web", ExitKind.KILLED),
        ("cache", ExitKind.SHUTDOWN),
        ("db", ExitKind.SHUTDOWN),
    ]


async def test_D12_terminate_is_told_why(lab: Any, settle: Any) -> None:
    async with lab.running([Ending.child_spec("a", lab.log), lab.child("b")], max_restarts=10) as supervisor:
        ref = supervisor.whereis("a")
        await ref.cast(ValueError())
        await settle()
        supervisor.exit_child("a")
        await settle()
        supervisor.exit_child("a", OSError("injected"))
        await settle()
        await ref.stop()
        await settle()
        told = [line.split()[1] for line in lab.log if line.startswith("terminate ")]
        assert told == ["error", "killed", "error", "normal"]
    assert [line.split()[1] for line in lab.log if line.startswith("terminate ")][4:] == ["shutdown"]


async def test_G14_an_error_of_terminate_becomes_the_reason_of_a_clean_end(lab: Any) -> None:
    async with lab.running([Ending.child_spec("a", lab.log, 0.0, ValueError("late"))]) as supervisor:
        await supervisor.stop()
        assert repr(lab.of(ChildStopped)[0].error) == "ValueError('late')"
        assert repr(lab.of(ShutdownError)[0].error) == "ValueError('late')"


async def test_G14_an_error_of_terminate_is_reported_beside_the_crash(lab: Any, settle: Any) -> None:
    spec = Ending.child_spec("a", lab.log, 0.0, ValueError("late"), restart=Restart.TEMPORARY)
    async with lab.running([spec]) as supervisor:
        await supervisor.whereis("a").cast(OSError("crash"))
        await settle()
        assert repr(lab.of(ChildExited)[0].error) == "OSError('crash')"
        assert repr(lab.of(ShutdownError)[0].error) == "ValueError('late')"


async def test_C5_sup_stop_timeout(lab: Any) -> None:
    specs = [
        Ending.child_spec("good", lab.log, shutdown=1.0),
        Ending.child_spec("stuck", lab.log, 1000.0, shutdown=1.0),
    ]
    async with lab.running(specs) as supervisor:
        await supervisor.stop()
    assert [(event.id, event.reason.kind) for event in lab.of(ChildStopped)] == [
        ("stuck", ExitKind.KILLED),
        ("good", ExitKind.SHUTDOWN),
    ]
    assert lab.of(SupervisorStopped)[0].reason == ExitReason(ExitKind.SHUTDOWN)


async def test_M10_a_child_may_stop_its_own_supervisor_and_wait_for_it(lab: Any) -> None:
    async with lab.running([Ending.child_spec("a", lab.log), lab.child("b")]) as supervisor:
        await supervisor.whereis("a").cast(supervisor.stop)
        await trio.sleep(1)
        assert not supervisor.running
        assert lab.of(SupervisorStopped)[0].at == 0


async def test_stop_is_idempotent_and_serves_many_callers(lab: Any) -> None:
    lab.cleanup["a"] = 3
    async with lab.running(lab.children("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(supervisor.stop)
        assert trio.current_time() == 3
        await supervisor.stop()
        assert lab.log == ["start a", "stop a"]


async def test_a_cancelled_stop_leaves_the_supervisor_stopping(lab: Any) -> None:
    lab.cleanup["a"] = 3
    async with lab.running(lab.children("a")) as supervisor:
        with trio.move_on_after(1):
            await supervisor.stop()
        assert supervisor.running
        await trio.sleep(2.5)
        assert not supervisor.running


def test_R7_ctrl_c_in_the_supervisors_own_task_stops_in_order() -> None:
    log: list[str] = []

    async def child(id: str, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            log.append(id)

    async def interrupt(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.05)
        await trio.to_thread.run_sync(signal.raise_signal, signal.SIGINT)
        await trio.sleep_forever()

    specs = [ChildSpec("a", partial(child, "a")), ChildSpec("b", partial(child, "b")), ChildSpec("i", interrupt)]
    with pytest.raises(KeyboardInterrupt):
        trio.run(Supervisor(specs, on_event=lambda event: None).run)
    assert log == ["b", "a"]


def test_a_second_ctrl_c_cuts_the_ordered_stop_short_and_still_leaves_no_task() -> None:
    log: list[str] = []

    async def main() -> None:
        specs = [Ending.child_spec(id, log, 1000.0, shutdown=5000.0) for id in "ab"]
        trio.lowlevel.spawn_system_task(_interrupt_twice, trio.lowlevel.current_task())
        await Supervisor(specs).run()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert log == ["terminate shutdown"]


async def _interrupt_twice(main_task: Any) -> None:
    """As Trio delivers Ctrl-C: it wakes the main task with it, however that task is shielded."""

    def raise_interrupt() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        await trio.sleep(1)
        main_task._attempt_abort(raise_interrupt)


async def test_D6_a_child_that_swallows_its_cancellation_is_waited_for(lab: Any) -> None:
    async def swallow(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        for _ in range(100):
            with suppress(trio.Cancelled):
                await trio.sleep_forever()

    async with lab.running([ChildSpec("swallow", swallow, shutdown=1.0)], max_restarts=0) as supervisor:
        await supervisor.stop()
        assert lab.of(ChildStopped)[0].reason.kind is ExitKind.SHUTDOWN


async def test_a_long_stop_of_a_group_ends_the_wait_it_belongs_to_at_once(lab: Any) -> None:
    lab.cleanup["b"] = 4
    options = {"strategy": Strategy.ONE_FOR_ALL, "backoff": Backoff(initial=1, jitter=0), "max_seconds": 100}
    async with lab.running(lab.children("ab"), **options) as supervisor:
        lab.crash("a")
        await trio.sleep(2)
        infos = supervisor.which_children()
        assert [info.state for info in infos] == [ChildState.RESTARTING, ChildState.STOPPING]
        assert [info.next_restart_at for info in infos] == [1, 1]
        await trio.sleep(3)
        assert lab.starts == {"a": 2, "b": 2}
        assert lab.of(RestartScheduled)[0].delay == 0


async def test_a_second_ctrl_c_leaves_nobody_waiting_at_a_kept_mailbox(lab: Any, settle: Any) -> None:
    ref = ActorRef("w", mailbox_capacity=1, keep_mailbox=True)
    supervisor = lab.supervisor([Ending.child_spec(ref, lab.log, 1000.0, shutdown=5000.0)])
    managers: list[Any] = []
    results: list[bool] = []

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        managers.append(trio.lowlevel.current_task())
        with pytest.raises(KeyboardInterrupt):
            await supervisor.run(task_status=task_status)

    async def cast() -> None:
        results.append(await ref.cast("x"))

    def raise_interrupt() -> None:
        raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        ref.cast_nowait(trio.sleep_forever)
        await settle()
        ref.cast_nowait("full")
        nursery.start_soon(cast)
        await settle()
        for _ in range(2):
            managers[0]._attempt_abort(raise_interrupt)
            await settle()
    assert results == [False]
    assert ref.cast_nowait("nobody will come") is False
    assert trio.current_time() == 0
