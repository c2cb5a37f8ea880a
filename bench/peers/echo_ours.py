"""Two agents of layr8_actors and an echo between them; a program like the clients of compare.py."""

from __future__ import annotations

import os
import time

import trio
import work

from layr8_actors import Client, ClientConfig, Message
from layr8_actors.telemetry import Event

ECHO = "https://example.org/echo/1.0"


def silent(event: Event) -> None:
    """Drop an event: the others log nothing."""


def client(url: str, name: str) -> Client:
    """An agent with the defaults."""
    return Client(
        ClientConfig(
            node_url=url,
            api_key="bench",
            agent_did=f"did:web:node.test:{name}",
            protocols=[ECHO],
            transport="websockets" if os.environ.get("TRANSPORT") != "trio-websocket" else "trio-websocket",
            on_event=silent,
        )
    )


async def measure(url: str, item: str, count: int) -> dict[str, float]:
    """Ask ``count`` times, as many at once as the item says, after a tenth of it for warmth."""
    bob, alice = client(url, "bob"), client(url, "alice")
    body = work.payload(work.BODY)["body"]
    walls: list[float] = []
    left = 0
    at_once, _, waits = item.partition("-")

    @bob.handle(f"{ECHO}/request")
    async def echo(message: Message) -> Message:
        if waits:
            await trio.lowlevel.checkpoint()
        return message.reply(f"{ECHO}/response", message.body)

    async def ask() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            response = await alice.request(Message(type=f"{ECHO}/request", to=[bob.did], body=body), timeout=30)
            walls.append(time.perf_counter() - start)
            assert response.body == body

    async def several(times: int) -> None:
        nonlocal left
        left = times
        async with trio.open_nursery() as nursery:
            for _ in range(int(at_once)):
                nursery.start_soon(ask)

    async with bob, alice:
        await several(max(1, count // 10))
        walls.clear()
        timed = work.Timed()
        await several(count)
        timed.stop()
    return work.per_unit(count, timed, walls)


if __name__ == "__main__":
    work.main(measure, trio.run)
