"""What an idle supervision tree costs in memory: starts many of each shape in one process and divides the growth.

    python bench/otp_memory.py [supervisors]

Counted are the bytes that Python objects hold (tracemalloc), after a collection; the first tree is not counted, so that
imports and caches are paid. An actor's cost is the growth from supervisors with none to supervisors with five.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable

import trio
import trio.testing

from layr8_actors.otp import Actor, ActorRef, ChildSpec, Supervisor
from layr8_actors.telemetry import Event

ACTORS = 5  # as a channel has


class WithHelpers(Actor):
    """An actor that may start helper tasks."""


class Alone(Actor):
    """An actor that never starts one."""

    helpers = False


class Prompt(Alone):
    """One whose methods never wait, either."""

    waits = False


class Hibernating(Prompt):
    """One that has no task while it idles."""

    hibernate_after = 0


def held() -> int:
    """The bytes that Python objects hold now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def silent(event: Event) -> None:
    """Drop an event."""


def tree(actor: type[Actor], actors: int) -> Supervisor:
    """A supervisor of so many actors."""
    specs: list[ChildSpec] = [actor.child_spec(ActorRef(f"actor-{number}")) for number in range(actors)]
    return Supervisor(specs, on_event=silent)


async def cost(make: Callable[[], Supervisor], trees: int) -> float:
    """Run so many trees, and return what one of them holds while all are idle, in KiB."""
    kept: list[Supervisor] = []
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            await nursery.start(make().run)
        await trio.testing.wait_all_tasks_blocked()
        tracemalloc.start()
        before = held()
        for _ in range(trees):
            kept.append(make())
            await nursery.start(kept[-1].run)
        await trio.testing.wait_all_tasks_blocked()
        growth = held() - before
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    return growth / trees / 1024


def main() -> None:
    """Print a table, and the same as JSON."""
    trees = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    empty = trio.run(cost, lambda: tree(Alone, 0), trees)
    alone = (trio.run(cost, lambda: tree(Alone, ACTORS), trees) - empty) / ACTORS
    prompt = (trio.run(cost, lambda: tree(Prompt, ACTORS), trees) - empty) / ACTORS
    hibernating = (trio.run(cost, lambda: tree(Hibernating, ACTORS), trees) - empty) / ACTORS
    helped = (trio.run(cost, lambda: tree(WithHelpers, ACTORS), trees) - empty) / ACTORS
    print(f"| idle, of {trees} supervisors | KiB each |")
    print("|---|---|")
    print(f"| supervisor without children | {empty:.2f} |")
    print(f"| actor without helper tasks, in its supervisor | {alone:.2f} |")
    print(f"| actor without helper tasks whose methods never wait, likewise | {prompt:.2f} |")
    print(f"| ... and that hibernates, likewise | {hibernating:.2f} |")
    print(f"| actor that may start helper tasks, likewise | {helped:.2f} |")
    figures = {
        "supervisor_kib": empty,
        "actor_kib": alone,
        "actor_that_never_waits_kib": prompt,
        "actor_that_hibernates_kib": hibernating,
        "actor_with_nursery_kib": helped,
    }
    print(json.dumps({"benchmark": "otp_memory", "supervisors": trees, **figures}))


if __name__ == "__main__":
    main()
