"""Work that waits at the same time is done together, in one thread at a time: one transaction, one write to the disk.

Whoever finds nobody at it takes what is waiting into the thread and, when that is done, hands over to the first of
those who came meanwhile. So there is no background task, and nothing that could outlive the tasks it works for.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio

__all__ = ("GroupCommit", "Job")

C = TypeVar("C")
T = TypeVar("T")

MOST_TOGETHER = 256
"""Jobs of one transaction: beyond that the write to the disk is no longer what they cost, and the first ones wait."""


@dataclasses.dataclass(slots=True, eq=False)
class Job(Generic[C, T]):
    """One piece of work on a resource ``C``, and what became of it.

    Args:
        work: is called in the thread.
        durable: whether the caller counts on it after a power cut.
    """

    work: Callable[[C], T]
    durable: bool
    result: list[T] = dataclasses.field(default_factory=list[T])
    error: Exception | None = None
    waiter: trio.lowlevel.Task | None = None
    leads: bool = False

    def outcome(self) -> T:
        """Return what the work returned, or raise what became of it."""
        if self.error is not None:
            raise self.error
        return self.result[0]


class GroupCommit(Generic[C]):
    """The line in front of a thread.

    Args:
        execute: is called in the thread with all jobs of a turn, and puts a result or an error into each.
    """

    def __init__(self, execute: Callable[[list[Job[C, Any]]], None]) -> None:
        self._execute = execute
        self._waiting: deque[Job[C, Any]] = deque()
        self._busy = False
        self._limiter = trio.CapacityLimiter(1)

    @trio.lowlevel.enable_ki_protection
    async def submit(self, work: Callable[[C], T], *, durable: bool = True) -> T:
        """Have ``work`` done in the thread and return what it returned.

        A checkpoint. Cancelled before its turn, the work is not done; after that it is done, its value is returned, and
        the cancellation comes at the next checkpoint.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = Job[C, T](work, durable)
        self._waiting.append(job)
        if not self._busy or await self._turn(job):
            self._busy = True
            await self._lead()
        return job.outcome()

    async def idle(self) -> None:
        """Return once nothing is in the thread and nothing waits for it."""
        while self._busy:
            await self.submit(lambda _: None, durable=False)
        await trio.lowlevel.checkpoint()

    async def _turn(self, job: Job[C, Any]) -> bool:
        """Wait until the job is done, or until its task is to lead; True for the latter."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if job not in self._waiting:
                return trio.lowlevel.Abort.FAILED  # it is in the thread
            self._waiting.remove(job)
            return trio.lowlevel.Abort.SUCCEEDED

        job.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        return job.leads

    async def _lead(self) -> None:
        jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        own, *others = jobs
        try:
            # Shielded, because others wait for it too; how long it takes is bounded by the busy timeout of the store.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._execute, jobs, limiter=self._limiter, abandon_on_cancel=False)
        except Exception as error:
            for job in others:
                job.error = error
            own.error = error
        finally:
            for job in others:
                if job.waiter is not None:
                    trio.lowlevel.reschedule(job.waiter)
            self._busy = bool(self._waiting)
            if self._busy and (waiter := self._waiting[0].waiter) is not None:
                self._waiting[0].leads = True
                trio.lowlevel.reschedule(waiter)
