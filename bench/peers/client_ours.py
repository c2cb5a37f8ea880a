"""layr8_actors, over the transport that the environment names: TRANSPORT=websockets or trio-websocket."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import trio
import work

from layr8_actors import Backoff, Callbacks, Channel, ChannelOptions
from layr8_actors.telemetry import Event
from layr8_actors.transport import Connector
from layr8_actors.transport.trio_websocket import TrioWebSocketConnector
from layr8_actors.transport.websockets import WebSocketsConnector

JITTER = 0.5  # ChannelOptions' own


def connector() -> Connector:
    """A connector of the kind asked for."""
    kind = os.environ.get("TRANSPORT", "websockets")
    if kind == "websockets":
        return WebSocketsConnector()
    assert kind == "trio-websocket", kind
    return TrioWebSocketConnector()


class Counter:
    """Counts messages, and tells when as many have come as were waited for."""

    def __init__(self) -> None:
        self.left = 0
        self.done = trio.Event()

    def __call__(self, _: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


def silent(event: Event) -> None:
    """Drop an event: logging is not what is compared, and the others log nothing."""


def options(url: str, number: str, **more: Any) -> ChannelOptions:
    """The defaults."""
    more = {"on_event": silent, "transport": connector(), **more}
    return ChannelOptions(ws_url=url, api_key="bench", agent_did=f"{work.TOPIC_DID}{number}", **more)


async def in_flight(channel: Channel, count: int, window: int, payload: Any) -> None:
    """Round trips, ``window`` of them at a time."""
    left = count

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            reply = await channel.send_msg("message", payload)
            assert reply.ok

    async with trio.open_nursery() as nursery:
        for _ in range(window):
            nursery.start_soon(caller)


async def measure(url: str, item: str, count: int) -> dict[str, float]:
    """Do one item."""
    if item == "connect":
        return await connect(url, count)
    if item == "memory":
        return await memory(url, count)
    if item.startswith("reconnect"):
        return await reconnect(url, count, 0.0 if item == "reconnect-exact" else JITTER)
    counter = Counter()
    walls: list[float] = []

    async def several(times: int) -> None:
        if item == "seq":
            payload = work.payload(work.BODY)
            for _ in range(times):
                start = time.perf_counter()
                await channel.send_msg("message", payload)
                walls.append(time.perf_counter() - start)
        elif item.startswith("pipe"):
            await in_flight(channel, times, int(item[4:]), work.payload(work.BODY))
        elif item == "fnf":
            payload = work.payload(work.BODY)
            for _ in range(times):
                await channel.send_fire_and_forget("cast", payload)
            reply = await channel.send_msg("count", {})
            casts.append(reply.response["casts"])
        elif item.startswith("out"):
            payload = work.payload(int(item[3:]))
            for _ in range(times):
                await channel.send_msg("message", payload)
        else:
            counter.left = times
            counter.done = trio.Event()
            await channel.send_msg("flood", {"count": times, "size": int(item[2:])})
            await counter.done.wait()

    casts: list[int] = []
    warm = max(1, count // 10)
    async with trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, options(url, "", callbacks=Callbacks(on_message=counter)))
        await channel.connect(work.PROTOCOLS)
        await several(warm)
        walls.clear()
        timed = work.Timed()
        await several(count)
        timed.stop()
        if casts:
            assert casts == [warm, warm + count], casts
        await channel.close()
    return work.per_unit(count, timed, walls)


async def connect(url: str, count: int) -> dict[str, float]:
    """Start the tree, connect and join, one after the other; closing is not timed. Starting is told apart too."""
    walls: list[float] = []
    starts: list[float] = []
    timed = work.Timed()
    for number in range(-2, count):
        async with trio.open_nursery() as nursery:
            timed.start()
            began = time.perf_counter()
            channel = await Channel.start_link(nursery, options(url, f"-{number}"))
            starts.append(time.perf_counter() - began)
            await channel.connect(work.PROTOCOLS)
            walls.append(timed.stop())
            await channel.close()
        if number < 0:
            timed, walls, starts = work.Timed(), [], []
    figures = work.per_unit(count, timed, walls)
    figures["start_p50_us"] = sorted(starts)[len(starts) // 2] * 1e6
    return figures


async def open_many(nursery: trio.Nursery, url: str, first: int, count: int, **more: Any) -> list[Channel]:
    """Channels, fifty at a time, as a program would that has many: one set of options for all but the DID."""
    shared = {"transport": connector(), **more}
    channels: list[Channel] = []
    limiter = trio.CapacityLimiter(50)

    async def open_one(number: int) -> None:
        async with limiter:
            channel = await Channel.start_link(nursery, options(url, f"-{number}", **shared))
            await channel.connect(work.PROTOCOLS)
            channels.append(channel)

    async with trio.open_nursery() as opening:
        for number in range(first, first + count):
            opening.start_soon(open_one, number)
    return channels


async def memory(url: str, count: int) -> dict[str, float]:
    """Growth of anonymous memory over idle channels."""
    async with trio.open_nursery() as nursery:
        await open_many(nursery, url, -1, 1)
        before = work.anonymous_kib()
        await open_many(nursery, url, 0, count)
        await trio.sleep(1.0)  # until they idle
        growth = work.anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return {"n": count, "kib": growth / count}


async def reconnect(url: str, count: int, jitter: float) -> dict[str, float]:
    """From a node restart until all channels have joined again."""
    back = 0
    done = trio.Event()

    def on_reconnect() -> None:
        nonlocal back
        back += 1
        if back == count:
            done.set()

    backoff = Backoff(initial=1.0, maximum=30.0, factor=2.0, jitter=jitter, reset_after=30.0)
    async with trio.open_nursery() as nursery:
        channels = await open_many(
            nursery, url, 0, count, backoff=backoff, callbacks=Callbacks(on_reconnect=on_reconnect)
        )
        timed = work.Timed()
        await channels[0].send_fire_and_forget("restart", {"down_ms": 500})
        with trio.fail_after(60):
            await done.wait()
        timed.stop()
        nursery.cancel_scope.cancel()
    figures = work.per_unit(count, timed)
    figures["wall_s"] = timed.wall_s
    return figures


Run = Callable[..., dict[str, float]]

if __name__ == "__main__":
    run: Run = trio.run
    work.main(measure, run)
