"""Calls and casts against triotp and pykka, on the same work, in the same process, turn by turn.

    python bench/otp_peers.py [turns]

The server of each adds to a number on a cast and gives it on a call. One client, or many, send one message at a time;
or a client sends a burst and one call behind it, so that all of it is handled before the clock stops. The library is
measured once with the default time-out of its calls and once without any, which is what the peers have. Bursts go out
by each one's quickest way: cast_nowait here, tell of pykka, and the only cast that triotp has.

It runs under the interpreter of .venv-bench where this one does not have the peers (`make bench-peers` makes that, and
triotp needs Python 3.13). Where they cannot be had it says so and leaves their columns out.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import trio
import trio.testing

from layr8_actors.otp import Actor, ActorRef, Call, Supervisor
from layr8_actors.otp.call import CALL_TIMEOUT, Reply
from layr8_actors.telemetry import Event

PEERS = ("triotp", "pykka")
PEER_PYTHON = pathlib.Path(__file__).parent.parent / ".venv-bench" / "bin" / "python"
MESSAGES = 4_000
BURST = 500
CLIENTS = 50
TRIOTP_GOAL = 3.0  # times the round trips a second


@dataclass(frozen=True, slots=True)
class Handle:
    """What a client does with a server."""

    ask: Callable[[], Awaitable[object]]
    tell: Callable[[], Awaitable[object]]
    tell_many: Callable[[int], Awaitable[object]]


class Get(Call[int]):
    """Ask for the number."""

    __slots__ = ()


class Add:
    """Add one; the message that every server gets."""

    __slots__ = ()


GET = Get()
ADD = Add()


def silent(event: Event) -> None:
    """Drop an event."""


# --- the servers: each gives how to ask and how to tell it ------------------------------------------------------------


class Counter(Actor):
    """The library's."""

    helpers = False

    def __init__(self) -> None:
        self.number = 0

    async def handle_call(self, request: Any, reply: Reply[Any]) -> None:
        """Give the number."""
        reply.send(self.number)

    async def handle_cast(self, message: Any) -> None:
        """Add one."""
        self.number += 1


@asynccontextmanager
async def layr8(timeout: float):
    """A supervised actor."""
    ref = ActorRef("counter")

    async def tell_many(count: int) -> None:
        for _ in range(count):
            ref.cast_nowait(ADD)

    async with Supervisor([Counter.child_spec(ref)], on_event=silent):
        yield Handle(lambda: ref.call(GET, timeout), lambda: ref.cast(ADD), tell_many)


@asynccontextmanager
async def triotp():
    """A triotp.gen_server, as its manual writes one; without a supervisor, which plays no part in a message."""
    gen_server = importlib.import_module("triotp.gen_server")
    mailbox = importlib.import_module("triotp.mailbox")
    module = ModuleType("counter")

    async def init(argument: Any) -> int:
        return 0

    async def handle_call(message: Any, caller: Any, number: int) -> Any:
        return gen_server.Reply(payload=number), number

    async def handle_cast(message: Any, number: int) -> Any:
        return (gen_server.Stop() if message is None else gen_server.NoReply()), number + 1

    async def tell_many(count: int) -> None:
        for _ in range(count):
            await gen_server.cast("counter", ADD)

    module.init, module.handle_call, module.handle_cast = init, handle_call, handle_cast  # type: ignore[attr-defined]
    mailbox._init()  # noqa: SLF001 - what triotp.node.run does first; there is no public way to be within a Trio run
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gen_server.start, module, None, "counter")
        await trio.testing.wait_all_tasks_blocked()
        yield Handle(lambda: gen_server.call("counter", GET), lambda: gen_server.cast("counter", ADD), tell_many)
        await gen_server.cast("counter", None)


