"""A bounded queue in front of an actor: a Trio memory channel that knows why it was closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from ..errors import ActorNotRunning, MailboxFull
from .exit_reason import ExitReason, died
from .validation import checked_count

__all__ = ("Mailbox", "MailboxStatistics")

T = TypeVar("T")

MAILBOX_CAPACITY = 1024  # as papyra; OTP has no bound, and its users ask for one (slawlor/ractor#84)


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """What a mailbox holds at this moment."""

    depth: int
    """Messages that wait to be handled."""

    capacity: int
    """How many may wait before senders have to."""

    waiting_senders: int
    """Senders that wait for room."""


class Mailbox(Generic[T]):
    """A bounded first-in-first-out queue with one reader and any number of writers.

    Args:
        owner: the id of the actor it belongs to, for messages.
        capacity: how many messages may wait, >= 1.

    Raises:
        InvalidOption: ``capacity`` is not a whole number >= 1.
    """

    __slots__ = ("_front", "_receive", "_send", "capacity", "closed_with", "owner")

    def __init__(self, owner: str, capacity: int = MAILBOX_CAPACITY) -> None:
        self.owner = owner
        self.capacity = checked_count("mailbox_capacity", capacity, minimum=1)
        self.closed_with: ExitReason | None = None
        self._front: list[T] = []  # taken out but not begun: one at most in practice, and a deque costs 760 bytes
        self._send, self._receive = trio.open_memory_channel[T](capacity)

    async def put(self, item: T) -> None:
        """Append ``item``, waiting for room; a checkpoint, and when it is cancelled the item was not appended.

        Args:
            item: the message.

        Raises:
            ActorDied: the mailbox was closed while the sender waited.
            ActorNotRunning: it was closed before.
        """
        self._check_open()
        try:
            await self._send.send(item)
        except trio.BrokenResourceError:
            # Trio's own words never leave this class: a client must not crash with an error of our plumbing.
            assert self.closed_with is not None
            raise died(self.owner, self.closed_with) from self.closed_with.error

    def try_put(self, item: T) -> bool:
        """Append ``item`` now where there is room.

        Args:
            item: the message.

        Returns:
            False when there is no room, or others wait for it already.

        Raises:
            ActorNotRunning: the mailbox is closed.
        """
        self._check_open()
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            return False
        return True

    def put_nowait(self, item: T) -> None:
        """Append ``item`` now.

        Args:
            item: the message.

        Raises:
            MailboxFull: there is no room, or others wait for it already.
            ActorNotRunning: the mailbox is closed.
        """
        if not self.try_put(item):
            raise MailboxFull(f"the mailbox of {self.owner!r} holds {self.capacity} messages, which is its capacity")

    async def get(self) -> T:
        """Return the oldest message, waiting for one; always a checkpoint, and a cancelled one takes nothing."""
        if self._front:
            await trio.lowlevel.checkpoint()
            return self._front.pop(0)
        return await self._receive.receive()

    def get_nowait(self) -> T:
        """Return the oldest message.

        Raises:
            trio.WouldBlock: there is none.
        """
        if self._front:
            return self._front.pop(0)
        return self._receive.receive_nowait()

    async def get_batch(self) -> list[T]:
        """Return every message that waits, oldest first, at least one; a checkpoint, and cancelled it takes nothing."""
        batch = [await self.get()]
        try:
            # The bound keeps a crowd of waiting senders from growing one batch past what the mailbox may hold.
            for _ in range(self.capacity):
                batch.append(self.get_nowait())
        except trio.WouldBlock:
            pass
        return batch

    def put_back(self, item: T) -> None:
        """Give back ``item``, just taken and not begun, so that it is the next one again.

        Args:
            item: the message.
        """
        self._front.insert(0, item)

    def close(self, reason: ExitReason) -> int:
        """Refuse all that comes, release the senders that wait, drop what is queued; idempotent.

        Args:
            reason: how the owner ended; the senders' error is made of it.

        Returns:
            How many queued messages nobody will handle.
        """
        if self.closed_with is not None:
            return 0
        dropped = self.statistics().depth
        self.closed_with = reason
        self._front.clear()
        self._receive.close()
        return dropped

    def statistics(self) -> MailboxStatistics:
        """Return what the mailbox holds at this moment."""
        statistics = self._receive.statistics()
        depth = statistics.current_buffer_used + len(self._front)
        return MailboxStatistics(depth, self.capacity, statistics.tasks_waiting_send)

    def _check_open(self) -> None:
        if self.closed_with is not None:
            raise ActorNotRunning(f"actor {self.owner!r} is not running")
