"""Starting (rows B) and escalation of a failed start."""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any

import pytest
import trio

from layr8_actors.errors import ChildStartError, SupervisionError, SupervisorNotRunning
from layr8_actors.otp import Actor, ChildSpec, Continue
from layr8_actors.otp.events import ChildExited, ChildStarted, ChildStartFailed


async def test_B1_children_start_one_after_another_in_list_order(lab: Any) -> None:
    lab.start_delay = {"c": 2.0, "a": 1.0, "b": 0.5}
    async with lab.running(lab.children("cab")):
        assert lab.took() == ["start c", "start a", "start b"]
        assert [event.at for event in lab.of(ChildStarted)] == [2.0, 3.0, 3.5]


async def test_B2_the_supervisor_is_started_once_all_children_are(lab: Any) -> None:
    lab.start_delay["b"] = 3.0
    async with lab.running(lab.children("ab")) as supervisor:
        assert trio.current_time() == 3.0
        assert supervisor.count_children().active == 2


async def test_B3_B4_a_failed_start_rolls_back_and_is_raised(lab: Any) -> None:
    lab.fail_starts["c"] = 1
    supervisor = lab.supervisor(lab.children("abcd"), name="root")
    async with trio.open_nursery() as nursery:
        with pytest.raises(ChildStartError, match="'c' of supervisor 'root'") as caught:
            await nursery.start(supervisor.run)
    assert caught.value.child_id == "c"
    assert isinstance(caught.value.__cause__, lab.Crash)
    assert lab.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert [type(event).__name__ for event in lab.of(ChildStartFailed)] == ["ChildStartFailed"]
    assert not lab.of(ChildExited)[0].restarts_used
    assert not supervisor.running


async def test_B3_a_supervisor_that_did_not_start_may_be_run_again(lab: Any) -> None:
    lab.fail_starts["b"] = 1
    supervisor = lab.supervisor(lab.children("ab"))
    with pytest.raises(ChildStartError):
        await supervisor.run()
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert supervisor.count_children().active == 2
        await supervisor.stop()


class Sickly(Actor):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def init(self) -> None:
        raise ValueError("init")

    async def terminate(self, reason: Any) -> None:
        self.log.append("terminate")


async def test_B5_terminate_is_not_called_after_a_failed_init(lab: Any) -> None:
    with pytest.raises(ChildStartError) as caught:
        await lab.supervisor([Sickly.child_spec("sickly", lab.log)]).run()
    assert repr(caught.value.__cause__) == "ValueError('init')"
    assert lab.log == []


async def test_B6_an_init_that_never_ends_is_given_up_after_the_start_timeout(lab: Any) -> None:
    lab.start_delay["b"] = 1000
    with pytest.raises(ChildStartError, match="not ready within 7 s"):
        await lab.supervisor([lab.child("a"), lab.child("b", start_timeout=7)]).run()
    assert trio.current_time() == 7
    assert lab.log == ["start a", "start b", "stop b", "stop a"]


async def test_B6_the_start_timeout_does_not_bind_a_child_that_is_ready(lab: Any) -> None:
    async with lab.running([lab.child("a", start_timeout=1)]):
        await trio.sleep(10)
        assert lab.log == ["start a"]


async def test_B8_handle_continue_runs_after_start_was_reported_and_before_any_message(lab: Any, settle: Any) -> None:
    class Late(Actor):
        async def init(self) -> Continue:
            lab.log.append("init")
            self.ref.cast_nowait("message")
            return Continue("term")

        async def handle_continue(self, term: Any) -> None:
            await trio.sleep(1)
            lab.log.append(term)

        async def handle_cast(self, message: Any) -> None:
            lab.log.append(message)

    async with lab.running([Late.child_spec("late")]):
        assert lab.took() == ["init"]
        await trio.sleep(2)
        assert lab.took() == ["term", "message"]


async def test_B8_a_crash_in_handle_continue_is_a_running_crash(lab: Any, settle: Any) -> None:
    class Faulty(Actor):
        runs = 0

        async def init(self) -> Continue:
            return Continue()

        async def handle_continue(self, term: Any) -> None:
            type(self).runs += 1
            if self.runs == 1:
                raise ValueError

    async with lab.running([Faulty.child_spec("faulty")]):
        await settle()
        assert lab.story("faulty") == ["ChildStarted", "ChildExited", "RestartScheduled", "ChildRestarted"]


async def test_B9_stop_during_an_init_gives_it_up_and_rolls_back(lab: Any) -> None:
    lab.start_delay["c"] = 20
    supervisor = lab.supervisor(lab.children("abcd"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        await supervisor.stop()
        assert trio.current_time() == 1
    assert lab.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert lab.story("d") == []


async def test_B9_cancellation_during_an_init_rolls_back_and_goes_on_upward(lab: Any) -> None:
    lab.start_delay["c"] = 20
    lab.cleanup["b"] = 2
    with trio.move_on_after(1) as scope:
        await lab.supervisor(lab.children("abcd")).run()
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    assert lab.log == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_B10_a_child_that_crashes_as_it_becomes_ready_has_started(lab: Any, settle: Any) -> None:
    async def brief(runs: list[int], *, task_status: trio.TaskStatus[int]) -> None:
        runs.append(1)
        task_status.started(len(runs))
        if len(runs) == 1:
            raise ValueError
        await trio.sleep_forever()

    async with lab.running([ChildSpec("brief", partial(brief, []))]) as supervisor:
        await settle()
        assert supervisor.whereis("brief") == 2
        assert lab.story("brief") == ["ChildStarted", "ChildExited", "RestartScheduled", "ChildRestarted"]


async def test_started_twice_is_a_crash_as_in_trio(lab: Any, settle: Any) -> None:
    async def eager(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        task_status.started()

    async with lab.running([ChildSpec("eager", eager)], max_restarts=5):
        await trio.sleep(1.5)
        assert isinstance(lab.of(ChildExited)[0].error, RuntimeError)


async def test_children_inherit_the_context_of_the_supervisor_and_not_of_a_caller(lab: Any) -> None:
    variable = contextvars.ContextVar("variable", default="supervisor's")
    seen: list[str] = []

    async def reader(*, task_status: trio.TaskStatus[None]) -> None:
        seen.append(variable.get())
        task_status.started()
        await trio.sleep_forever()

    async with lab.running([]) as supervisor:
        variable.set("caller's")
        await supervisor.start_child(ChildSpec("reader", reader))
    assert seen == ["supervisor's"]


async def test_run_twice_at_once_is_refused(lab: Any) -> None:
    async with lab.running(lab.children("a")) as supervisor:
        with pytest.raises(SupervisionError, match="runs already"):
            await supervisor.run()
        assert supervisor.whereis("a") == "a1"


async def test_stop_and_management_of_a_supervisor_that_does_not_run(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"))
    assert repr(supervisor) == "<Supervisor 'supervisor' not running>"
    await supervisor.stop()
    with pytest.raises(SupervisorNotRunning):
        supervisor.which_children()
