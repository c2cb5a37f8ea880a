"""The record table of a supervisor: what it knows of each child, and the plain data it shows of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import trio

from ..errors import ActorNotRunning, ChildNotFound
from .child_spec import ChildSpec, ChildType, Restart
from .exit_reason import ExitReason
from .incarnation import Incarnation, Owner
from .restart_timers import PendingRestart
from .strategy import Strategy

__all__ = ("ChildCounts", "ChildInfo", "ChildRecord", "ChildState", "Children")


class ChildState(Enum):
    """What a child is doing (OTP knows pid, ``restarting`` and ``undefined``)."""

    STARTING = "starting"
    """Its start runs and it has not reported readiness."""

    RUNNING = "running"

    RESTARTING = "restarting"
    """It waits for its next start."""

    STOPPING = "stopping"
    """It was asked to end, or has ended and the supervisor has yet to deal with that."""

    STOPPED = "stopped"
    """It does not run and will not be started by itself."""


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child at one moment, as plain data (OTP: which_children, and more)."""

    id: str

    handle: Any
    """What the child reported with ``started``; ``None`` unless it runs. That of a supervisor is the Supervisor."""

    state: ChildState
    type: ChildType
    restart: Restart

    incarnation: int
    """How many times it has been started, attempts that failed included."""

    started_at: float | None
    """When the running incarnation became ready, in seconds of ``trio.current_time()``."""

    restarts: int
    """How many times it came up again by the supervisor's doing."""

    next_restart_at: float | None
    """When it will be started next, while it is restarting."""

    last_exit: ExitReason | None
    """How its last incarnation ended, or why its last start failed."""


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """How many children there are (OTP: count_children)."""

    specs: int
    active: int
    supervisors: int
    workers: int


class ChildRecord:
    """What the supervisor knows of one child; changed by the supervisor's own task alone.

    Args:
        spec: the child's.
    """

    __slots__ = (
        "attempt",
        "by_hand",
        "count",
        "incarnation",
        "last_exit",
        "on_gone",
        "pending",
        "restarts",
        "spec",
        "state",
    )

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = ChildState.STOPPED
        self.incarnation: Incarnation | None = None  # None exactly in RESTARTING and STOPPED
        self.count = 0
        self.restarts = 0
        self.attempt = 0
        """How many failures in a row, for the backoff."""
        self.pending: PendingRestart | None = None
        """What it waits for in RESTARTING; a member of a group has it already while it is being stopped for that."""
        self.by_hand = False
        """Stopped by terminate_child: a sibling's crash must not undo that."""
        self.last_exit: ExitReason | None = None
        self.on_gone: Callable[[], None] | None = None

    def begin(self, supervisor: tuple[str, ...], owner: Owner) -> Incarnation:
        """Make the next incarnation and move to STARTING."""
        self.count += 1
        self.state = ChildState.STARTING
        self.by_hand = False
        self.incarnation = Incarnation(self.spec, self.count, supervisor, owner)
        return self.incarnation

    def ready(self, *, by_supervisor: bool) -> None:
        """Move to RUNNING, by the supervisor's restart or else for the first time or by hand."""
        self.state = ChildState.RUNNING
        self.restarts += by_supervisor

    def settle(self) -> Incarnation:
        """Move to STOPPED after the incarnation has ended, and return it."""
        incarnation = self.incarnation
        assert incarnation is not None
        assert incarnation.done
        self.incarnation = None
        self.state = ChildState.STOPPED
        self.last_exit = incarnation.reason
        self.on_gone = incarnation.on_gone or self.on_gone
        return incarnation

    def gone(self) -> None:
        """Tell the child's handle that no incarnation follows by itself."""
        if self.on_gone is not None:
            self.on_gone()
            self.on_gone = None

    @property
    def running(self) -> bool:
        """True while a ready incarnation lives, whether or not it was asked to end."""
        return self.incarnation is not None and self.incarnation.ready and not self.incarnation.done

    def info(self) -> ChildInfo:
        """Return the record as plain data."""
        incarnation = self.incarnation
        live = incarnation if self.running else None
        ending = incarnation is not None and (incarnation.stop_requested or incarnation.done)
        return ChildInfo(
            id=self.spec.id,
            handle=None if live is None else live.handle,
            state=ChildState.STOPPING if ending else self.state,
            type=self.spec.type,
            restart=self.spec.restart,
            incarnation=self.count,
            started_at=None if live is None else live.ready_at,
            restarts=self.restarts,
            next_restart_at=None if self.pending is None else self.pending.due,
            last_exit=self.last_exit,
        )


