"""Every refusal that a node is known to give, and an agent without jitter: the times of its attempts are exact."""

from __future__ import annotations

from typing import Any

import trio

from layr8_actors import Backoff, ChannelOptions
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
ALICE = "did:web:node.test:alice"

PERMANENT = [
    "e.join.plugin.protocol.missing: No protocol specified",
    "e.join.plugin.parent.not-persistent",
    "e.join.plugin.parent.not-found",
    "e.join.plugin.parent.not-hosted-here",
    "e.join.plugin.child.not-beneath-parent",
    "e.join.plugin.child.storage-not-ephemeral",
    "e.join.plugin.child.already-persistent",
    "plugin.parent.not-found",
    "plugin.child.not-beneath-parent: not a child",
    "plugin.protocol.missing",
    "e.connect.plugin.failed: Plugin connection failed [{:error, :no_credentials}]",
    "authentication_failed",
    "invalid_api_key",
    "invalid_did",
]
TRANSIENT = [
    "e.connect.plugin.failed: protocols_already_bound",
    "e.connect.plugin.failed: Plugin connection failed [{:error, :timeout}]",
    "did_not_found",
    "unmatched topic",
    "too many channels joined",
    "join crashed",
    "e.join.plugin.something.new",
    "",
]
NO_STRING: list[Any] = [None, 7, True, ["e.join.plugin.parent.not-found"], {"code": "e.join.plugin.parent.not-found"}]
"""Reasons that are none; what stands inside of them is not guessed at."""


class Exact:
    """Options of an agent on a node, without jitter, and the events that come of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def options(self, node: CloudNode, **changes: Any) -> ChannelOptions:
        defaults: dict[str, Any] = {
            "ws_url": node.url,
            "api_key": "key",
            "agent_did": ALICE,
            "transport": node.connector,
            "backoff": Backoff(initial=1, maximum=30, factor=2, jitter=0, reset_after=30),
            "on_event": self.events.append,
        }
        return ChannelOptions(**{**defaults, **changes})

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)
