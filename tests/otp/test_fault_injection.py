"""Something goes wrong at each single step of a supervisor's task, and random trouble over whole lives.

Whatever is injected wherever: the tree ends, in order, with no task left, no caller waiting, and no child lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from layr8_actors.errors import SupervisionError
from layr8_actors.otp import Actor, Backoff, ChildState, ExitReason, Restart, Strategy, Supervisor

BACKOFF = Backoff(initial=0.5, maximum=2, jitter=0, reset_after=5)


class StepCounter(trio.abc.Instrument):
    """Calls ``act`` just before the task of a name makes its step number ``step``."""

    def __init__(self, name: str, step: int, act: Callable[[], object]) -> None:
        self.name = name
        self.step = step
        self.act = act
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self.name:
            self.steps += 1
            if self.steps == self.step:
                self.act()


class Slow(Actor):
    """An actor whose init and terminate take time."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    async def init(self) -> None:
        await trio.sleep(0.25)
        self.log.append(f"start {self.name}")

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(0.25)
        self.log.append(f"stop {self.name}")


async def ask(operation: Callable[[], Any], outcomes: list[str]) -> None:
    try:
        await operation()
        outcomes.append("done")
    except SupervisionError as error:
        outcomes.append(type(error).__name__)


def live_a_life(lab: Any, strategy: Strategy, injure: str, step: int) -> tuple[int, list[str]]:
    """Run one eventful life of a tree, injured at one step; return the number of steps, and how callers fared."""
    lab.cleanup = {"a": 0.5, "c": 0.5}
    lab.start_delay = {"b": 0.5}
    inner = lab.supervisor([lab.child("x"), Slow.child_spec("y", lab.log, "y")], name="inner")
    specs = [lab.child("a"), lab.child("b"), inner.child_spec(), lab.child("c")]
    options = {"strategy": strategy, "backoff": BACKOFF, "max_restarts": 20, "max_seconds": 1000}
    supervisor: Supervisor = lab.supervisor(specs, **options)
    outcomes: list[str] = []
    scope = trio.CancelScope()

    def act() -> None:
        if injure == "cancel":
            scope.cancel()
        elif injure == "stop" and supervisor._run is not None:
            supervisor._run.request_stop()
        elif injure.startswith("exit") and supervisor.running:
            for child in supervisor.which_children():
                if child.id == injure[-1] and child.state in (ChildState.RUNNING, ChildState.STARTING):
                    supervisor.exit_child(child.id, lab.Crash("injected"))

    counter = StepCounter("the supervisor", step, act)

    async def trouble() -> None:
        async def crash(id: str) -> None:
            if lab.live[id] and supervisor.running and id in lab._orders:
                lab.crash(id)
            await trio.sleep(1.25)

        await crash("b")
        lab.fail_starts["b"] = 1
        await crash("a")
        await crash("x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, lambda: supervisor.start_child(lab.child("d")), outcomes)
            nursery.start_soon(ask, lambda: supervisor.terminate_child("c"), outcomes)
            nursery.start_soon(ask, lambda: supervisor.restart_child("c"), outcomes)
            nursery.start_soon(ask, lambda: supervisor.terminate_child("b"), outcomes)
        await crash("d")
        await trio.sleep(5)
        await supervisor.stop()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[Any]) -> None:
                with scope:
                    try:
                        await supervisor.run(task_status=task_status)
                    except SupervisionError as error:
                        outcomes.append(f"ended with {type(error).__name__}")
                        task_status.started()
                        return
                if not started:
                    task_status.started()

            started: list[bool] = []
            await nursery.start(run, name="the supervisor")
            started.append(True)
            nursery.start_soon(trouble)

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[counter])
    assert not any(lab.live.values())
    assert not supervisor.running
    assert len([outcome for outcome in outcomes if "ended" not in outcome]) == 4
    assert_ordered_end(lab.log)
    return counter.steps, outcomes


def assert_ordered_end(log: list[str]) -> None:
    """Who is still up when the last run of stops begins goes down in the reverse order of coming up."""
    up: list[str] = []
    last_start = max((index for index, line in enumerate(log) if line.startswith("start")), default=-1)
    for line in log[: last_start + 1]:
        verb, name = line.split()
        if verb == "start":
            up.append(name)
        else:
            up.remove(name)
    assert sorted(line.split()[1] for line in log[last_start + 1 :]) == sorted(up)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("injure", ["cancel", "stop", "exit a", "exit b", "exit c"])
