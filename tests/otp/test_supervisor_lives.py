"""Random lives of random supervisors: whatever happens in whatever order, what is promised always holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from layr8_actors.errors import RestartLimitExceeded, SupervisionError
from layr8_actors.otp import (
    Actor,
    ActorRef,
    AutoShutdown,
    Backoff,
    ChildInfo,
    ChildSpec,
    ChildState,
    Down,
    DynamicSupervisor,
    Monitor,
    Pid,
    Restart,
    Strategy,
    Supervisor,
)

IDS = "abcd"


@dataclass(frozen=True)
class Child:
    """What a child of a random supervisor is like."""

    restart: Restart
    significant: bool
    start_delay: float
    cleanup: float


@dataclass(frozen=True)
class World:
    """A random supervisor, and what happens to it."""

    dynamic: bool
    children: tuple[Child, ...]
    strategy: Strategy
    auto_shutdown: AutoShutdown
    parallel: bool
    backoff: Backoff | None
    limit: int
    deadline: float
    steps: tuple[tuple[str, int, float], ...]
    end: str


VERBS = ["crash", "crash", "finish", "kill", "fail", "sicken", "start", "terminate", "restart", "delete"]
BACKOFFS = [None, Backoff(initial=0.5, maximum=2, jitter=0, reset_after=5), Backoff(initial=0.5, first_delay=0.0)]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Specs that are allowed: of all kinds, and significant where that means something."""
    dynamic = draw(st.booleans())
    auto_shutdown = AutoShutdown.NEVER if dynamic else draw(st.sampled_from(list(AutoShutdown)))
    may_matter = auto_shutdown is not AutoShutdown.NEVER

    def child(restart: Restart, significant: bool, start_delay: float, cleanup: float) -> Child:
        return Child(restart, significant and may_matter and restart is not Restart.PERMANENT, start_delay, cleanup)

    pauses = st.sampled_from([0.0, 0.0, 0.25, 1.0])
    kinds = st.builds(child, st.sampled_from(list(Restart)), st.booleans(), pauses, pauses)
    step = st.tuples(st.sampled_from(VERBS), st.integers(0, len(IDS) - 1), st.just(0.0))
    pause = st.tuples(st.just("sleep"), st.just(0), st.sampled_from([0.25, 0.5, 1.0, 3.0]))
    return World(
        dynamic=dynamic,
        children=tuple(draw(st.lists(kinds, min_size=len(IDS), max_size=len(IDS)))),
        strategy=draw(st.sampled_from(list(Strategy))),
        auto_shutdown=auto_shutdown,
        parallel=draw(st.booleans()),
        backoff=draw(st.sampled_from(BACKOFFS)),
        limit=draw(st.sampled_from([1000, 1000, 1000, 2, 0])),
        deadline=draw(st.sampled_from([1000.0, 0.5])),
        steps=tuple(draw(st.lists(st.one_of(step, pause), min_size=8, max_size=40))),
        end=draw(st.sampled_from(["stop", "stop", "cancel", "stop at once", "cancel at once"])),
    )


class Watcher(Actor):
    """Counts the ends that it is told of."""

    def __init__(self, told: Counter[Monitor]) -> None:
        self.told = told

    async def handle_cast(self, message: Any) -> None:
        message(self)

    async def handle_down(self, down: Down) -> None:
        self.told[down.monitor] += 1
        assert down.pid is not None
        assert down.reason is down.pid.reason


