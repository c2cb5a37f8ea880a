"""The loop that handles what a durable queue holds: claim, run the handler under a lease, acknowledge."""

from __future__ import annotations

import dataclasses
import functools
import random as random_module
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import trio

from ...errors import Layr8Error, StoreFailed
from ...otp import Backoff
from ...otp.exit_reason import sole_exception
from ...otp.validation import checked_count, checked_seconds
from ...telemetry import Event, Hook, emit, log_event
from .events import HandlerFailed, LeaseLost, MessageRedelivered, StoreUnavailable
from .queue import Claimed, DurableQueue

__all__ = ("RejectMessage", "SnoozeMessage", "run_worker")

T = TypeVar("T")
Settle = Callable[[Claimed], Awaitable[bool]]

RETRY = Backoff(initial=1.0, maximum=300.0)
"""Between two attempts at a message: 20 attempts are used up after about 45 minutes, 59 at most."""

STORE_RETRY = Backoff(initial=0.1, maximum=30.0)
"""Between two attempts at the store: a Redis that restarts is away for a second, a full disk until somebody comes."""

GIVE_BACK_TIMEOUT = 5.0
"""Seconds for giving claims back when cancelled; what is not given back comes again when its lease runs out."""

MOST_REASON = 1000
"""Characters that a dead letter keeps of what its handler raised."""


class RejectMessage(Layr8Error):
    """A handler raises it where no attempt can succeed: the message is a dead letter at once, with this text."""


class SnoozeMessage(Layr8Error):
    """A handler raises it where it is not the message's fault, such as a link that is down: tried again, not counted.

    Args:
        seconds: before the next attempt.
        reason: for whoever reads the statistics or the dead letters.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = checked_seconds("seconds", seconds)
        self.reason = reason
        super().__init__(f"again in {seconds:g} s, not counted as an attempt{f': {reason}' if reason else ''}")


@dataclasses.dataclass(eq=False, slots=True)
class _InHand:
    claimed: Claimed
    scope: trio.CancelScope
    lost: bool = False
    settling: bool = False


async def run_worker(
    queue: DurableQueue,
    handler: Callable[[Claimed], Awaitable[object]],
    *,
    concurrency: int = 8,
    backoff: Backoff = RETRY,
    store_backoff: Backoff = STORE_RETRY,
    ready: Callable[[], Awaitable[object]] | None = None,
    random: random_module.Random | None = None,
    on_event: Hook = log_event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Handle the messages of a queue until cancelled: each at least once, those of one key in order.

    A message is acknowledged after its handler has returned, and given back for another attempt where it raised. While
    the handler runs, its lease is extended at each third of it. What was claimed when the process is killed comes again
    when its lease has run out, perhaps after it was handled: a handler should bear being called twice, and can tell by
    ``claimed.attempt`` and ``claimed.id``.

    Cancelled, it cancels the handlers and gives their messages back, not counted as attempts, within 5 s.

    It is a child for a supervisor: ``ChildSpec("inbox", functools.partial(run_worker, queue, handle))``.

    Args:
        queue: of which store does not matter.
        handler: is called with each message, up to ``concurrency`` at a time. It may raise :class:`RejectMessage` or
            :class:`SnoozeMessage`.
        concurrency: handlers at a time, and messages in hand.
        backoff: between two attempts at a message.
        store_backoff: between two attempts at the store, where its failure may pass; there is no limit to them.
        ready: is awaited before each claim; for an outbox, until the link is joined.
        random: where the jitter comes from.
        on_event: gets the :mod:`~layr8_actors.client.durable.events`.
        task_status: told as soon as it runs.

    Raises:
        StoreFailed: one that does not pass by itself. The supervisor decides. What ``ready`` raises ends it too.
        InvalidOption: a value that is not allowed.
    """
    checked_count("concurrency", concurrency, minimum=1)
    worker = _Worker(queue, handler, concurrency, backoff, store_backoff, random or random_module.Random(), on_event)
    async with trio.open_nursery() as nursery:
        worker.cancel_scope = nursery.cancel_scope
        nursery.start_soon(worker.extend_leases, name=f"{queue.name}: leases")
        task_status.started()
        while True:
            if ready is not None:
                await worker.wait_until(ready)
            # No checkpoint between a claim and its tasks: cancelled, each task gives its own message back.
            for in_hand in await worker.take():
                nursery.start_soon(worker.handle, in_hand, name=f"{queue.name}: {in_hand.claimed.id}")
    if worker.failure is not None:
        raise worker.failure


