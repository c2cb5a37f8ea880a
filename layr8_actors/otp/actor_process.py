"""One incarnation of an actor: init, the message loop, and an end that leaves no caller waiting."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import trio

from ..errors import CallTimeout, SupervisionError
from .actor_timers import ActorTimers, Timer
from .call import QueuedCall, Reply
from .child_spec import WORKER_SHUTDOWN
from .exit_reason import ExitKind, ExitReason, died
from .in_hand import CONTINUE, NOTHING, TIMEOUT, described
from .incarnation import Incarnation, incarnation_of
from .mailbox import Mailbox
from .monitor import Down, Monitor
from .pid import Pid

if TYPE_CHECKING:
    from .actor import Actor, Continue
    from .actor_ref import ActorRef

__all__ = ("ActorProcess",)

logger = logging.getLogger("layr8_actors.otp")

SHUTDOWN = ExitReason(ExitKind.SHUTDOWN)


class ActorProcess:
    """Runs one actor object until it crashes or is asked to end, in one task.

    An actor with helper tasks has a nursery, and inside it a scope for its loop alone. One without has but one cancel
    scope, that of its incarnation: an idle actor shall cost next to nothing.

    Args:
        actor: the class, of which this incarnation gets an object of its own.
        args: what the class is called with.
        ref: the handle that leads here while this incarnation runs.
    """

    __slots__ = (
        "_actor",
        "_args",
        "_current",
        "_ended",
        "_gone",
        "_in_hand",
        "_incarnation",
        "_nursery",
        "_pid",
        "_ref",
        "_scope",
        "_stop_reason",
        "_terminate_begun",
        "_terminate_error",
        "_timers",
        "_to_drain",
        "closing",
        "mailbox",
        "monitors",
        "pending",
        "started",
        "task",
    )

    mailbox: Mailbox[Any]
    task: trio.lowlevel.Task

    def __init__(self, actor: type[Actor], args: tuple[Any, ...], ref: ActorRef) -> None:
        self._actor = actor
        self._args = args
        self._ref = ref
        self.closing = False
        """True once no more calls are taken."""
        self._ended = False
        """True once the loop is over and what was queued is refused."""
        self.pending: dict[Reply[Any], None] = {}  # for its order, and an empty set is three times as large
        """The calls that have no answer yet: queued, in hand, or deferred."""
        self._current: Reply[Any] | None = None
        self._incarnation: Incarnation | None = None
        self._nursery: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self.started = False
        """True once ``init`` has returned."""
        self._in_hand: Any = NOTHING
        """The message that a handler is at, or a stand-in; kept after a crash, to tell what it was."""
        self.monitors: dict[Monitor, None] | None = None
        self._timers: ActorTimers | None = None
        self._pid: Pid | None = None
        self._to_drain: int | None = None
        """How many of the queued messages are still to be handled before the end, once a draining actor is asked."""
        self._stop_reason: ExitReason | None = None
        self._terminate_begun = False
        self._terminate_error: Exception | None = None
        self._gone: trio.Event | None = None

    def run(self, task_status: trio.TaskStatus[ActorRef]) -> Coroutine[Any, Any, None]:
        """Run the incarnation to its end: returns what does so once it is awaited, by a task of its own.

        Args:
            task_status: of the task; the actor is ready when its ``init`` has returned.

        Raises:
            Exception: what the actor crashed with; a group of one is unwrapped.
        """
        if isinstance(task_status, Incarnation) and not self._actor.helpers:
            task_status.scope_entered = True  # by us
        return self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[ActorRef]) -> None:
        self.task = trio.lowlevel.current_task()
        self.mailbox = self._ref._bind(self)  # before init, so that messages sent meanwhile are queued
        self._incarnation = incarnation = incarnation_of(task_status)
        error: Exception | None = None
        reason = SHUTDOWN
        actor: Actor | None = None
        try:
            if self._actor.helpers:
                async with trio.open_nursery() as self._nursery:
                    actor = self._make()
                    continuation = await self._init(actor, task_status)
                    with trio.CancelScope() as self._scope:
                        await self._loop(actor, continuation)
                    # Only an asked stop comes here; helper tasks are alive, so terminate may still use them.
                    await self._end(actor, self._stop_reason or SHUTDOWN)
                    if incarnation is not None:
                        incarnation.cleaned_up()
                    self._nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} ended")
            else:
                with task_status.scope if isinstance(task_status, Incarnation) else trio.CancelScope() as scope:
                    actor = self._make()
                    continuation = await self._init(actor, task_status)
                    self._scope = scope
                    await self._loop(actor, continuation)
        except Exception as raised:
            # One layer only: it is the nursery above that wrapped it, a group of the user's own stays as it is.
            grouped = self._actor.helpers and isinstance(raised, ExceptionGroup) and len(raised.exceptions) == 1
            error = raised.exceptions[0] if grouped and isinstance(raised, ExceptionGroup) else raised
        finally:
            try:
                reason = self._reason(error, sys.exception())
                if incarnation is not None and not reason.clean:
                    incarnation.doing = self.handling
                await self._end(actor, reason)
            finally:
                self._release(reason)
        if self._terminate_error is not None and reason.clean:
            raise self._terminate_error
        if error is None and reason is self._stop_reason:
            error = reason.error
        if error is not None and (incarnation is not None or not reason.clean):
            raise error

    def _make(self) -> Actor:
        actor = self._actor(*self._args)
        actor.ref = self._ref
        actor.otp_process = self
        return actor

    async def _init(self, actor: Actor, task_status: trio.TaskStatus[ActorRef]) -> Continue | None:
        continuation = await actor.init()
        task_status.started(self._ref)
        self.started = True
        self._ref._arrived()
        if self._incarnation is not None and (self._actor.drain or not self._incarnation.scope_entered):
            self._incarnation.on_stop = self.stop  # else the scope that it cancels is all there is
        return continuation

    async def _loop(self, actor: Actor, continuation: Continue | None) -> None:
        if self._stop_reason is not None:
            return  # asked for while init ran
        if continuation is not None:
            self._in_hand = CONTINUE
            await actor.handle_continue(continuation.term)
            self._in_hand = NOTHING
        mailbox = self.mailbox
        while self._to_drain != 0:
            due = self._next_due(actor)
            if due == math.inf:
                await mailbox.wait()
            else:
                with trio.CancelScope(deadline=due):
                    await mailbox.wait()
            if trio.current_effective_deadline() == -math.inf:
                # Told to end just as a message or the deadline came: nothing was begun, leave it to whoever is next.
                await trio.lowlevel.checkpoint()
            due = self._next_due(actor)
            if due != math.inf and due <= trio.current_time():
                await self._run_due(actor)
                # A stop that came meanwhile goes first; and a timer that sets the next one must not starve the mailbox.
                await trio.lowlevel.checkpoint()
            # All that is queued, at the price of one wake-up; bounded, for an actor may well cast to itself.
            for _ in range(mailbox.capacity):
                if self._to_drain is not None:
                    if self._to_drain == 0:
                        return
                    self._to_drain -= 1
                self._in_hand = item = mailbox.pop(NOTHING)  # an exception here would leave a frame of 232 bytes
                if item is NOTHING:
                    break
                if type(item) is QueuedCall:
                    if item.incarnation is self and not item.abandoned:
                        self._current = reply = item.reply
                        reply.begun = True
                        await actor.handle_call(item.request, reply)
                        self._current = None
                        del reply  # an idle actor keeps no answer alive
                elif type(item) is Down:
                    if item.monitor.active and item.monitor.process is self:
                        item.monitor.cancel()
                        await actor.handle_down(item)
                else:
                    await actor.handle_cast(item)
            self._in_hand = item = NOTHING

    def _next_due(self, actor: Actor) -> float:
        if self._to_drain is not None:
            return math.inf  # what is queued is finished, and nothing else is begun
        return actor._deadline if self._timers is None else min(actor._deadline, self._timers.next_due())

    async def _run_due(self, actor: Actor) -> None:
        timer = None if self._timers is None else self._timers.pop_due(min(actor.deadline, trio.current_time()))
        if timer is not None:
            self._in_hand = message = timer.message
            timer.cancel()
            await actor.handle_cast(message)
        else:
            self._in_hand = TIMEOUT
            actor.deadline = math.inf
            await actor.handle_timeout()

    @property
    def idle(self) -> bool:
        """True while it waits for a message: the next one is handled as soon as the loop comes to it."""
        return self.started and self._in_hand is NOTHING

    @property
    def handling(self) -> str | None:
        """The handler that runs, or that the actor crashed in, and the type of its message."""
        return described(self._in_hand)

    def stop(self, reason: ExitReason = SHUTDOWN) -> None:
        """End the loop at its next checkpoint, in front of all that is queued; a draining actor's behind it.

        Helper tasks live on until ``terminate`` has run.

        Args:
            reason: what ``terminate`` is told.
        """
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        if self._actor.drain and self.started:
            self.closing = True
            self._to_drain = self.mailbox.queued
            self.mailbox.interrupt()
        elif self._scope is not None:
            self._scope.cancel(reason=f"actor {self._ref.id} was asked to stop")

    @property
    def pid(self) -> Pid:
        """The identity of this incarnation."""
        if self._incarnation is not None:
            return self._incarnation.pid
        if self._pid is None:
            self._pid = Pid((self._ref.id,), 1, self._ref)
        return self._pid

    def mark_healthy(self) -> None:
        """See :meth:`Actor.mark_healthy`."""
        if self._incarnation is not None:
            self._incarnation.mark_healthy()

    def send_after(self, delay: float, message: object) -> Timer:
        """See :meth:`Actor.send_after`."""
        if self._timers is None:
            self._timers = ActorTimers()
        timer = Timer(trio.current_time() + delay, message)
        self._timers.add(timer)
        self.mailbox.interrupt()  # where it waits, it shall see how long for
        return timer

    def monitor(self, id: str, pid: Pid | None) -> Monitor:
        """See :meth:`Actor.monitor`."""
        monitor = Monitor(self, id, pid)
        if self.monitors is None:
            self.monitors = {}
        self.monitors[monitor] = None
        monitor.begin()
        return monitor

    @property
    def nursery(self) -> trio.Nursery:
        """Where the actor's helper tasks live.

        Raises:
            SupervisionError: the actor's class says that it has none.
        """
        if self._nursery is None:
            raise SupervisionError(f"actor {self._ref.id!r} has no nursery: {self._actor.__name__}.helpers is False")
        return self._nursery

    async def stop_and_wait(self, reason: ExitReason, timeout: float) -> None:
        """End the incarnation and wait until it is gone; see :meth:`ActorRef.stop`."""
        self.stop(reason)
        if self._gone is None:
            self._gone = trio.Event()
        with trio.move_on_after(timeout):
            await self._gone.wait()
            return
        raise CallTimeout(f"actor {self._ref.id!r} did not end within {timeout:g} s; it is still stopping")

    def _reason(self, error: Exception | None, in_flight: BaseException | None) -> ExitReason:
        if error is not None:
            return ExitReason.from_exception(error)
        if self._incarnation is not None and self._incarnation.exit_requested is not None:
            return self._incarnation.exit_requested
        if in_flight is not None and _is_fatal(in_flight):
            return ExitReason(ExitKind.FATAL)
        return self._stop_reason or SHUTDOWN

    async def _end(self, actor: Actor | None, reason: ExitReason) -> None:
        """Refuse what is queued, then run terminate; does each of them once."""
        if not self._ended:
            self._ended = self.closing = True
            dropped = self._ref._close_mailbox(reason)
            if self._incarnation is not None:
                self._incarnation.dropped = dropped
            # A deferred call may still be answered by terminate; nobody will ever answer the others.
            self._fail(reason, [reply for reply in self.pending if not reply.begun or reply is self._current])
        if actor is None or not self.started or self._terminate_begun:
            return
        self._terminate_begun = True
        incarnation = self._incarnation
        if not actor.otp_overrides_terminate or (incarnation is not None and incarnation.killed):
            return
        deadline = trio.current_time() + (WORKER_SHUTDOWN if incarnation is None else incarnation.spec.grace)
        if incarnation is not None:
            deadline = min(deadline, incarnation.stop_deadline)
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            if incarnation is not None:
                incarnation.on_kill = scope.cancel  # should the grace end before the deadline, by an impatient parent
            try:
                await actor.terminate(reason)
            except Exception as error:
                self._report(error, reason)
        if scope.cancelled_caught and incarnation is not None:
            incarnation.killed = True

    def _report(self, error: Exception, reason: ExitReason) -> None:
        self._terminate_error = error
        if self._incarnation is None:
            logger.error("terminate of actor %r raised", self._ref.id, exc_info=error)
        elif not reason.clean:
            self._incarnation.second_error = error

    @trio.lowlevel.enable_ki_protection
    def _release(self, reason: ExitReason) -> None:
        self._fail(reason, list(self.pending))
        for monitor in list(self.monitors or ()):
            monitor.cancel()
        self._ref._unbind()
        if self._incarnation is not None:
            self._incarnation.on_gone = self._ref._forget
        if self._gone is not None:
            self._gone.set()
        if self._pid is not None:
            self._pid.ended(reason)

    def _fail(self, reason: ExitReason, replies: list[Reply[Any]]) -> None:
        for reply in replies:
            reply.fail(died(self._ref.id, reason))


def _is_fatal(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_fatal(part) for part in error.exceptions)
    return not isinstance(error, (Exception, trio.Cancelled))
