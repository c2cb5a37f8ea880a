"""One socket of a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

from ..phoenix import Heartbeat
from ..transport import Transport
from .lazy_event import LazyEvent
from .outbox import Outbox, Outgoing

__all__ = ("Link",)


class Link:
    """One open socket.

    Args:
        number: of the dial that opened it, from 1; a dial that fails uses up its number.
        transport: what Connection reads and writes; nobody else touches it, but for :meth:`send_nowait`.
        heartbeat: the liveness of this socket.
        opened_at: in seconds of ``trio.current_time()``.
        outbox_capacity: frames that may wait before senders wait.
        start_writer: starts one, whenever there is something to write and none runs.
    """

    __slots__ = (
        "asking",
        "begun",
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
        self.asking = 0  # callers who wait for a reply, to whatever topic, or are about to send or to go on
        self.begun = False  # the transport owes the rest of a frame, which Connection's writer has to see to
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

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, outgoing: Outgoing) -> bool:
        """Write the request of a caller who is alone, past the outbox; no checkpoint.

        A writer would take two more passes of Trio's loop. But each call is a write of its own, so whoever is not alone
        goes by the writer, which takes along what all the others have queued.

        Args:
            outgoing: a request, which some waiter waits for.

        Returns:
            False where it has to be queued; nothing of it was written then.
        """
        data, _, waiter = outgoing
        assert waiter is not None
        if not self.outbox.idle:
            return False  # it must not overtake what is queued, or is being written
        waiter.written = True
        try:
            if not self.transport.send_nowait(data):
                self.begun = True
                self.outbox.wake()
        except trio.WouldBlock:
            waiter.written = False
            return False
        return True

    async def send_first(self, batch: list[str | bytes]) -> None:
        """Write the first batch of the link, at once where that can be done and it is the join alone, as it mostly is.

        Args:
            batch: to write; nobody else writes yet.

        Raises:
            TransportClosed: as the transport's ``send`` does.

        Checkpoints only if it waits. Cancellation leaves it open which of the batch was written.
        """
        if len(batch) == 1:
            try:
                if self.transport.send_nowait(batch[0]):
                    return
                batch = []  # the rest of it is the transport's to write
            except trio.WouldBlock:
                pass  # then as all others
        await self.transport.send(batch)

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
