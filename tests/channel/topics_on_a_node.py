"""What the tests of many topics on one socket share: agents, their callbacks, and a node over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from layr8_actors.channel import Callbacks, Channel, ChannelOptions, JoinedTopic
from layr8_actors.otp import Backoff
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
ALICE = "did:web:node.test:alice"
CAROL = "did:web:node.test:carol"
DAVE = "did:web:node.test:dave"
ERIN = "did:web:node.test:erin"

EXACT = Backoff(initial=1.0, maximum=30.0, factor=2.0, jitter=0.0, reset_after=30.0)
"""The channel's delays without their jitter, so that a test can say when."""


class Agent:
    """The callbacks of one DID, and what they were called with."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.pushes: list[tuple[str, Any]] = []
        self.joins: list[Any] = []
        self.disconnects: list[Exception] = []
        self.order: list[str] = []
        self.gate = trio.Event()
        self.gate.set()

    async def _on_message(self, payload: Any) -> None:
        await self.gate.wait()
        self.ids.append(payload["plaintext"]["id"])

    def _on_push(self, event: str, payload: Any) -> None:
        self.pushes.append((event, payload))

    def _on_disconnect(self, error: Exception) -> None:
        self.disconnects.append(error)
        self.order.append("disconnect")

    def _on_reconnect(self) -> None:
        self.order.append("reconnect")

    def callbacks(self) -> Callbacks:
        return Callbacks(
            self._on_message, self._on_disconnect, self._on_reconnect, on_push=self._on_push, on_join=self.joins.append
        )


def options(node: CloudNode, did: str = ALICE, *, events: list[Event] | None = None, **changes: Any) -> ChannelOptions:
    given: dict[str, Any] = {
        "ws_url": node.url,
        "api_key": "good-key",
        "agent_did": did,
        "transport": node.connector,
        "backoff": EXACT,
        "on_event": (lambda event: None) if events is None else events.append,
    }
    return ChannelOptions(**{**given, **changes})


def plaintext(number: object, to: str, sender: str = ALICE) -> dict[str, Any]:
    return {"id": str(number), "type": "https://didcomm.org/basicmessage/2.0/message", "from": sender, "to": [to]}


async def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


async def join(channel: Channel, did: str, agent: Agent | None = None) -> JoinedTopic:
    return await channel.join(did, PROTOCOLS, callbacks=None if agent is None else agent.callbacks())
