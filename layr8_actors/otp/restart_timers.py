"""The timer table of a supervisor: a wait before a restart is an entry here and never a sleep in a task.

So the supervisor stays awake for other work, and a wait can be called off in one step (three Erlang forks with delayed
restarts lost children for ever: rabbitmq-common#201, klarna/supervisor3#13 and #24).
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .children import ChildRecord

__all__ = ("PendingRestart", "RestartTimers")


class PendingRestart:
    """One restart that is due at some time, of one child or of a group; a new wait is a new object, never a reused one.

    Args:
        members: who is started then, in start order; the first to remain of them is the pivot of the group.
        due: when, in seconds of the monotonic clock.
    """

    __slots__ = ("due", "members")

    def __init__(self, members: list[ChildRecord], due: float) -> None:
        self.members = {record.spec.id: record for record in members}
        self.due = due

    @property
    def first(self) -> ChildRecord:
        """The pivot of the group: who failed, or the next of its members once that one waits no more."""
        return next(iter(self.members.values()))

    @property
    def live(self) -> bool:
        """False once nobody waits for it any more."""
        return bool(self.members)


class RestartTimers:
    """All waits of one supervisor; each waiting child is in exactly one of them."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, PendingRestart]] = []
        self._count = 0

    def add(self, members: list[ChildRecord], due: float) -> PendingRestart:
        """Let ``members`` wait together until ``due``, and no longer for whatever they waited for before.

        Args:
            members: who, in start order; not empty.
            due: when, in seconds of the monotonic clock.
        """
        for record in members:
            self.withdraw(record)
        pending = PendingRestart(members, due)
        for record in members:
            record.pending = pending
        self._count += 1  # keeps entries of one instant in the order in which they came
        heapq.heappush(self._heap, (due, self._count, pending))
        return pending

    def join(self, record: ChildRecord, pending: PendingRestart) -> None:
        """Let ``record`` wait with the members of ``pending``."""
        self.withdraw(record)
        pending.members[record.spec.id] = record
        record.pending = pending

    def withdraw(self, record: ChildRecord) -> None:
        """Take ``record`` out of its wait, if it waits; the others of its group wait on."""
        if record.pending is not None:
            del record.pending.members[record.spec.id]
            record.pending = None

    def live(self) -> list[PendingRestart]:
        """Return all waits that are not called off, the earliest due first."""
        return [pending for _due, _count, pending in sorted(self._heap, key=lambda entry: entry[:2]) if pending.live]

    def next_due(self) -> float:
        """Return when the earliest wait ends, ``math.inf`` where there is none."""
        while self._heap and not self._heap[0][2].live:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> PendingRestart | None:
        """Take out the earliest wait if it has ended.

        Args:
            now: seconds of the monotonic clock.
        """
        return heapq.heappop(self._heap)[2] if self.next_due() <= now else None