class Children:
    """The records of one supervisor, in start order, which restarts do not change (OTP: append, replace in place).

    Args:
        specs: the static children.
    """

    __slots__ = ("_records",)

    def __init__(self, specs: tuple[ChildSpec, ...] = ()) -> None:
        self._records = {spec.id: ChildRecord(spec) for spec in specs}

    def __iter__(self) -> Iterator[ChildRecord]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def reverse_order(self) -> list[ChildRecord]:
        """Return the records, last started first."""
        return list(reversed(self._records.values()))

    def group(self, pivot: ChildRecord, strategy: Strategy) -> list[ChildRecord]:
        """Return who shares the fate of ``pivot``, itself included, in start order (OTP: split_child).

        Args:
            pivot: the child that failed.
            strategy: the supervisor's.
        """
        if strategy is Strategy.ONE_FOR_ONE:
            return [pivot]
        records = list(self._records.values())
        return records if strategy is Strategy.ONE_FOR_ALL else records[records.index(pivot) :]

    def get(self, child_id: str) -> ChildRecord | None:
        """Return the record of that id, if there is one."""
        return self._records.get(child_id)

    def find(self, child_id: str) -> ChildRecord:
        """Return the record of that id.

        Raises:
            ChildNotFound: there is none.
        """
        record = self._records.get(child_id)
        if record is None:
            raise ChildNotFound(f"there is no child {child_id!r}")
        return record

    def living(self, child_id: str) -> Incarnation:
        """Return the incarnation of a child that lives, whether or not it is ready.

        Raises:
            ChildNotFound: there is no such child.
            ActorNotRunning: it does not live now.
        """
        record = self.find(child_id)
        if record.incarnation is None or record.incarnation.done:
            raise ActorNotRunning(f"child {child_id!r} is {record.info().state.value}")
        return record.incarnation

    def of_task(self, task: trio.lowlevel.Task, supervisor: str) -> Incarnation | None:
        """Return the incarnation that runs in ``task``, if there is one.

        Args:
            task: any.
            supervisor: the supervisor's path, which the names of its children's tasks begin with.
        """
        # First by the name it was given, which anyone may change: to look at each of 10,000 takes half a millisecond.
        named = self._records.get(task.name.removeprefix(f"{supervisor}/"))
        if named is not None and named.incarnation is not None and named.incarnation.task is task:
            return named.incarnation
        living = (record.incarnation for record in self._records.values() if record.incarnation is not None)
        return next((incarnation for incarnation in living if incarnation.task is task), None)

    def whereis(self, child_id: str) -> Any:
        """Return the handle of a child that runs.

        Raises:
            ChildNotFound: there is no such child.
            ActorNotRunning: it does not run now.
        """
        record = self.find(child_id)
        if record.incarnation is None or not record.running:
            raise ActorNotRunning(f"child {child_id!r} is {record.info().state.value}")
        return record.incarnation.handle

    def add(self, spec: ChildSpec) -> ChildRecord:
        """Append a record; the id must be free."""
        record = self._records[spec.id] = ChildRecord(spec)
        return record

    def drop(self, record: ChildRecord) -> None:
        """Forget a record."""
        del self._records[record.spec.id]

    def any_significant(self) -> bool:
        """Return whether a significant child lives, or will again by itself (OTP: children_any in do_auto_shutdown)."""
        return any(
            record.spec.significant and (record.incarnation is not None or record.pending is not None)
            for record in self._records.values()
        )

    def counts(self) -> ChildCounts:
        """Count them (OTP: count_children)."""
        records = self._records.values()
        supervisors = sum(record.spec.type is ChildType.SUPERVISOR for record in records)
        active = sum(record.running for record in records)
        return ChildCounts(len(records), active, supervisors, len(records) - supervisors)
