"""What a channel counts, and the picture of itself that it gives away."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .link_state import LinkStatus

if TYPE_CHECKING:
    from .record import Record

__all__ = ("ChannelState", "ChannelStatistics", "Counters", "take_statistics")


@dataclasses.dataclass(slots=True)
class Counters:
    """The running totals of one channel, over all its sockets and incarnations."""

    attempts_failed: int = 0
    callbacks_failed: int = 0
    callbacks_skipped: int = 0
    drops: int = 0
    frames_ignored: int = 0
    frames_refused: int = 0
    links_opened: int = 0
    messages_delivered: int = 0
    messages_dropped: int = 0
    messages_interrupted: int = 0
    messages_received: int = 0
    pushes_received: int = 0
    reading_pauses: int = 0
    rejoins: int = 0
    replies: int = 0
    replies_unclaimed: int = 0
    reply_timeouts: int = 0
    sends_discarded: int = 0
    sent: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelState:
    """Where a channel stands, as plain data.

    Args:
        status: the state of the link.
        attempt: failed or lost in a row so far; 0 on a link that has stood for ``reset_after``.
        last_error: what the last attempt or link ended with, or ``None``.
        retry_in: seconds until the next attempt, or ``None`` where none is due.
    """

    status: LinkStatus
    attempt: int
    last_error: Exception | None
    retry_in: float | None

    @property
    def joined(self) -> bool:
        """True while messages can be sent."""
        return self.status is LinkStatus.JOINED


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Counts since the channel was opened and gauges of this moment.

    Args:
        transport: name of the adapter in use, or ``None`` while there is no socket.
        link: number of the dial that opened the socket in use, from 1, or ``None``.
        links_opened: sockets opened so far.
        drops: joined links and topics that were lost.
        rejoins: joins acknowledged after the first.
        attempts_failed: failed attempts to connect or join.
        sent: pushes handed to the outbox, or written at once.
        replies: replies that found their caller.
        replies_unclaimed: replies nobody waited for: to a fire-and-forget, late, or sent twice.
        reply_timeouts: callers who waited in vain for ``reply_timeout``.
        sends_discarded: pushes that were queued but never written, because their join ended first.
        messages_received: inbound messages accepted.
        pushes_received: inbound pushes of other events, which on_push gets; they count as delivered, waiting and so on
            where messages do.
        messages_delivered: inbound messages that the user's code has taken and finished with.
        messages_waiting: inbound messages that wait for the user.
        messages_interrupted: messages whose ``on_message`` was cut off by a crash or the end.
        messages_dropped: messages that went because nobody ever read them.
        callbacks_failed: user functions that raised.
        callbacks_skipped: calls of on_disconnect and on_reconnect not made, because an earlier one did not return.
        frames_refused: frames that were malformed.
        frames_ignored: frames of another join, topic or socket.
        outbox_waiting: frames that wait for the writer.
        replies_waiting: callers who wait for a reply.
        frames_waiting: inbound frames read and not handled yet, those messages included; ``inbox_capacity`` bounds it.
        bytes_waiting: their size as ``len()`` counts; ``inbox_bytes`` bounds it.
        reading_paused: True while the user is so slow that the socket is not read.
        reading_pauses: how often that has been so.
        round_trip: seconds that the last heartbeat took, or ``None``.
    """

    transport: str | None
    link: int | None
    links_opened: int
    drops: int
    rejoins: int
    attempts_failed: int
    sent: int
    replies: int
    replies_unclaimed: int
    reply_timeouts: int
    sends_discarded: int
    messages_received: int
    pushes_received: int
    messages_delivered: int
    messages_waiting: int
    messages_interrupted: int
    messages_dropped: int
    callbacks_failed: int
    callbacks_skipped: int
    frames_refused: int
    frames_ignored: int
    outbox_waiting: int
    replies_waiting: int
    frames_waiting: int
    bytes_waiting: int
    reading_paused: bool
    reading_pauses: int
    round_trip: float | None


def take_statistics(record: Record) -> ChannelStatistics:
    """Put the counters and gauges of ``record`` together; never blocks."""
    link = record.link
    return ChannelStatistics(
        **dataclasses.asdict(record.counters),
        transport=None if link is None else link.transport.name,
        link=None if link is None else link.number,
        messages_waiting=len(record.backlog.messages),
        outbox_waiting=0 if link is None else len(link.outbox),
        replies_waiting=len(record.waiting),
        frames_waiting=record.backlog.frames,
        bytes_waiting=record.backlog.size,
        reading_paused=record.backlog.paused,
        round_trip=record.round_trip,
    )
