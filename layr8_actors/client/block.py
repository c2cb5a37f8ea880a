"""A client for the length of a block."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..channel.block import running_around_block

if TYPE_CHECKING:
    from .client import Client
    from .tree import Tree

__all__ = ("running_client",)


@asynccontextmanager
async def running_client(client: Client, tree: Tree) -> AsyncIterator[None]:
    """Run a client around a block: connect before it begins, close when it is left.

    Args:
        client: the client.
        tree: of this run.

    Raises:
        Layr8Error: what connect raised; nothing runs then.
        RestartLimitExceeded: the client gave up on its actors; the block was cancelled.
        JoinRejected: the node refused for good, later than at first; likewise.

    What the block raises comes out as it is, not in a group. Checkpoints at both ends; leaving is bounded by the grace
    of handlers and the channel's ``close_timeout``, also under cancellation.
    """

    def over(_: Client) -> trio.Event:
        return tree.over

    start = functools.partial(tree.run, client, False)
    async with running_around_block("client", start, over, 2 * client.config.shutdown_grace):
        await client.connect()
        yield
        tree.request_stop()
