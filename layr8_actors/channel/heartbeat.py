"""Heartbeat: keeps the socket alive and finds out when it is not.

Router notes each reply in the socket's own heartbeat state, so nothing is lost while this actor restarts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..errors import TransportClosed
from ..otp import ActorRef
from .link_state import DropLink
from .messages import WatchLink
from .prompt import PromptActor

if TYPE_CHECKING:
    from .record import Record

__all__ = ("Heartbeat", "held_up")

HELD_UP = 1.0
"""Seconds behind a deadline from which on it is our own loop that was late. Ours: no healthy loop is a second late."""


def held_up(deadline: float, now: float) -> bool:
    """Tell whether the loop came so late to a deadline that what was to come by then may lie unread.

    Args:
        deadline: that has passed, in seconds of ``trio.current_time()``.
        now: likewise.
    """
    return now - deadline >= HELD_UP


class Heartbeat(PromptActor):
    """The actor that beats.

    Args:
        record: the channel's record.
        connection: is told to drop a socket on which a heartbeat stays unanswered.
    """

    helpers = False

    def __init__(self, record: Record, connection: ActorRef) -> None:
        self._record = record
        self._connection = connection

    async def init(self) -> None:
        """Watch from now on; a socket that is open already is watched at once."""
        self.deadline = self._beat(trio.current_time())
        self.attend()

    async def handle_cast(self, message: object) -> None:
        """Look again: there is a new socket, or it is read again after a pause."""
        if isinstance(message, WatchLink):
            self.deadline = self._beat(trio.current_time())
        else:
            await super().handle_cast(message)

    async def handle_timeout(self) -> None:
        """A heartbeat is due, or the time for a reply is over."""
        self.deadline = self._beat(trio.current_time())

    def _beat(self, now: float) -> float:
        """Do what is due and return when to look again."""
        record = self._record
        link = record.link
        if link is None:
            return math.inf
        state = link.heartbeat
        if state.expired(now) and not (held_up(state.next_deadline, now) and state.excuse(now)):
            detail = f"no reply to a heartbeat within {record.options.heartbeat_timeout_s:g} s"
            self._connection.cast_nowait(DropLink(link.number, TransportClosed(1006, detail=detail)))
            return math.inf
        if state.due(now):
            ref = record.refs.next()
            link.post(record.serializer.encode(state.frame(ref)))
            state.sent(ref, now)
        return state.next_deadline
