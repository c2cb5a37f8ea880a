"""Random lives of a tree, once with actors that keep their tasks and once with such as hibernate: nobody can tell."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import ActorDied, ActorNotRunning
from layr8_actors.otp import Actor, ActorRef, ExitReason, Strategy, Supervisor
from layr8_actors.otp.events import ChildExited
from layr8_actors.telemetry import Event

ACTORS = 4
STEPS = 60


class Life:
    """One life of a tree: what happens comes from the seed alone, each thing at an instant of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.began = trio.current_time()
        self.refs = [ActorRef(str(number), keep_mailbox=number % 2 == 0) for number in range(ACTORS)]
        self.actors: dict[str, Player] = {}
        self.logs: dict[str, list[Any]] = {ref.id: [] for ref in self.refs}

    def note(self, id: str, *what: object) -> None:
        self.logs[id].append((round(trio.current_time() - self.began, 6), *what))

    def seen(self, event: Event) -> None:
        if isinstance(event, ChildExited):
            self.note(event.id, "exited", event.doing, event.reason.kind.value, event.dropped)

    def after(self, number: int) -> ActorRef:
        return self.refs[(number + 1) % ACTORS]

    async def step(self, supervisor: Supervisor) -> None:
        chance = self.random
        ref, seconds = chance.choice(self.refs), chance.uniform(0.1, 5)
        what = chance.choice(
            ["crash", "due", "timer", "help", "pass", "move", "past", "exit", "restart", "stop", "nap"]
        )
        if what in ("crash", "due", "timer", "help"):
            ref.cast_nowait((what, seconds))
        elif what == "pass":
            ref.cast_nowait((what, 5))
        elif what in ("move", "past"):
            self.actors[ref.id].deadline = trio.current_time() + (seconds if what == "move" else -seconds)
        elif what == "exit":
            if ref.running:
                supervisor.exit_child(ref.id, chance.choice([None, ValueError("exit")]))
        elif what == "restart":
            await supervisor.terminate_child(ref.id)
            await supervisor.restart_child(ref.id)
        elif what == "stop":
            try:
                await ref.stop()
            except (ActorDied, ActorNotRunning) as error:
                self.note(ref.id, type(error).__name__)
        await trio.testing.wait_all_tasks_blocked()
        if what == "nap":
            await trio.sleep(seconds)


class Player(Actor):
    waits = False

    def __init__(self, life: Life, number: int) -> None:
        self.life = life
        self.number = number

    def note(self, *what: object) -> None:
        self.life.note(self.ref.id, *what)

    async def init(self) -> None:
        self.life.actors[self.ref.id] = self
        self.note("init")

    async def handle_cast(self, message: tuple[str, float]) -> None:
        what, amount = message
        self.note(what, amount)
        if what == "crash":
            raise ValueError(amount)
        if what == "due":
            self.deadline = trio.current_time() + amount
        elif what == "timer":
            self.send_after(amount, ("rung", amount))
        elif what == "help":
            self.start_soon(self.help, amount)
        elif what == "pass" and amount:
            self.life.after(self.number).cast_nowait(("pass", amount - 1))

    async def help(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.note("helped", seconds)

    async def handle_timeout(self) -> None:
        self.note("timeout")

    async def terminate(self, reason: ExitReason) -> None:
        self.note("terminate", reason.kind.value)


async def live(seed: int, hibernate_after: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    monkeypatch.setattr(Player, "hibernate_after", hibernate_after)
    life = Life(seed)
    supervisor = Supervisor(
        [Player.child_spec(ref, life, number) for number, ref in enumerate(life.refs)],
        strategy=life.random.choice(list(Strategy)),
        max_restarts=10_000,
        on_event=life.seen,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for _ in range(STEPS):
            await life.step(supervisor)
        await trio.sleep(50)
        nursery.cancel_scope.cancel()
    return life.logs


@pytest.mark.parametrize("hibernate_after", [0, 0.7])
@pytest.mark.parametrize("seed", range(20))
async def test_each_actor_lives_the_same_life_with_a_task_and_without(
    seed: int, hibernate_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_task = await live(seed, math.inf, monkeypatch)
    assert await live(seed, hibernate_after, monkeypatch) == with_a_task
