"""Messages that are handled in the task of who sends them, where nothing is in the way: a hop costs no switch of tasks.

It can be done because no handler of such an actor waits, and so none is under way between two checkpoints. What a
handler raises is a crash of its own actor all the same: it is mailed, and raised in that actor's task.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import trio

from ..otp import Actor, ActorRef, ExitReason
from ..otp.unscoped import at_once

__all__ = ("PromptActor", "PromptRef")


@dataclasses.dataclass(frozen=True, slots=True)
class FailedAtOnce:
    """To an actor whose handler raised in the task of a sender: that incarnation is to crash of it, none later."""

    actor: PromptActor
    error: Exception


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

    async def handle_cast(self, message: Any) -> None:
        """Crash of what a handler raised in the task of a sender; else as every actor does.

        Args:
            message: what no handler knows.
        """
        if not isinstance(message, FailedAtOnce):
            await super().handle_cast(message)
        elif message.actor is self:
            raise message.error


class PromptRef(ActorRef):
    """The ref of an actor that is told at once, unless it is at something, or has mail, which goes first.

    Attributes:
        busy: True while a handler runs in the task of a sender, so that what it sets off comes back by mail.
    """

    __slots__ = ("_actor", "busy")

    def __init__(self, id: str, **options: Any) -> None:
        super().__init__(id, **options)
        self._actor: PromptActor | None = None
        self.busy = False

    def attended_by(self, actor: PromptActor) -> None:
        """The incarnation that runs has finished its init.

        Args:
            actor: its object.
        """
        self._actor = actor

    @trio.lowlevel.enable_ki_protection  # no Ctrl-C half way through a handler, in a program that may go on after it
    def cast_nowait(self, message: object) -> bool:
        """Send a message; it may have been handled when this returns. See :meth:`ActorRef.cast_nowait`.

        Args:
            message: any object.
        """
        actor = self._actor
        if actor is None or self.busy or not self.idle or not actor.free:
            return super().cast_nowait(message)
        self.busy = True
        try:
            at_once(actor.handle_cast(message))
        except Exception as error:
            super().cast_nowait(FailedAtOnce(actor, error))
        finally:
            self.busy = False
        return True

    def _close_mailbox(self, reason: ExitReason) -> int:
        self._actor = None
        return super()._close_mailbox(reason)
