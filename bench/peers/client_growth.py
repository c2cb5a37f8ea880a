"""layr8_actors alone: how long a crashed actor takes to run again, and what a unit costs as the work grows."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import client_ours
import trio
import work

from layr8_actors import Callbacks, Channel
from layr8_actors.otp.events import ChildRestarted
from layr8_actors.telemetry import Event

ACTORS = ("inbox", "router", "connection", "heartbeat", "reconnector")


async def measure(url: str, item: str, count: int) -> Any:
    """`restart` with as many crashes of each actor, or `growth` up to that many messages and channels."""
    if item == "restart":
        return {actor: await restart(url, actor, count) for actor in ACTORS}
    assert item == "growth", item
    messages = [1_000, 10_000, 100_000, 1_000_000]
    found: dict[str, Any] = {}
    for kind in ("in300", "fnf", "pipe100"):
        found[kind] = {str(n): await grown(url, kind, n) for n in messages if n <= count}
    found["channels"] = {str(n): await channels(url, n) for n in (1, 10, 100, 1_000) if n <= count}
    return found


async def restart(url: str, actor: str, crashes: int) -> dict[str, float]:
    """Milliseconds from the crash of an actor to its being ready again; each on a channel of its own.

    The first restart is immediate, so this is what the supervisor and the actor's init take. With the connection the
    socket is lost: its way back to a joined topic takes the backoff on top, which is no matter of the supervisor.
    """
    walls = [await one_restart(url, actor, number) for number in range(crashes)]
    return {"n": crashes, "p50_ms": statistics.median(walls), "min_ms": min(walls), "max_ms": max(walls)}


async def one_restart(url: str, actor: str, number: int) -> float:
    """Crash it once; milliseconds."""
    ready = trio.Event()
    at = math.nan

    def watch(event: Event) -> None:
        nonlocal at
        if isinstance(event, ChildRestarted) and event.id == actor:
            at = time.perf_counter()
            ready.set()

    async with trio.open_nursery() as nursery:
        options = client_ours.options(url, f"-{actor}-{number}", on_event=watch)
        channel = await Channel.start_link(nursery, options)
        await channel.connect(work.PROTOCOLS)
        since = time.perf_counter()
        channel.supervisor.exit_child(actor, RuntimeError("a crash for the stopwatch"))
        with trio.fail_after(10):
            await ready.wait()
        nursery.cancel_scope.cancel()
    return (at - since) * 1e3


async def grown(url: str, item: str, count: int) -> float:
    """CPU microseconds per unit of one item."""
    figures = await client_ours.measure(url, item, count)
    return figures["cpu_us"]


async def channels(url: str, count: int) -> dict[str, float]:
    """CPU microseconds to open a channel, and per round trip with one in flight on each of them."""
    rounds = max(20, 2_000 // count)
    async with trio.open_nursery() as nursery:
        await client_ours.open_many(nursery, url, -1, 1)
        timed = work.Timed()
        opened = await client_ours.open_many(nursery, url, 0, count, callbacks=Callbacks())
        timed.stop()
        open_us = timed.cpu_s / count * 1e6
        payload = work.payload(work.BODY)

        async def caller(channel: Channel) -> None:
            for _ in range(rounds):
                await channel.send_msg("message", payload)

        timed = work.Timed()
        async with trio.open_nursery() as callers:
            for channel in opened:
                callers.start_soon(caller, channel)
        timed.stop()
        nursery.cancel_scope.cancel()
    return {"open_cpu_us": open_us, "round_trip_cpu_us": timed.cpu_s / count / rounds * 1e6}


if __name__ == "__main__":
    work.main(measure, trio.run)
