"""What the tests of the client share: agents on a CloudNode over memory, whose router waits for each dispatch_reply."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio
import trio.testing

from layr8_actors import Backoff, Client, ClientConfig, Message
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, DispatchingChannel

ALICE = "did:web:node.test:alice"
BOB = "did:web:node.test:bob"
KEY = "s3cr3t-k3y-of-alice"
PROTOCOL = "https://example.org/echo/1.0"
REQUEST = f"{PROTOCOL}/request"
RESPONSE = f"{PROTOCOL}/response"
REPORT = "https://didcomm.org/report-problem/2.0/problem-report"
EXACT = Backoff(initial=1, maximum=30, factor=2, jitter=0, reset_after=30)
"""The default backoff without its jitter, so that the times of attempts are exact."""


def strict_node(**changes: Any) -> CloudNode:
    """A node of reply_protocol/1 that hands over one message at a time and waits to be told what became of it."""
    return CloudNode(**{"memory": True, "channels": {"plugins:": DispatchingChannel}, **changes})


def legacy_node() -> CloudNode:
    """A node that knows acks only, and hands over messages as they come."""
    return CloudNode(memory=True, capabilities=["ephemeral_delegation/1"])


def config(node: CloudNode, did: str = ALICE, events: list[Event] | None = None, **changes: Any) -> ClientConfig:
    """The configuration of an agent on ``node``, whose events are appended to ``events``."""
    kept: list[Event] = [] if events is None else events
    defaults: dict[str, Any] = {
        "node_url": node.url,
        "api_key": KEY,
        "agent_did": did,
        "protocols": [PROTOCOL],
        "transport": node.connector,
        "on_event": kept.append,
        "channel": {"backoff": EXACT},
    }
    return ClientConfig(**{**defaults, **changes})


def agent(node: CloudNode, did: str = ALICE, events: list[Event] | None = None, **changes: Any) -> Client:
    return Client(config(node, did, events, **changes))


def echo_agent(node: CloudNode, did: str = BOB, events: list[Event] | None = None, **changes: Any) -> Client:
    """An agent that answers each REQUEST with its body."""
    client = agent(node, did, events, **changes)

    @client.handle(REQUEST)
    async def echo(message: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return message.reply(RESPONSE, message.body)

    return client


def request_to(did: str = BOB, body: Any = None, **fields: Any) -> Message:
    return Message(type=REQUEST, to=[did], body={} if body is None else body, **fields)


def plaintext(number: int | str = 0, type: str = REQUEST, **fields: Any) -> dict[str, Any]:
    """A message as a node pushes it, from Bob to Alice unless told otherwise."""
    return {"id": str(number), "type": type, "from": BOB, "to": [ALICE], "body": {}, **fields}


def of(events: Iterable[Event], *kinds: type) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


def statuses(node: CloudNode, did: str = ALICE) -> dict[str, list[str]]:
    """What the node was told of each message that it gave to a DID, by the message's id."""
    return {
        dispatch.message["id"]: [reply["status"] for reply in dispatch.replies]
        for dispatch in node.dispatches
        if dispatch.did == did
    }


def settled_once(node: CloudNode) -> bool:
    """Whether the node was told exactly once of every message that it gave to anybody."""
    return not node.stray_replies and all(len(dispatch.replies) == 1 for dispatch in node.dispatches)


async def settle() -> None:
    """Let everything happen that happens without time going by."""
    await trio.testing.wait_all_tasks_blocked(0.001)


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def tasks_named(name: str) -> int:
    """Tasks of this Trio run whose function's name ends so."""
    living = [trio.lowlevel.current_root_task()]
    for task in living:
        if task is not None:
            living += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sum(task is not None and task.name.endswith(name) for task in living)
