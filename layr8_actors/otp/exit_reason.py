"""Why an incarnation ended, and the two signals by which a child says so itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import ActorDied

__all__ = ("ExitKind", "ExitReason", "Ignore", "Shutdown", "died", "sole_exception")


class Shutdown(Exception):
    """Raise it inside a child to end it cleanly; the exit kind is then ``shutdown`` (OTP: ``{shutdown, Term}``).

    Args:
        reason: why, for the events; not interpreted.
    """

    def __init__(self, reason: object = None) -> None:
        self.reason = reason
        super().__init__(reason)


class Ignore(Exception):
    """Raise it before readiness is reported: there is nothing to run, which is no failure (OTP: ``ignore``)."""


class ExitKind(Enum):
    """The ways in which an incarnation ends; the restart rules know the first five alone."""

    NORMAL = "normal"
    """The child returned of its own accord."""

    SHUTDOWN = "shutdown"
    """The supervisor asked, or the child raised :class:`Shutdown`."""

    ERROR = "error"
    """An exception came out of the child."""

    KILLED = "killed"
    """The grace ran out, or somebody killed it with ``exit_child(id)``."""

    FATAL = "fatal"
    """KeyboardInterrupt or SystemExit came out of it; never restarted, that leaves through the supervisor's run."""

    NOPROC = "noproc"
    """Nobody ran when a monitor was asked for; only ever in a :class:`Down`."""


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why one incarnation ended (OTP: exit reason).

    Args:
        kind: in which way.
        error: the live exception, where one belongs to it; a fatal one is not here, it leaves through ``run``.
    """

    kind: ExitKind
    error: Exception | None = None

    @property
    def clean(self) -> bool:
        """True for ``normal`` and ``shutdown``, after which a transient child is not restarted (OTP: do_restart)."""
        return self.kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN)

    @classmethod
    def from_exception(cls, error: Exception) -> ExitReason:
        """Classify an exception that came out of a child.

        Args:
            error: it; a group that holds nothing but one :class:`Shutdown` counts as that, any other is an error.
        """
        kind = ExitKind.SHUTDOWN if isinstance(sole_exception(error), Shutdown) else ExitKind.ERROR
        return cls(kind, error)

    def __str__(self) -> str:
        return self.kind.value if self.error is None else f"{self.kind.value}: {self.error!r}"


def sole_exception(error: Exception) -> Exception:
    """Return the only leaf of a nest of groups of one, else ``error`` itself.

    Args:
        error: what was caught; Trio's nurseries wrap even a single exception in a group.
    """
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def died(actor: str, reason: ExitReason) -> ActorDied:
    """Make the error for one caller of an actor that is gone.

    A fresh instance each time: one exception raised in several tasks mixes and grows their tracebacks.

    Args:
        actor: the actor's id.
        reason: how it ended; its exception becomes ``__cause__``.
    """
    error = ActorDied(f"actor {actor!r} ended before it answered ({reason.kind.value})")
    error.__cause__ = reason.error
    return error
