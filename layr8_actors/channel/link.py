"""One socket of a channel, and one caller who waits for a reply on it."""

from __future__ import annotations

import math
from typing import Literal

import trio

from ..errors import Layr8Error
from ..phoenix import Heartbeat, Ref
from ..transport import Transport
from .reply import Reply

__all__ = ("Flush", "Link", "Outgoing", "Waiter")


class Waiter:
    """A caller parked until its reply, an error, or its own deadline; resolved at most once.

    ``ref``, ``join_ref`` and ``link`` say which request, under which join and on which socket, it waits for.
    ``written`` becomes True when the request is about to be written, ``gone`` when the caller no longer waits: a
    request not written by then never will be.
    """

    __slots__ = ("_error", "_reply", "_task", "deadline", "gone", "join_ref", "link", "ref", "room", "written")

    def __init__(self) -> None:
        self.ref = ""
        self.join_ref: Ref = None
        self.link = 0
        self.deadline = math.inf
        self.written = False
        self.gone = False
        self.room: trio.CancelScope | None = None  # around the wait for room in the outbox
        self._task: trio.lowlevel.Task | None = None
        self._reply: Reply | None = None
        self._error: Layr8Error | None = None

    def resolve(self, reply: Reply) -> None:
        """Hand over the reply; nothing happens if the caller has gone or was answered before."""
        if not self.settled:
            self._reply = reply
            self._wake()

    def fail(self, error: Layr8Error) -> None:
        """Hand over an error that no other caller gets, likewise."""
        if not self.settled:
            self._error = error
            self.gone = True  # at once, and not when the caller wakes: what it is told not to be written must not be
            if self.room is not None:
                self.room.cancel(reason="the reply can no longer come")
            self._wake()

    @property
    def settled(self) -> bool:
        """True once there is an outcome, or nobody waits any more."""
        return self.gone or self._reply is not None

    def _wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> Reply:
        """Wait for the outcome.

        Returns:
            The reply.

        Raises:
            Layr8Error: what :meth:`fail` was given.

        Always checkpoints; on cancellation nothing is left but the owner's entry for the ref.
        """
        if self.settled:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Outgoing:
    """A frame on its way to the writer.

    Args:
        data: the encoded frame.
        join_ref: the join it was stamped with; it is discarded unwritten if that join has ended by then.
        waiter: who waits for its reply, if anybody does.
    """

    __slots__ = ("data", "join_ref", "waiter")

    def __init__(self, data: str | bytes, join_ref: Ref, waiter: Waiter | None) -> None:
        self.data = data
        self.join_ref = join_ref
        self.waiter = waiter


class Flush:
    """A mark in the outbox that tells when all that was queued before it is written."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = trio.Event()


class Link:
    """One open socket.

    Args:
        number: of the dial that opened it, from 1; a dial that fails uses up its number.
        transport: what Connection reads and writes; nobody else touches it.
        heartbeat: the liveness of this socket.
        opened_at: in seconds of ``trio.current_time()``.
        outbox_capacity: frames that may wait before senders wait.
    """

    __slots__ = (
        "broken",
        "drain",
        "ended",
        "error",
        "farewell",
        "heartbeat",
        "number",
        "opened_at",
        "outbox",
        "scope",
        "transport",
        "urgent",
    )

    def __init__(
        self, number: int, transport: Transport, heartbeat: Heartbeat, opened_at: float, outbox_capacity: int
    ) -> None:
        self.number = number
        self.transport = transport
        self.heartbeat = heartbeat
        self.opened_at = opened_at
        self.scope = trio.CancelScope()
        self.error: Exception | None = None
        self.ended = trio.Event()
        self.broken = False  # a write has failed; what had arrived before is still being read
        self.farewell: Literal["close", "abort"] = "abort"
        self.outbox: trio.MemorySendChannel[Outgoing | Flush | None]
        self.outbox, self.drain = trio.open_memory_channel[Outgoing | Flush | None](outbox_capacity)
        self.urgent: list[str | bytes] = []

    def post(self, data: str | bytes) -> None:
        """Queue a frame of our own (join, leave, heartbeat) ahead of the users' frames; never waits.

        Args:
            data: the encoded frame.
        """
        self.urgent.append(data)
        try:
            self.outbox.send_nowait(None)
        except trio.WouldBlock:
            return  # the outbox is full, so the writer is at work and looks at the urgent frames next
        except trio.BrokenResourceError:
            return  # the writer has ended with its socket, whose end everybody is told of

    async def flush(self) -> None:
        """Wait until all that is queued now is written, or the link has ended.

        Checkpoints; cancellation leaves the mark in the outbox, where it does no harm.
        """
        mark = Flush()
        try:
            await self.outbox.send(mark)
        except trio.BrokenResourceError:
            return  # the link has ended, and its end was reported
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_then_cancel, mark.done, nursery.cancel_scope)
            nursery.start_soon(_then_cancel, self.ended, nursery.cancel_scope)

    def discard_queued(self) -> int:
        """Close the outbox, which releases the writer and whoever waits for room.

        Returns:
            How many frames of callers who still wanted them were never written.
        """
        discarded = 0
        while True:
            try:
                entry = self.drain.receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                break
            if isinstance(entry, Outgoing) and not (entry.waiter is not None and entry.waiter.gone):
                discarded += 1
        self.drain.close()
        return discarded

    def waiting_frames(self) -> int:
        """How many frames wait for the writer."""
        return self.outbox.statistics().current_buffer_used + len(self.urgent)


async def _then_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