@asynccontextmanager
async def pykka():
    """A pykka.ThreadingActor; it blocks the one client that there is, as it does in a program of threads."""
    library = importlib.import_module("pykka")

    class ThreadedCounter(library.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self.number = 0

        def on_receive(self, message: Any) -> Any:
            if message is GET:
                return self.number
            self.number += 1
            return None

    ref = ThreadedCounter.start()

    async def ask() -> object:
        return ref.ask(GET)

    async def tell() -> object:
        return ref.tell(ADD)

    async def tell_many(count: int) -> None:
        for _ in range(count):
            ref.tell(ADD)

    try:
        yield Handle(ask, tell, tell_many)
    finally:
        ref.stop()


Server = Callable[[], AbstractAsyncContextManager[Handle]]
DEFAULT = "layr8_actors"
NO_TIMEOUT = "layr8_actors, no time-out"
SERVERS: dict[str, Server] = {
    DEFAULT: lambda: layr8(CALL_TIMEOUT),
    NO_TIMEOUT: lambda: layr8(math.inf),
    "triotp": triotp,
    "pykka": pykka,
}


# --- the work ---------------------------------------------------------------------------------------------------------


async def calls(to: Handle) -> None:
    """One client, one call after another."""
    for _ in range(MESSAGES):
        await to.ask()


async def calls_of_many(to: Handle) -> None:
    """Many clients at once, each one call after another."""

    async def client() -> None:
        for _ in range(MESSAGES // CLIENTS):
            await to.ask()

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(client)


async def casts(to: Handle) -> None:
    """One client, one cast after another."""
    for _ in range(MESSAGES):
        await to.tell()
    await to.ask()


async def bursts(to: Handle) -> None:
    """One client, bursts of casts with a call behind each."""
    for _ in range(MESSAGES // BURST):
        await to.tell_many(BURST)
        await to.ask()


WORK: dict[str, Callable[[Handle], Awaitable[None]]] = {
    "calls": calls,
    f"calls of {CLIENTS} clients": calls_of_many,
    "casts, one at a time": casts,
    f"casts, bursts of {BURST}": bursts,
}


async def rate(server: Server, work: Callable[[Handle], Awaitable[None]]) -> float:
    """Messages a second of CPU time, after a warm-up and a collection; the collector runs as Python sets it up."""
    async with server() as to:
        for _ in range(100):
            await to.tell()
            await to.ask()
        gc.collect()
        begin = time.process_time()
        await work(to)
        return MESSAGES / (time.process_time() - begin)


def spread(values: list[float], digits: int) -> str:
    """Median (min-max)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def version(package: str) -> str:
    """The package with the version that is installed."""
    return f"{package} {importlib.metadata.version(package)}"


def main() -> None:
    """Print a table, and the same as JSON; fail where calls are below the goal against triotp."""
    missing = [peer for peer in PEERS if importlib.util.find_spec(peer) is None]
    if missing and PEER_PYTHON.exists() and pathlib.Path(sys.prefix) != PEER_PYTHON.parent.parent:
        os.execv(PEER_PYTHON, [str(PEER_PYTHON), *sys.argv])
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    servers = {name: server for name, server in SERVERS.items() if name not in missing}
    rates: dict[str, dict[str, list[float]]] = {what: {name: [] for name in servers} for what in WORK}
    for turn in range(count):
        for what, work in WORK.items():
            order = list(servers.items())
            for name, server in order[turn % len(order) :] + order[: turn % len(order)]:
                rates[what][name].append(trio.run(rate, server, work))
    present = ", ".join(version(name) for name in ("trio", *(peer for peer in PEERS if peer not in missing)))
    print(f"Python {platform.python_version()}, {present}, {count} turns: median (min-max)\n")
    if missing:
        print(f"Not compared with {' and '.join(missing)}: not installed. `make bench-peers` installs them.\n")
    print(f"| messages a second | {' | '.join(servers)} |\n|---|{'---|' * len(servers)}")
    for what, by_name in rates.items():
        print(f"| {what} | {' | '.join(spread(by_name[name], 0) for name in servers)} |")
    ratios: dict[str, dict[str, dict[str, list[float]]]] = {}
    for peer in (peer for peer in PEERS if peer not in missing):
        ratios[peer] = {
            what: {
                name: [ours / theirs for ours, theirs in zip(by_name[name], by_name[peer], strict=True)]
                for name in (DEFAULT, NO_TIMEOUT)
            }
            for what, by_name in rates.items()
        }
        print(f"\n| x {peer} | default | without time-out |\n|---|---|---|")
        for what, both in ratios[peer].items():
            print(f"| {what} | {' | '.join(f'{spread(both[name], 2)}' for name in (DEFAULT, NO_TIMEOUT))} |")
    print(json.dumps({"benchmark": "otp_peers", "python": platform.python_version(), "missing": missing, **rates}))
    if "triotp" in ratios:
        middle = statistics.median(ratios["triotp"]["calls"][DEFAULT])
        if middle < TRIOTP_GOAL:
            raise SystemExit(f"calls are {middle:.2f} times as many as with triotp, less than {TRIOTP_GOAL:g}")


if __name__ == "__main__":
    main()
