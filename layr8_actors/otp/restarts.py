"""What a supervisor does about a child that ended: whether, when and with whom it is started again."""

from __future__ import annotations

import math
from random import Random

import trio

from ..errors import RestartLimitExceeded
from . import events
from .backoff import Backoff
from .child_control import ChildControl
from .child_spec import Restart
from .children import ChildRecord, Children, ChildState
from .exit_reason import ExitKind, ExitReason
from .incarnation import Incarnation
from .reports import Reports
from .restart_intensity import RestartIntensity
from .restart_timers import PendingRestart, RestartTimers
from .strategy import AutoShutdown, Strategy

__all__ = ("Restarts",)


class Restarts:
    """The restart rules of one supervisor run, applied in its own task.

    Args:
        children: the record table.
        control: starts and stops.
        reports: where events go.
        timers: the waits.
        intensity: the window of restarts.
        strategy: who shares a fate.
        backoff: how long to wait; ``None`` for not at all.
        give_up_never: whether the window is only for show.
        max_attempts: how many restarts in a row one child may need; ``None`` for no such limit.
        auto_shutdown: whether the end of significant children ends the supervisor.
        random: where the jitter comes from; ``None`` for a new generator each time, as it takes 2.5 KiB to keep one.
    """

    __slots__ = (
        "_auto_shutdown",
        "_backoff",
        "_children",
        "_control",
        "_give_up_never",
        "_intensity",
        "_max_attempts",
        "_random",
        "_reports",
        "_strategy",
        "_timers",
    )

    def __init__(
        self,
        children: Children,
        control: ChildControl,
        reports: Reports,
        timers: RestartTimers,
        intensity: RestartIntensity,
        *,
        strategy: Strategy,
        backoff: Backoff | None,
        give_up_never: bool,
        max_attempts: int | None,
        auto_shutdown: AutoShutdown,
        random: Random | None,
    ) -> None:
        self._children = children
        self._control = control
        self._reports = reports
        self._timers = timers
        self._intensity = intensity
        self._strategy = strategy
        self._backoff = backoff
        self._give_up_never = give_up_never
        self._max_attempts = max_attempts
        self._auto_shutdown = auto_shutdown
        self._random = random

    async def child_exited(self, incarnation: Incarnation) -> None:
        """Deal with an exit notice; checkpoints while siblings stop, cancellation leaves them stopping.

        Args:
            incarnation: whose; one that is no child any more is ignored.
        """
        record = self._children.get(incarnation.spec.id)
        if record is None or record.incarnation is not incarnation:
            return  # dealt with before, as part of a group or by terminate_child
        record.settle()
        reason = incarnation.reason
        if not self._needs_restart(record.spec.restart, reason):
            self._reports.child_ended(record, incarnation, expected=reason.clean)
            self._control.retire(record)
            if record.spec.significant and self._ends_supervisor():
                self._control.request_stop()
            return
        if self._backoff is not None and incarnation.ended_at - incarnation.healthy_at >= self._backoff.reset_after:
            record.attempt = 0
        within = self._intensity.add(trio.current_time())
        self._reports.child_ended(record, incarnation, expected=False)
        await self._schedule(record, reason, within)

    @staticmethod
    def _needs_restart(restart: Restart, reason: ExitReason) -> bool:
        """Return whether a child that ended by itself is started again (OTP: do_restart)."""
        return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and not reason.clean)

    def _ends_supervisor(self) -> bool:
        """Return whether the end of a significant child is the supervisor's own (OTP: do_auto_shutdown)."""
        if self._auto_shutdown is AutoShutdown.ALL_SIGNIFICANT:
            return not self._children.any_significant()
        return self._auto_shutdown is AutoShutdown.ANY_SIGNIFICANT

    async def attempt(self, pending: PendingRestart) -> None:
        """Start a child, or a group in order, once (OTP: try_again_restart).

        Checkpoints; cancellation gives the start in hand up and leaves the rest waiting.

        Args:
            pending: a wait that is over.
        """
        pivot = pending.first
        for record in reversed(self._children.group(pivot, self._strategy)):
            # A child that start_child added during the wait runs already, without those it comes after.
            if record.pending is not pending and record.incarnation is not None:
                await self._stop_for_restart(record, pending)
        if self._control.stopping:
            return  # asked for while those were stopped
        for record in self._children.group(pivot, self._strategy):
            if record.pending is not pending:
                continue
            self._timers.withdraw(record)
            error = await self._control.start(record, events.ChildRestarted)
            if self._control.stopping:
                return
            if error is not None:
                # A failed attempt counts as a restart of its own, and who failed is the pivot of the next attempt.
                within = self._intensity.add(trio.current_time())
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
                record.last_exit = ExitReason(ExitKind.ERROR, cause)
                await self._schedule(record, record.last_exit, within)
                return

    async def _schedule(self, pivot: ChildRecord, reason: ExitReason, within: bool) -> None:
        """Stop those who share the fate of ``pivot`` and let all of them wait for their start, or give up."""
        attempt = pivot.attempt
        limit = self._intensity
        if self._max_attempts is not None and attempt >= self._max_attempts:
            self._give_up(pivot, reason, self._max_attempts, math.inf)
            return
        if not within and not self._give_up_never:
            self._give_up(pivot, reason, limit.max_restarts, limit.max_seconds)
            return
        delay = 0.0
        if self._backoff is not None:
            delay = self._backoff.delay(attempt, self._random or Random())
            pivot.attempt += 1
        group = self._children.group(pivot, self._strategy)
        members = [record for record in group if record.spec.restart is not Restart.TEMPORARY and not record.by_hand]
        # Everybody waits from here on, also who is still to be stopped: nobody is ever forgotten between the two.
        pending = self._wait_together(pivot, members, trio.current_time() + delay)
        for record in reversed(group):
            if record.incarnation is not None:
                await self._stop_for_restart(record, pending)
        self._reports.child(
            events.RestartScheduled,
            pivot,
            delay=max(0.0, pending.due - trio.current_time()),
            attempt=attempt,
            group=tuple(record.spec.id for record in members),
        )

    def _wait_together(self, pivot: ChildRecord, members: list[ChildRecord], due: float) -> PendingRestart:
        earlier = self._earlier_failure(pivot)
        if earlier is None:
            pending = self._timers.add(members, due)
        else:
            pending = earlier
            for record in members:
                self._timers.join(record, pending)
        for record in members:
            if record.incarnation is None:
                record.state = ChildState.RESTARTING
        return pending

    def _earlier_failure(self, pivot: ChildRecord) -> PendingRestart | None:
        """Return the wait of another failure whose group ``pivot`` belongs to: one group has one timer."""
        if self._strategy is Strategy.ONE_FOR_ONE:
            return None
        for pending in self._timers.live():
            if pending.first is not pivot and pivot in self._children.group(pending.first, self._strategy):
                return pending
        return None

    async def _stop_for_restart(self, record: ChildRecord, pending: PendingRestart) -> None:
        await self._control.stop(record)
        if record.spec.restart is Restart.TEMPORARY:
            self._control.retire(record)
            return
        if record.pending is None:
            self._timers.join(record, pending)
        record.state = ChildState.RESTARTING

    def _give_up(self, record: ChildRecord, reason: ExitReason, max_restarts: int, max_seconds: float) -> None:
        failure = RestartLimitExceeded(self._reports.label, record.spec.id, max_restarts, max_seconds)
        failure.__cause__ = reason.error
        self._reports.limit_reached(record, reason, max_restarts, max_seconds)
        self._control.request_stop(failure)
