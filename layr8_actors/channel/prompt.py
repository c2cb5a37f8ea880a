"""Messages that are handled in the task of who sends them, where nothing is in the way: a hop costs no switch of tasks.

It can be done because no handler of such an actor waits, and so none is under way between two checkpoints. What a
handler raises is a crash of its own actor all the same, which ends of it in a task of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar

import trio

from ..otp import Actor, ActorRef, ExitReason

__all__ = ("PromptActor", "PromptRef")


class PromptActor(Actor):
    """An actor that may be told at once; its ``init`` calls :meth:`attend` when it is done."""

    waits = False
    hibernate_after: ClassVar[float] = 0  # most of what it does is done in other tasks anyway

    def attend(self) -> None:
        """From now on, messages may be handled at once, if the ref is one for that."""
        if isinstance(self.ref, PromptRef):
            self.ref.attended_by(self)

    @property
    def free(self) -> bool:
        """Whether a message may be handled at once, as far as the actor itself knows."""
        return True


class PromptRef(ActorRef):
    """The ref of an actor that is told at once, unless it is at something, or has mail, which goes first."""

    __slots__ = ("_actor",)

    def __init__(self, id: str, **options: Any) -> None:
        super().__init__(id, **options)
        self._actor: PromptActor | None = None

    def attended_by(self, actor: PromptActor) -> None:
        """The incarnation that runs has finished its init.

        Args:
            actor: its object.
        """
        self._actor = actor

    # A Ctrl-C in here would leave an actor half-way that is not the one whose task it hits.
    @trio.lowlevel.enable_ki_protection
    def cast_nowait(self, message: object) -> bool:
        """Send a message; it may have been handled when this returns. See :meth:`ActorRef.cast_nowait`.

        Args:
            message: any object.
        """
        actor = self._actor
        # Neither mail nor a deadline that has come is overtaken.
        if actor is None or not self.idle or not actor.free or actor.deadline <= trio.current_time():
            return super().cast_nowait(message)
        assert self._process is not None  # or it would not be idle
        self._process.handle_now(actor, message)
        return True

    def _close_mailbox(self, reason: ExitReason) -> int:
        self._actor = None
        return super()._close_mailbox(reason)
