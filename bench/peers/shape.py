"""The floor of the design's shape: what a supervised channel costs in Trio alone, without an object or a check of ours.

    python bench/peers/shape.py [turns] [connections] [channels]

One nursery supervises the actors of a channel, each a Trio task that waits, and the task of a link that dials, upgrades
and joins by the fewest system calls there are, with constant bytes, and then reads. Two shapes: five actors with a task
each, which tell each other by waking (the six hops that connecting took when all messages were mailed), and none with a
task, where the link alone is one. Measured as bench/peers measures connecting and memory, on the same server.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import neutral
import trio
import work

ACTORS = 5
HOPS_TO_THE_LINK = (4, 2)
"""Reconnector and Connection are woken by a caller of connect, before a link is dialled."""
HOPS_TO_THE_JOIN = (4, 1)
"""Reconnector and Router, before the join is written."""
HOPS_TO_THE_CALLER = (1, 4)
"""Router and Reconnector, before the caller knows."""


class Shape:
    """One channel of nothing but tasks.

    Args:
        address: of the server.
        did: whose topic to join.
        actors: how many have a task.
    """

    def __init__(self, address: tuple[str, int], did: str, actors: int) -> None:
        self.address = address
        self.join = f'["1","1","plugins:{did}","phx_join",{{}}]'.encode()
        self.actors: list[trio.lowlevel.Task | None] = [None] * actors
        self.told: list[Callable[[], None] | None] = [None] * actors
        self.joined = trio.Event()
        self.socket: socket.socket | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Supervise, until cancelled."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            for number in range(len(self.actors)):
                nursery.start_soon(self.actor, number)
            task_status.started()
            await trio.sleep_forever()

    async def actor(self, number: int) -> None:
        """Wait, and do what it is told."""
        while True:
            told, self.told[number] = self.told[number], None
            if told is not None:
                told()
                continue
            self.actors[number] = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    def tell(self, hops: tuple[int, ...], then: Callable[[], None]) -> None:
        """Let each of these actors wake the next one, and the last one do it; at once where actors have no tasks."""
        if not self.actors or not hops:
            then()
            return
        first, *rest = hops
        self.told[first] = lambda: self.tell(tuple(rest), then)
        task, self.actors[first] = self.actors[first], None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def connect(self) -> None:
        """Return when the join is answered."""
        self.tell(HOPS_TO_THE_LINK, lambda: self.nursery.start_soon(self.link))
        await self.joined.wait()

    async def link(self) -> None:
        """Dial, upgrade, join, and read."""
        with socket.socket() as found:
            self.socket = found
            found.setblocking(False)
            if found.connect_ex(self.address) and found.connect_ex(self.address):
                await trio.lowlevel.wait_writable(found)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = self.address
            request = (
                f"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n"
            )
            os.write(found.fileno(), request.encode())
            await trio.lowlevel.wait_readable(found)
            assert os.read(found.fileno(), 4096).startswith(b"HTTP/1.1 101 ")
            join = b"\x81" + bytes((0x80 | len(self.join),)) + bytes(4) + self.join
            assert len(self.join) < 126

            def write_join() -> None:
                assert os.write(found.fileno(), join) == len(join)

            self.tell(HOPS_TO_THE_JOIN, write_join)
            answered = False
            while True:
                await trio.lowlevel.wait_readable(found)
                assert os.read(found.fileno(), 65536)
                if not answered:
                    answered = True
                    self.tell(HOPS_TO_THE_CALLER, self.joined.set)


async def connect(address: tuple[str, int], actors: int, count: int) -> dict[str, float]:
    """Start, connect and join, one after the other."""
    walls: list[float] = []
    starts: list[float] = []
    for number in range(-2, count):
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            shape = Shape(address, f"{work.TOPIC_DID}{number}", actors)
            await nursery.start(shape.run)
            starts.append(time.perf_counter() - began)
            await shape.connect()
            walls.append(time.perf_counter() - began)
            nursery.cancel_scope.cancel()
    return {"p50_us": statistics.median(walls[2:]) * 1e6, "start_p50_us": statistics.median(starts[2:]) * 1e6}


async def memory(address: tuple[str, int], actors: int, count: int) -> dict[str, float]:
    """Growth of anonymous memory over idle ones."""
    kept: list[Shape] = []
    async with trio.open_nursery() as nursery:

        async def open_many(first: int, number: int) -> None:
            for index in range(first, first + number):
                kept.append(Shape(address, f"{work.TOPIC_DID}{index}", actors))
                await nursery.start(kept[-1].run)
                await kept[-1].connect()

        await open_many(-1, 1)
        before = work.anonymous_kib()
        await open_many(0, count)
        growth = work.anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return {"kib": growth / count}


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--client"]:
        _, _, port, item, actors, count = sys.argv
        measure: Any = connect if item == "connect" else memory
        print(json.dumps(trio.run(measure, ("127.0.0.1", int(port)), int(actors), int(count))))
        return
    turns, connections, channels = (int(word) for word in [*sys.argv[1:], "3", "200", "1000"][:3])
    neutral.build()
    print("| shape | started, us | connected, us | KiB per idle channel |\n|---|---|---|---|")
    with neutral.server() as port:
        for title, actors in (("five actors with a task each", ACTORS), ("actors without tasks", 0)):
            found: dict[str, list[float]] = {}
            for _ in range(turns):
                for item, count in (("connect", connections), ("memory", channels)):
                    command = [sys.executable, str(pathlib.Path(__file__)), "--client", str(port), item]
                    with neutral.on(neutral.CLIENT_CORE):
                        done = subprocess.run(
                            [*command, str(actors), str(count)], stdout=subprocess.PIPE, text=True, check=True
                        )
                    for name, figure in json.loads(done.stdout).items():
                        found.setdefault(name, []).append(figure)
            start, p50, kib = (statistics.median(found[name]) for name in ("start_p50_us", "p50_us", "kib"))
            print(f"| {title} | {start:.0f} | {p50:.0f} | {kib:.1f} |", flush=True)


if __name__ == "__main__":
    main()
