"""Where the memory of an idle channel goes: the growth of the process over many of each part, and what it is made of.

    python bench/memory_parts.py [how_many] [part,part...]

Each part is measured in a process of its own, by the growth of anonymous memory (Linux: RssAnon) per one of it, once a
hundred of it are there, so that imports, caches and free lists are paid. Beside it stands what the collector tracks of
it, since a full collection looks at each of those. A channel is joined to a node in a process of its own. Of each part
the types of the objects that the collector tracks are counted too, which tells where to look.
"""

from __future__ import annotations

import collections
import gc
import itertools
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import trio
from memory import HERE, anonymous_kib

from layr8_actors import Channel, ChannelOptions
from layr8_actors.channel.record import Record
from layr8_actors.channel.tree import Tree
from layr8_actors.otp import Actor, ActorRef, ChildSpec, Supervisor
from layr8_actors.telemetry import Event

FIRST = 100
NUMBERS = itertools.count()  # a node binds a DID once


class Helped(Actor):
    """An actor as it comes."""


class Alone(Actor):
    """An actor without helper tasks."""

    helpers = False


class Prompt(Actor):
    """One whose methods never wait, either."""

    helpers = False
    waits = False


class Beating(Prompt):
    """One that waits for a deadline too."""

    async def init(self) -> None:
        """Set it far off."""
        self.deadline = trio.current_time() + 3600


def silent(event: Event) -> None:
    """Drop an event."""


def options(number: int, url: str = "ws://node.test/socket/websocket") -> ChannelOptions:
    """The defaults, as a program with many agents has them."""
    return ChannelOptions(ws_url=url, api_key="bench", agent_did=f"did:web:node.test:idle-{number}", on_event=silent)


async def idle() -> None:
    """A task that waits as shallowly as one can."""
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


async def scoped() -> None:
    """Likewise, within a cancel scope."""
    with trio.CancelScope():
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


async def with_nursery() -> None:
    """Likewise, within a nursery that nobody is in."""
    async with trio.open_nursery():
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


async def with_deadline() -> None:
    """Likewise, within a scope that has a deadline."""
    with trio.CancelScope(deadline=trio.current_time() + 3600):
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


async def tasks(nursery: trio.Nursery, count: int, task: Callable[[], Any]) -> list[Any]:
    """So many tasks of a kind."""
    for _ in range(count):
        nursery.start_soon(task)
    return []