def test_an_injury_at_any_step_of_the_manager_leaves_no_task_and_no_caller(
    make_lab: Any, strategy: Strategy, injure: str
) -> None:
    steps, outcomes = live_a_life(make_lab(), strategy, "none", 0)
    assert steps > 40
    assert "SupervisorNotRunning" not in outcomes
    for step in range(1, steps + 1):
        live_a_life(make_lab(), strategy, injure, step)


@pytest.mark.parametrize("at", [quarter / 4 for quarter in range(1, 40)])
async def test_E6_D11_cancellation_at_any_time_stops_in_reverse_order(lab: Any, at: float) -> None:
    lab.cleanup = dict.fromkeys("abxyc", 1.0)
    lab.start_delay = dict.fromkeys("abxyc", 1.0)
    inner = lab.supervisor(lab.children("xy"), name="inner")
    specs = [lab.child("a"), lab.child("b"), inner.child_spec(), lab.child("c")]
    supervisor = lab.supervisor(specs, strategy=Strategy.ONE_FOR_ALL, backoff=BACKOFF, max_seconds=100)
    with trio.move_on_after(at) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            lab.crash("b")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not any(lab.live.values())
    assert trio.current_time() <= at + 5
    assert_ordered_end(lab.log)
    stops = [line.split()[1] for line in lab.log if line.startswith("stop")]
    if at < 5:  # nothing was stopped before, so the whole order is known
        assert stops == list(reversed("abxyc"))[5 - len(stops) :]


# --- random lives -----------------------------------------------------------------------------------------------------

IDS = "abcd"
STEPS = st.one_of(
    st.tuples(st.sampled_from(["crash", "finish", "exit", "fail", "terminate", "restart"]), st.sampled_from(IDS)),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])),
)


@given(
    strategy=st.sampled_from(list(Strategy)),
    restarts=st.tuples(*(st.sampled_from([Restart.PERMANENT, Restart.TRANSIENT]) for _ in IDS)),
    steps=st.lists(STEPS, max_size=25),
    slow=st.sets(st.sampled_from(IDS)),
)
def test_F6_no_child_is_ever_lost_or_doubled(
    make_lab: Any, strategy: Strategy, restarts: tuple[Restart, ...], steps: list[tuple[str, Any]], slow: set[str]
) -> None:
    lab = make_lab()
    lab.start_delay = dict.fromkeys(slow, 0.25)
    lab.cleanup = dict.fromkeys(slow, 0.25)
    options = {"strategy": strategy, "backoff": BACKOFF, "max_restarts": 10**6, "give_up_never": True}
    supervisor = lab.supervisor(
        [lab.child(id, restart=restart) for id, restart in zip(IDS, restarts, strict=True)], **options
    )
    may_rest: set[str] = set()

    def check() -> None:
        now = trio.current_time()
        for child in supervisor.which_children():
            assert lab.live[child.id] <= 1
            if child.state is ChildState.STOPPED:
                assert child.id in may_rest, f"{child.id} is lost"
            elif child.state is ChildState.RESTARTING:
                assert child.next_restart_at is not None
                assert child.next_restart_at >= now or any(
                    other.state in (ChildState.STARTING, ChildState.STOPPING) for other in supervisor.which_children()
                )
            elif child.state is not ChildState.STOPPING:
                assert lab.live[child.id] == 1

    async def step(verb: str, what: Any, nursery: trio.Nursery) -> None:
        if verb == "sleep":
            await trio.sleep(what)
            return
        state = next(child.state for child in supervisor.which_children() if child.id == what)
        if verb == "fail":
            lab.fail_starts[what] += 1
        elif verb == "terminate":
            may_rest.add(what)
            nursery.start_soon(ask, lambda: supervisor.terminate_child(what), [])
        elif verb == "restart":
            nursery.start_soon(ask, lambda: supervisor.restart_child(what), [])
        elif state is ChildState.RUNNING:
            if verb == "exit":
                supervisor.exit_child(what)
            else:
                if verb == "finish" and restarts[IDS.index(what)] is Restart.TRANSIENT:
                    may_rest.add(what)
                lab.end(what, lab.Crash(what) if verb == "crash" else None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            for verb, what in steps:
                await step(verb, what, nursery)
                await wait_all_tasks_blocked()
                check()
            lab.fail_starts.clear()
            await trio.sleep(100)
            check()
            assert not any(child.state is ChildState.RESTARTING for child in supervisor.which_children())
            lab.took()
            order = [child.id for child in supervisor.which_children() if child.state is ChildState.RUNNING]
            await supervisor.stop()
            assert lab.took() == [f"stop {id}" for id in reversed(order)]

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert not any(lab.live.values())
