"""The events of supervisors; all come from the supervisor's own task, in order (OTP: SASL reports)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from ..telemetry import Event
from .child_spec import Restart
from .exit_reason import ExitReason

__all__ = (
    "ChildExited",
    "ChildIgnored",
    "ChildRestarted",
    "ChildStartFailed",
    "ChildStarted",
    "ChildStopped",
    "LimitReached",
    "RestartScheduled",
    "ShutdownError",
    "StopTimeout",
    "SupervisorEvent",
    "SupervisorStarted",
    "SupervisorStopped",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorEvent(Event):
    """Something that a supervisor did.

    Args:
        path: the names from the root supervisor down to the one that speaks, joined by ``/``.
    """

    layer: ClassVar[str] = "otp"
    level: ClassVar[int] = logging.DEBUG

    path: str

    def describe(self) -> str:
        """One line for people."""
        # What says nothing is left out of a line that is read at night.
        shown = {key: value for key, value in self.fields().items() if key != "at" and value is not None}
        fields = (f"{key}={_readable(value)}" for key, value in shown.items())
        return f"{type(self).__name__} {' '.join(fields)}"


def _readable(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"({value})" if isinstance(value, ExitReason) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStarted(SupervisorEvent):
    """All static children are up.

    Args:
        children: how many there are.
    """

    children: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStopped(SupervisorEvent):
    """All children are gone, and the supervisor with them.

    Args:
        reason: ``shutdown`` when it was asked to stop or cancelled, else what ended it.
    """

    reason: ExitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEvent(SupervisorEvent):
    """Something that happened to one child.

    Args:
        id: the child's.
        incarnation: which run of it, counted from 1.
        restart: its restart type.
    """

    id: str
    incarnation: int
    restart: Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted(ChildEvent):
    """A child is ready for the first time, or by hand (OTP: progress report)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRestarted(ChildStarted):
    """A child is ready again by the supervisor's doing."""

    level: ClassVar[int] = logging.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildIgnored(ChildEvent):
    """A child's start said that there is nothing to run (OTP: ``ignore``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExited(ChildEvent):
    """A child ended otherwise than its restart type allows, so it is restarted, or it failed.

    Args:
        reason: how, with the live exception.
        restarts_used: restarts in the supervisor's window, this one included where it is one.
        restarts_allowed: how many the window permits.
        uptime: seconds since it became ready.
        dropped: messages that were queued and nobody will handle.
        doing: the handler that an actor was in and the type of its message, such as ``handle_cast Tick``; never the
            message itself, which is the user's. ``None`` where it was in none.
    """

    level: ClassVar[int] = logging.ERROR

    reason: ExitReason
    restarts_used: int
    restarts_allowed: int
    uptime: float
    dropped: int = 0
    doing: str | None = None

    @property
    def error(self) -> Exception | None:
        """The live exception."""
        return self.reason.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStopped(ChildExited):
    """A child ended as it should: it was asked to, or it is not permanent and finished."""

    level: ClassVar[int] = logging.DEBUG


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStartFailed(ChildEvent):
    """A start did not lead to readiness.

    Args:
        error: what the child raised, or that it took too long or returned.
    """

    level: ClassVar[int] = logging.ERROR

    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartScheduled(ChildEvent):
    """A child, and its group with it, will be started again.

    Args:
        delay: seconds until then.
        attempt: how many failures in a row went before, counted from 0.
        group: all who are started then, in order.
    """

    level: ClassVar[int] = logging.INFO

    delay: float
    attempt: int
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownError(ChildEvent):
    """Something went wrong while a child ended; the stop went on all the same (OTP: shutdown_error).

    Args:
        reason: what.
    """

    level: ClassVar[int] = logging.ERROR

    reason: ExitReason

    @property
    def error(self) -> Exception | None:
        """The live exception."""
        return self.reason.error


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTimeout(ChildEvent):
    """A child was asked to end, then killed, and still runs; reported once per grace period, and waited for on.

    Args:
        waited: seconds since it was asked.
        stack: where its tasks wait.
    """

    level: ClassVar[int] = logging.ERROR

    waited: float
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(ChildEvent):
    """The supervisor gives up, for this child needed one restart too many.

    Args:
        reason: the last failure.
        max_restarts: what the window permits; the restarts in a row permitted where ``max_attempts`` ran out.
        max_seconds: how long the window is; ``math.inf`` where ``max_attempts`` ran out.
    """

    level: ClassVar[int] = logging.ERROR

    reason: ExitReason
    max_restarts: int
    max_seconds: float

    @property
    def error(self) -> Exception | None:
        """The live exception."""
        return self.reason.error
