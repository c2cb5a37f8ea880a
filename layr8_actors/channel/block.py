"""A channel, or what stands on one, for the length of a block."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from ..errors import ChannelClosed, JoinRejected, RestartLimitExceeded
from .channel import Channel, checked_options, run_channel
from .lazy_event import LazyEvent
from .options import ChannelOptions

__all__ = ("open_channel", "running_around_block")

T = TypeVar("T")


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
    start = functools.partial(run_channel, checked, None)
    async with running_around_block("channel", start, _over, 2 * checked.close_timeout) as channel:
        yield channel
        await channel.close()


def _over(channel: Channel) -> LazyEvent:
    return channel._record.over  # noqa: SLF001 - the facade's own


@asynccontextmanager
async def running_around_block(
    name: str,
    start: Callable[..., Coroutine[Any, Any, None]],
    over: Callable[[T], trio.Event | LazyEvent],
    patience: float,
) -> AsyncIterator[T]:
    """Run a tree around a block, which is cancelled where the tree gives up.

    Args:
        name: of what runs, for the errors.
        start: called with ``task_status``, returns what runs the tree to its end.
        over: tells of what was reported as started which event says that the tree is gone.
        patience: seconds to wait for that where the block was told of the end before the tree has come to it.

    Yields:
        What was reported as started; to end it in order is the caller's, as the last thing in the block.

    Raises:
        RestartLimitExceeded: the tree gave up on its actors.
        JoinRejected: the node refused for good.
    """
    failure: RestartLimitExceeded | JoinRejected | None = None

    def run(task_status: trio.TaskStatus[T]) -> Coroutine[Any, Any, None]:
        return watch(start(task_status=task_status))

    async def watch(running: Coroutine[Any, Any, None]) -> None:
        nonlocal failure
        try:
            await running
        except (RestartLimitExceeded, JoinRejected) as error:
            failure = error
            nursery.cancel_scope.cancel(reason=f"the {name} gave up: {error}")

    try:
        async with trio.open_nursery() as nursery:
            started: T = await nursery.start(run)
            try:
                yield started
            except (ChannelClosed, BaseExceptionGroup) as error:
                if isinstance(error, ChannelClosed) or error.subgroup(ChannelClosed) is not None:
                    # Whoever waits is told of the end before the tree has come to it, and why it ends is what matters.
                    with trio.move_on_after(patience):
                        await over(started).wait()
                raise
    except BaseExceptionGroup as group:
        others = group if failure is None else group.split(ChannelClosed)[1]
        if others is None and failure is not None:
            raise failure from failure.__cause__  # that the channel is closed is no news beside why
        if failure is not None:
            raise BaseExceptionGroup(f"the {name} gave up, and its block failed too", [failure, group]) from None
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
