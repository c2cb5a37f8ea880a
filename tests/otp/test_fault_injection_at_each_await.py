"""Trouble at each step of a supervisor's task, where that stops many at once, ends by itself, or runs out of time.

Besides cancellation and requests, what ends a program is raised in that task itself, as Ctrl-C is in the main task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import outcome
import pytest
import trio
from trio.testing import MockClock

from layr8_actors.errors import SupervisionError
from layr8_actors.otp import (
    Actor,
    ActorRef,
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildState,
    DynamicSupervisor,
    ExitReason,
    Restart,
    Strategy,
    Supervisor,
)

BACKOFF = Backoff(initial=0.5, maximum=2, jitter=0, reset_after=5)
MANAGER = "the supervisor"


class Injector(trio.abc.Instrument):
    """Does something just before step number ``step`` of the supervisor's task, or raises in it."""

    def __init__(
        self, step: int, act: Callable[[], object] | None, error: type[BaseException] | None, *, again: bool
    ) -> None:
        self.step = step
        self.again = again
        self.act = act
        self.error = error
        self.steps = 0
        self.raised = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name != MANAGER:
            return
        self.steps += 1
        if self.steps != self.step and not (self.again and self.steps == self.step + 3):
            return
        if self.act is not None:
            self.act()
        if self.error is not None and self.step > 1:  # in the first one its coroutine has not begun
            task._next_send = outcome.Error(self.error())
            self.raised = True


class Slow(Actor):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def init(self) -> None:
        await trio.sleep(0.25)
        self.nursery.start_soon(self.live)

    async def live(self) -> None:
        self.log.append(f"start {self.ref.id}")
        try:
            await trio.sleep_forever()
        finally:
            self.log.append(f"stop {self.ref.id}")

    async def terminate(self, reason: ExitReason) -> None:
        await trio.sleep(2)


async def ask(request: Callable[[], Awaitable[Any]], outcomes: list[str]) -> None:
    try:
        await request()
        outcomes.append("done")
    except SupervisionError as error:
        outcomes.append(type(error).__name__)


Life = Callable[[Any, Any, list[str]], Awaitable[None]]


def crash(lab: Any, id: str, error: BaseException | None = None) -> None:
    if lab.live[id] and id in lab._orders:
        lab.end(id, error or lab.Crash(id))


async def dynamic_life(lab: Any, supervisor: DynamicSupervisor, outcomes: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        for id in "abc":
            nursery.start_soon(ask, partial(supervisor.start_child, lab.child(id)), outcomes)
        nursery.start_soon(ask, lambda: supervisor.start_child(Slow.child_spec("slow", lab.log)), outcomes)
        await trio.sleep(2)
    lab.fail_starts["b"] = 1
    for id in "ab":
        crash(lab, id)
    await trio.sleep(0.25)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, lambda: supervisor.terminate_child("b-2"), outcomes)
        nursery.start_soon(ask, lambda: supervisor.start_child(lab.child("d")), outcomes)
    await trio.sleep(3)
    await supervisor.stop()


async def static_life(lab: Any, supervisor: Supervisor, outcomes: list[str]) -> None:
    crash(lab, "a")
    await trio.sleep(0.25)
    await ask(lambda: supervisor.start_child(lab.child("late")), outcomes)
    await trio.sleep(3)
    crash(lab, "main", None)
    await trio.sleep(10)
    await supervisor.stop()


def make(lab: Any, shape: str) -> tuple[Any, Life, int]:
    """A supervisor, the life it shall lead, and how many callers there are in it."""
    lab.cleanup = {"a": 0.5, "c": 1.0, "late": 1.0}
    lab.start_delay = {"b": 0.5, "late": 0.5}
    options: dict[str, Any] = {
        "backoff": BACKOFF,
        "max_restarts": 20,
        "max_seconds": 1000,
        "on_event": lab.events.append,
    }
    if shape.startswith("dynamic"):
        deadline = 1.5 if shape.endswith("deadline") else 1000
        return DynamicSupervisor(shutdown_deadline=deadline, **options), dynamic_life, 6
    specs = [
        lab.child("a"),
        Slow.child_spec(ActorRef("slow", keep_mailbox=True), lab.log),
        lab.child("main", restart=Restart.TEMPORARY, significant=True),
        lab.child("c"),
    ]
    options |= {"strategy": Strategy.ONE_FOR_ALL if "group" in shape else Strategy.ONE_FOR_ONE}
    options |= {"shutdown_deadline": 1.5} if shape.endswith("deadline") else {}
    options |= {"parallel_shutdown": "parallel" in shape}
    return Supervisor(specs, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT, **options), static_life, 1


