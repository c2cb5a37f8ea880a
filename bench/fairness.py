"""What a flood on one channel costs another in the same process: its round trip under the flood and without.

    python bench/fairness.py [seconds]

The neutral server floods one channel with messages, as fast as they are read, and answers the other's pushes, one at a
time. Each kind of flood lasts for ``seconds`` (3); its figures are set against those of the idle process before it.
What is wanted is a p50 under 5 times that, with messages of 300 B and of 4 KB. Needs g++ for the server.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

import trio

from layr8_actors import Callbacks, Channel, ChannelOptions
from layr8_actors.telemetry import Event

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

import neutral  # noqa: E402
import work  # noqa: E402

LIMIT = 5.0
SIZES = (300, 4096)


def silent(event: Event) -> None:
    """Drop an event."""


async def round_trips(channel: Channel, seconds: float) -> list[float]:
    """Seconds that each takes, one after the other."""
    payload = work.payload(work.BODY)
    walls: list[float] = []
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        await channel.send_msg("message", payload)
        walls.append(time.perf_counter() - start)
        await trio.sleep(0.001)  # so that each meets the flood at another moment
    return sorted(walls)


async def measure(url: str, seconds: float) -> list[dict[str, Any]]:
    """The figures, one row for each kind of flood."""
    arrived = target = 0
    all_there = trio.Event()

    def on_message(payload: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == target:
            all_there.set()

    def options(name: str, **more: Any) -> ChannelOptions:
        did = f"{work.TOPIC_DID}-{name}"
        return ChannelOptions(ws_url=url, api_key="bench", agent_did=did, on_event=silent, **more)

    async def flood(channel: Channel, size: int) -> None:
        nonlocal target, all_there
        count = 40_000_000 // size
        while True:
            target, all_there = arrived + count, trio.Event()
            await channel.send_msg("flood", {"count": count, "size": size})
            await all_there.wait()

    rows: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        loud = await Channel.start_link(nursery, options("loud", callbacks=Callbacks(on_message)))
        quiet = await Channel.start_link(nursery, options("quiet"))
        await loud.connect(work.PROTOCOLS)
        await quiet.connect(work.PROTOCOLS)
        for size in SIZES:
            idle = await round_trips(quiet, seconds / 3)
            before = arrived
            async with trio.open_nursery() as flooding:
                flooding.start_soon(flood, loud, size)
                await trio.sleep(0.2)
                walls = await round_trips(quiet, seconds)
                flooding.cancel_scope.cancel()
            rows.append({
                "size": size,
                "idle_p50_us": round(statistics.median(idle) * 1e6),
                "p50_us": round(statistics.median(walls) * 1e6),
                "p99_us": round(walls[len(walls) * 99 // 100] * 1e6),
                "ratio": round(statistics.median(walls) / statistics.median(idle), 2),
                "flood_per_s": round((arrived - before) / seconds),
            })  # fmt: skip
            await trio.sleep(2)  # what is left of the flood
        nursery.cancel_scope.cancel()
    return rows


def main() -> None:
    """Print a table, and the same as JSON; fail over the limit."""
    if len(sys.argv) > 2:
        print(json.dumps(trio.run(measure, sys.argv[1], float(sys.argv[2]))))
        return
    if not shutil.which("g++"):
        print("no g++, so no neutral server: fairness is not measured")
        return
    seconds = sys.argv[1] if len(sys.argv) > 1 else "3"
    with neutral.server() as port, neutral.on(neutral.CLIENT_CORE):
        command = [sys.executable, __file__, f"ws://127.0.0.1:{port}/socket/websocket", seconds]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
    rows = json.loads(done.stdout)
    print("| flood of | round trip idle, p50 | under the flood, p50 | p99 | ratio of p50 | limit | messages/s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['size']} B | {row['idle_p50_us']} us | {row['p50_us']} us | {row['p99_us']} us | {row['ratio']}x "
            f"| {LIMIT:g}x | {row['flood_per_s']} |"
        )
    print(json.dumps({"benchmark": "fairness", "rows": rows}))
    if any(row["ratio"] >= LIMIT for row in rows):
        raise SystemExit(f"a flood on one channel holds up another's round trip {LIMIT:g} times or more")


if __name__ == "__main__":
    main()