class Life:
    """One run through a world, with what is known of it from outside."""

    def __init__(self, lab: Any, world: World) -> None:
        self.lab = lab
        self.world = world
        self.supervisor: Any = self.make()
        self.started = 0
        self.may_rest: set[str] = set()
        """Whom something has allowed to stay stopped."""
        self.told: Counter[Monitor] = Counter()
        self.monitors: dict[Pid, Monitor] = {}
        self.watcher = ActorRef("watcher")
        self.failure: SupervisionError | None = None
        self.cancelled = False

    def make(self) -> Supervisor | DynamicSupervisor:
        world = self.world
        options: dict[str, Any] = {
            "backoff": world.backoff,
            "max_restarts": world.limit,
            "max_seconds": 10.0**6,
            "shutdown_deadline": world.deadline,
            "on_event": self.lab.events.append,
        }
        if world.dynamic:
            return DynamicSupervisor(**options)
        specs = [self.spec(id, child) for id, child in zip(IDS, world.children, strict=True)]
        return Supervisor(
            specs[:3],
            strategy=world.strategy,
            auto_shutdown=world.auto_shutdown,
            parallel_shutdown=world.parallel,
            **options,
        )

    def spec(self, id: str, child: Child) -> ChildSpec:
        self.lab.start_delay[id] = child.start_delay
        self.lab.cleanup[id] = child.cleanup
        spec: ChildSpec = self.lab.child(id, restart=child.restart, significant=child.significant)
        return spec

    def infos(self) -> list[ChildInfo]:
        return self.supervisor.which_children() if self.supervisor.running else []

    def lab_id(self, child_id: str) -> str:
        return child_id.partition("-")[0]

    # --- what happens -------------------------------------------------------------------------------------------------

    async def ask(self, request: Any) -> None:
        try:
            await request()
        except SupervisionError:
            pass  # each refusal has a test of its own; here it matters that everybody is answered

    async def step(self, verb: str, number: int, seconds: float, nursery: trio.Nursery) -> None:
        if verb == "sleep":
            await trio.sleep(seconds)
            return
        if verb == "start":
            child = self.world.children[number]
            id = f"d{self.started}" if self.world.dynamic else IDS[number]
            if id not in self.lab.start_delay or not self.world.dynamic:
                self.started += 1
                nursery.start_soon(self.ask, lambda: self.supervisor.start_child(self.spec(id, child)))
            return
        infos = self.infos()
        if not infos:
            return
        info = infos[number % len(infos)]
        id = self.lab_id(info.id)
        if verb == "fail":
            self.lab.fail_starts[id] += 1
        elif verb == "terminate":
            self.may_rest.add(info.id)
            nursery.start_soon(self.ask, lambda: self.supervisor.terminate_child(info.id))
        elif verb in ("restart", "delete"):
            if not self.world.dynamic:
                request = getattr(self.supervisor, f"{verb}_child")
                nursery.start_soon(self.ask, lambda: request(info.id))
        elif info.state is ChildState.RUNNING:
            if verb == "kill":
                self.supervisor.exit_child(info.id)
            else:
                if verb == "sicken":
                    self.lab.fail_starts[id] += 1  # it crashes, and its next start fails
                if verb == "finish":
                    self.may_rest.add(info.id)
                self.lab.end(id, None if verb == "finish" else self.lab.Crash(id))

    # --- what holds ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert all(count <= 1 for count in self.lab.live.values()), "two incarnations of one child"
        if not self.supervisor.running or self.supervisor._run.stopping:
            return
        run = self.supervisor._run
        timers = run._timers.live()
        busy = any(info.state in (ChildState.STARTING, ChildState.STOPPING) for info in self.infos())
        for record in run.children:
            info, id = record.info(), self.lab_id(record.spec.id)
            waits = [timer for timer in timers if info.id in timer.members]
            if record.pending is None:
                assert not waits
            else:
                assert len(waits) == 1 or busy  # a wait that is over is out of the table while its group starts
            assert all(timer is record.pending for timer in waits)
            if info.state is ChildState.STOPPED:
                assert info.id in self.may_rest, f"{info.id} is lost"
                assert self.lab.live[id] == 0
                assert record.pending is None
                assert not self.world.dynamic  # it would be forgotten
            elif info.state is ChildState.RESTARTING:
                assert record.pending is not None
                assert busy or waits[0].due > trio.current_time()
            elif info.state is ChildState.RUNNING:
                assert self.lab.live[id] == 1
                assert not waits or busy  # who is yet to be stopped for its group waits with it already
        known = {self.lab_id(record.spec.id) for record in run.children}
        assert {id for id, count in self.lab.live.items() if count} <= known, "somebody runs whom nobody knows"

    async def watch(self) -> None:
        for record in self.supervisor.records():
            if record.incarnation is not None and record.incarnation.pid not in self.monitors:
                pid = record.incarnation.pid

                def act(actor: Actor, pid: Pid = pid) -> None:
                    self.monitors[pid] = actor.monitor(pid)

                await self.watcher.cast(act)
        await wait_all_tasks_blocked()

    # --- the life -----------------------------------------------------------------------------------------------------

    async def run(self, scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            try:
                await self.supervisor.run(task_status=task_status)
            except SupervisionError as error:
                self.failure = error
        self.cancelled = scope.cancelled_caught

    async def live(self) -> None:
        scope = trio.CancelScope()
        async with trio.open_nursery() as outer:
            await outer.start(Watcher.child_spec(self.watcher, self.told).start)
            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:

                    async def run(*, task_status: trio.TaskStatus[None]) -> None:
                        await self.run(scope, task_status)

                    await nursery.start(run)
                    for verb, number, seconds in self.world.steps:
                        await self.watch()
                        await self.step(verb, number, seconds, nursery)
                        await wait_all_tasks_blocked()
                        self.check()
                    if not self.world.end.endswith("at once"):
                        self.lab.fail_starts.clear()
                        await trio.sleep(100)
                        self.check()
                        assert all(info.state is not ChildState.RESTARTING for info in self.infos())
                    await self.watch()
                    self.lab.took()
                    order = [self.lab_id(info.id) for info in self.infos()]
                    alive = [id for id in order if self.lab.live[id]]
                    quiet = all(info.state in (ChildState.RUNNING, ChildState.STOPPED) for info in self.infos())
                    # One that crashed and is still at its cleanup goes by itself, whatever the order (D9).
                    orders = self.lab._orders
                    quiet = quiet and not any(id in orders and orders[id][0].is_set() for id in alive)
                    if self.world.end.startswith("cancel"):
                        scope.cancel()
                    else:
                        self.supervisor.request_stop()
            ended = self.lab.took()
            assert not any(self.lab.live.values()), "a task is left"
            if not self.world.dynamic and not self.world.parallel and quiet and self.world.deadline == 1000:
                assert ended == [f"stop {id}" for id in reversed(alive)]
            await wait_all_tasks_blocked()
            assert all(self.told[monitor] == 1 for monitor in self.monitors.values()), "an end told twice, or never"
            assert all(not pid.alive for pid in self.monitors)
            outer.cancel_scope.cancel()
        if self.failure is not None:
            assert isinstance(self.failure, RestartLimitExceeded)
            assert self.world.limit < 1000


@given(world=worlds())
def test_F6_D1_L1_whatever_happens_nobody_is_lost_doubled_left_or_forgotten(make_lab: Any, world: World) -> None:
    trio.run(Life(make_lab(), world).live, clock=MockClock(autojump_threshold=0))
