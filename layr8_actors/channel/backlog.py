"""Inbound frames that were read and are not handled yet, bounded by count and by bytes: a slow user costs no heap.

At the bound reading stops, and TCP slows the node down. It goes on when both figures are down to half of the bound: the
reader must not wake for each single message, and half a bound is as much again as what one wake-up may read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio

from ..phoenix import Topic, TopicStatus

if TYPE_CHECKING:
    from .link import Waiter
    from .messages import Joined
    from .options import ChannelOptions
    from .topics import Topics

__all__ = ("Backlog",)


class Backlog:
    """What waits between the socket and the user, wherever it waits.

    Connection adds what it has read. Router takes off what it has dealt with; the messages among it stay counted on
    their way to Inbox, until the user is handed each. Every change is made between two checkpoints, so that no crash
    of an actor, and no cancellation, leaves the figures and what they count apart.

    Args:
        options: ``inbox_capacity`` and ``inbox_bytes`` are the bounds.
        topic: of the channel; while it is not joined, reading goes further.
        waiting: who waits for a reply; likewise.
    """

    __slots__ = (
        "_bytes",
        "_capacity",
        "_held_for",
        "_room",
        "_sizes",
        "_topic",
        "_waiting",
        "frames",
        "joins",
        "messages",
        "paused",
        "read_by_user",
        "size",
        "taken",
        "topics",
    )

    def __init__(self, options: ChannelOptions, topic: Topic, waiting: dict[str, Waiter]) -> None:
        self._capacity = options.inbox_capacity
        self._bytes = options.inbox_bytes_bound
        self._topic = topic
        self._waiting = waiting
        self._room: trio.Event | None = None
        self._held_for = 0.0  # seconds without reading, since both figures were down to half of the inbox's own bounds
        self._sizes: deque[int] = deque()  # of the messages, in the same order
        self.frames = 0
        self.size = 0
        self.messages: deque[Any] = deque()
        self.taken = 0
        """Messages taken so far."""
        self.joins: deque[tuple[int, Joined]] = deque()
        """Joins that the user has not come to, each with the count of messages that come before it."""
        self.paused = False  # written by Connection
        self.read_by_user = options.callbacks.on_message is not None
        self.topics: Topics | None = None
        """The further topics of the same socket, whose frames are counted here too."""

    # --- the bounds ---------------------------------------------------------------------------------------------------

    def bounds(self) -> tuple[int, int]:
        """How many frames, and how many bytes, may wait before reading stops.

        Those are the inbox's own bounds. But while somebody waits for a reply reading goes on to the read-ahead,
        because an ``on_message`` that sends and waits would otherwise wait for a reply behind the messages that wait
        for it. Where nobody reads messages it goes on too, since the oldest are dropped and the link has to be
        watched. While the topic is not joined it goes on beyond that: the answer to the join has to be read, and what
        else comes is dropped. A reply or a join that a further topic waits for counts alike.
        """
        topics = self.topics
        if self._topic.status is not TopicStatus.JOINED or (topics and topics.join_awaited):
            return 2 * self.read_ahead, 4 * self._bytes
        if self._waiting or (topics and topics.reply_awaited) or not (self.read_by_user or topics):
            return self.read_ahead, 2 * self._bytes
        return self._own_bounds()

    def _own_bounds(self) -> tuple[int, int]:
        messages, size = self.unread
        return self._capacity + messages, self._bytes + size

    @property
    def _eased(self) -> bool:
        frames, size = self._own_bounds()
        return self.frames <= frames // 2 and self.size <= size // 2

    @property
    def unread(self) -> tuple[int, int]:
        """Messages that nobody reads, and their size: they are bounded by themselves, and in no further topic's way."""
        return (0, 0) if self.read_by_user else (len(self.messages), sum(self._sizes))

    @property
    def read_ahead(self) -> int:
        """Frames that may wait while somebody waits for a reply: ours; 64 times the inbox, or two full reads.

        Bytes are twice the inbox's, because what lies before the reply is what fills the kernels' buffers: by Linux'
        defaults 6 MiB at the receiver and 4 MiB at the sender (tcp(7): ``tcp_rmem``, ``tcp_wmem``), within 16 MiB.
        """
        return max(64 * self._capacity, 8192)

    @property
    def full(self) -> bool:
        """Whether reading has to stop: one of the figures has reached its bound."""
        frames, size = self.bounds()
        return self.frames >= frames or self.size >= size

    def share_of(self, frames: int, size: int) -> float:
        """The part of the inbox's own bounds that so much takes: by count or by bytes, whichever is more."""
        return max(frames / self._capacity, size / self._bytes)

    # --- what waits ---------------------------------------------------------------------------------------------------

    def add(self, frames: int, size: int) -> None:
        """Count frames that were read.

        Args:
            frames: how many.
            size: of all of them, as ``len()`` counts: bytes of a binary message, characters of a text.
        """
        self.frames += frames
        self.size += size

    def remove(self, frames: int, size: int) -> None:
        """Take off frames that are dealt with and were no messages; :meth:`make_room` is the caller's."""
        self.frames -= frames
        self.size -= size

    def put(self, messages: list[Any], sizes: list[int], joins: Sequence[tuple[int, Joined]] = ()) -> None:
        """Queue messages for the user, which :meth:`add` has counted already.

        Args:
            messages: their payloads, in order.
            sizes: of the frame of each.
            joins: that were acknowledged meanwhile, each with the number of ``messages`` before it.
        """
        for before, joined in joins:
            position = self.taken + len(self.messages) + before
            if self.joins and self.joins[-1][0] == position:
                self.joins.pop()  # nothing came under that join: so there are never more of them than messages
            self.joins.append((position, joined))
        self.messages.extend(messages)
        self._sizes.extend(sizes)

    def take(self) -> Any:
        """The next payload, from now on the user's; there has to be one. Wakes the reader where there is room again."""
        payload = self.messages.popleft()
        self.taken += 1
        self.frames -= 1
        self.size -= self._sizes.popleft()
        if self._room is not None:
            self.make_room()
        return payload

    def next_join(self) -> Joined | None:
        """Take the join that comes before the next message, if one does."""
        if self.joins and self.joins[0][0] <= self.taken:
            return self.joins.popleft()[1]
        return None

    def drop_excess(self) -> int:
        """Drop the oldest messages until the rest is within the bounds; the newest stays whatever its size.

        Returns:
            How many were dropped.
        """
        dropped = 0
        while len(self.messages) > self._capacity or (self.size > self._bytes and len(self.messages) > 1):
            self.take()
            dropped += 1
        return dropped

    def end(self) -> None:
        """The channel is over: what had not become a message by now never will, and the messages may still be read."""
        self.frames = len(self.messages)
        self.size = sum(self._sizes)

    # --- waiting for room ---------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Wake the reader if enough was handled: both figures are down to half of their bounds."""
        if self._held_for and self._eased:
            self._held_for = 0.0
        if self._room is not None:
            frames, size = self.bounds()
            if self.frames <= frames // 2 and self.size <= size // 2:
                self._room.set()

    def raise_bounds(self) -> None:
        """Wake the reader if it may go on under bounds that have just risen: a reply or a join is awaited now."""
        if self._room is not None and not self.full:
            self._room.set()

    async def room(self) -> None:
        """Wait until reading may go on. Checkpoints only if it waits; cancellation leaves nothing behind."""
        try:
            while self.full:
                self._room = trio.Event()
                if not self.topics:
                    await self._room.wait()
                    continue
                since = trio.current_time()
                with trio.move_on_after(self.topics.patience - self._held_for) as scope:
                    await self._room.wait()
                self._held_for = 0.0 if self._eased else self._held_for + trio.current_time() - since
                if scope.cancelled_caught:
                    self._held_for = 0.0  # whoever is next has a time of its own
                    self.topics.leave_slowest()
        finally:
            self._room = None
