"""What one incarnation of an actor is at, and what other tasks may ask of it."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from ..errors import CallTimeout, SupervisionError
from .actor_timers import ActorTimers
from .call import Reply
from .exit_reason import ExitKind, ExitReason
from .in_hand import NOTHING, described
from .incarnation import Incarnation
from .mailbox import Mailbox
from .monitor import Monitor
from .pid import Pid
from .unscoped import at_once

if TYPE_CHECKING:
    from .actor import Actor, Continue
    from .actor_ref import ActorRef

__all__ = ("NOT_BEGUN", "SHUTDOWN", "ActorState")

SHUTDOWN = ExitReason(ExitKind.SHUTDOWN)
NOT_BEGUN = (None, None)


class ActorState:
    """The state of an incarnation; :class:`ActorProcess` is what runs it.

    Args:
        actor: the class, of which this incarnation gets an object of its own.
        args: what the class is called with.
        ref: the handle that leads here while this incarnation runs.
    """

    __slots__ = (
        "_actor",
        "_args",
        "_begun",
        "_context",
        "_current",
        "_ended",
        "_failed",
        "_gone",
        "_idle_since",
        "_in_hand",
        "_incarnation",
        "_nursery",
        "_pid",
        "_ref",
        "_rested",
        "_roused",
        "_scope",
        "_scopeless",
        "_stop_reason",
        "_terminate_begun",
        "_terminate_error",
        "_timers",
        "_to_drain",
        "_told",
        "_wanted",
        "asleep",
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
        self.asleep = False
        """True while it holds no task; see :mod:`.hibernation`."""
        self.closing = False
        """True once no more calls are taken."""
        self._ended = False
        """True once the loop is over and what was queued is refused."""
        self.pending: dict[Reply[Any], None] | None = None  # a dict for its order
        """The calls that have no answer yet: queued, in hand, or deferred."""
        self._current: Reply[Any] | None = None
        self._failed: Exception | None = None
        """What a handler raised in the task of a sender."""
        self._incarnation: Incarnation | None = None
        self._nursery: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._begun: tuple[Actor | None, Continue | None] = NOT_BEGUN
        """What is left for the task by whoever starts one."""
        self._context: contextvars.Context | None = None
        """What the next task runs in, while it is asleep."""
        self._idle_since = math.inf
        self._rested = False
        """True once it has idled for as long as its class says."""
        self._roused = False
        """True where a task is started because there is something to do."""
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

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """See :meth:`Actor.start_soon`."""
        if self._nursery is not None:
            try:
                self._begin_help(self._nursery, async_fn, args)
            except RuntimeError as error:  # Trio's word for a nursery that has closed already
                raise self._too_late() from error
        elif not self._actor.helpers:
            raise self._no_nursery()
        elif self._ended:
            raise self._too_late()  # nobody would ever begin it
        else:
            self._wanted = (*self._wanted, (async_fn, args))
            self.mailbox.interrupt()

    def _begin_help(
        self, nursery: trio.Nursery, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        if self._actor.hibernate_after == math.inf:
            nursery.start_soon(async_fn, *args)
        else:
            nursery.start_soon(self._help, async_fn, args, name=async_fn)

    async def _help(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        # Its actor may hibernate once there is none of these, so it shall look.
        try:
            await async_fn(*args)
        finally:
            self.mailbox.interrupt()

    @property
    def _bare(self) -> bool:
        """True where no scope of ours is between the task and whoever cancels the supervisor, so nobody may do so."""
        return self._scopeless and self._nursery is None

    @property
    def _at_once(self) -> bool:
        """True where nobody asked for the end: helper tasks do not outlive the loop then."""
        if self._failed is not None:
            return True
        incarnation = self._incarnation
        return incarnation is not None and (incarnation.exit_requested is not None or incarnation.killed)

    def handle_now(self, actor: Actor, message: object) -> None:
        """Handle a message in the task of its sender; what that raises is a crash of the actor, and no one else's.

        Args:
            actor: the incarnation's object, which is idle and whose methods never wait.
            message: for its ``handle_cast``.
        """
        self._in_hand = message  # so that what the handler sets off for its own actor comes by mail
        try:
            at_once(actor.handle_cast(message))
        except Exception as error:
            self._failed = error
            self.told()
        else:
            self._in_hand = NOTHING

    def _with_failure(self, error: Exception | None) -> Exception | None:
        """Return what the incarnation ends with, where ``error`` is what came out of its own tasks."""
        if self._failed is None:
            return error
        if error is not None and self._incarnation is not None:
            self._incarnation.second_error = error
        return self._failed

    def told(self) -> None:
        """An incarnation that has no scope is told to end: by its supervisor, or as if by its own fault."""
        self._told = True
        if self._nursery is not None and self._at_once:
            self._nursery.cancel_scope.cancel(reason=f"actor {self._ref.id} ends at once")
        self.mailbox.interrupt()

    @property
    def idle(self) -> bool:
        """True while it waits for a message, and nothing ends it: the next one is handled when the loop comes to it."""
        if not self.started or self._over or self._in_hand is not NOTHING:
            return False
        return self._nursery is None or not self._nursery.cancel_scope.cancel_called

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

    def _too_late(self) -> SupervisionError:
        return SupervisionError(f"actor {self._ref.id!r} has ended, so it starts no helper task any more")

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
