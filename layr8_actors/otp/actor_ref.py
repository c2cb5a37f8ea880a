"""The handle by which others reach an actor, whichever incarnation of it runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ..errors import ActorDied, ActorNotRunning, CallingSelf, CallTimeout, InvalidOption, SupervisionError
from .call import CALL_TIMEOUT, Call, QueuedCall, Reply, displace
from .exit_reason import ExitKind, ExitReason
from .mailbox import MAILBOX_CAPACITY, Mailbox, MailboxStatistics, Overflow
from .pid import Pid
from .registry import Registry
from .validation import checked_choice, checked_count, checked_seconds, checked_text

if TYPE_CHECKING:
    from .actor_process import ActorProcess

__all__ = ("ActorRef",)

T = TypeVar("T")


class ActorRef:
    """A late-bound handle of an actor: it may be made and handed around before the actor runs (OTP: registered name).

    Args:
        id: the actor's id, which becomes its child id too.
        mailbox_capacity: how many messages may wait.
        keep_mailbox: whether queued casts outlive a crash and are handled by the next incarnation, in order; casts
            made while none runs are queued then too. Calls fail at once all the same. By default each incarnation has
            a new mailbox, as in OTP.
        overflow: what becomes of a message when the mailbox is full; by default its sender waits for room.
        registry: where each incarnation has the ref's id as its name, from before ``init`` until it is gone
            (Elixir: ``name: {:via, Registry, ...}``); an incarnation that finds it taken does not start.

    Raises:
        InvalidOption: a value that is not allowed.
    """

    __slots__ = (
        "_arrival",
        "_capacity",
        "_keep_mailbox",
        "_mailbox",
        "_overflow",
        "_process",
        "_registry",
        "id",
    )

    def __init__(
        self,
        id: str,
        *,
        mailbox_capacity: int = MAILBOX_CAPACITY,
        keep_mailbox: bool = False,
        overflow: Overflow = Overflow.WAIT,
        registry: Registry | None = None,
    ) -> None:
        self.id = checked_text("id", id)
        self._overflow = checked_choice("overflow", overflow, Overflow)
        if registry is not None and not isinstance(registry, Registry):
            raise InvalidOption("registry", registry, "a Registry or None")
        self._registry = registry
        self._arrival: trio.Event | None = None
        self._capacity = checked_count("mailbox_capacity", mailbox_capacity, minimum=1)
        self._keep_mailbox = keep_mailbox
        self._process: ActorProcess | None = None
        self._mailbox: Mailbox[Any] | None = None
        if keep_mailbox:
            self._mailbox = self._new_mailbox()

    def __repr__(self) -> str:
        return f"<ActorRef {self.id!r} {'running' if self.running else 'not running'}>"

    @property
    def running(self) -> bool:
        """True from the start of an incarnation's ``init`` until its loop ends: while calls are taken."""
        return self._process is not None and not self._process.closing

    @property
    def idle(self) -> bool:
        """True while the actor waits for a message and has none."""
        process = self._process
        return process is not None and not process.closing and process.idle and process.mailbox.empty

    @property
    def pid(self) -> Pid | None:
        """The identity of the incarnation that runs now, its ``init`` and its cleanup included; else ``None``."""
        return None if self._process is None else self._process.pid

    @property
    def handling(self) -> str | None:
        """The handler that the actor is in and the type of its message, such as ``handle_call Get``; else ``None``."""
        return None if self._process is None else self._process.handling

    async def wait_running(self, timeout: float = math.inf) -> None:
        """Wait until an incarnation has finished its ``init``, at once where one has; always a checkpoint.

        For the gap between two incarnations, in which calls fail at once.

        Args:
            timeout: seconds; infinite by default.

        Raises:
            CallTimeout: none came in time.
        """
        seconds = checked_seconds("timeout", timeout, allow_infinity=True)
        with trio.move_on_after(seconds):
            await trio.lowlevel.checkpoint()
            while not (self.running and self._process is not None and self._process.started):
                if self._arrival is None:
                    self._arrival = trio.Event()
                await self._arrival.wait()
            return
        raise CallTimeout(f"actor {self.id!r} did not run within {seconds:g} s")

    async def call(self, request: Call[T], timeout: float = CALL_TIMEOUT) -> T:
        """Ask the actor and wait for its answer (OTP: gen_server:call/3).

        Always a checkpoint, but for the first two errors. A cancelled or timed-out call is delivered at most once and
        its outcome is unknown: the actor may still act on it.

        Args:
            request: what is asked; its class names the type of the answer.
            timeout: seconds for room in the mailbox, queue and handling together; ``math.inf`` for none.

        Raises:
            ActorNotRunning: no incarnation runs; nothing was sent.
            CallingSelf: the actor's own handler asked; use cast.
            ActorDied: it ended before it answered; ``__cause__`` says why.
            CallTimeout: it did not answer in time; it lives on.
            MailboxFull: the request was dropped, by a mailbox that drops; otherwise it waits for room.
            SupervisionError: it does not know the request.
        """
        process = self._process
        if process is not None and process.task is trio.lowlevel.current_task():
            raise CallingSelf(f"actor {self.id!r} called itself with {type(request).__name__}")
        if process is None or process.closing:
            raise ActorNotRunning(f"actor {self.id!r} is not running; it was asked {type(request).__name__}")
        seconds = timeout if timeout is CALL_TIMEOUT else checked_seconds("timeout", timeout, allow_infinity=True)
        reply: Reply[T] = Reply()
        if process.pending is None:
            process.pending = {}
        process.pending[reply] = None
        try:
            queued = QueuedCall(request, reply, process)
            return await reply.wait(process.mailbox, queued, seconds, idle=process.idle)
        finally:
            process.pending.pop(reply, None)

    async def cast(self, message: object) -> bool:
        """Send a message, waiting for room in the mailbox (OTP: gen_server:cast/2); always a checkpoint.

        A cancelled cast was not sent.

        Args:
            message: any object; it is not copied.

        Returns:
            False when nobody is there to take it, which is no error (OTP), or when it was dropped.
        """
        if self._mailbox is None:
            await trio.lowlevel.checkpoint()
            return False
        if self._overflow is not Overflow.WAIT:
            await trio.lowlevel.checkpoint_if_cancelled()
            sent = self.cast_nowait(message)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return sent
        try:
            await self._mailbox.put(message)
        except (ActorDied, ActorNotRunning):
            return False
        return True

    def cast_nowait(self, message: object) -> bool:
        """Send a message now; no checkpoint.

        Args:
            message: any object; it is not copied.

        Returns:
            False when nobody is there to take it, which is no error (OTP), or when it was dropped.

        Raises:
            MailboxFull: there is no room; nothing was sent.
        """
        if self._mailbox is None:
            return False
        try:
            if self._overflow is not Overflow.WAIT:
                return displace(self._mailbox, message)
            self._mailbox.put_nowait(message)
        except ActorNotRunning:
            return False
        return True

    async def stop(self, reason: ExitReason | None = None, timeout: float = CALL_TIMEOUT) -> None:
        """End the running incarnation and wait until it is gone (OTP: gen_server:stop/3); a permanent one is restarted.

        The stop overtakes the mailbox and cancels the running handler at its next checkpoint. Always a checkpoint; a
        cancelled or timed-out one leaves the actor stopping.

        Args:
            reason: what ``terminate`` is told, ``normal`` by default; one with an error ends the actor with that error.
            timeout: seconds to wait; ``math.inf`` for ever.

        Raises:
            ActorNotRunning: no incarnation runs.
            CallingSelf: the actor's own handler asked; raise Shutdown there instead.
            CallTimeout: it is still stopping.
        """
        process = self._process
        if process is None:
            raise ActorNotRunning(f"actor {self.id!r} is not running")
        if process.task is trio.lowlevel.current_task():
            raise CallingSelf(f"actor {self.id!r} cannot wait for its own end; raise Shutdown instead")
        await process.stop_and_wait(
            reason or ExitReason(ExitKind.NORMAL), checked_seconds("timeout", timeout, allow_infinity=True)
        )

    def statistics(self) -> MailboxStatistics:
        """Return what the mailbox holds; all zero but the capacity where there is none."""
        return MailboxStatistics(0, self._capacity, 0) if self._mailbox is None else self._mailbox.statistics()

    def _bind(self, process: ActorProcess) -> Mailbox[Any]:
        """Make ``process`` the running incarnation and return the mailbox it reads."""
        if self._process is not None:
            raise SupervisionError(f"the ref of actor {self.id!r} belongs to an incarnation that still runs")
        if self._registry is not None:
            self._registry.claim(self.id, self)
        self._process = process
        if self._mailbox is None or self._mailbox.closed_with is not None:
            self._mailbox = self._new_mailbox()
        return self._mailbox

    def _new_mailbox(self) -> Mailbox[Any]:
        return Mailbox(self.id, self._capacity, self._overflow)

    def _arrived(self) -> None:
        """The running incarnation has finished its init."""
        if self._arrival is not None:
            arrival, self._arrival = self._arrival, None
            arrival.set()

    def _close_mailbox(self, reason: ExitReason) -> int:
        """The loop of the incarnation has ended: drop the mailbox unless it is kept; return how many messages fell."""
        if self._keep_mailbox or self._mailbox is None:
            return 0
        mailbox, self._mailbox = self._mailbox, None
        return mailbox.close(reason)

    def _unbind(self) -> None:
        """The incarnation is gone, and its name is free."""
        self._process = None
        if self._registry is not None:
            self._registry.release(self.id)

    def _forget(self) -> None:
        """No incarnation follows by itself: drop a kept mailbox and release whoever waits for room in it."""
        if self._process is None and self._mailbox is not None:
            self._mailbox.close(ExitReason(ExitKind.SHUTDOWN))