def live(lab: Any, shape: str, injury: str, step: int) -> Injector:
    """Lead one life, injured at one step, and check how it ends."""
    supervisor, life, callers = make(lab, shape)
    scope = trio.CancelScope()
    outcomes: list[str] = []
    ends: list[BaseException | None] = []

    def exit_all() -> None:
        if supervisor.running:
            for child in supervisor.which_children():
                if child.state in (ChildState.RUNNING, ChildState.STARTING):
                    supervisor.exit_child(child.id, lab.Crash("injected"))

    def fatal_child() -> None:
        for id in "ca":
            if lab.live[id] and id in lab._orders:
                lab.end(id, KeyboardInterrupt())
                return

    acts: dict[str, Callable[[], object]] = {
        "cancel": scope.cancel,
        "stop": supervisor.request_stop,
        "exit": exit_all,
        "finish": lambda: crash(lab, "main"),
        "fatal child": fatal_child,
    }
    errors: dict[str, type[BaseException]] = {"interrupt": KeyboardInterrupt, "system exit": SystemExit}
    errors["two interrupts"] = KeyboardInterrupt  # the second one in the middle of the stop
    injector = Injector(step, acts.get(injury), errors.get(injury), again=injury == "two interrupts")

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        with scope:
            try:
                await supervisor.run(task_status=task_status)
                ends.append(None)
            except trio.Cancelled:
                raise
            except (SupervisionError, KeyboardInterrupt, SystemExit, BaseExceptionGroup) as error:
                ends.append(error)
        if not begun:
            task_status.started()

    begun: list[bool] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(run, name=MANAGER)
            begun.append(True)
            nursery.start_soon(life, lab, supervisor, outcomes)

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[injector])
    where = f"{injury} at step {step} of {shape}"
    assert not any(lab.live.values()), where
    assert not supervisor.running, where
    assert len(outcomes) == callers, where
    up: set[str] = set()
    for verb, name in map(str.split, lab.log):
        assert (name in up) is (verb == "stop"), where  # never two runs of one child
        up ^= {name}
    assert not up, where
    if injector.raised and ends:
        (end,) = ends
        assert isinstance(end, (KeyboardInterrupt, SystemExit, BaseExceptionGroup)), where  # and never lost
    assert not list(supervisor.records()), where
    return injector


PEACEFUL = ["cancel", "stop", "exit", "finish", "fatal child"]
RAISED = ["interrupt", "two interrupts", "system exit"]
SHAPES = ["dynamic", "dynamic deadline", "static", "static group", "static parallel", "static deadline"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "injury", ["cancel", "stop", "exit", "finish", "fatal child", "interrupt", "two interrupts", "system exit"]
)
def test_D8_D11_R7_an_injury_at_any_step_leaves_no_task_no_caller_and_no_child(
    make_lab: Any, shape: str, injury: str
) -> None:
    steps = live(make_lab(), shape, "none", 0).steps
    assert steps > 20
    lives = [live(make_lab(), shape, injury, step) for step in range(1, steps + 1)]
    assert (
        injury not in ("interrupt", "two interrupts", "system exit") or sum(life.raised for life in lives) > steps / 2
    )


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", ["start", "run", "cleanup"])
async def test_R7_what_ends_a_program_gets_out_of_a_dynamic_child_at_any_time(
    lab: Any, fatal: type[BaseException], when: str
) -> None:
    async def child(*, task_status: trio.TaskStatus[None]) -> None:
        if when == "start":
            raise fatal
        task_status.started()
        try:
            await trio.sleep(1)
            if when == "run":
                raise fatal
            await trio.sleep_forever()
        finally:
            if when == "cleanup":
                raise fatal

    lab.cleanup["a"] = 1
    caught: list[BaseException] = []
    outcomes: list[str] = []
    supervisor = DynamicSupervisor(on_event=lab.events.append)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            try:
                await supervisor.run(task_status=task_status)
            except (KeyboardInterrupt, SystemExit) as error:
                caught.append(error)

        await nursery.start(run)
        await supervisor.start_child(lab.child("a"))
        nursery.start_soon(ask, partial(supervisor.start_child, ChildSpec("f", child)), outcomes)
        await trio.sleep(2)
        await supervisor.stop()
    assert [type(error) for error in caught] == [fatal]
    assert lab.starts == {"a": 1}
    assert not any(lab.live.values())
    assert outcomes == ["SupervisorNotRunning" if when == "start" else "done"]
