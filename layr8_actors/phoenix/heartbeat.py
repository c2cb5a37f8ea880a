"""The heartbeat of a socket as a state machine whose time is an argument.

Phoenix closes a socket that sends nothing for 60 s (``timeout`` of ``Phoenix.Socket``), so a client has to speak; and a
peer that has gone silently is only noticed by a beat that stays unanswered. The rules are those of phoenix.js: the
first beat one interval after the socket opened, each next one an interval after the last answer, and only the beat's
own reply counts, never other traffic.
"""

from __future__ import annotations

import math

from layr8_actors.errors import InvalidOption, LocalProtocolError

from .frames import HEARTBEAT, PHOENIX_TOPIC, Frame, Ref

__all__ = ("Heartbeat",)


def _positive(option: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidOption(option, value, "a positive number of seconds")
    return float(value)


class Heartbeat:
    """When to send a heartbeat, and when its silence means that the peer is gone.

    Args:
        interval: seconds from the opening, and from each answer, to the next beat. phoenix.js uses 30 s.
            ``math.inf`` sends none.
        timeout: seconds that a beat may stay unanswered. phoenix.js uses 30 s. It has to be longer than the slowest
            join of the node, for Phoenix runs a join in the socket's own process, where heartbeats wait behind it.
        now: the time of the opening, in seconds of any monotonic clock; all other times are of the same clock.

    Raises:
        InvalidOption: interval or timeout is not a positive number; correct it.

    The owner sleeps until :attr:`next_deadline`, then asks :meth:`due` and :meth:`expired`. Nothing here checkpoints.
    """

    __slots__ = ("_deadline", "_excused", "_interval", "_next_beat", "_paused_at", "_pending", "_sent_at", "_timeout")

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = _positive("heartbeat interval", interval)
        self._timeout = _positive("heartbeat timeout", timeout)
        self._next_beat = now + self._interval
        self._pending: str | None = None
        self._sent_at = now
        self._deadline = math.inf
        self._paused_at: float | None = None
        self._excused = False

    @property
    def pending(self) -> str | None:
        """The ref of the beat that waits for its reply, or ``None``."""
        return self._pending

    @property
    def next_deadline(self) -> float:
        """The time at which something is to be done: the next beat, or the end of the wait for a reply.

        Ask again after :meth:`replied`, :meth:`pause` and :meth:`resume`.
        """
        return self._next_beat if self._may_beat else self._deadline

    @property
    def _may_beat(self) -> bool:
        # While paused the replies cannot be read, but the node still closes a socket that sends nothing for 60 s.
        return self._pending is None or self._paused_at is not None

    def due(self, now: float) -> bool:
        """Return whether a beat is to be sent now; while one is unanswered, only during a pause."""
        return self._may_beat and now >= self._next_beat

    def frame(self, ref: str) -> Frame:
        """Return the heartbeat frame with this ref; hand the same ref to :meth:`sent` once it is on its way."""
        return Frame(None, ref, PHOENIX_TOPIC, HEARTBEAT, {})

    def sent(self, ref: str, now: float) -> None:
        """Note that the beat with this ref has been sent; only the last one sent is waited for.

        Raises:
            LocalProtocolError: a beat waits for its reply already; send none before that.
        """
        if not self._may_beat:
            raise LocalProtocolError("a heartbeat waits for its reply already")
        self._pending = ref
        self._sent_at = now
        self._next_beat = now + self._interval
        self._deadline = now + self._timeout
        self._excused = False

    def replied(self, ref: Ref, now: float) -> float | None:
        """Note a reply on topic ``phoenix`` and set the next beat an interval from now, if it answers the pending one.

        Returns the seconds from sending the beat to reading its reply, time paused included; ``None`` for a reply that
        is not the pending beat's own, which changes nothing.
        """
        if self._pending is None or ref != self._pending:
            return None
        self._pending = None
        self._deadline = math.inf
        self._next_beat = now + self._interval
        return now - self._sent_at

    def expired(self, now: float) -> bool:
        """Return whether the pending beat has stayed unanswered for the whole timeout, not counting time paused."""
        return self._pending is not None and self._paused_at is None and now >= self._deadline

    def excuse(self, now: float) -> bool:
        """Give the pending beat its whole timeout again, because the owner itself was held up until now.

        Returns True if it did: once for each beat, so that an owner who is always late still finds a dead peer.
        """
        if self._pending is None or self._excused:
            return False
        self._excused = True
        self._deadline = now + self._timeout
        return True

    def pause(self, now: float) -> None:
        """Stop the clock of the reply, because the owner itself does not read for a while; beats stay due as ever.

        Without it a slow consumer would take its own unread reply for a dead peer. Pausing twice changes nothing.
        """
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """Let the clock of the reply run again, with the time left that it had; without a pause nothing changes."""
        if self._paused_at is None:
            return
        if self._pending is not None:
            # A beat sent during the pause has lost only the time since it was sent.
            self._deadline += now - max(self._paused_at, self._sent_at)
        self._paused_at = None
