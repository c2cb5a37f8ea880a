"""A bounded queue in front of an actor: a Trio memory channel that knows why it was closed.

The channel is opened when a message has to wait, and dropped when there is none: for an idle actor it would be a fifth
of its memory (2 KiB, measured on Trio 0.35), with nothing in it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import trio

from ..errors import ActorNotRunning, MailboxFull
from .alarms import Sleeper
from .exit_reason import ExitReason, died
from .validation import checked_count

__all__ = ("Mailbox", "MailboxStatistics", "Overflow")

T = TypeVar("T")
D = TypeVar("D")

MAILBOX_CAPACITY = 1024  # as papyra; OTP has no bound, and its users ask for one (slawlor/ractor#84)


class _Nothing:
    pass


_NOTHING = _Nothing()


class _Notice(Generic[T]):
    """An item past the bound, which is next once so many more of those in front of it are taken."""

    __slots__ = ("behind", "item")

    def __init__(self, item: T, behind: int) -> None:
        self.item = item
        self.behind = behind


class Overflow(Enum):
    """What becomes of a message for a mailbox that is full."""

    WAIT = "wait"
    """Its sender waits for room: backpressure. The others are for senders that must never wait."""

    DROP_NEW = "drop_new"
    """It is dropped: a cast returns False, the caller of a call gets ``MailboxFull`` at once."""

    DROP_OLD = "drop_old"
    """The oldest message gives way to it; where that is a call, its caller gets ``MailboxFull`` at once."""


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """What a mailbox holds at this moment."""

    depth: int
    """Messages that wait to be handled."""

    capacity: int
    """How many may wait before senders have to."""

    waiting_senders: int
    """Senders that wait for room."""

    dropped: int = 0
    """Messages that were dropped so far because it was full; always 0 with ``Overflow.WAIT``."""


class Mailbox(Generic[T]):
    """A bounded first-in-first-out queue with one reader and any number of writers.

    Args:
        owner: the id of the actor it belongs to, for messages.
        capacity: how many messages may wait, >= 1.
        overflow: what becomes of a message when it is full.

    Raises:
        InvalidOption: ``capacity`` is not a whole number >= 1.
    """

    __slots__ = (
        "_dropped",
        "_front",
        "_notices",
        "_reader",
        "_receive",
        "_send",
        "capacity",
        "closed_with",
        "overflow",
        "owner",
    )

    def __init__(self, owner: str, capacity: int = MAILBOX_CAPACITY, overflow: Overflow = Overflow.WAIT) -> None:
        self.owner = owner
        self.capacity = checked_count("mailbox_capacity", capacity, minimum=1)
        self.overflow = overflow
        self.closed_with: ExitReason | None = None
        self._dropped = 0
        self._notices: list[_Notice[T]] | None = None
        self._front: list[T] | None = None  # in front of the channel: handed to a reader that waited
        self._reader: trio.lowlevel.Task | Sleeper | None = None
        self._send: trio.MemorySendChannel[T] | None = None
        self._receive: trio.MemoryReceiveChannel[T] | None = None

    @property
    def queued(self) -> int:
        """How many items the reader can take now, those past the bound included."""
        return self.statistics().depth + len(self._notices or ())

    @property
    def empty(self) -> bool:
        """True where nothing is in it, for sure."""
        return not (self._front or self._receive or self._notices)

    async def put(self, item: T) -> None:
        """Append ``item``, waiting for room; a checkpoint, and when it is cancelled the item was not appended.

        Args:
            item: the message.

        Raises:
            ActorDied: the mailbox was closed while the sender waited.
            ActorNotRunning: it was closed before.
        """
        self._check_open()
        if self._reader is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._hand_over(item)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            await self._open().send(item)
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
        if self._reader is not None:
            self._hand_over(item)
            return True
        try:
            self._open().send_nowait(item)
        except trio.WouldBlock:
            return False
        return True

    def put_notice(self, item: T) -> None:
        """Append ``item`` behind all that is queued now, past the bound: for the library's own few, such as a Down.

        Args:
            item: the message; dropped where the mailbox is closed.
        """
        if self.closed_with is not None:
            return
        if self._notices is None:
            self._notices = []
        # Behind those notices that are queued already, and counted from them.
        earlier = sum(notice.behind for notice in self._notices)
        queued = len(self._front or ()) + (
            0 if self._receive is None else self._receive.statistics().current_buffer_used
        )
        self._notices.append(_Notice(item, queued - earlier))
        self.interrupt()

    def force(self, item: T) -> T | None:
        """Append ``item`` now, past whoever waits; where the mailbox is full the oldest message gives way.

        For one whose ``overflow`` is not ``WAIT``, so that nobody ever waits for room in it.

        Args:
            item: the message.

        Returns:
            What was dropped: the oldest message, or ``item`` itself, or ``None``.

        Raises:
            ActorNotRunning: the mailbox is closed.
        """
        if self.try_put(item):
            return None
        self._dropped += 1
        if self.overflow is Overflow.DROP_NEW:
            return item
        oldest = self._take(_NOTHING)
        assert not isinstance(oldest, _Nothing)
        assert self._receive is not None
        if not self.try_put(item):
            # What gave way had been handed to the reader, in front of the channel: that is as full as before.
            self._front = [self._receive.receive_nowait()]
            self.put_nowait(item)
        return oldest

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

    @trio.lowlevel.enable_ki_protection
    def _hand_over(self, item: T) -> None:
        # Left where the reader will look instead of sent along with its wake-up: cancelled meanwhile, it loses nothing.
        self._front = [item]
        self.interrupt()

    def _open(self) -> trio.MemorySendChannel[T]:
        if self._send is None:
            self._send, self._receive = trio.open_memory_channel[T](self.capacity)
        return self._send

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Wait until there may be a message, or :meth:`interrupt`; always a checkpoint.

        Raises:
            ActorNotRunning: the mailbox is closed.
        """
        if self.park(trio.lowlevel.current_task()):
            await trio.lowlevel.wait_task_rescheduled(self.abort)
        else:
            await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    def park(self, reader: trio.lowlevel.Task | Sleeper) -> bool:
        """Make ``reader`` the one to be told when there is a message; the first half of :meth:`wait`.

        Args:
            reader: the caller's own task, which waits right after this with :meth:`abort`; or an actor that has none.

        Returns:
            False where there may be a message already, and nothing to wait for.

        Raises:
            ActorNotRunning: the mailbox is closed.
        """
        if not self.empty:
            return False
        self._check_open()
        self._reader = reader
        return True

    def unpark(self) -> None:
        """Nobody waits, after all."""
        self._reader = None

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """The reader is cancelled."""
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    @trio.lowlevel.enable_ki_protection
    def interrupt(self) -> None:
        """Make the reader return from :meth:`wait`, if it is there; no checkpoint."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            if isinstance(reader, trio.lowlevel.Task):
                trio.lowlevel.reschedule(reader)
            else:
                reader.wake()

    async def get(self) -> T:
        """Return the oldest message, waiting for one; always a checkpoint, and a cancelled one takes nothing.

        Raises:
            ActorNotRunning: the mailbox is closed.
        """
        while True:
            await self.wait()
            with contextlib.suppress(trio.WouldBlock):
                return self.get_nowait()

    def get_nowait(self) -> T:
        """Return the oldest message.

        Raises:
            trio.WouldBlock: there is none.
        """
        item = self.pop(_NOTHING)
        if isinstance(item, _Nothing):
            raise trio.WouldBlock
        return item

    def pop(self, default: D) -> T | D:
        """Return the oldest message, or ``default`` where there is none.

        Args:
            default: what no message is.
        """
        notices = self._notices
        if notices is not None:
            if notices[0].behind <= 0:
                item = notices.pop(0).item
                if not notices:
                    self._notices = None
                return item
            return self._take(default)
        if self._front:
            item, self._front = self._front[0], None
            return item
        if self._receive is None:
            return default
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            self._send = self._receive = None  # nothing in it, and nobody waits for room
            return default

    def _take(self, default: D) -> T | D:
        """Take the oldest message that is no notice, past the notices in front of it; those behind it move up."""
        notices, self._notices = self._notices, None
        item = self.pop(default)
        if notices is not None:
            for notice in notices:
                if notice.behind > 0:  # those before it are in front of that message too, and stay where they are
                    notice.behind -= 1
                    break
            self._notices = notices
        return item

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
        self._front = None
        self._notices = None
        if self._receive is not None:
            self._receive.close()
            self._send = self._receive = None
        self.interrupt()
        return dropped

    def statistics(self) -> MailboxStatistics:
        """Return what the mailbox holds at this moment."""
        if self._receive is None:
            return MailboxStatistics(len(self._front or ()), self.capacity, 0, self._dropped)
        statistics = self._receive.statistics()
        depth = statistics.current_buffer_used + len(self._front or ())
        return MailboxStatistics(depth, self.capacity, statistics.tasks_waiting_send, self._dropped)

    def _check_open(self) -> None:
        if self.closed_with is not None:
            raise ActorNotRunning(f"actor {self.owner!r} is not running")
