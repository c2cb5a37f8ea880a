"""What supervision costs as a tree grows: start and stop of many children, a crash until it runs again, idle memory.

    python bench/otp_scale.py [turns]

Each turn runs every shape with 100, 1,000 and 10,000 children, one after another in one process pinned to one core, so
that the ratios are taken between neighbours. Shapes without a supervisor are the floor: what Trio alone takes for as
many tasks. Counted is the process's own CPU time, for nothing here waits for anything else; a busy machine then moves
the figures little. Each measurement begins after a full collection; the cyclic collector runs in it as Python sets it
up, and the whole is measured once more with the collector off, because a collection of all that lives is what grows.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from layr8_actors.otp import Actor, ActorRef, ChildSpec, DynamicSupervisor, Pid, Supervisor
from layr8_actors.telemetry import Event

SIZES = {100: 10, 1_000: 1, 10_000: 1}  # children, and how often a turn measures that many: its median counts
ENDS = (min(SIZES), max(SIZES))
GROWTH_LIMIT = 130.0  # 100 times the children may cost so many times the time
CRASH_LIMIT_US = 200.0
ACTOR_LIMIT_KIB = 6.0
CRASHES = 400
SIBLINGS = (0, 1_000)

Seconds = tuple[float, float]
"""Of the start and of the stop."""


class Idle(Actor):
    """An actor without helper tasks, as most are."""

    helpers = False


class Fragile(Actor):
    """Crashes on any message, and tells when it began and when it runs again."""

    helpers = False

    def __init__(self, crashed: list[float], running: list[float]) -> None:
        self.crashed = crashed
        self.running = running

    async def init(self) -> None:
        """Run again."""
        self.running.append(time.perf_counter())

    async def handle_cast(self, message: Any) -> None:
        """Crash."""
        self.crashed.append(time.perf_counter())
        raise RuntimeError


def silent(event: Event) -> None:
    """Drop an event."""


async def service(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """A plain service: ready at once, then idle."""
    task_status.started()
    await trio.sleep_forever()


def static_specs(children: int, *, actors: bool) -> list[ChildSpec]:
    """So many children with an id of their own."""
    if actors:
        return [Idle.child_spec(ActorRef(f"child-{number}")) for number in range(children)]
    return [ChildSpec(f"child-{number}", service) for number in range(children)]


def one_spec(*, actors: bool) -> ChildSpec:
    """The spec that a dynamic supervisor starts again and again."""
    return Idle.child_spec("child") if actors else ChildSpec("child", service)


# --- the shapes -------------------------------------------------------------------------------------------------------


async def trio_together(children: int) -> Seconds:
    """The floor: started one after another, cancelled with their nursery."""
    async with trio.open_nursery() as nursery:
        begin = time.process_time()
        for _ in range(children):
            await nursery.start(service)
        started = time.process_time()
        nursery.cancel_scope.cancel()
    return started - begin, time.process_time() - started


async def trio_apart(children: int) -> Seconds:
    """The floor of an ordered stop: each with a scope of its own, ended and awaited one after another."""
    running: list[tuple[trio.CancelScope, trio.Event]] = []

    async def scoped(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            gone = trio.Event()
            running.append((scope, gone))
            await service(task_status=task_status)
        gone.set()

    async with trio.open_nursery() as nursery:
        begin = time.process_time()
        for _ in range(children):
            await nursery.start(scoped)
        started = time.process_time()
        for scope, gone in reversed(running):
            scope.cancel()
            await gone.wait()
        return started - begin, time.process_time() - started


def static(*, actors: bool) -> Callable[[int], Awaitable[Seconds]]:
    """A Supervisor of a fixed list, started in order and stopped in reverse order, one at a time."""

    async def measure(children: int) -> Seconds:
        supervisor = Supervisor(static_specs(children, actors=actors), on_event=silent)
        async with trio.open_nursery() as nursery:
            begin = time.process_time()
            await nursery.start(supervisor.run)
            started = time.process_time()
            await supervisor.stop()
            return started - begin, time.process_time() - started

    return measure


def static_by_hand(*, actors: bool) -> Callable[[int], Awaitable[Seconds]]:
    """start_child and terminate_child of a Supervisor, for each child (scale_start_stop_many_children)."""

    async def measure(children: int) -> Seconds:
        specs = static_specs(children, actors=actors)
        async with Supervisor([], on_event=silent) as supervisor:
            begin = time.process_time()
            for spec in specs:
                await supervisor.start_child(spec)
            started = time.process_time()
            for spec in specs:
                await supervisor.terminate_child(spec.id)
            return started - begin, time.process_time() - started

    return measure


def dynamic(*, actors: bool) -> Callable[[int], Awaitable[Seconds]]:
    """start_child of a DynamicSupervisor for each child, stopped all at once with it."""

    async def measure(children: int) -> Seconds:
        supervisor = DynamicSupervisor(on_event=silent)
        spec = one_spec(actors=actors)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            begin = time.process_time()
            for _ in range(children):
                await supervisor.start_child(spec)
            started = time.process_time()
            await supervisor.stop()
            return started - begin, time.process_time() - started

    return measure


def dynamic_by_hand(*, actors: bool) -> Callable[[int], Awaitable[Seconds]]:
    """start_child and terminate_child of a DynamicSupervisor, for each child."""

    async def measure(children: int) -> Seconds:
        spec = one_spec(actors=actors)
        pids: list[Pid] = []
        async with DynamicSupervisor(on_event=silent) as supervisor:
            begin = time.process_time()
            for _ in range(children):
                pid = await supervisor.start_child(spec)
                assert pid is not None
                pids.append(pid)
            started = time.process_time()
            for pid in pids:
                await supervisor.terminate_child(pid)
            return started - begin, time.process_time() - started

    return measure


TOGETHER = "Trio alone: cancelled together"
APART = "Trio alone: ended one by one"
SHAPES: dict[str, tuple[Callable[[int], Awaitable[Seconds]], str]] = {
    TOGETHER: (trio_together, TOGETHER),
    APART: (trio_apart, APART),
    "Supervisor, services": (static(actors=False), APART),
    "Supervisor, actors": (static(actors=True), APART),
    "Supervisor, services, by hand": (static_by_hand(actors=False), APART),
    "Supervisor, actors, by hand": (static_by_hand(actors=True), APART),
    "DynamicSupervisor, services": (dynamic(actors=False), TOGETHER),
    "DynamicSupervisor, actors": (dynamic(actors=True), TOGETHER),
    "DynamicSupervisor, services, by hand": (dynamic_by_hand(actors=False), APART),
    "DynamicSupervisor, actors, by hand": (dynamic_by_hand(actors=True), APART),
}
"""Each with its floor."""


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(measure: Callable[[int], Awaitable[Seconds]], children: int, *, collector: bool) -> Seconds:
    """One run in a Trio run of its own, after a collection."""
    gc.collect()
    if not collector:
        gc.disable()
    try:
        return trio.run(measure, children)
    finally:
        gc.enable()


def one_turn(*, collector: bool) -> dict[str, dict[int, Seconds]]:
    """Seconds of CPU for each shape and size, shape after shape within each size."""
    turn: dict[str, dict[int, Seconds]] = {name: {} for name in SHAPES}
    for children, times in SIZES.items():
        if not collector and children not in ENDS:
            continue
        runs: dict[str, list[Seconds]] = {name: [] for name in SHAPES}
        for _ in range(times):
            for name, (measure, _floor) in SHAPES.items():
                runs[name].append(measured(measure, children, collector=collector))
        for name, seconds in runs.items():
            turn[name][children] = sorted(seconds, key=sum)[len(seconds) // 2]
    return turn


async def crash_latencies(siblings: int) -> list[float]:
    """Microseconds of wall time from the raise in a handler until the next incarnation is in its ``init``."""
    crashed: list[float] = []
    running: list[float] = []
    ref = ActorRef("fragile")
    specs = [*static_specs(siblings, actors=True), Fragile.child_spec(ref, crashed, running)]
    # A window this short never fills: what is measured is the restart, and no give-up.
    async with Supervisor(specs, max_restarts=1, max_seconds=1e-6, on_event=silent):
        for number in range(CRASHES):
            await ref.cast(number)
            while len(running) != number + 2:
                await trio.lowlevel.checkpoint()
            await ref.wait_running()
    return [(again - crash) * 1e6 for crash, again in zip(crashed, running[1:], strict=True)]


def idle_memory() -> dict[str, float]:
    """The figures of otp_memory.py, in a process of its own."""
    program = pathlib.Path(__file__).with_name("otp_memory.py")
    printed = subprocess.run(
        [sys.executable, str(program), "200"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    figures: dict[str, float] = json.loads(printed.splitlines()[-1])
    return figures


def spread(values: list[float], digits: int = 0) -> str:
    """Median (min-max)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def growth(turns: list[dict[str, dict[int, Seconds]]], name: str) -> list[float]:
    """How many times the time 10,000 children take, against 100, in each turn."""
    few, many = ENDS
    return [sum(turn[name][many]) / sum(turn[name][few]) for turn in turns]


