"""One caller who waits for a reply."""

from __future__ import annotations

import math

import trio

from ..errors import Layr8Error
from ..phoenix import Ref
from .reply import Reply

__all__ = ("Waiter",)


class Waiter:
    """A caller parked until its reply, an error, or its own deadline; resolved at most once.

    ``ref``, ``join_ref`` and ``link`` say which request, under which join and on which socket, it waits for.
    ``written`` becomes True when the request is about to be written, ``gone`` when the caller no longer waits: a
    request not written by then never will be. ``settled`` is True once there is an outcome, or nobody waits any more.
    """

    __slots__ = (
        "_error",
        "_reply",
        "_task",
        "deadline",
        "gone",
        "join_ref",
        "link",
        "ref",
        "room",
        "settled",
        "written",
    )

    def __init__(self) -> None:
        self.ref = ""
        self.join_ref: Ref = None
        self.link = 0
        self.deadline = math.inf
        self.written = self.gone = self.settled = False
        self.room: trio.CancelScope | None = None  # around the wait for room in the outbox
        self._task: trio.lowlevel.Task | None = None
        self._reply: Reply | None = None
        self._error: Layr8Error | None = None

    def resolve(self, reply: Reply) -> None:
        """Hand over the reply; nothing happens if the caller has gone or was answered before."""
        if not self.settled:
            self.settled = True
            self._reply = reply
            self._wake()

    def fail(self, error: Layr8Error) -> None:
        """Hand over an error that no other caller gets, likewise."""
        if not self.settled:
            self._error = error
            self.leave()  # at once, and not when the caller wakes: what it is told not to be written must not be
            if self.room is not None:
                self.room.cancel(reason="the reply can no longer come")
            self._wake()

    def leave(self) -> None:
        """Note that the caller no longer waits."""
        self.gone = self.settled = True

    @trio.lowlevel.enable_ki_protection
    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    @trio.lowlevel.enable_ki_protection
    async def wait(self, passes: int = 0) -> Reply:
        """Wait for the outcome.

        Args:
            passes: of Trio's loop in which to look for it, before the wait in which the process may sleep.

        Returns:
            The reply.

        Raises:
            Layr8Error: what :meth:`fail` was given.

        Always checkpoints; on cancellation nothing is left but the owner's entry for the ref.
        """
        passes = max(passes, self.settled)
        while passes:
            await trio.lowlevel.checkpoint()
            passes = 0 if self.settled else passes - 1
        if not self.settled:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
