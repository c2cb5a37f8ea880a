"""A push whose outcome is told to a function: for the library's own, which would else keep a task waiting for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..errors import Layr8Error, ReplyTimeout
from .reply import Reply
from .waiter import Waiter

if TYPE_CHECKING:
    from .outbox import Outbox, Outgoing
    from .record import Record

__all__ = ("Push",)


class Push(Waiter):
    """One push, from its encoding until its outcome; made by :meth:`Channel.encoded`, in the same turn to be queued.

    Args:
        record: of the channel.
        told: called with the node's reply, or with an error that nobody else gets; at most once, at the very moment
            and in whichever task, so that it must neither raise nor take its time. It may not push in turn.
        timed_out: makes the error of one that was not answered in time.
    """

    __slots__ = ("_record", "_timed_out", "_told", "outbox", "outgoing")

    def __init__(
        self, record: Record, told: Callable[[Reply | Layr8Error], None], timed_out: Callable[[Waiter], ReplyTimeout]
    ) -> None:
        super().__init__()
        self._record = record
        self._told = told
        self._timed_out = timed_out
        self.outbox: Outbox | None = None
        self.outgoing: Outgoing | None = None

    def queue(self) -> bool:
        """Queue it for writing, behind all that is queued; no checkpoint.

        Returns:
            False where there is no room: then it is withdrawn, and its caller has to wait by ``send_msg``.
        """
        outbox, self.outbox = self.outbox, None
        outgoing, self.outgoing = self.outgoing, None
        assert outbox is not None
        assert outgoing is not None
        if not outbox.put_nowait(outgoing):
            self.withdraw()
            return False
        self._record.counters.sent += 1
        return True

    def withdraw(self) -> None:
        """Nobody wants the outcome any more; what is not written by now never will be. Idempotent."""
        self.leave()
        self._record.waiting.pop(self.ref, None)

    @trio.lowlevel.enable_ki_protection
    def _wake(self) -> None:
        self._record.waiting.pop(self.ref, None)
        error = self._error
        if error is None:
            assert self._reply is not None
            self._told(self._reply)
        else:
            self._told(self._timed_out(self) if isinstance(error, ReplyTimeout) else error)
