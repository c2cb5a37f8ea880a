"""Frames on their way to the writer of one socket: a bounded queue that hands over all it holds at once.

It does what a memory channel would, for a fraction of what that takes: a frame is appended to a list, the writer wakes
once for all that have come meanwhile, and nothing is made before somebody has to wait; the writer neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from ..phoenix import Ref
from .waiter import Waiter

__all__ = ("Outbox", "Outgoing")

Outgoing: TypeAlias = tuple[str | bytes, Ref, Waiter | None]
"""An encoded frame; the join it was stamped with, for it is discarded unwritten if that has ended by then; and who
waits for its reply, if anybody does. A plain tuple, because one is made for each push."""


class Outbox:
    """What waits to be written, first in, first out; any number of tasks put, one takes.

    Args:
        capacity: frames that may wait before senders wait.
        start_writer: starts one, whenever there is something to take and none runs; ``None`` where one runs always.
    """

    __slots__ = ("_capacity", "_entries", "_idle", "_marks", "_parked", "_writer", "closed", "start_writer", "urgent")

    def __init__(self, capacity: int, start_writer: Callable[[], None] | None = None) -> None:
        self._capacity = capacity
        self.start_writer = start_writer
        self._entries: list[Outgoing] = []
        self._parked: dict[trio.lowlevel.Task, Outgoing] | None = None  # in the order in which they came
        self._marks: list[trio.Event] | None = None
        self._idle = start_writer is not None  # the writer waits, or there is none yet
        self._writer: trio.lowlevel.Task | None = None
        self.urgent: list[str | bytes] = []
        """Frames of our own (join, leave, heartbeat), which go ahead of the users' and past the bound."""
        self.closed = False
        """True once nothing will be taken any more."""

    def __len__(self) -> int:
        """How many frames wait for the writer, without those of tasks that wait for room."""
        return len(self._entries) + len(self.urgent)

    @property
    def idle(self) -> bool:
        """True while nothing waits for the writer, and the writer, if there is one, for nothing but that."""
        return self._idle

    @property
    def has_room(self) -> bool:
        """Whether :meth:`put_nowait` would append a frame."""
        return len(self._entries) < self._capacity and not self.closed

    @trio.lowlevel.enable_ki_protection
    def put_nowait(self, entry: Outgoing) -> bool:
        """Append a frame where there is room; no checkpoint.

        Args:
            entry: what to write.

        Returns:
            False where there is none, which is so while others wait for room, or where the outbox is closed.
        """
        entries = self._entries
        if len(entries) >= self._capacity or self.closed:
            return False
        entries.append(entry)
        if self._idle:
            self.wake()
        return True

    @trio.lowlevel.enable_ki_protection
    async def put(self, entry: Outgoing) -> bool:
        """Append a frame, waiting for room behind whoever waits already.

        Args:
            entry: what to write.

        Returns:
            False where the outbox is closed, or was closed before the frame was taken: it will not be written.

        Checkpoints if it waits; cancelled, it has put nothing.
        """
        if self.put_nowait(entry):
            return True
        if self.closed:
            return False
        task = trio.lowlevel.current_task()
        if self._parked is None:
            self._parked = {}
        parked = self._parked
        parked[task] = entry

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            del parked[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return task not in parked  # else it was let in, and may be written by now though the outbox be closed

    def post(self, data: str | bytes) -> None:
        """Queue a frame of our own ahead of the users' frames; never waits, and a closed outbox forgets it.

        Args:
            data: the encoded frame.
        """
        if not self.closed:
            self.urgent.append(data)
            self.wake()

    def mark(self) -> trio.Event:
        """Return an event that is set when all that is queued now is written, frames that wait for room included.

        The writer sets it. Where the outbox closes first it is never set: wait for the end of the link beside it.
        """
        mark = trio.Event()
        if self._marks is None:
            self._marks = []
        self._marks.append(mark)
        self.wake()
        return mark

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """Make the writer look if it waits, or start one; no checkpoint."""
        if not self._idle:
            return
        self._idle = False
        if self._writer is not None:
            writer, self._writer = self._writer, None
            trio.lowlevel.reschedule(writer)
        elif self.start_writer is not None:
            self.start_writer()

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait until there is something to take, or the outbox is closed; for the writer alone. Always checkpoints."""
        if self._waits_for_writer or self.closed:
            await trio.lowlevel.checkpoint()
            return
        self._idle = True
        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._idle = False
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def enter(self) -> None:
        """Be the writer from now on, before anything is put."""
        self._idle = False

    def leave_to_others(self) -> None:
        """Go, and let another writer begin where something waits for one, or else with the next frame."""
        self._idle = True
        if self._waits_for_writer:
            self.wake()

    def leave(self) -> bool:
        """Let the writer go where nothing waits for it; the next frame starts another.

        Returns:
            False where it has to stay.
        """
        if self.start_writer is None or self._waits_for_writer:
            return False
        self._idle = True
        return True

    @property
    def _waits_for_writer(self) -> bool:
        return bool(self._entries or self.urgent) or self._marks is not None

    @trio.lowlevel.enable_ki_protection
    def take(self) -> tuple[list[str | bytes], list[Outgoing], list[trio.Event]]:
        """Take the urgent frames, the users' in their order, and the marks that stood behind them.

        Whoever waits for room is let in, as the frames of all of them go out with these.
        """
        urgent, entries, marks = self.urgent, self._entries, self._marks
        self.urgent, self._entries, self._marks = [], [], None
        if self._parked:
            parked, self._parked = self._parked, None
            entries += parked.values()
            for task in parked:
                trio.lowlevel.reschedule(task)
            if not self.closed:
                parked.clear()  # who finds itself in it was refused
        return urgent, entries, marks or []

    @trio.lowlevel.enable_ki_protection
    def close(self) -> list[Outgoing]:
        """Refuse what comes, release the writer and whoever waits for room; idempotent.

        Returns:
            The frames that were never taken, those that waited for room among them.
        """
        self.closed = True
        self.start_writer = None
        _, entries, _ = self.take()
        self.wake()
        return entries
