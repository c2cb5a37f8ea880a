"""The loop that handles what a queue holds, in virtual time over the queue in memory."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.client.durable import (
    Claimed,
    HandlerFailed,
    LeaseLost,
    MemoryQueue,
    MessageDead,
    MessageRedelivered,
    QueueOptions,
    QueueStatistics,
    RejectMessage,
    SnoozeMessage,
    StoreUnavailable,
    run_worker,
)
from layr8_actors.errors import ChannelClosed, InvalidOption, StoreCorrupt, StoreUnreachable
from layr8_actors.otp import Backoff, ChildSpec, Supervisor
from layr8_actors.telemetry import Event

EXACT = Backoff(initial=1, maximum=300, jitter=0)


class FlakyQueue(MemoryQueue):
    """A queue whose store fails when told to, and whose time is that of the test."""

    def __init__(self, options: QueueOptions | None = None) -> None:
        self.events: list[Event] = []
        super().__init__("inbox", options, clock=trio.current_time, on_event=self.events.append)
        self.failures: dict[str, list[Exception]] = {}
        self.calls: list[tuple[str, float]] = []

    def _maybe_fail(self, name: str) -> None:
        self.calls.append((name, trio.current_time()))
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    async def claim(self, limit: int) -> list[Claimed]:
        self._maybe_fail("claim")
        return await super().claim(limit)

    async def extend(self, claimed: Claimed) -> bool:
        self._maybe_fail("extend")
        return await super().extend(claimed)

    async def acknowledge(self, claimed: Claimed) -> bool:
        self._maybe_fail("acknowledge")
        return await super().acknowledge(claimed)

    async def wait_for_work(self) -> None:
        self._maybe_fail("wait_for_work")
        await super().wait_for_work()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


Handler = Callable[[Claimed], Awaitable[object]]


async def work(queue: FlakyQueue, handler: Handler, seconds: float, **options: Any) -> None:
    """Run a worker for so many virtual seconds."""
    usual: dict[str, Any] = {"backoff": EXACT, "random": random.Random(1), "on_event": queue.events.append}
    with trio.move_on_after(seconds):
        await run_worker(queue, handler, **usual | options)


async def put(queue: MemoryQueue, *names: str) -> None:
    for name in names:
        await queue.put(name, name.encode(), key=name[0] if len(name) > 1 else None)


async def test_each_message_is_handled_and_acknowledged_also_what_comes_later():
    queue = FlakyQueue()
    handled: list[str] = []

    async def handler(claimed: Claimed) -> None:
        handled.append(claimed.body.decode())

    await put(queue, "a", "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, queue, handler, 10)
        await trio.sleep(5)
        assert sorted(handled) == ["a", "b"]
        await put(queue, "c")
    assert sorted(handled) == ["a", "b", "c"]
    assert await queue.statistics() == QueueStatistics(remembered=3)
    assert queue.events == []


async def test_so_many_handlers_run_at_a_time_and_no_more_is_claimed():
    queue = FlakyQueue()
    running = peak = 0

    async def handler(_: Claimed) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        assert (await queue.statistics()).claimed <= 3
        await trio.sleep(1)
        running -= 1

    await put(queue, *"abcdefgh")
    await work(queue, handler, 100, concurrency=3)
    assert peak == 3
    assert await queue.statistics() == QueueStatistics(remembered=8)


async def test_those_of_one_key_are_handled_one_after_the_other_and_others_meanwhile():
    queue = FlakyQueue()
    log: list[str] = []

    async def handler(claimed: Claimed) -> None:
        log.append(f"+{claimed.id}")
        await trio.sleep(3 if claimed.key else 1)
        log.append(f"-{claimed.id}")

    await put(queue, "k1", "k2", "a")
    await work(queue, handler, 100)
    assert sorted(log[:2]) == ["+a", "+k1"]
    assert log[2:] == ["-a", "-k1", "+k2", "-k2"]


async def test_a_handler_that_raises_is_tried_again_ever_later_and_then_is_a_dead_letter():
    queue = FlakyQueue(QueueOptions(max_attempts=4))
    times: list[float] = []

    async def handler(claimed: Claimed) -> None:
        times.append(trio.current_time())
        raise ValueError(f"attempt {claimed.attempt}")

    await put(queue, "a")
    await work(queue, handler, 100)
    assert times == [0, 1, 3, 7]
    failed = queue.of(HandlerFailed)
    assert [(event.attempt, event.retry_in) for event in failed] == [(1, 1), (2, 2), (3, 4), (4, None)]
    assert all(isinstance(event.error, ValueError) and event.queue == "inbox" for event in failed)
    assert [event.attempt for event in queue.of(MessageRedelivered)] == [2, 3, 4]
    (dead,) = queue.of(MessageDead)
    assert (dead.id, dead.attempts, dead.reason) == ("a", 4, "ValueError: attempt 4")
    (letter,) = await queue.dead_letters()
    assert letter.reason == "ValueError: attempt 4"


async def test_a_rejected_message_is_dead_at_once():
    queue = FlakyQueue()

    async def handler(_: Claimed) -> None:
        async with trio.open_nursery():  # wraps it in a group
            raise RejectMessage("no such recipient")

    await put(queue, "a")
    await work(queue, handler, 100)
    (letter,) = await queue.dead_letters()
    assert (letter.attempts, letter.reason) == (1, "no such recipient")
    assert queue.of(HandlerFailed) == []


async def test_a_snoozed_message_comes_again_without_an_attempt_being_counted():
    queue = FlakyQueue(QueueOptions(max_attempts=2))
    times: list[float] = []

    async def handler(claimed: Claimed) -> None:
        times.append(trio.current_time())
        assert claimed.attempt == 1
        if len(times) < 6:
            raise SnoozeMessage(10, "the link is down")

    await put(queue, "a")
    await work(queue, handler, 100)
    assert times == [0, 10, 20, 30, 40, 50]
    assert await queue.statistics() == QueueStatistics(remembered=1)
    assert queue.events == []


async def test_the_lease_of_a_slow_handler_is_extended_for_as_long_as_it_runs():
    queue = FlakyQueue(QueueOptions(lease=30))
    handled: list[float] = []

    async def handler(_: Claimed) -> None:
        await trio.sleep(1000)
        handled.append(trio.current_time())

    await put(queue, "a")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work, queue, handler, 5000)
    assert handled == [1000]
    assert queue.events == []


async def test_a_handler_whose_message_somebody_else_has_is_cancelled_and_reported():
    queue = FlakyQueue(QueueOptions(lease=30))
    cancelled: list[float] = []
    thieves: list[Claimed] = []

    async def handler(_: Claimed) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    # The store is away while the lease runs out, then another worker claims the message.
    queue.failures["extend"] = [StoreUnreachable("redis://r", "no answer") for _ in range(3)]
    await put(queue, "a")

    async def steal() -> None:
        await trio.sleep(30.5)
        thieves.extend(await MemoryQueue.claim(queue, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(work, queue, handler, 45, concurrency=1))
        nursery.start_soon(steal)
    assert cancelled == [40]
    (lost,) = queue.of(LeaseLost)
    assert (lost.id, lost.attempt) == ("a", 1)
    assert len(queue.of(StoreUnavailable)) == 3
    assert await queue.acknowledge(thieves[0])


@pytest.mark.parametrize("fails", [False, True])
async def test_a_message_that_comes_back_to_ourselves_is_not_handled_twice_at_once(fails: bool):
    queue = FlakyQueue(QueueOptions(lease=30))
    handled: list[int] = []

    async def handler(claimed: Claimed) -> None:
        handled.append(claimed.attempt)
        await trio.sleep(100)
        if fails:
            raise RejectMessage("no")

    queue.failures["extend"] = [StoreUnreachable("redis://r", "no answer") for _ in range(3)]
    await put(queue, "a")
    await work(queue, handler, 200)
    assert handled == [1]
    assert queue.of(LeaseLost) == []
    assert await queue.statistics() == (QueueStatistics(dead=1) if fails else QueueStatistics(remembered=1))


async def test_an_acknowledgement_that_comes_too_late_is_reported():
    queue = FlakyQueue(QueueOptions(lease=30))

    async def handler(_: Claimed) -> None:
        queue.failures["extend"] = [StoreUnreachable("redis://r", "no answer") for _ in range(9)]
        await trio.sleep(31)
        assert len(await MemoryQueue.claim(queue, 1)) == 1

    await put(queue, "a")
    await work(queue, handler, 35, concurrency=1)
    assert [event.id for event in queue.of(LeaseLost)] == ["a"]
    assert (await queue.statistics()).claimed == 1


async def test_a_store_that_is_away_for_a_while_is_waited_for_and_costs_no_message():
    queue = FlakyQueue()
    handled: list[str] = []

    async def handler(claimed: Claimed) -> None:
        handled.append(claimed.id)

    away = StoreUnreachable("redis://r", "no answer")
    queue.failures = {"claim": [away] * 12, "acknowledge": [away] * 3, "wait_for_work": [away] * 2}
    await put(queue, "a")
    await work(queue, handler, 600, store_backoff=Backoff(initial=0.1, maximum=30, jitter=0))
    assert handled == ["a"]
    assert await queue.statistics() == QueueStatistics(remembered=1)
    delays = [event.retry_in for event in queue.of(StoreUnavailable)]
    assert len(delays) == 17
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert max(delays) == 30


async def test_a_store_that_needs_somebody_ends_the_worker_with_its_own_error():
    queue = FlakyQueue()
    broken = StoreCorrupt("/x", "not a whole SQLite file")
    queue.failures = {"acknowledge": [broken]}

    async def handler(claimed: Claimed) -> None:
        if claimed.id == "b":
            await trio.sleep_forever()

    await put(queue, "a", "b")
    with pytest.raises(StoreCorrupt) as raised:
        await run_worker(queue, handler, on_event=queue.events.append)
    assert raised.value is broken
    # It was handled, and on the way out it could be acknowledged; the other was given back.
    assert await queue.statistics() == QueueStatistics(remembered=1, ready=1)


async def test_a_cancelled_worker_gives_back_what_it_had_not_counted():
    queue = FlakyQueue(QueueOptions(max_attempts=1))
    running: list[str] = []

    async def handler(claimed: Claimed) -> None:
        running.append(claimed.id)
        await trio.sleep_forever()

    await put(queue, "a", "b", "c")
    await work(queue, handler, 50, concurrency=2)
    assert sorted(running) == ["a", "b"]
    assert await queue.statistics() == QueueStatistics(ready=3)
    assert [claimed.attempt for claimed in await queue.claim(3)] == [1, 1, 1]


async def test_a_handler_that_finishes_although_cancelled_has_its_message_acknowledged():
    queue = FlakyQueue()

    async def handler(_: Claimed) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    await put(queue, "a")
    await work(queue, handler, 5)
    assert trio.current_time() == 10
    assert await queue.statistics() == QueueStatistics(remembered=1)


async def test_a_store_that_hangs_does_not_hold_up_the_end_for_more_than_5_s():
    class HangingQueue(FlakyQueue):
        async def release(self, claimed: Claimed, **options: Any) -> bool:
            await trio.sleep_forever()
            raise AssertionError

    queue = HangingQueue()

    async def handler(_: Claimed) -> None:
        await trio.sleep_forever()

    await put(queue, "a", "b")
    await work(queue, handler, 50)
    assert trio.current_time() == 55


async def test_a_store_that_is_away_at_the_end_is_reported_and_the_message_comes_again_with_its_lease():
    class LostQueue(FlakyQueue):
        async def release(self, claimed: Claimed, **options: Any) -> bool:
            raise StoreUnreachable("redis://r", "no answer")

    queue = LostQueue(QueueOptions(lease=30))

    async def handler(_: Claimed) -> None:
        await trio.sleep_forever()

    await put(queue, "a")
    await work(queue, handler, 5)
    assert len(queue.of(StoreUnavailable)) == 1
    await trio.sleep(31)
    assert len(await queue.claim(1)) == 1


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_step_nothing_is_lost_and_nothing_is_left_claimed(steps: int):
    queue = FlakyQueue()
    handled: list[str] = []

    async def handler(claimed: Claimed) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(claimed.id)

    await put(queue, "a", "k1", "k2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run_worker, queue, handler, on_event=queue.events.append))
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    statistics = await queue.statistics()
    assert statistics.claimed == 0
    assert statistics.live + statistics.remembered == 3
    assert statistics.remembered <= len(handled)
    await work(queue, handler, 10)
    assert (await queue.statistics()) == QueueStatistics(remembered=3)


async def test_nothing_is_claimed_before_the_link_is_ready():
    queue = FlakyQueue()
    joined = trio.Event()
    sent: list[float] = []

    async def handler(_: Claimed) -> None:
        sent.append(trio.current_time())

    async def join() -> None:
        await trio.sleep(60)
        assert (await queue.statistics()) == QueueStatistics(ready=1)
        joined.set()

    await put(queue, "a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        nursery.start_soon(functools.partial(work, queue, handler, 100, ready=joined.wait))
    assert sent == [60]


async def test_what_the_link_says_instead_of_being_ready_ends_the_worker_as_itself():
    queue = FlakyQueue()
    closed = ChannelClosed("the channel was closed")

    async def ready() -> None:
        raise closed

    with pytest.raises(ChannelClosed) as raised:
        await run_worker(queue, queue.acknowledge, ready=ready)
    assert raised.value is closed


async def test_it_is_a_child_of_a_supervisor_that_starts_it_again():
    queue = FlakyQueue()
    handled: list[str] = []

    async def handler(claimed: Claimed) -> None:
        handled.append(claimed.id)

    queue.failures = {"claim": [StoreCorrupt("/x", "damaged")]}
    await put(queue, "a")
    worker = functools.partial(run_worker, queue, handler, on_event=queue.events.append)
    async with Supervisor([ChildSpec("inbox", worker)], on_event=lambda _: None) as supervisor:
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert handled == ["a"]
        assert supervisor.count_children().active == 1


async def test_a_concurrency_of_nothing_is_refused():
    with pytest.raises(InvalidOption):
        await run_worker(MemoryQueue(), MemoryQueue().acknowledge, concurrency=0)