def print_scale(turns: list[dict[str, dict[int, Seconds]]], quiet: list[dict[str, dict[int, Seconds]]]) -> None:
    """The table of starts and stops."""
    print(
        "| start and stop | us a child of 100 | of 1,000 | of 10,000 | 100x children, x time | the same, collector off "
        "| x its floor, 10,000 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (_measure, floor) in SHAPES.items():
        cells = [spread([sum(turn[name][size]) / size * 1e6 for turn in turns]) for size in SIZES]
        over = [sum(turn[name][10_000]) / sum(turn[floor][10_000]) for turn in turns]
        print(
            f"| {name} | {' | '.join(cells)} | {spread(growth(turns, name))} | {spread(growth(quiet, name))} "
            f"| {spread(over, 2)} |"
        )


def main() -> None:
    """Print the tables, and the same as JSON; fail where a median is over its limit."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    turns: list[dict[str, dict[int, Seconds]]] = []
    quiet: list[dict[str, dict[int, Seconds]]] = []
    crashes: dict[int, list[float]] = {siblings: [] for siblings in SIBLINGS}
    for _ in range(count):
        turns.append(one_turn(collector=True))
        quiet.append(one_turn(collector=False))
        for siblings in SIBLINGS:
            gc.collect()
            crashes[siblings].append(statistics.median(trio.run(crash_latencies, siblings)))
    memory = idle_memory()
    print(f"Python {platform.python_version()}, Trio {trio.__version__}, {count} turns: median (min-max)\n")
    print_scale(turns, quiet)
    print(f"\n| crash until it runs again, median of {CRASHES} | us | limit |\n|---|---|---|")
    for siblings, medians in crashes.items():
        print(f"| an actor with {siblings} siblings | {spread(medians)} | {CRASH_LIMIT_US:g} |")
    print("\n| idle | KiB | limit |\n|---|---|---|")
    print(f"| actor | {memory['actor_kib']:.2f} | {ACTOR_LIMIT_KIB:g} |")
    print(f"| actor that may start helper tasks | {memory['actor_with_nursery_kib']:.2f} | |")
    print(f"| supervisor without children | {memory['supervisor_kib']:.2f} | |")
    figures = {"collector_on": turns, "collector_off": quiet, "crash_us": crashes, "memory": memory}
    print(json.dumps({"benchmark": "otp_scale", "python": platform.python_version(), "turns": count, **figures}))
    failures = [
        f"{name}: 100 times the children take {middle:.0f} times the time, more than {GROWTH_LIMIT:g}"
        for name, (_measure, floor) in SHAPES.items()
        if name != floor and (middle := statistics.median(growth(turns, name))) > GROWTH_LIMIT
    ]
    failures += [
        f"a crashed actor with {siblings} siblings runs again after {statistics.median(medians):.0f} us"
        for siblings, medians in crashes.items()
        if statistics.median(medians) >= CRASH_LIMIT_US
    ]
    if memory["actor_kib"] >= ACTOR_LIMIT_KIB:
        failures.append(f"an idle actor holds {memory['actor_kib']:.2f} KiB")
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
