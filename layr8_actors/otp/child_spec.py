"""What a supervisor has to know about a child (OTP: child specification)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..errors import InvalidOption
from .validation import checked_choice, checked_flag, checked_seconds, checked_text

__all__ = ("BRUTAL_KILL", "INFINITY", "ChildSpec", "ChildType", "Restart")

BRUTAL_KILL = 0.0
"""A ``shutdown`` that cancels at once, without ``terminate`` (OTP: ``brutal_kill``)."""

INFINITY = math.inf
"""A ``shutdown`` that waits for ever (OTP: ``infinity``)."""

WORKER_SHUTDOWN = 5.0  # OTP supervisor: the default of a worker
START_TIMEOUT = 30.0  # our own: OTP waits for ever, and a half-started child then blocks its whole tree


class Restart(Enum):
    """When a child that ended by itself is started again (OTP: ``restart``)."""

    PERMANENT = "permanent"
    """Always."""

    TRANSIENT = "transient"
    """After an error or a kill only."""

    TEMPORARY = "temporary"
    """Never; its spec is dropped when it ends."""


class ChildType(Enum):
    """Whether the child is a supervisor itself (OTP: ``type``)."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How one child is started, restarted and stopped (OTP: child_spec, same names and defaults).

    Args:
        id: its name within its supervisor.
        start: an async callable, called afresh for each incarnation with the keyword ``task_status`` alone. It runs as
            long as the child lives; ``task_status.started(handle)`` is its readiness, and ``handle`` is what
            ``whereis`` returns. Bind arguments with ``functools.partial``.
        restart: when it is started again; permanent by default, as in OTP.
        shutdown: its grace in seconds when it is asked to stop; ``None`` gives OTP's defaults, 5 s for a worker and
            ``INFINITY`` for a supervisor; ``BRUTAL_KILL`` gives none.
        type: worker or supervisor.
        significant: whether its end may end the supervisor (OTP: auto_shutdown).
        start_timeout: seconds within which it must be ready; ``INFINITY`` is OTP's own behaviour.
        marks_healthy: whether the child says itself, by :func:`mark_healthy`, from when on it counts as healthy for the
            backoff of its restarts; by default it does from its readiness on.

    Raises:
        InvalidOption: a value that is not allowed; correct it, nothing was started.
    """

    id: str
    start: Callable[..., Awaitable[object]]
    restart: Restart = Restart.PERMANENT
    shutdown: float | None = None
    type: ChildType = ChildType.WORKER
    significant: bool = False
    start_timeout: float = START_TIMEOUT
    marks_healthy: bool = False

    def __post_init__(self) -> None:
        checked_text("id", self.id)
        if not callable(self.start):
            raise InvalidOption("start", self.start, "an async callable that takes task_status")
        checked_choice("restart", self.restart, Restart)
        checked_choice("type", self.type, ChildType)
        if self.shutdown is not None:
            checked_seconds("shutdown", self.shutdown, allow_infinity=True)
        checked_seconds("start_timeout", self.start_timeout, allow_zero=False, allow_infinity=True)
        checked_flag("significant", self.significant)
        checked_flag("marks_healthy", self.marks_healthy)
        if self.significant and self.restart is Restart.PERMANENT:
            # A permanent child never ends for good, so it could never trigger anything (OTP: validSignificant).
            raise InvalidOption("significant", self.significant, "False for a permanent child")

    @property
    def grace(self) -> float:
        """Seconds the child has to end once it is asked to, with OTP's default where ``shutdown`` is ``None``."""
        if self.shutdown is not None:
            return self.shutdown
        return INFINITY if self.type is ChildType.SUPERVISOR else WORKER_SHUTDOWN

    def numbered(self, number: int) -> ChildSpec:
        """For the library alone: return the spec of one of the many children that a dynamic supervisor makes of it."""
        child_id = f"{self.id}-{number}"
        # By name: isinstance with a runtime-checkable protocol takes 10 us, a tenth of a start (Python 3.11).
        for_child: Any = getattr(self.start, "for_child", None)
        start = self.start if for_child is None else for_child(child_id)
        return replace(self, id=child_id, start=start)
