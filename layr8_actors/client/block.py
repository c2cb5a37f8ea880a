"""A client for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ..errors import ChannelClosed, JoinRejected, RestartLimitExceeded

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
    failure: RestartLimitExceeded | JoinRejected | None = None

    def run(task_status: trio.TaskStatus[Client]) -> Coroutine[Any, Any, None]:
        return watch(tree.run(client, False, task_status))

    async def watch(running: Coroutine[Any, Any, None]) -> None:
        nonlocal failure
        try:
            await running
        except (RestartLimitExceeded, JoinRejected) as error:
            failure = error
            nursery.cancel_scope.cancel(reason=f"the client gave up: {error}")

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            try:
                await client.connect()
                yield
            except (ChannelClosed, BaseExceptionGroup) as error:
                if isinstance(error, ChannelClosed) or error.subgroup(ChannelClosed) is not None:
                    # Whoever waits is told of the end before the tree has come to it, and why it ends is what matters.
                    with trio.move_on_after(2 * client.config.shutdown_grace):
                        await tree.over.wait()
                raise
            finally:
                tree.request_stop()
    except BaseExceptionGroup as group:
        others = group if failure is None else group.split(ChannelClosed)[1]
        if others is None and failure is not None:
            raise failure from failure.__cause__  # that the channel is closed is no news beside why
        if failure is not None:
            raise BaseExceptionGroup("the client gave up, and its block failed too", [failure, group]) from None
        # The block's own error, which the nursery has wrapped; several errors stay together.
        alone, *more = group.exceptions
        if more:
            raise
        context, suppressed = alone.__context__, alone.__suppress_context__
        try:
            raise alone
        finally:
            alone.__context__, alone.__suppress_context__ = context, suppressed
    if failure is not None:
        raise failure
