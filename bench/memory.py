"""What an open, idle channel costs in memory: joins many in one process and divides the growth.

    python bench/memory.py [channels] [rounds]

The node runs in a process of its own. Counted is the growth of anonymous memory (Linux: RssAnon), which shared pages of
the interpreter are not part of. One channel is opened first and not counted, so that imports and caches are paid.
"""

from __future__ import annotations

import gc
import json
import pathlib
import re
import statistics
import subprocess
import sys

import trio

from layr8_actors import Channel, ChannelOptions

HERE = pathlib.Path(__file__).parent
LIMIT_KIB = 28.0  # what holds today and a tenth; the goal is 12 (docs/performance.md says what stands in its way)
AT_ONCE = 50
SETTLED = 1.0  # seconds until the last one idles


def anonymous_kib() -> int:
    """This process's anonymous memory in KiB."""
    gc.collect()
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit("this benchmark reads RssAnon from /proc/self/status, which this system does not have")
    return int(found.group(1))


async def cost_per_channel(url: str, channels: int) -> float:
    """Open ``channels`` channels, and return their growth in KiB each."""
    async with trio.open_nursery() as nursery:
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def open_one(number: int) -> None:
            async with limiter:
                did = f"did:web:node.test:idle-{number}"
                channel = await Channel.start_link(nursery, ChannelOptions(ws_url=url, api_key="bench", agent_did=did))
                await channel.connect(["https://didcomm.org/basicmessage/2.0"])

        await open_one(0)
        before = anonymous_kib()
        async with trio.open_nursery() as opening:
            for number in range(1, channels + 1):
                opening.start_soon(open_one, number)
        await trio.sleep(SETTLED)
        growth = anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return growth / channels


def one_round(channels: int) -> float:
    """Measure in a fresh process: memory that an allocator keeps would make the second round look cheap."""
    node_command = [sys.executable, str(HERE / "node.py")]
    with subprocess.Popen(node_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        url = node.stdout.readline().strip()
        command = [sys.executable, str(HERE / "memory.py"), "--client", url, str(channels)]
        return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    """Print a table, and the same as JSON; fail where the median is over the limit."""
    if sys.argv[1:2] == ["--client"]:
        print(trio.run(cost_per_channel, sys.argv[2], int(sys.argv[3])))
        return
    channels = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    costs = [one_round(channels) for _ in range(rounds)]
    median = statistics.median(costs)
    print(f"| channels | KiB per idle channel: median (min-max) of {rounds} | limit |")
    print("|---|---|---|")
    print(f"| {channels} | {median:.1f} ({min(costs):.1f}-{max(costs):.1f}) | {LIMIT_KIB:g} |")
    print(json.dumps({"benchmark": "memory", "channels": channels, "kib_per_channel": costs, "median": median}))
    if median >= LIMIT_KIB:
        raise SystemExit(f"an idle channel costs {median:.1f} KiB, more than {LIMIT_KIB:g} KiB")


if __name__ == "__main__":
    main()
