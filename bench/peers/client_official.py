"""The official SDK, layr8 0.3.3, at the level of its channel; runs in an environment of its own."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the SDK is asyncio's
import random
import time
from collections.abc import Callable
from typing import Any

import work
from layr8.channel import PhoenixChannel


class Counter:
    """Counts messages, and tells when as many have come as were waited for."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    def __call__(self, _: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


async def joined(
    url: str, did: str, on_message: Callable[[Any], None], on_reconnect: Callable[[], None] | None = None
) -> PhoenixChannel:
    """A channel that has joined."""
    channel = PhoenixChannel(url, "bench", did, on_message=on_message, on_reconnect=on_reconnect)
    await channel.connect(work.PROTOCOLS)
    return channel


async def in_flight(channel: PhoenixChannel, count: int, window: int, payload: Any) -> None:
    """Round trips, ``window`` of them at a time."""
    left = count

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            reply = await channel.send("message", payload)
            assert reply.status == "ok"

    await asyncio.gather(*(caller() for _ in range(window)))


async def measure(url: str, item: str, count: int) -> dict[str, float]:
    """Do one item."""
    if item == "connect":
        return await connect(url, count)
    if item == "memory":
        return await memory(url, count)
    if item == "reconnect":
        return await reconnect(url, count)
    counter = Counter()
    channel = await joined(url, work.TOPIC_DID, counter)
    walls: list[float] = []
    warm = max(1, count // 10)

    async def several(times: int) -> None:
        if item == "seq":
            payload = work.payload(work.BODY)
            for _ in range(times):
                start = time.perf_counter()
                await channel.send("message", payload)
                walls.append(time.perf_counter() - start)
        elif item.startswith("pipe"):
            await in_flight(channel, times, int(item[4:]), work.payload(work.BODY))
        elif item == "fnf":
            payload = work.payload(work.BODY)
            for _ in range(times):
                await channel.send_fire_and_forget("cast", payload)
            await channel.send("count", {})
        elif item.startswith("out"):
            payload = work.payload(int(item[3:]))
            for _ in range(times):
                await channel.send("message", payload)
        else:
            counter.left = times
            counter.done.clear()
            await channel.send("flood", {"count": times, "size": int(item[2:])})
            await counter.done.wait()

    await several(warm)
    walls.clear()
    timed = work.Timed()
    await several(count)
    timed.stop()
    await channel.close()
    return work.per_unit(count, timed, walls)


async def connect(url: str, count: int) -> dict[str, float]:
    """Connect and join, one after the other; closing is not timed."""
    walls: list[float] = []
    timed = work.Timed()
    for number in range(-2, count):
        timed.start()
        channel = await joined(url, f"{work.TOPIC_DID}-{number}", lambda _: None)
        walls.append(timed.stop())
        await channel.close()
        if number < 0:
            timed, walls = work.Timed(), []
    return work.per_unit(count, timed, walls)


async def open_many(url: str, count: int, on_reconnect: Callable[[], None] | None = None) -> list[PhoenixChannel]:
    """Channels, fifty at a time."""
    channels: list[PhoenixChannel] = []
    for first in range(0, count, 50):
        some = range(first, min(first + 50, count))
        channels += await asyncio.gather(
            *(joined(url, f"{work.TOPIC_DID}-{number}", lambda _: None, on_reconnect) for number in some)
        )
    return channels


async def memory(url: str, count: int) -> dict[str, float]:
    """Growth of anonymous memory over idle channels."""
    first = await open_many(url, 1)
    before = work.anonymous_kib()
    channels = await open_many(url, count)
    growth = work.anonymous_kib() - before
    await asyncio.gather(*(channel.close() for channel in first + channels))
    return {"n": count, "kib": growth / count}


async def reconnect(url: str, count: int) -> dict[str, float]:
    """From a node restart until all channels have joined again. Its delays have no jitter."""
    back = 0
    done = asyncio.Event()

    def on_reconnect() -> None:
        nonlocal back
        back += 1
        if back == count:
            done.set()

    channels = await open_many(url, count, on_reconnect)
    timed = work.Timed()
    await random.choice(channels).send_fire_and_forget("restart", {"down_ms": 500})
    await asyncio.wait_for(done.wait(), 60)
    timed.stop()
    figures = work.per_unit(count, timed)
    figures["wall_s"] = timed.wall_s
    await asyncio.gather(*(channel.close() for channel in channels))
    return figures


if __name__ == "__main__":
    work.main(measure)
