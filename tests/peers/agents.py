"""What the tests of the peers' bugs share: an agent on a CloudNode over memory, a send_msg in a task of its own."""

from __future__ import annotations

from typing import Any

import trio

from layr8_actors import Backoff, Channel, ChannelOptions
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

ALICE = "did:web:node.test:alice"
TOPIC = f"plugins:{ALICE}"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
KEY = "s3cr3t-k3y-of-alice"
EXACT = Backoff(initial=1, maximum=30, factor=2, jitter=0, reset_after=30)
"""The default backoff without its jitter, so that the times of attempts are exact."""


def options(node: CloudNode, events: list[Event] | None = None, **changes: Any) -> ChannelOptions:
    """Options of an agent on ``node``, whose events are appended to ``events``."""
    kept: list[Event] = [] if events is None else events
    defaults: dict[str, Any] = {
        "ws_url": node.url,
        "api_key": KEY,
        "agent_did": ALICE,
        "transport": node.connector,
        "on_event": kept.append,
    }
    return ChannelOptions(**{**defaults, **changes})


def plaintext(number: int = 0, to: str = ALICE, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "type": "https://didcomm.org/basicmessage/2.0/message", "to": [to], "body": {}, **more}


def of(events: list[Event], *kinds: type) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


def has_seen_joins(node: CloudNode, count: int) -> bool:
    return len(node.frames(event="phx_join")) >= count


async def settle() -> None:
    """Let everything happen that happens without time going by."""
    await trio.testing.wait_all_tasks_blocked(0.001)


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class Sender:
    """One send_msg in a task of its own, with its outcome and the time of it."""

    def __init__(self, nursery: trio.Nursery, channel: Channel, payload: Any = None) -> None:
        self.outcome: Any = None
        self.at: float | None = None
        nursery.start_soon(self._run, channel, plaintext() if payload is None else payload)

    async def _run(self, channel: Channel, payload: Any) -> None:
        try:
            self.outcome = await channel.send_msg("message", payload)
        except Exception as error:
            self.outcome = error
        self.at = trio.current_time()


class Calls:
    """Callbacks that write down what they were called with, and when."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.disconnects: list[Exception] = []
        self.order: list[str] = []
        self.times: list[float] = []

    def on_message(self, payload: Any) -> None:
        self.messages.append(payload)

    def on_disconnect(self, error: Exception) -> None:
        self.disconnects.append(error)
        self._note("disconnect")

    def on_reconnect(self) -> None:
        self._note("reconnect")

    def _note(self, name: str) -> None:
        self.order.append(name)
        self.times.append(trio.current_time())

    @property
    def ids(self) -> list[str]:
        return [message["plaintext"]["id"] for message in self.messages]