class _Worker:
    def __init__(
        self,
        queue: DurableQueue,
        handler: Callable[[Claimed], Awaitable[object]],
        concurrency: int,
        backoff: Backoff,
        store_backoff: Backoff,
        random: random_module.Random,
        on_event: Hook,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._backoff = backoff
        self._store_backoff = store_backoff
        self._random = random
        self._on_event = on_event
        self._in_hand: set[_InHand] = set()
        self._room = trio.Event()
        self.cancel_scope: trio.CancelScope | None = None
        self.failure: Exception | None = None

    async def wait_until(self, ready: Callable[[], Awaitable[object]]) -> None:
        """Await the user's function; what it raises ends the worker."""
        try:
            await ready()
        except Exception as error:
            await self._fail(error)

    async def take(self) -> list[_InHand]:
        """Claim as many messages as there is room for, at least one."""
        while True:
            while len(self._in_hand) >= self._concurrency:
                self._room = trio.Event()
                await self._room.wait()
            limit = self._concurrency - len(self._in_hand)
            claims = await self._insist(functools.partial(self._queue.claim, limit))
            taken = [self._hold(claimed) for claimed in claims if not self._is_held(claimed)]
            if taken:
                return taken
            if not claims:
                await self._insist(self._queue.wait_for_work)

    def _is_held(self, claimed: Claimed) -> bool:
        """Go on with a message whose lease ran out, because the store was away, and that came back to ourselves."""
        for in_hand in self._in_hand:
            if in_hand.claimed.id == claimed.id and not in_hand.lost:
                in_hand.claimed = claimed
                return True
        return False

    def _hold(self, claimed: Claimed) -> _InHand:
        in_hand = _InHand(claimed, trio.CancelScope())
        self._in_hand.add(in_hand)
        return in_hand

    async def handle(self, in_hand: _InHand) -> None:
        """Run the handler, then say what became of the message, also when cancelled."""
        claimed = in_hand.claimed
        if claimed.attempt > 1:
            self._emit(MessageRedelivered(**self._about(claimed)))
        settle: Settle = self._stopped  # what holds where the handler is cancelled
        settled = False
        try:
            with in_hand.scope:
                settle = await self._call(claimed)
            in_hand.settling = True
            if not in_hand.lost:
                await self._settle(in_hand, settle)
            settled = True
        finally:
            if not settled and not in_hand.lost:
                with trio.move_on_after(GIVE_BACK_TIMEOUT, shield=True):
                    try:
                        await settle(in_hand.claimed)
                    except StoreFailed as error:
                        self._emit(self._unavailable(error, self._queue.options.lease))
            self._in_hand.discard(in_hand)
            self._room.set()

    async def _settle(self, in_hand: _InHand, settle: Settle) -> None:
        while True:
            claimed = in_hand.claimed
            if await self._insist(functools.partial(settle, claimed)):
                return
            if in_hand.claimed is claimed:
                self._emit(LeaseLost(**self._about(claimed)))
                return

    async def _stopped(self, claimed: Claimed) -> bool:
        return await self._queue.release(claimed, reason="the worker was stopped", counted=False)

    async def _call(self, claimed: Claimed) -> Settle:
        """Run the handler and return what is to be done with the message."""
        queue = self._queue
        try:
            await self._handler(claimed)
        except Exception as raised:
            error = sole_exception(raised)
        else:
            return queue.acknowledge
        match error:
            case RejectMessage():
                return functools.partial(queue.bury, reason=str(error)[:MOST_REASON])
            case SnoozeMessage(seconds=seconds, reason=reason):
                return functools.partial(queue.release, delay=seconds, reason=reason, counted=False)
            case _:
                last = claimed.attempt >= queue.options.max_attempts
                delay = 0.0 if last else self._backoff.delay(claimed.attempt - 1, self._random)
                retry_in = None if last else delay
                self._emit(HandlerFailed(**self._about(claimed), error=error, retry_in=retry_in))
                reason = f"{type(error).__name__}: {error}"[:MOST_REASON]
                return functools.partial(queue.release, delay=delay, reason=reason)

    async def extend_leases(self) -> None:
        """Extend what is in hand at each third of the lease; cancel a handler whose message somebody else has."""
        interval = self._queue.options.lease / 3
        while True:
            await trio.sleep(interval)
            for in_hand in tuple(self._in_hand):
                claimed = in_hand.claimed
                try:
                    held = await self._queue.extend(claimed)
                except StoreFailed as error:
                    if error.permanent:
                        await self._fail(error)
                    self._emit(self._unavailable(error, interval))
                    break
                if not held and not in_hand.settling and in_hand.claimed is claimed and in_hand in self._in_hand:
                    in_hand.lost = True
                    self._emit(LeaseLost(**self._about(claimed)))
                    in_hand.scope.cancel(reason="the lease was lost, somebody else has the message")

    async def _insist(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do it again as long as the store fails in a way that may pass."""
        attempt = 0
        while True:
            try:
                return await action()
            except StoreFailed as raised:
                error = raised
            if error.permanent:
                await self._fail(error)
            delay = self._store_backoff.delay(attempt, self._random)
            attempt += 1
            self._emit(self._unavailable(error, delay))
            await trio.sleep(delay)

    async def _fail(self, error: Exception) -> NoReturn:
        """End the worker with an error as itself, instead of in a group with its like from other tasks."""
        if self.failure is None:
            self.failure = error
        assert self.cancel_scope is not None
        self.cancel_scope.cancel(reason=f"the worker ends with {type(error).__name__}")
        await trio.sleep_forever()
        raise AssertionError

    def _about(self, claimed: Claimed) -> dict[str, Any]:
        return {"at": trio.current_time(), "queue": self._queue.name, "id": claimed.id, "attempt": claimed.attempt}

    def _unavailable(self, error: StoreFailed, retry_in: float) -> StoreUnavailable:
        return StoreUnavailable(at=trio.current_time(), queue=self._queue.name, error=error, retry_in=retry_in)

    def _emit(self, event: Event) -> None:
        emit(self._on_event, event)
