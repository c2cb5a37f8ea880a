"""One incarnation of an actor: init, the message loop, and an end that leaves no caller waiting."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

import trio

from .actor_state import NOT_BEGUN, SHUTDOWN
from .call import QueuedCall, Reply
from .child_spec import WORKER_SHUTDOWN
from .exit_reason import ExitKind, ExitReason, died
from .hibernation import Hibernation
from .in_hand import CONTINUE, NOTHING, TIMEOUT
from .incarnation import Incarnation, incarnation_of
from .monitor import Down
from .unscoped import UNSCOPED, at_once, not_now

if TYPE_CHECKING:
    from .actor import Actor, Continue
    from .actor_ref import ActorRef

__all__ = ("ActorProcess",)

logger = logging.getLogger("layr8_actors.otp")


class ActorProcess(Hibernation):
    """Runs one actor object until it crashes or is asked to end, in one task.

    An actor with helper tasks has a nursery, and inside it a scope for its loop alone. One without has but one cancel
    scope, that of its incarnation: an idle actor shall cost next to nothing.

    Args:
        actor: the class, of which this incarnation gets an object of its own.
        args: what the class is called with.
        ref: the handle that leads here while this incarnation runs.
    """

    __slots__ = ()

    def run(self, task_status: trio.TaskStatus[ActorRef]) -> Coroutine[Any, Any, None]:
        """Run the incarnation to its end: returns what does so once it is awaited, by a task of its own.

        Args:
            task_status: of the task; the actor is ready when its ``init`` has returned.

        Raises:
            Exception: what the actor crashed with; a group of one is unwrapped.
        """
        if isinstance(task_status, Incarnation) and not self._actor.helpers and not task_status.scope_entered:
            task_status.scope_entered = True  # by us
            self._scope = task_status.scope
        return self._run(task_status, None)

    def run_whole(self, incarnation: Incarnation) -> Coroutine[Any, Any, None]:
        """Likewise, as all that the task of an incarnation does: it is told of the end, and no Exception is raised.

        Args:
            incarnation: what runs; a wrapper of its own would be a frame that each idle actor holds.
        """
        incarnation.scope_entered = True
        if not (self._scopeless or self._actor.helpers):
            self._scope = incarnation.scope
        return self._run(incarnation, incarnation)

    def begin(self, incarnation: Incarnation) -> None:
        """Run ``init`` now, in the supervisor's task, of an actor whose methods never wait; :meth:`run_whole` is next.

        That spares a start two turns of Trio's loop and a scope.

        Args:
            incarnation: what runs; where this raises it is over.

        Raises:
            Exception: what ``init`` raised.
        """
        incarnation.scope_entered = True
        incarnation.on_told = self
        self._scopeless = True
        self.mailbox = self._ref._bind(self)
        self._incarnation = incarnation
        reason: ExitReason | None = None
        try:
            self._begun = actor, continuation = self._init_at_once()
            self._arrive(incarnation)
            if actor.hibernate_after != math.inf:
                self._fall_asleep(actor, continuation)
        except Exception as error:
            reason = self._reason(error, error)
            raise
        finally:
            if not self.started:
                reason = reason or self._reason(None, sys.exception())
                self._refuse(reason)
                self._release(reason)

    @trio.lowlevel.disable_ki_protection  # a constructor or an init that hangs can be broken off
    def _init_at_once(self) -> tuple[Actor, Continue | None]:
        actor = self._make()
        return actor, at_once(actor.init())

    async def _run(self, task_status: trio.TaskStatus[ActorRef], whole: Incarnation | None) -> None:
        # All of it in one coroutine, and what an actor is at only now and then in others: each is held while it idles.
        self.task = task = trio.lowlevel.current_task()
        error: Exception | None = None
        raised: Exception | None = None
        fatal = True
        reason = SHUTDOWN
        actor, continuation = self._begun
        self._begun = NOT_BEGUN
        try:
            try:
                # The scope is inside the handler: it takes its own Cancelled out of a mixed group first.
                with self._around_all(whole):
                    if whole is not None:
                        whole.task = task
                    if actor is None:
                        self.mailbox = self._ref._bind(self)  # before init, so that messages sent meanwhile are queued
                        self._incarnation = incarnation_of(task_status)
                    try:
                        with self._around_alone():
                            while actor is None or not self._over or self._wanted:
                                async with self._helpers() as self._nursery:
                                    if actor is None:
                                        actor = self._make()
                                        continuation = await actor.init()
                                        self._arrive(task_status)
                                        task_status = trio.TASK_STATUS_IGNORED  # Trio's own keeps a nursery alive
                                    with self._around_loop():
                                        if continuation is not None and not self._over:
                                            term, continuation = continuation.term, None
                                            self._in_hand = CONTINUE
                                            await actor.handle_continue(term)
                                            self._in_hand = NOTHING
                                            del term
                                        while self._stays:
                                            if self._gives_up_task(actor):
                                                return
                                            due = self._next_due(actor)
                                            if self._roused:
                                                self._roused = False
                                            elif not self.mailbox.park(task):
                                                await self._checkpoint()
                                            elif due == math.inf:
                                                await trio.lowlevel.wait_task_rescheduled(
                                                    not_now if self._bare else self.mailbox.abort
                                                )
                                            else:
                                                with trio.CancelScope(deadline=due, shield=self._bare):
                                                    await trio.lowlevel.wait_task_rescheduled(self.mailbox.abort)
                                            await self._handle_what_came(actor)
                                    if self._nursery is not None:
                                        await self._leave_helpers(actor)
                    except Exception as caught:
                        # One layer only: it is the nursery above that wrapped it, a group of the user's own stays as it
                        # is.
                        error = self._unwrapped(caught)
                    finally:
                        if not self.asleep:  # pragma: no branch - else it returns, or Ctrl-C has come just then
                            try:
                                self.mailbox.unpark()  # where Ctrl-C came just before the wait
                                if self._wanted:
                                    error = await self._begin_wanted(error)
                                error = self._with_failure(error)
                                reason = self._reason(error, sys.exception())
                                if self._incarnation is not None and not reason.clean:
                                    self._incarnation.doing = self.handling
                                await self._end(actor, reason)
                            finally:
                                self._release(reason)
                    self._raise(error, reason)
            except Exception as caught:
                if whole is None:
                    raise
                raised = caught
            fatal = False
        finally:
            if whole is not None and not self.asleep:
                whole.end(raised, fatal)

    def _around_all(self, whole: Incarnation | None) -> AbstractContextManager[object]:
        return whole.scope if whole is not None and self._actor.helpers and not self._scopeless else UNSCOPED

    def _around_alone(self) -> AbstractContextManager[object]:
        """One scope is all that an actor without helper tasks has."""
        if self._scopeless or self._actor.helpers:
            return UNSCOPED
        if self._scope is None:
            self._scope = trio.CancelScope()
        return self._scope

    def _helpers(self) -> AbstractAsyncContextManager[trio.Nursery | None]:
        """A nursery, from the beginning on; where no method waits, only while there are helper tasks."""
        return trio.open_nursery() if self._wanted or (self._actor.helpers and not self._scopeless) else UNSCOPED

    def _around_loop(self) -> AbstractContextManager[object]:
        if self._scopeless:
            if self._nursery is not None:
                self._nursery.cancel_scope.shield = True
                for async_fn, args in self._wanted:
                    self._begin_help(self._nursery, async_fn, args)
                self._wanted = ()
            return UNSCOPED
        if not self._actor.helpers:
            return UNSCOPED
        self._scope = trio.CancelScope()
        return self._scope

    async def _leave_helpers(self, actor: Actor) -> None:
        assert self._nursery is not None
        if not self._over:
            self._nursery = None  # it is empty, and closed next
            return
        if not self._at_once:
            # Asked to stop: helper tasks are alive, so terminate may still use them.
            await self._end(actor, self._stop_reason or SHUTDOWN)
            if self._incarnation is not None:
                self._incarnation.cleaned_up()
        self._nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} ended")

    async def _begin_wanted(self, error: Exception | None) -> Exception | None:
        """Let helper tasks begin whose actor crashed first: who is promised a task may count on its ``finally``."""
        wanted, self._wanted = self._wanted, ()
        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} has crashed")
                for async_fn, args in wanted:
                    self._begin_help(nursery, async_fn, args)
        except Exception as raised:
            if error is None:
                return self._unwrapped(raised)
            assert self._incarnation is not None
            self._incarnation.second_error = raised
        return error

    def _make(self) -> Actor:
        actor = self._actor(*self._args)
        actor.ref = self._ref
        actor.otp_process = self
        return actor

    def _arrive(self, task_status: trio.TaskStatus[ActorRef]) -> None:
        task_status.started(self._ref)
        self.started = True
        self._ref._arrived()
        incarnation = self._incarnation
        if incarnation is None:
            return
        # Else the scope that is cancelled, or the flag that is set, is all there is.
        alone = self._scopeless or self._scope is incarnation.scope
        if self._actor.drain or self._actor.helpers or not alone:
            incarnation.on_stop = self.stop

    async def _handle_what_came(self, actor: Actor) -> None:
        if self._told:
            return
        if not self._bare and trio.current_effective_deadline() == -math.inf:
            # Told to end just as a message or the deadline came: nothing was begun, leave it to whoever is next.
            await trio.lowlevel.checkpoint()
        due = self._next_due(actor)
        if due != math.inf and due <= trio.current_time():
            await self._run_due(actor)
            # A stop that came meanwhile goes first; and a timer that sets the next one must not starve the mailbox.
            await self._checkpoint()
        mailbox = self.mailbox
        # All that is queued, at the price of one wake-up; bounded, for an actor may well cast to itself.
        for _ in range(mailbox.capacity):
            if self._told:
                return
            if self._to_drain is not None:
                if self._to_drain == 0:
                    return
                self._to_drain -= 1
            self._in_hand = item = mailbox.pop(NOTHING)  # an exception here would leave a frame of 232 bytes
            if item is NOTHING:
                return
            if type(item) is QueuedCall:
                if item.incarnation is self and not item.abandoned:
                    self._current = reply = item.reply
                    reply.begun = True
                    await actor.handle_call(item.request, reply)
                    self._current = None
            elif type(item) is Down:
                if item.monitor.active and item.monitor.process is self:
                    item.monitor.cancel()
                    await actor.handle_down(item)
            else:
                await actor.handle_cast(item)
        self._in_hand = NOTHING

    async def _checkpoint(self) -> None:
        if self._bare:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await trio.lowlevel.checkpoint()

    def _unwrapped(self, error: Exception) -> Exception:
        if self._actor.helpers and isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            return error.exceptions[0]
        return error

    def _raise(self, error: Exception | None, reason: ExitReason) -> None:
        if self._terminate_error is not None and reason.clean:
            raise self._terminate_error
        if error is None and reason is self._stop_reason:
            error = reason.error
        if error is not None and (self._incarnation is not None or not reason.clean):
            raise error

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
            self._refuse(reason)
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

    def _refuse(self, reason: ExitReason) -> None:
        self._ended = self.closing = True
        dropped = self._ref._close_mailbox(reason)
        if self._incarnation is not None:
            self._incarnation.dropped = dropped
        # A deferred call may still be answered by terminate; nobody will ever answer the others.
        self._fail(reason, [reply for reply in self.pending or () if not reply.begun or reply is self._current])

    def _report(self, error: Exception, reason: ExitReason) -> None:
        self._terminate_error = error
        if self._incarnation is None:
            logger.error("terminate of actor %r raised", self._ref.id, exc_info=error)
        elif not reason.clean:
            self._incarnation.second_error = error

    @trio.lowlevel.enable_ki_protection
    def _release(self, reason: ExitReason) -> None:
        self._fail(reason, list(self.pending or ()))
        for monitor in list(self.monitors or ()):
            monitor.cancel()
        self._ref._unbind()
        if self._incarnation is not None:
            if self._actor.hibernate_after != math.inf:
                self._incarnation.owner.withdraw_alarm(self)
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
