"""Requests to a supervisor that change its children: queued to its own task, which alone may start and stop them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from ..errors import Layr8Error, SupervisorNotRunning

__all__ = ("Command",)

T = TypeVar("T")


class Command(Generic[T]):
    """One request and the place where its caller waits.

    A child must be started from the supervisor's task: from the caller's it would inherit the caller's cancellation
    (python-trio/trio#1431) and context variables. So a cancelled caller does not cancel what it asked for.

    Args:
        operation: what the supervisor's task shall do.
        supervisor: its name, for messages.
    """

    __slots__ = ("_error", "_operation", "_result", "_supervisor", "done")

    _result: T

    def __init__(self, operation: Callable[[], Awaitable[T]], supervisor: str) -> None:
        self._operation = operation
        self._supervisor = supervisor
        self.done = trio.Event()
        """Set once there is an outcome."""
        self._error: Layr8Error | None = None

    async def execute(self) -> None:
        """Do it, in the supervisor's task, and tell the caller; a typed refusal is the caller's business alone."""
        self._error = SupervisorNotRunning(f"supervisor {self._supervisor!r} ended before it was done")
        try:
            self._result = await self._operation()
            self._error = None
        except Layr8Error as error:
            self._error = error
        finally:
            self.done.set()

    def refuse(self) -> None:
        """Tell the caller that the supervisor ends."""
        self._error = SupervisorNotRunning(f"supervisor {self._supervisor!r} is stopping")
        self.done.set()

    def outcome(self) -> T:
        """Return what the operation returned, or raise what it refused with; only once it is done."""
        if self._error is not None:
            raise self._error
        return self._result
