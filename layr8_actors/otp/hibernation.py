"""An actor that gives its task up while it has nothing to do, and gets a new one for what comes (OTP: hibernate).

An idle Trio task is 1.7 KiB, and an actor's coroutine in it 0.7 more (bench/memory_parts.py); an idle channel has four
actors that may not be asked for anything in hours. Only an actor whose methods never wait can do so: between two of
its messages nothing of it is on a stack.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import trio

from .actor_state import ActorState
from .actor_timers import ActorTimers, Timer

if TYPE_CHECKING:
    from .actor import Actor, Continue
    from .incarnation import Incarnation

__all__ = ("Hibernation",)


class Hibernation(ActorState):
    """What an incarnation does between two tasks; :class:`ActorProcess` is what such a task runs."""

    __slots__ = ()

    if TYPE_CHECKING:

        def run_whole(self, incarnation: Incarnation) -> Coroutine[Any, Any, None]:
            """See :class:`ActorProcess`."""
            raise NotImplementedError

    def _next_due(self, actor: Actor) -> float:
        if self._to_drain is not None:
            return math.inf  # what is queued is finished, and nothing else is begun
        return actor.deadline if self._timers is None else min(actor.deadline, self._timers.next_due())

    def _gives_up_task(self, actor: Actor) -> bool:
        """Return whether the incarnation has fallen asleep, so that its task has to end."""
        after = actor.hibernate_after
        if after == math.inf or self._roused or not self._bare:
            return False
        if after > 0 and not self._rested:
            assert self._incarnation is not None
            self._idle_since = trio.current_time()
            self._incarnation.owner.set_alarm(self, self._idle_since + after)
            return False
        self._rested = False
        return self._fall_asleep(actor)

    @trio.lowlevel.enable_ki_protection
    def _fall_asleep(self, actor: Actor, continuation: Continue | None = None) -> bool:
        """Let what comes next start a task, in place of waiting for it.

        Args:
            actor: the incarnation's object.
            continuation: what is still to be run.

        Returns:
            False where there is something to do right away.
        """
        due = self._next_due(actor)
        if due != math.inf and due <= trio.current_time():
            return False
        if continuation is not None or self._over or self._wanted or not self.mailbox.park(self):
            return False
        assert self._incarnation is not None
        self.asleep = True
        self._begun = actor, None
        self._context = contextvars.copy_context()
        self.task = self._incarnation.task = None
        self._set_alarm(actor)
        return True

    def _set_alarm(self, actor: Actor) -> None:
        due = self._next_due(actor)
        if due != math.inf:
            assert self._incarnation is not None
            self._incarnation.owner.set_alarm(self, due)

    def wake(self) -> None:
        """Start a task for what has come; for the mailbox, in whichever task that is."""
        assert self._incarnation is not None
        assert self._context is not None
        # Its own context and not that of who happens to send something: as a task would have kept it.
        context, self._context = self._context, None
        self.asleep = False
        self._roused = True
        context.run(self._incarnation.launch, self.run_whole)

    def ring(self, now: float) -> None:
        """Wake it where its deadline has come, or let it rest where it has idled for long enough; for the supervisor.

        Args:
            now: seconds of ``trio.current_time()``.
        """
        actor = self._begun[0]
        if actor is None:
            assert self._incarnation is not None
            rests_at = self._idle_since + self._actor.hibernate_after
            if rests_at > now:
                self._incarnation.owner.set_alarm(self, rests_at)
            else:
                self._rested = True
                self.mailbox.interrupt()
        elif self._next_due(actor) <= now:
            self.mailbox.interrupt()
        else:
            self._set_alarm(actor)  # it was put off meanwhile, which costs nothing before the alarm rings

    def due_changed(self) -> None:
        """The deadline or the timers are others now: who waits shall see how long for."""
        actor = self._begun[0]
        if self.asleep and actor is not None:
            self._set_alarm(actor)
        else:
            self.mailbox.interrupt()

    def send_after(self, delay: float, message: object) -> Timer:
        """See :meth:`Actor.send_after`."""
        if self._timers is None:
            self._timers = ActorTimers()
        timer = Timer(trio.current_time() + delay, message)
        self._timers.add(timer)
        self.due_changed()
        return timer
