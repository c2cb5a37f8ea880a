"""A whole tree at one moment, as plain data: what a health page shows and what a person asks for at night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .actor_ref import ActorRef
from .children import ChildRecord

if TYPE_CHECKING:
    from .any_supervisor import AnySupervisor

__all__ = ("ChildSnapshot", "SupervisorSnapshot", "snapshot_of")


@dataclass(frozen=True, slots=True)
class ChildSnapshot:
    """One child at one moment; numbers, strings and ``None`` alone, so ``dataclasses.asdict`` gives JSON."""

    id: str

    state: str
    """A value of :class:`ChildState`."""

    type: str
    restart: str

    incarnation: int
    """How many times it has been started, attempts that failed included."""

    restarts: int
    """How many times it came up again by the supervisor's doing."""

    uptime: float | None
    """Seconds since the running incarnation became ready."""

    next_restart_in: float | None
    """Seconds until it is started again, where it waits for that."""

    last_exit: str | None
    """How the last incarnation ended, where one did."""

    mailbox_depth: int | None
    """Messages that wait to be handled, of an actor."""

    handling: str | None
    """The handler that an actor is in and the type of its message, such as ``handle_call Get``."""

    supervisor: SupervisorSnapshot | None
    """What it supervises, of a child that is a supervisor or has one."""


@dataclass(frozen=True, slots=True)
class SupervisorSnapshot:
    """One supervisor at one moment, with all below it."""

    name: str
    strategy: str
    running: bool

    restarts_used: int
    """Restarts in its window now. Each level has a window of its own, and a restarted supervisor a new one."""

    max_restarts: int
    max_seconds: float
    children: tuple[ChildSnapshot, ...]


def snapshot_of(supervisor: AnySupervisor) -> SupervisorSnapshot:
    """Look at a supervisor and all below it; see :meth:`AnySupervisor.snapshot`.

    Args:
        supervisor: the root.
    """
    running = supervisor.running
    now = trio.current_time() if running else 0.0
    return SupervisorSnapshot(
        name=supervisor.name,
        strategy=supervisor.strategy.value,
        running=running,
        restarts_used=supervisor.restarts_used() if running else 0,
        max_restarts=supervisor.max_restarts,
        max_seconds=supervisor.max_seconds,
        children=tuple(_child(record, now) for record in supervisor.records()),
    )


def _child(record: ChildRecord, now: float) -> ChildSnapshot:
    info = record.info()
    incarnation = record.incarnation
    below = None if incarnation is None else incarnation.subtree
    handle = None if incarnation is None else incarnation.handle
    return ChildSnapshot(
        id=info.id,
        state=info.state.value,
        type=info.type.value,
        restart=info.restart.value,
        incarnation=info.incarnation,
        restarts=info.restarts,
        uptime=None if info.started_at is None else now - info.started_at,
        next_restart_in=None if info.next_restart_at is None else max(0.0, info.next_restart_at - now),
        last_exit=None if info.last_exit is None else str(info.last_exit),
        mailbox_depth=handle.statistics().depth if isinstance(handle, ActorRef) else None,
        handling=handle.handling if isinstance(handle, ActorRef) else None,
        supervisor=None if below is None else snapshot_of(below),
    )
