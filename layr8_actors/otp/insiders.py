"""Callers of a supervisor that are part of what it supervises: their wait must not become a wait for themselves.

A child that asks for its own end waits in vain in OTP, until the shutdown timeout (elixir-broadway/broadway#89). On
Trio its wait is cancelled with everything else that it does, unless it shields it: that one is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import CallingSelf

if TYPE_CHECKING:
    from .child_control import ChildControl
    from .incarnation import Incarnation

__all__ = ("Insiders",)


class Insiders:
    """The waits, for supervisors of one tree, of tasks that belong to that tree; the root makes it, all share it."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[trio.CancelScope, tuple[Incarnation, trio.lowlevel.Task]] | None = None

    async def wait(self, event: trio.Event, control: ChildControl) -> None:
        """Wait for ``event``, and give up where that would be to wait for one's own end; a checkpoint.

        Args:
            event: what the supervisor will set.
            control: of the supervisor.

        Raises:
            CallingSelf: the caller is part of a child that the supervisor waits for.
        """
        task = trio.lowlevel.current_task()
        inside = control.around(task)
        if inside is None:
            await event.wait()
            return
        await trio.lowlevel.checkpoint()  # who was told to end, and does not shield itself, goes no further
        while inside.subtree is not None and (nested := inside.subtree.around(task)) is not None:
            inside = nested  # that a sibling below still starts holds it up, and is no reason to refuse
        if not (inside.ready or inside.done):
            raise _refusal(inside, "is starting")
        if _ends(inside, task):
            raise _refusal(inside, "is being stopped")
        if self._waiting is None:
            self._waiting = {}
        with trio.CancelScope() as scope:
            self._waiting[scope] = (inside, task)
            try:
                await event.wait()
            finally:
                del self._waiting[scope]
        if scope.cancelled_caught:
            raise _refusal(inside, "is being stopped")

    def stop(self, incarnation: Incarnation) -> None:
        """A supervisor begins to wait for the end of ``incarnation``: release those of its tasks that wait for us.

        Who does not shield the wait is cancelled already, and is not told but ended.
        """
        for scope, (inside, task) in list((self._waiting or {}).items()):
            if inside is incarnation and _ends(inside, task):
                scope.cancel(reason="a supervisor waits for this task's own end")


def _ends(inside: Incarnation, task: trio.lowlevel.Task) -> bool:
    if not inside.stop_requested:
        return False
    # An actor's helper tasks live until its terminate has run, and are cancelled then.
    return inside.on_stop is None or inside.killed or task is inside.task


def _refusal(inside: Incarnation, what: str) -> CallingSelf:
    return CallingSelf(
        f"child {'/'.join(inside.path)!r} {what}, and its supervisor waits for that: what this task of it asks for can "
        f"only be done afterwards; let a task outside of it ask, or do not wait"
    )
