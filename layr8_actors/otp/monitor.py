"""An actor that is told of another one's end: exactly once, in order, and never after it said that it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .exit_reason import ExitKind, ExitReason
from .pid import Pid

if TYPE_CHECKING:
    from .actor_state import ActorState

__all__ = ("Down", "Monitor")

NOPROC = ExitReason(ExitKind.NOPROC)


class Monitor:
    """An actor's wish to be told when a run ends (OTP: the reference that ``monitor`` returns); see Actor.monitor.

    Args:
        process: the incarnation of the actor that watches; the wish ends with it.
        id: of whom it watches.
        pid: the run it watches; ``None`` where there was none.
    """

    __slots__ = ("active", "id", "pid", "process")

    def __init__(self, process: ActorState, id: str, pid: Pid | None) -> None:
        self.process = process
        self.id = id
        self.pid = pid
        self.active = True
        """True until its :class:`Down` is handled or it is cancelled."""

    def begin(self) -> None:
        """For the library alone: watch from now on."""
        if self.pid is None:
            self._down(NOPROC)
        elif self.pid.reason is not None:
            self._down(self.pid.reason)
        else:
            self.pid.watch(self, self._down)

    def _down(self, reason: ExitReason) -> None:
        self.process.mailbox.put_notice(Down(self, self.id, self.pid, reason))

    def cancel(self) -> None:
        """Stop watching: no :class:`Down` comes any more, not even one that is queued (OTP: ``demonitor(flush)``).

        No checkpoint; idempotent.
        """
        self.active = False
        if self.pid is not None:
            self.pid.unwatch(self)
        assert self.process.monitors is not None
        self.process.monitors.pop(self, None)


@dataclass(frozen=True, slots=True)
class Down:
    """What ``handle_down`` gets when a monitored run has ended (OTP: ``{'DOWN', Ref, process, Pid, Reason}``)."""

    monitor: Monitor
    """As :meth:`Actor.monitor` returned it."""

    id: str
    """Of whom."""

    pid: Pid | None
    """The run that ended; ``None`` where nobody ran when it was to be watched."""

    reason: ExitReason
    """How it ended; of kind ``noproc`` where nobody ran."""
