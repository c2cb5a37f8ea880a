"""What every client of the comparison does, how much of it, and how it is timed; the standard library alone.

A client is a program of its own, `client URL ITEM COUNT`, that prints one line of JSON. Its process is measured from
within: CPU time by getrusage around the timed part, so that neither imports nor the warm-up count.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - a client's library decides which loop it runs on
import functools
import gc
import json
import pathlib
import re
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

BODY = 300
"""Bytes of the body of what is pushed, wherever an item does not name another size."""

SIZES = (300, 4096, 65536, 1_000_000)

TOPIC_DID = "did:web:node.test:bench"

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


class Item(NamedTuple):
    """One kind of work: what it is called in tables, how much of it a full and a quick turn do, and its floors."""

    title: str
    full: int
    quick: int
    unit: str
    decides: str
    """The figure whose ratio decides: `cpu_us`, `p50_us`, `wall_us` or `kib`."""


ITEMS = {
    "seq": Item("sequential round trip", 3_000, 500, "round trip", "p50_us"),
    "pipe100": Item("100 in flight", 15_000, 2_500, "round trip", "cpu_us"),
    "pipe1000": Item("1,000 in flight", 15_000, 3_000, "round trip", "cpu_us"),
    "fnf": Item("fire and forget", 30_000, 5_000, "push", "cpu_us"),
    "in300": Item("inbound 300 B", 40_000, 6_000, "message", "cpu_us"),
    "in4096": Item("inbound 4 KB", 15_000, 2_500, "message", "cpu_us"),
    "in65536": Item("inbound 64 KB", 1_500, 300, "message", "cpu_us"),
    "in1000000": Item("inbound 1 MB", 100, 20, "message", "cpu_us"),
    "out1000000": Item("outbound 1 MB", 100, 20, "round trip", "cpu_us"),
    "connect": Item("connect and join", 200, 40, "connection", "p50_us"),
    "memory": Item("memory per idle channel", 1_000, 200, "channel", "kib"),
}
RECONNECT = {
    "reconnect": Item("reconnect after a node restart, its own delays", 1_000, 100, "channel", "cpu_us"),
    "reconnect-exact": Item("reconnect after a node restart, no jitter", 1_000, 100, "channel", "cpu_us"),
}


@functools.cache  # the warm-up pays for making it
def payload(size: int) -> dict[str, Any]:
    """A DIDComm plaintext whose body has about ``size`` bytes: half structured, half one string."""
    rows: list[dict[str, Any]] = []
    room = size // 2 - 80
    while room > 0:
        number = len(rows)
        rows.append({"id": number, "name": f"item {number}", "price": number * 1.25, "ok": number % 2 == 0})
        room -= len(json.dumps(rows[-1], separators=(",", ":"))) + 1
    rest = size - len(json.dumps({"rows": rows, "text": ""}, separators=(",", ":")))
    return {
        "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "type": "https://didcomm.org/basicmessage/2.0/message",
        "from": "did:web:node.test:somebody-with-a-name",
        "to": ["did:web:node.test:bench"],
        "created_time": 1_790_000_000,
        "body": {"rows": rows, "text": "x" * max(rest, 0)},
    }


@functools.cache
def encoded(size: int) -> str:
    """The payload as compact JSON, as the server pushes it and as a client without a codec sends it."""
    return json.dumps(payload(size), separators=(",", ":"))


class Timed:
    """Wall and CPU seconds of this process, all threads, between start and stop; may be started again."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.start()

    def start(self) -> None:
        """Begin, or go on."""
        self._cpu, self._wall = _cpu(), time.perf_counter()

    def stop(self) -> float:
        """Add what has passed; return the wall seconds of it."""
        wall = time.perf_counter() - self._wall
        self.cpu_s += _cpu() - self._cpu
        self.wall_s += wall
        return wall


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def per_unit(count: int, timed: Timed, walls: list[float] | None = None) -> dict[str, float]:
    """The figures of one run: microseconds per unit, units per second, and quantiles where each unit was timed."""
    figures = {
        "n": count,
        "cpu_us": timed.cpu_s / count * 1e6,
        "wall_us": timed.wall_s / count * 1e6,
        "rate": count / timed.wall_s,
    }
    if walls:
        walls = sorted(walls)
        figures["p50_us"] = walls[len(walls) // 2] * 1e6
        figures["p99_us"] = walls[min(len(walls) - 1, len(walls) * 99 // 100)] * 1e6
    return figures


def anonymous_kib() -> int:
    """This process's anonymous memory in KiB, which the interpreter's own pages are no part of."""
    gc.collect()
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit("RssAnon is not in /proc/self/status: the comparison runs on Linux")
    return int(found.group(1))


def allow_many_files() -> None:
    """A socket each needs more file descriptors than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


Work = Callable[[str, str, int], Coroutine[Any, Any, Any]]


def main(work: Work, run: Callable[..., Any] | None = None) -> None:
    """Do what the command line says and print the figures.

    Args:
        work: gets URL, item and count, and returns the figures.
        run: runs it to its end, such as ``trio.run``; ``None`` for asyncio.
    """
    url, item, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    allow_many_files()
    figures = asyncio.run(work(url, item, count)) if run is None else run(work, url, item, count)
    print(json.dumps(figures))
