"""One incarnation of an actor: init, the message loop, and an end that leaves no caller waiting."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

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

T = TypeVar("T")

logger = logging.getLogger("layr8_actors.otp")

SHUTDOWN = ExitReason(ExitKind.SHUTDOWN)


class _Unscoped:
    """In the place of a scope or a nursery that is not needed; what leaves it is not bound, so holding it is free."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    @staticmethod
    def __exit__(*_: object) -> None:
        return None

    async def __aenter__(self) -> None:
        return None

    @staticmethod
    async def __aexit__(*_: object) -> None:
        return None


UNSCOPED = _Unscoped()
NOT_BEGUN = (None, None)


def at_once(method: Coroutine[Any, Any, T]) -> T:
    """Run a method that does not wait.

    Args:
        method: what it returned when it was called.

    Raises:
        SupervisionError: it waits after all; it was broken off there.
    """
    try:
        method.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    method.close()
    raise SupervisionError(f"{method.__qualname__} waits, though its class says that no method does")


def not_now(_: object) -> trio.lowlevel.Abort:
    """The wait of an actor without a scope: who cancels the supervisor does not end its children, it does."""
    return trio.lowlevel.Abort.FAILED


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
        "_begun",
        "_current",
        "_ended",
        "_gone",
        "_in_hand",
        "_incarnation",
        "_nursery",
        "_pid",
        "_ref",
        "_scope",
        "_scopeless",
        "_stop_reason",
        "_terminate_begun",
        "_terminate_error",
        "_timers",
        "_to_drain",
        "_told",
        "_wanted",
        "closing",
        "mailbox",
        "monitors",
        "pending",
        "started",
        "task",
    )

    mailbox: Mailbox[Any]
    def __init__(self, actor: type[Actor], args: tuple[Any, ...], ref: ActorRef) -> None:
        self._actor = actor
        self._args = args
        self._ref = ref
        self.task: trio.lowlevel.Task | None = None
        """What it runs in, once that has had a turn."""
        self.closing = False
        """True once no more calls are taken."""
        self._ended = False
        """True once the loop is over and what was queued is refused."""
        self.pending: dict[Reply[Any], None] | None = None  # a dict for its order
        """The calls that have no answer yet: queued, in hand, or deferred."""
        self._current: Reply[Any] | None = None
        self._incarnation: Incarnation | None = None
        self._nursery: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._begun: tuple[Actor | None, Continue | None] = NOT_BEGUN
        """What :meth:`begin` leaves for the task."""
        self._scopeless = False
        """True where the actor's methods never wait, so that there is nothing to cancel but the wait for messages."""
        self._wanted: tuple[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]], ...] = ()
        """Helper tasks that wait for a nursery."""
        self._told = False
        """True once the loop has to end where nothing cancels it."""
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
            actor = self._make()
            self._begun = actor, at_once(actor.init())
            self._arrive(incarnation)
        except Exception as error:
            reason = self._reason(error, error)
            raise
        finally:
            if not self.started:
                reason = reason or self._reason(None, sys.exception())
                self._refuse(reason)
                self._release(reason)

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
                            while not self._over or actor is None:
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
                                            due = self._next_due(actor)
                                            if not self.mailbox.park(task):
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
                        try:
                            self.mailbox.unpark()  # where Ctrl-C came just before the wait
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
            if whole is not None:
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
                    self._nursery.start_soon(async_fn, *args)
                self._wanted = ()
            return UNSCOPED
        if not self._actor.helpers:
            return UNSCOPED
        self._scope = trio.CancelScope()
        return self._scope

    @property
    def _over(self) -> bool:
        return self._told or self._to_drain == 0

    @property
    def _stays(self) -> bool:
        """False where the loop has to end, or to go on with a nursery or without one."""
        if self._over:
            return False
        if not self._scopeless:
            return True
        return not self._wanted if self._nursery is None else bool(self._nursery.child_tasks)

    async def _leave_helpers(self, actor: Actor) -> None:
        assert self._nursery is not None
        if not self._over:
            self._nursery = None  # it is empty, and closed next
        elif not self._at_once:
            # Only an asked stop comes here; helper tasks are alive, so terminate may still use them.
            await self._end(actor, self._stop_reason or SHUTDOWN)
            if self._incarnation is not None:
                self._incarnation.cleaned_up()
            self._nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} ended")

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """See :meth:`Actor.start_soon`."""
        if self._nursery is not None:
            self._nursery.start_soon(async_fn, *args)
        elif not self._actor.helpers:
            raise self._no_nursery()
        else:
            self._wanted = (*self._wanted, (async_fn, args))
            self.mailbox.interrupt()

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

    @property
    def _bare(self) -> bool:
        """True where no scope of ours is between the task and whoever cancels the supervisor, so nobody may do so."""
        return self._scopeless and self._nursery is None

    @property
    def _at_once(self) -> bool:
        """True where nobody asked for the end: helper tasks do not outlive the loop then."""
        incarnation = self._incarnation
        return incarnation is not None and (incarnation.exit_requested is not None or incarnation.killed)

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

    def told(self) -> None:
        """An incarnation that has no scope is told to end: by its supervisor, or as if by its own fault."""
        self._told = True
        if self._nursery is not None and self._at_once:
            self._nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} ends at once")
        self.mailbox.interrupt()

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
        else:
            self.told()
            if self._scope is not None and self.started:
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
            raise self._no_nursery()
        return self._nursery

    def _no_nursery(self) -> SupervisionError:
        why = "waits is False, and no helper task runs" if self._actor.helpers else "helpers is False"
        return SupervisionError(f"actor {self._ref.id!r} has no nursery: {self._actor.__name__}.{why}")

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
