"""What a flood into a slow consumer costs in memory: messages of 1 KiB as fast as they are read, 1 ms taken for each.

    python bench/flood.py [messages] [seconds] [--unbounded]

The node runs in a process of its own and floods over TCP until ``messages`` are sent (1,000,000). The consumer takes
them for ``seconds`` (20), ``inf`` for all of them, which is 20 minutes. A channel that read ahead of its user would
take in the whole flood within the first minute, so that the short run shows what the long one does. Counted is the
growth of the peak resident set (Linux: VmHWM) over the resident set before the flood (VmRSS). ``--unbounded`` lifts the
bounds of the inbox, to see that the figure can fail.
"""

from __future__ import annotations

import gc
import json
import math
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import trio

from layr8_actors import Callbacks, Channel, ChannelOptions, open_channel
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

LIMIT_MIB = 64.0
SECONDS_PER_MESSAGE = 0.001
DID = "did:web:node.test:flooded"
BODY = "x" * 1024


def memory_mib(field: str) -> float:
    """A line of this process's status in MiB."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit(f"this benchmark reads {field} from /proc/self/status, which this system does not have")
    return int(found.group(1)) / 1024


async def serve(messages: int) -> None:
    """Be the node: print the URL, flood whoever has joined once a line comes in, end with stdin."""
    async with CloudNode(frames_kept=100) as node, trio.open_nursery() as nursery:
        print(node.url, flush=True)
        await node.wait_joined(DID)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.start_soon(node.flood, DID, messages, lambda number: {"id": str(number), "type": "flood", "body": BODY})
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


class Consumer:
    """Takes its time for each message, and checks that none is missing."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.taken = 0
        self.done = trio.Event()
        self.events: dict[str, int] = {}

    async def on_message(self, payload: Any) -> None:
        """Take one."""
        if payload["plaintext"]["id"] != str(self.taken):
            raise SystemExit(f"message {payload['plaintext']['id']} came where {self.taken} was due")
        await trio.sleep(SECONDS_PER_MESSAGE)
        self.taken += 1
        if self.taken == self.messages:
            self.done.set()

    def on_event(self, event: Event) -> None:
        """Count the events by kind."""
        name = type(event).__name__
        self.events[name] = self.events.get(name, 0) + 1


async def most_waiting(channel: Channel, seen: dict[str, int]) -> None:
    """Look at the statistics ten times a second."""
    while True:
        statistics = channel.statistics()
        seen["frames"] = max(seen["frames"], statistics.frames_waiting)
        seen["bytes"] = max(seen["bytes"], statistics.bytes_waiting)
        await trio.sleep(0.1)


async def consume(node: subprocess.Popen[str], messages: int, seconds: float, unbounded: bool) -> dict[str, Any]:
    """Connect, let the flood begin, and return the figures."""
    assert node.stdin is not None
    assert node.stdout is not None
    consumer = Consumer(messages)
    options = ChannelOptions(
        ws_url=node.stdout.readline().strip(),
        api_key="bench",
        agent_did=DID,
        callbacks=Callbacks(consumer.on_message),
        on_event=consumer.on_event,
        **({"inbox_capacity": 10**9, "inbox_bytes": 10**12} if unbounded else {}),
    )
    seen = {"frames": 0, "bytes": 0}
    async with open_channel(options) as channel, trio.open_nursery() as nursery:
        await channel.connect(["https://didcomm.org/basicmessage/2.0"])
        gc.collect()
        before = memory_mib("VmRSS")
        began = time.perf_counter()
        node.stdin.write("flood\n")
        node.stdin.flush()
        nursery.start_soon(most_waiting, channel, seen)
        with trio.move_on_after(seconds):
            await consumer.done.wait()
        elapsed = time.perf_counter() - began
        statistics = channel.statistics()
        growth = memory_mib("VmHWM") - before
        nursery.cancel_scope.cancel()
    return {
        "benchmark": "flood",
        "messages": consumer.taken,
        "seconds": round(elapsed, 1),
        "growth_mib": round(growth, 1),
        "most_frames_waiting": seen["frames"],
        "most_bytes_waiting": seen["bytes"],
        "reading_pauses": statistics.reading_pauses,
        "drops": statistics.drops,
        "unbounded": unbounded,
    }


def main() -> None:
    """Print a table, and the same as JSON; fail over the limit, at a lost link, or where nothing was slowed down."""
    if sys.argv[1:2] == ["--node"]:
        trio.run(serve, int(sys.argv[2]))
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--unbounded"]
    unbounded = len(arguments) < len(sys.argv) - 1
    messages = int(arguments[0]) if arguments else 1_000_000
    seconds = float(arguments[1]) if len(arguments) > 1 else 20.0
    command = [sys.executable, __file__, "--node", str(messages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        figures = trio.run(consume, node, messages, seconds, unbounded)
    print("| messages of 1 KiB taken, 1 ms each | seconds | growth of the peak RSS | limit | most waiting | pauses |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {figures['messages']} of {messages} | {figures['seconds']} | {figures['growth_mib']} MiB "
        f"| {LIMIT_MIB:g} MiB | {figures['most_frames_waiting']} frames, {figures['most_bytes_waiting']} bytes "
        f"| {figures['reading_pauses']} |"
    )
    print(json.dumps(figures))
    if figures["growth_mib"] >= LIMIT_MIB:
        raise SystemExit(f"the flood cost {figures['growth_mib']} MiB, more than {LIMIT_MIB:g} MiB")
    if figures["drops"]:
        raise SystemExit("the link was lost under the flood")
    if not figures["reading_pauses"] or (seconds == math.inf and figures["messages"] < messages):
        raise SystemExit("the flood did not outrun its consumer, so that nothing was measured")


if __name__ == "__main__":
    main()
