"""What a durable message costs: puts alone and together, and the whole way through a worker, by store and by promise.

    python bench/durable.py [seconds]

Each figure is of so many seconds on a temporary folder of the disk that TMPDIR is on; what a sync costs is up to that
disk. The rows over Redis need redis-server on PATH. Bodies have 500 bytes. The last column is the processor time of a
client with 99 further DIDs to which nothing happens, in percent of one core, over five seconds.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from layr8_actors import Client, ClientConfig
from layr8_actors.client.durable import Claimed, DurableQueue, RedisStore, SqliteStore, run_worker
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

BODY = bytes(500)
TOGETHER = 64
DIDS = 99
Store = AbstractAsyncContextManager[SqliteStore | RedisStore]


def silent(event: Event) -> None:
    """Drop an event."""


async def puts(queue: DurableQueue, tasks: int, seconds: float) -> float:
    """Put from so many tasks for so long, and return how many a second."""
    done = 0

    async def put(name: int) -> None:
        nonlocal done
        number = 0
        while True:
            await queue.put(f"{tasks}-{name}-{number}", BODY)
            number += 1
            done += 1

    started = time.perf_counter()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for name in range(tasks):
                nursery.start_soon(put, name)
    return done / (time.perf_counter() - started)


async def handled(queue: DurableQueue, seconds: float) -> float:
    """Let a worker of 8 handle what is there, and return how many a second."""
    done = 0

    async def handler(_: Claimed) -> None:
        nonlocal done
        done += 1

    started = time.perf_counter()
    with trio.move_on_after(seconds):
        await run_worker(queue, handler, on_event=silent)
    return done / (time.perf_counter() - started)


async def idle(store: SqliteStore | RedisStore, dids: int, seconds: float) -> float:
    """Let a durable client with so many further DIDs do nothing, and return what that costs."""
    async with CloudNode(memory=True) as node:
        config = ClientConfig(
            node_url=node.url,
            api_key="key",
            agent_did="did:web:node.test:agent",
            transport=node.connector,
            on_event=silent,
        )
        async with Client(config, durable=store) as client:
            for number in range(dids):
                await client.join_did(f"did:web:node.test:tenant-{number}")
            await trio.sleep(1)
            before = time.process_time()
            await trio.sleep(seconds)
            return 100 * (time.process_time() - before) / seconds


async def measure(make: Callable[[str], Store], seconds: float) -> dict[str, float]:
    """Measure one store."""
    async with make("full") as store:
        figures: dict[str, Callable[[], Awaitable[float]]] = {
            "put_alone": lambda: puts(store.inbox, 1, seconds),
            "put_together": lambda: puts(store.inbox, TOGETHER, seconds),
            "handled": lambda: handled(store.inbox, seconds),
        }
        results = {name: await figure() for name, figure in figures.items()}
    async with make("empty") as store:
        return {**results, "idle": await idle(store, DIDS, 5.0)}


def main() -> None:
    """Print a table, and the same as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.7
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Callable[[str], Store]] = {
            "SQLite, power safe (FULL)": lambda name: SqliteStore(f"{folder}/{name}.db"),
            "SQLite, not power safe (NORMAL)": lambda name: SqliteStore(f"{folder}/{name}-normal.db", power_safe=False),
        }
        server = None
        if shutil.which("redis-server") is not None:
            command = ["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", folder]
            command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while not Path(f"{folder}/redis.sock").exists():
                time.sleep(0.01)
            stores["Redis, appendfsync always"] = lambda name: RedisStore(
                f"unix://{folder}/redis.sock", namespace=name, on_event=silent
            )
        try:
            results = {name: trio.run(functools.partial(measure, make, seconds)) for name, make in stores.items()}
        finally:
            if server is not None:
                server.kill()
                server.wait()
    print(f"| store | puts/s, one task | puts/s, {TOGETHER} tasks | handled/s, worker of 8 | {DIDS} idle DIDs, % |")
    print("|---|---|---|---|---|")
    for name, row in results.items():
        puts_and_handled = " | ".join(f"{row[figure]:.0f}" for figure in ("put_alone", "put_together", "handled"))
        print(f"| {name} | {puts_and_handled} | {row['idle']:.1f} |")
    print(json.dumps({"benchmark": "durable", "seconds": seconds, "results": results}))


if __name__ == "__main__":
    main()
