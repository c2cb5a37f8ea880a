"""Two agents of the official SDK and an echo between them; runs in an environment of its own."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the SDK is asyncio's
import time

import work
from layr8 import Client, Config, Message, SDKError

ECHO = "https://example.org/echo/1.0"


def silent(error: SDKError) -> None:
    """Stop at what must not happen: all of it is an error of the SDK's."""
    raise SystemExit(f"bench: {error}")


def client(url: str, name: str) -> Client:
    """An agent with the defaults, but without reading grants, for which there is no REST here."""
    config = Config(
        node_url=url, api_key="bench", agent_did=f"did:web:node.test:{name}", protocols=[ECHO], attach_grants=False
    )
    return Client(config, silent)


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
            await asyncio.sleep(0)
        return Message(type=f"{ECHO}/response", body=message.body)

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
        await asyncio.gather(*(ask() for _ in range(int(at_once))))

    async with bob, alice:
        await several(max(1, count // 10))
        walls.clear()
        timed = work.Timed()
        await several(count)
        timed.stop()
    return work.per_unit(count, timed, walls)


if __name__ == "__main__":
    work.main(measure)
