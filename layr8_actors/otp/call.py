"""A request that wants an answer: its typed base class, and the cell in which the answer comes back."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import trio

from ..errors import CallTimeout, MailboxFull
from .mailbox import Mailbox, Overflow

__all__ = ("Call", "QueuedCall", "Reply", "displace")

T = TypeVar("T")

CALL_TIMEOUT = 5.0  # OTP: gen_server:call/2


class Call(Generic[T]):
    """The base of requests: ``class Get(Call[int])`` makes ``await ref.call(Get("k"))`` an ``int`` to type checkers."""

    __slots__ = ()

    skip_if_abandoned: ClassVar[bool] = False
    """Whether a queued request is not worth beginning once its caller has gone; OTP handles it all the same."""


class Reply(Generic[T]):
    """Where one caller waits for one answer (OTP: ``From``); the first answer counts, later ones are dropped silently.

    A handler may keep it and answer later, from any task of the same Trio run; an answer to a caller that has gone
    does nothing (OTP: gen_server:reply/2).
    """

    __slots__ = ("_blocked", "_error", "_task", "_value", "begun", "done")

    _value: T

    def __init__(self) -> None:
        self.done = False
        """True once an answer was given, or the caller has gone."""

        self.begun = False
        """True once a handler has it, so that it may still be answered by ``terminate``."""

        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None
        self._blocked: trio.CancelScope | None = None

    def send(self, value: T) -> None:
        """Answer with ``value``; does nothing when there is an answer already or nobody waits any more.

        Args:
            value: what ``call`` returns.
        """
        if not self.done:
            self._value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        """Answer with an error, and live on; does nothing when there is an answer already or nobody waits any more.

        Args:
            error: what ``call`` raises; give each caller an instance of its own.
        """
        if not self.done:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        self.done = True
        if self._blocked is not None:
            self._blocked.cancel()
        elif self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self, mailbox: Mailbox[Any], queued: QueuedCall, timeout: float, *, idle: bool) -> T:
        """Queue the request and wait for its answer: the caller's side of a call, for one use.

        Args:
            mailbox: where to queue it.
            queued: the request with this cell.
            timeout: seconds for room, queue and handling together.
            idle: whether the actor is in no handler, so that the answer may come at once.

        Raises:
            CallTimeout: no answer came in time; a late one is dropped.
            MailboxFull: it was dropped from a full mailbox that drops.
            SupervisionError: the actor died or refused.
        """
        answered = False
        deadline = trio.current_time() + timeout
        try:
            placed = True
            if mailbox.overflow is not Overflow.WAIT:
                displace(mailbox, queued)
            else:
                placed = mailbox.try_put(queued)
            if placed and idle and timeout > 0:
                # Two turns of the loop are enough for a handler that waits for nothing, and cost less than the scope:
                # 11 us a call against 18 (bench/otp_peers.py, Trio 0.35). Shielded, so that no answer is lost to a
                # cancellation that comes after it.
                await trio.lowlevel.checkpoint_if_cancelled()
                await trio.lowlevel.cancel_shielded_checkpoint()
                if not self.done:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                answered = self.done
            if not answered:
                with trio.CancelScope(deadline=deadline) as scope:
                    if not placed:
                        self._blocked = scope  # so that the actor's death can release us from the queue in front of it
                        await mailbox.put(queued)
                        self._blocked = None
                    if self.done:
                        await trio.lowlevel.checkpoint()  # refused at once; asking again and again must starve nobody
                    else:
                        await self._park()
                answered = self.done
        finally:
            self.done = True  # from here on nobody waits: a late answer changes nothing
        if not answered:
            name = type(queued.request).__name__
            raise CallTimeout(f"actor {mailbox.owner!r} did not answer {name} within {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    async def _park(self) -> None:
        # A slot of its own instead of an Event or a channel: 4 us a call against 33 us (measured on Trio 0.35).
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class QueuedCall:
    """A request in a mailbox together with its reply cell; a plain message is queued as it is.

    Args:
        request: what is asked.
        reply: where the caller waits.
        incarnation: whom it asks; the next one skips it, for its caller has been told that this one died.
    """

    __slots__ = ("incarnation", "reply", "request")

    def __init__(self, request: Call[Any], reply: Reply[Any], incarnation: object) -> None:
        self.request = request
        self.reply = reply
        self.incarnation = incarnation

    @property
    def abandoned(self) -> bool:
        """True where its caller has gone and the request is of a kind that is then not worth beginning."""
        return self.reply.done and getattr(self.request, "skip_if_abandoned", False)


def displace(mailbox: Mailbox[Any], message: object) -> bool:
    """Put ``message`` into a mailbox that drops when it is full, and tell the caller of a call that is dropped.

    Args:
        mailbox: one whose ``overflow`` is not ``WAIT``.
        message: a plain message or a :class:`QueuedCall`.

    Returns:
        False where it is the message itself that was dropped.

    Raises:
        ActorNotRunning: the mailbox is closed.
    """
    dropped = mailbox.force(message)
    if type(dropped) is QueuedCall:
        dropped.reply.fail(MailboxFull(f"the mailbox of {mailbox.owner!r} is full, and this request was dropped"))
    return dropped is not message
