"""A CloudNode in a thread of its own, for tests that block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio.from_thread

from layr8_actors import ClientConfig
from layr8_actors.testing import CloudNode, DispatchingChannel
from tests.client.agents import ALICE, KEY, PROTOCOL

T = TypeVar("T")


class NodeInAThread:
    """What a test needs of a node that runs in another thread."""

    def __init__(self, node: CloudNode, portal: anyio.from_thread.BlockingPortal) -> None:
        self.node = node
        self._portal = portal

    def config(self, did: str = ALICE, **changes: object) -> ClientConfig:
        given: dict[str, object] = {"node_url": self.node.url, "api_key": KEY, "agent_did": did, **changes}
        return ClientConfig(**{"protocols": [PROTOCOL], "on_event": lambda _: None, **given})  # type: ignore[arg-type]

    def wait_for(self, predicate: Callable[[], object]) -> None:
        """Wait until something is so in the node."""

        async def wait() -> None:
            await self.node.wait_for(predicate, timeout=10)

        self._portal.call(wait)

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain function in the node's thread."""
        return self._portal.call(function)


@contextlib.contextmanager
def node_in_a_thread(**options: object) -> Iterator[NodeInAThread]:
    """Run a node, strict about dispatch_replies, around a block."""
    given = {"channels": {"plugins:": DispatchingChannel}, **options}
    with (
        anyio.from_thread.start_blocking_portal(backend="trio") as portal,
        portal.wrap_async_context_manager(CloudNode(**given)) as node,  # type: ignore[arg-type]
    ):
        yield NodeInAThread(node, portal)


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}
