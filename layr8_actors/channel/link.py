"""One socket of a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

from ..phoenix import Heartbeat
from ..transport import Transport
from .lazy_event import LazyEvent
from .outbox import Outbox

__all__ = ("Link",)


class Link:
    """One open socket.

    Args:
        number: of the dial that opened it, from 1; a dial that fails uses up its number.
        transport: what Connection reads and writes; nobody else touches it.
        heartbeat: the liveness of this socket.
        opened_at: in seconds of ``trio.current_time()``.
        outbox_capacity: frames that may wait before senders wait.
        start_writer: starts one, whenever there is something to write and none runs.
    """

    __slots__ = (
        "broken",
        "ended",
        "error",
        "farewell",
        "heartbeat",
        "number",
        "opened_at",
        "outbox",
        "pausing",
        "transport",
    )

    def __init__(
        self,
        number: int,
        transport: Transport,
        heartbeat: Heartbeat,
        opened_at: float,
        outbox_capacity: int,
        start_writer: Callable[[], None] | None = None,
    ) -> None:
        self.number = number
        self.transport = transport
        self.heartbeat = heartbeat
        self.opened_at = opened_at
        self.error: Exception | None = None
        self.ended = LazyEvent()
        self.broken = False  # a write has failed; what had arrived before is still being read
        self.pausing: trio.CancelScope | None = None  # around what the reader waits for while the user is slow
        self.farewell: Literal["close", "abort"] = "abort"
        self.outbox = Outbox(outbox_capacity, start_writer)

    def post(self, data: str | bytes) -> None:
        """Queue a frame of our own (join, leave, heartbeat) ahead of the users' frames; never waits.

        Args:
            data: the encoded frame; forgotten where the link has ended, of which everybody is told.
        """
        self.outbox.post(data)

    async def flush(self) -> None:
        """Wait until all that is queued now is written, or the link has ended.

        Checkpoints; cancellation leaves the mark in the outbox, where it does no harm.
        """
        mark = self.outbox.mark()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_then_cancel, mark, nursery.cancel_scope)
            nursery.start_soon(_then_cancel, self.ended, nursery.cancel_scope)

    def discard_queued(self) -> int:
        """Close the outbox, which releases the writer and whoever waits for room.

        Returns:
            How many frames of callers who still wanted them were never written.
        """
        return sum(waiter is None or not waiter.gone for _, _, waiter in self.outbox.close())


async def _then_cancel(event: trio.Event | LazyEvent, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