async def actors(nursery: trio.Nursery, count: int, kind: type[Actor]) -> list[Any]:
    """So many actors in one supervisor each hundred."""
    kept: list[Any] = []
    for _ in range(count // 100):
        specs: list[ChildSpec] = [kind.child_spec(ActorRef(f"actor-{number}")) for number in range(100)]
        kept.append(Supervisor(specs, on_event=silent))
        await nursery.start(kept[-1].run)
    return kept


async def supervisors(nursery: trio.Nursery, count: int, _: Any) -> list[Any]:
    """So many supervisors without children."""
    kept: list[Any] = [Supervisor((), on_event=silent) for _ in range(count)]
    for supervisor in kept:
        await nursery.start(supervisor.run)
    return kept


async def objects(nursery: trio.Nursery, count: int, make: Callable[[int], object]) -> list[Any]:
    """So many plain objects."""
    return [make(number) for number in range(count)]


async def trees(nursery: trio.Nursery, count: int, _: Any) -> list[Any]:
    """So many channels that are started and not connected."""
    return [await Channel.start_link(nursery, options(number)) for number in range(count)]


async def channels(nursery: trio.Nursery, count: int, url: str) -> list[Any]:
    """So many channels that are joined."""
    kept: list[Any] = []
    limiter = trio.CapacityLimiter(50)

    async def open_one(number: int) -> None:
        async with limiter:
            channel = await Channel.start_link(nursery, options(number, url))
            await channel.connect(["https://didcomm.org/basicmessage/2.0"])
            kept.append(channel)

    async with trio.open_nursery() as opening:
        for _ in range(count):
            opening.start_soon(open_one, next(NUMBERS))
    return kept


async def sockets(nursery: trio.Nursery, count: int, _: Any) -> list[Any]:
    """So many pairs of connected Trio sockets, of which each is read by a task."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    kept: list[Any] = list(listeners)
    for _ in range(count):
        here = await trio.open_tcp_stream(*address)
        there = await listeners[0].accept()
        nursery.start_soon(here.receive_some)
        nursery.start_soon(there.receive_some)
        kept += [here, there]
    return kept


PARTS: dict[str, tuple[str, Callable[..., Any], Any]] = {
    "task": ("Trio task that waits", tasks, idle),
    "scope": ("... within a cancel scope", tasks, scoped),
    "deadline": ("... within one that has a deadline", tasks, with_deadline),
    "nursery": ("... within a nursery", tasks, with_nursery),
    "event": ("trio.Event", objects, lambda _: trio.Event()),
    "channel": ("trio memory channel, both ends", objects, lambda _: trio.open_memory_channel[Any](1024)),
    "socket": ("two Trio sockets, each read by a task", sockets, None),
    "supervisor": ("supervisor without children", supervisors, None),
    "helped": ("actor that may start helper tasks, in its supervisor", actors, Helped),
    "alone": ("actor without helper tasks", actors, Alone),
    "prompt": ("... whose methods never wait", actors, Prompt),
    "beating": ("... and that has a deadline", actors, Beating),
    "options": ("ChannelOptions", objects, options),
    "record": ("Record with its options", objects, lambda number: Record(options(number))),
    "made": ("channel that does not run: options, record, specs", objects, lambda number: Tree(options(number))),
    "tree": ("channel that runs and is not connected", trees, None),
    "joined": ("channel that is joined", channels, "url"),
}


async def grow(count: int, make: Callable[..., Any], argument: Any) -> dict[str, Any]:
    """Make a hundred, then so many more, and say what one of those has cost."""
    async with trio.open_nursery() as nursery:
        kept = await make(nursery, FIRST, argument)
        await trio.sleep(1.0)  # until they idle, and hibernate where they do
        before, tracked = anonymous_kib(), len(gc.get_objects())
        kinds = collections.Counter(type(found).__name__ for found in gc.get_objects())
        kept += await make(nursery, count, argument)
        await trio.sleep(1.0)  # until they idle, and hibernate where they do
        growth = (anonymous_kib() - before) / count
        objects_each = (len(gc.get_objects()) - tracked) / count
        more = collections.Counter(type(found).__name__ for found in gc.get_objects())
        more.subtract(kinds)
        nursery.cancel_scope.cancel()
    kinds_each = {kind: round(number / count, 2) for kind, number in more.most_common(30) if number > count // 2}
    return {"kib": growth, "tracked": objects_each, "kinds": kinds_each}


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--part"]:
        _title, make, argument = PARTS[sys.argv[2]]
        if argument == "url":
            argument = sys.argv[4]
        print(json.dumps(trio.run(grow, int(sys.argv[3]), make, argument)))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else "1000"
    chosen = sys.argv[2].split(",") if len(sys.argv) > 2 else list(PARTS)
    node_command = [sys.executable, str(HERE / "node.py")]
    print("| part | KiB | tracked objects |\n|---|---|---|")
    with subprocess.Popen(node_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        url = node.stdout.readline().strip()
        found: dict[str, Any] = {}
        for part in chosen:
            command = [sys.executable, str(pathlib.Path(__file__)), "--part", part, count, url]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[part] = figures = json.loads(done.stdout)
            print(f"| {PARTS[part][0]} | {figures['kib']:.2f} | {figures['tracked']:.0f} |", flush=True)
    print(json.dumps({"benchmark": "memory_parts", "parts": found}))


if __name__ == "__main__":
    main()
