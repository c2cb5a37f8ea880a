"""The events of one supervisor run, each made in one place and emitted from the supervisor's own task."""

from __future__ import annotations

from typing import Any

import trio

from ..telemetry import Hook, emit
from . import events
from .children import ChildRecord
from .exit_reason import ExitReason
from .incarnation import Incarnation
from .restart_intensity import RestartIntensity

__all__ = ("Reports",)


class Reports:
    """Tells a supervisor's hook what happens, with what the record table and the restart window say about it.

    Args:
        path: the names from the root supervisor down to this one.
        hook: the user's.
        intensity: the supervisor's window.
    """

    __slots__ = ("_intensity", "hook", "label")

    def __init__(self, path: tuple[str, ...], hook: Hook, intensity: RestartIntensity) -> None:
        self.label = "/".join(path)
        self.hook = hook
        self._intensity = intensity

    def supervisor_started(self, children: int) -> None:
        """All static children are up."""
        emit(self.hook, events.SupervisorStarted(at=trio.current_time(), path=self.label, children=children))

    def supervisor_stopped(self, reason: ExitReason) -> None:
        """All children are gone."""
        emit(self.hook, events.SupervisorStopped(at=trio.current_time(), path=self.label, reason=reason))

    def child(self, kind: type[events.ChildEvent], record: ChildRecord, **fields: Any) -> None:
        """Something happened to a child; ``fields`` are those of ``kind`` besides the common ones."""
        event = kind(
            at=trio.current_time(),
            path=self.label,
            id=record.spec.id,
            incarnation=record.count,
            restart=record.spec.restart,
            **fields,
        )
        emit(self.hook, event)

    def child_ended(self, record: ChildRecord, incarnation: Incarnation, *, expected: bool) -> None:
        """A child that had been ready is gone; what went wrong besides is reported too."""
        self.child(
            events.ChildStopped if expected else events.ChildExited,
            record,
            reason=incarnation.reason,
            restarts_used=self._intensity.used(trio.current_time()),
            restarts_allowed=self._intensity.max_restarts,
            uptime=incarnation.ended_at - incarnation.ready_at,
            dropped=incarnation.dropped,
            doing=incarnation.doing,
        )
        if incarnation.second_error is not None:
            self.shutdown_error(record, ExitReason.from_exception(incarnation.second_error))

    def shutdown_error(self, record: ChildRecord, reason: ExitReason) -> None:
        """A child ended with an error where it had only been asked to end."""
        self.child(events.ShutdownError, record, reason=reason)

    def stop_timeout(self, record: ChildRecord, incarnation: Incarnation) -> None:
        """A child does not end though it was killed."""
        waited = trio.current_time() - incarnation.stop_requested_at
        self.child(events.StopTimeout, record, waited=waited, stack=incarnation.stack())

    def limit_reached(self, record: ChildRecord, reason: ExitReason, max_restarts: int, max_seconds: float) -> None:
        """The supervisor gives up."""
        self.child(events.LimitReached, record, reason=reason, max_restarts=max_restarts, max_seconds=max_seconds)
