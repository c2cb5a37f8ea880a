"""A channel for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..errors import ChannelClosed, JoinRejected, RestartLimitExceeded
from .channel import Channel, checked_options, run_channel
from .options import ChannelOptions

__all__ = ("open_channel",)


@asynccontextmanager
async def open_channel(options: ChannelOptions) -> AsyncIterator[Channel]:
    """Run a channel around a block: its actors run while the block does, and leaving the block closes it.

    Args:
        options: everything about the channel.

    Yields:
        The channel; nothing is dialled before connect.

    Raises:
        InvalidOption: ``options`` is not ChannelOptions.
        RestartLimitExceeded: the channel gave up on its actors; the block was cancelled.
        JoinRejected: the node refused for good; the block was cancelled.

    What the block raises comes out as it is, not in a group. Checkpoints at both ends; leaving is bounded by
    ``close_timeout``, also under cancellation.
    """
    checked = checked_options(options)
    failure: RestartLimitExceeded | JoinRejected | None = None

    def run(task_status: trio.TaskStatus[Channel]) -> Coroutine[Any, Any, None]:
        return watch(run_channel(checked, None, task_status=task_status))

    async def watch(running: Coroutine[Any, Any, None]) -> None:
        nonlocal failure
        try:
            await running
        except (RestartLimitExceeded, JoinRejected) as error:
            failure = error
            nursery.cancel_scope.cancel(reason=f"the channel gave up: {error}")

    try:
        async with trio.open_nursery() as nursery:
            channel = await nursery.start(run)
            try:
                yield channel
            except (ChannelClosed, BaseExceptionGroup) as error:
                if isinstance(error, ChannelClosed) or error.subgroup(ChannelClosed) is not None:
                    # Whoever waits is told of the end before the tree has come to it, and why it ends is what matters.
                    with trio.move_on_after(2 * checked.close_timeout):
                        await channel._record.over.wait()  # noqa: SLF001 - the facade's own
                raise
            await channel.close()
    except BaseExceptionGroup as group:
        others = group if failure is None else group.split(ChannelClosed)[1]
        if others is None and failure is not None:
            raise failure from failure.__cause__  # that the channel is closed is no news beside why
        if failure is not None:
            raise BaseExceptionGroup("the channel gave up, and its block failed too", [failure, group]) from None
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
