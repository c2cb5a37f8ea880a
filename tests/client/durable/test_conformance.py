"""What every durable queue does, over each kind: in memory, in SQLite, and in a real Redis where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.client.durable import DurableQueue, MessageDead, QueueOptions, QueueStatistics
from layr8_actors.errors import InvalidOption
from tests.client.durable.queues import QueueKind

pytestmark = pytest.mark.real_clock

OPTIONS = QueueOptions(lease=30, max_attempts=3, retention=600)


def ids(messages: list[Any]) -> list[str]:
    return [message.id for message in messages]


async def put(queue: DurableQueue, *names: str) -> None:
    """Put messages: "a" has no key, "k1" has the key k."""
    for name in names:
        assert await queue.put(name, name.encode(), key=name[0] if len(name) > 1 else None)


async def test_what_is_put_is_claimed_with_all_it_had(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        assert isinstance(queue, DurableQueue)
        assert await queue.put("id-1", b"\x00\xff body", key="thread \u00e4")
        (claimed,) = await queue.claim(10)
        assert (claimed.id, claimed.body, claimed.key) == ("id-1", b"\x00\xff body", "thread \u00e4")
        assert claimed.attempt == 1
        assert claimed.put_at > 1_700_000_000
        assert "body" not in repr(claimed)


async def test_an_empty_queue_gives_nothing(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        assert await queue.claim(1) == []
        assert await queue.statistics() == QueueStatistics()
        assert await queue.dead_letters() == []


async def test_messages_are_claimed_in_the_order_in_which_they_were_put(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, *"abcde")
        assert ids(await queue.claim(2)) == ["a", "b"]
        assert ids(await queue.claim(10)) == ["c", "d", "e"]


async def test_what_is_claimed_is_not_claimed_by_another(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        assert len(await queue.claim(1)) == 1
        assert await queue.claim(1) == []


async def test_an_id_is_stored_once_whether_it_waits_is_claimed_or_was_acknowledged(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        assert await queue.put("a", b"first")
        assert not await queue.put("a", b"second")
        (claimed,) = await queue.claim(5)
        assert claimed.body == b"first"
        assert not await queue.put("a", b"second")
        assert await queue.acknowledge(claimed)
        assert not await queue.put("a", b"second")
        assert await queue.claim(5) == []
        assert await queue.statistics() == QueueStatistics(remembered=1)


async def test_an_id_is_forgotten_after_the_retention(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (first,) = await queue.claim(1)
        await queue.acknowledge(first)
        await kind.advance(598)
        assert not await queue.put("a", b"again")
        await kind.advance(3)
        assert (await queue.statistics()).remembered == 0
        assert await queue.put("a", b"again")
        (second,) = await queue.claim(1)
        assert (second.body, second.attempt) == (b"again", 1)
        assert not await queue.acknowledge(first)
        assert await queue.acknowledge(second)


async def test_with_no_retention_an_id_is_new_again_at_once(kind: QueueKind):
    async with kind.open(QueueOptions(retention=0)) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        assert await queue.acknowledge(claimed)
        assert await queue.put("a", b"again")


async def test_a_claim_is_acknowledged_once_and_saying_it_again_is_no_error(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        assert await queue.acknowledge(claimed)
        assert await queue.acknowledge(claimed)
        assert not await queue.extend(claimed)
        assert not await queue.release(claimed)
        assert not await queue.bury(claimed, "no")
        assert await queue.statistics() == QueueStatistics(remembered=1)


async def test_a_message_comes_back_when_its_lease_has_run_out_and_not_before(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (first,) = await queue.claim(1)
        await kind.advance(28)
        assert await queue.claim(1) == []
        await kind.advance(3)
        (second,) = await queue.claim(1)
        assert (second.id, second.attempt) == ("a", 2)
        assert not await queue.acknowledge(first)
        assert not await queue.extend(first)
        assert not await queue.release(first)
        assert await queue.acknowledge(second)


async def test_an_extended_lease_starts_anew(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        await kind.advance(20)
        assert await queue.extend(claimed)
        await kind.advance(20)
        assert await queue.claim(1) == []
        await kind.advance(11)
        assert ids(await queue.claim(1)) == ["a"]


async def test_a_late_acknowledgement_counts_where_nobody_has_claimed_since(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a", "b")
        a, b = await queue.claim(2)
        await kind.advance(100)
        assert await queue.acknowledge(a)
        assert await queue.extend(b)
        assert await queue.claim(2) == []
        assert await queue.acknowledge(b)


async def test_a_released_message_comes_back_at_once_or_after_its_delay(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a", "b")
        a, b = await queue.claim(2)
        assert await queue.release(a)
        assert await queue.release(b, delay=100, reason="busy")
        assert (await queue.statistics()) == QueueStatistics(ready=1, delayed=1)
        assert ids(await queue.claim(5)) == ["a"]
        await kind.advance(98)
        # Acknowledged by nobody, a's lease has run out meanwhile.
        assert ids(await queue.claim(5)) == ["a"]
        await kind.advance(3)
        (again,) = await queue.claim(5)
        assert (again.id, again.attempt) == ("b", 2)


async def test_a_released_claim_is_void(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        assert await queue.release(claimed)
        assert not await queue.acknowledge(claimed)
        assert not await queue.release(claimed)
        assert not await queue.extend(claimed)
        assert ids(await queue.claim(1)) == ["a"]


async def test_a_release_that_is_not_counted_costs_no_attempt(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        for _ in range(10):
            (claimed,) = await queue.claim(1)
            assert claimed.attempt == 1
            assert await queue.release(claimed, counted=False)
        assert kind.events == []


async def test_a_message_that_fails_its_last_attempt_is_a_dead_letter_and_an_event(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        for attempt in (1, 2, 3):
            (claimed,) = await queue.claim(1)
            assert claimed.attempt == attempt
            assert await queue.release(claimed, reason=f"failure {attempt}")
        assert await queue.claim(1) == []
        (letter,) = await queue.dead_letters()
        assert (letter.id, letter.body, letter.key) == ("a", b"a", None)
        assert (letter.attempts, letter.reason) == (3, "failure 3")
        assert letter.died_at >= letter.put_at
        (event,) = kind.events
        assert isinstance(event, MessageDead)
        assert (event.queue, event.id, event.attempts, event.reason) == (queue.name, "a", 3, "failure 3")
        assert await queue.statistics() == QueueStatistics(dead=1)
        assert not await queue.put("a", b"again")


async def test_a_message_whose_last_lease_runs_out_is_a_dead_letter(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        for _ in range(3):
            assert ids(await queue.claim(1)) == ["a"]
            await kind.advance(31)
        assert await queue.claim(1) == []
        (letter,) = await queue.dead_letters()
        assert letter.attempts == 3
        assert "lease" in letter.reason
        assert [type(event) for event in kind.events] == [MessageDead]


async def test_a_buried_message_is_dead_at_its_first_attempt_and_its_claim_is_void(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        assert await queue.bury(claimed, "no such recipient")
        assert not await queue.bury(claimed, "no such recipient")
        assert not await queue.acknowledge(claimed)
        (letter,) = await queue.dead_letters()
        assert (letter.attempts, letter.reason) == (1, "no such recipient")


async def test_a_dead_letter_that_is_retried_has_all_its_attempts_again(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        await queue.bury(claimed, "no")
        assert await queue.retry_dead("a")
        assert not await queue.retry_dead("a")
        assert await queue.dead_letters() == []
        (again,) = await queue.claim(1)
        assert (again.body, again.attempt) == (b"a", 1)
        assert not await queue.acknowledge(claimed)
        assert await queue.acknowledge(again)
        assert not await queue.retry_dead("a")


async def test_a_dead_letter_that_is_discarded_is_forgotten(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "a")
        (claimed,) = await queue.claim(1)
        assert not await queue.discard_dead("a")
        await queue.bury(claimed, "no")
        assert await queue.discard_dead("a")
        assert not await queue.discard_dead("a")
        assert not await queue.discard_dead("unknown")
        assert await queue.statistics() == QueueStatistics()
        assert await queue.put("a", b"new")


async def test_dead_letters_come_oldest_first_and_as_many_as_asked_for(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, *"abc")
        claims = await queue.claim(3)
        for claimed in reversed(claims):
            await queue.bury(claimed, "no")
            await kind.advance(1)
        assert ids(await queue.dead_letters(2)) == ["c", "b"]
        assert ids(await queue.dead_letters()) == ["c", "b", "a"]


async def test_messages_of_one_key_are_never_in_two_hands_and_stay_in_order(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "k1", "k2", "j1", "k3", "j2", "a")
        assert (await queue.statistics()) == QueueStatistics(ready=3, blocked=3)
        k1, j1, a = await queue.claim(10)
        assert [k1.id, j1.id, a.id] == ["k1", "j1", "a"]
        assert await queue.claim(10) == []
        assert await queue.acknowledge(k1)
        (k2,) = await queue.claim(10)
        assert k2.id == "k2"
        assert await queue.acknowledge(j1)
        assert ids(await queue.claim(10)) == ["j2"]
        assert await queue.acknowledge(k2)
        assert ids(await queue.claim(10)) == ["k3"]


async def test_those_of_a_key_wait_for_the_delay_and_the_lease_of_the_one_before(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "k1", "k2")
        (first,) = await queue.claim(10)
        await queue.release(first, delay=60)
        assert await queue.claim(10) == []
        await kind.advance(61)
        assert ids(await queue.claim(10)) == ["k1"]
        await kind.advance(31)
        (third,) = await queue.claim(10)
        assert (third.id, third.attempt) == ("k1", 3)
        assert await queue.acknowledge(third)
        assert ids(await queue.claim(10)) == ["k2"]


@pytest.mark.parametrize("how", ["bury", "release", "lease"])
async def test_a_dead_letter_lets_the_next_of_its_key_go_and_is_the_last_one_when_retried(kind: QueueKind, how: str):
    async with kind.open(QueueOptions(lease=30, max_attempts=1)) as queue:
        await put(queue, "k1", "k2", "k3")
        (first,) = await queue.claim(10)
        if how == "bury":
            await queue.bury(first, "no")
        elif how == "release":
            await queue.release(first, reason="no")
        else:
            await kind.advance(31)
        (second,) = await queue.claim(10)
        assert second.id == "k2"
        assert await queue.retry_dead("k1")
        assert (await queue.statistics()) == QueueStatistics(claimed=1, blocked=2)
        await queue.acknowledge(second)
        (third,) = await queue.claim(10)
        assert third.id == "k3"
        await queue.acknowledge(third)
        assert ids(await queue.claim(10)) == ["k1"]


async def test_a_key_that_is_used_up_is_free_again(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        await put(queue, "k1")
        (first,) = await queue.claim(1)
        await queue.acknowledge(first)
        await put(queue, "k2")
        assert ids(await queue.claim(1)) == ["k2"]


async def test_what_cannot_be_stored_is_refused_by_name(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        bad: list[tuple[str, tuple[Any, Any, Any]]] = [
            ("id", ("", b"", None)),
            ("id", (7, b"", None)),
            ("id", ("\ud800", b"", None)),
            ("key", ("a", b"", "")),
            ("key", ("a", b"", 7)),
            ("body", ("a", "text", None)),
        ]
        for option, (id, body, key) in bad:
            with pytest.raises(InvalidOption) as refused:
                await queue.put(id, body, key=key)
            assert refused.value.option == option
        with pytest.raises(InvalidOption):
            await queue.claim(0)
        assert await queue.statistics() == QueueStatistics()


async def test_hundreds_put_and_claimed_by_many_tasks_are_each_claimed_once(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        seen: list[str] = []

        async def producer(name: str) -> None:
            for number in range(25):
                await queue.put(f"{name}{number}", b"x", key=name if number % 2 else None)

        async def consumer() -> None:
            while len(seen) < 200:
                for claimed in await queue.claim(3):
                    seen.append(claimed.id)
                    assert await queue.acknowledge(claimed)
                await trio.lowlevel.checkpoint()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for name in "abcdefgh":
                    nursery.start_soon(producer, name)
                for _ in range(4):
                    nursery.start_soon(consumer)
        assert sorted(seen) == sorted(f"{name}{number}" for name in "abcdefgh" for number in range(25))
        for name in "abcdefgh":
            of_key = [id for id in seen if id[0] == name and int(id[1:]) % 2]
            assert of_key == sorted(of_key, key=lambda name: int(name[1:]))
        assert (await queue.statistics()) == QueueStatistics(remembered=200)


async def test_whoever_waits_for_work_is_woken_by_a_put_a_release_and_a_key_that_is_free(kind: QueueKind):
    async with kind.open(QueueOptions(lease=3600)) as queue:

        async def woken_by(action: Any) -> list[Any]:
            assert await queue.claim(10) == []
            found: list[Any] = []

            async def wait() -> None:
                while not found:
                    await queue.wait_for_work()
                    found.extend(await queue.claim(10))

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await action()
            return found

        (a,) = await woken_by(lambda: queue.put("a", b""))
        (a,) = await woken_by(lambda: queue.release(a))
        await queue.acknowledge(a)
        await put(queue, "k1", "k2")
        (k1,) = await queue.claim(10)
        (k2,) = await woken_by(lambda: queue.acknowledge(k1))

        async def release_for_a_while() -> None:
            await queue.release(k2, delay=0.05)
            await kind.advance(1)

        (k2,) = await woken_by(release_for_a_while)
        await queue.bury(k2, "no")
        assert ids(await woken_by(lambda: queue.retry_dead("k2"))) == ["k2"]


async def test_a_put_between_a_claim_and_the_wait_is_not_missed(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        assert await queue.claim(10) == []
        await put(queue, "a")
        with trio.fail_after(20):  # less than the interval at which the queue in SQLite looks by itself
            await queue.wait_for_work()


async def test_whoever_waits_for_work_can_be_cancelled(kind: QueueKind):
    async with kind.open(OPTIONS) as queue:
        assert await queue.claim(10) == []
        with trio.move_on_after(0.01) as scope:
            while True:
                await queue.wait_for_work()
        assert scope.cancelled_caught
        await put(queue, "a")
        assert ids(await queue.claim(1)) == ["a"]


async def test_a_store_has_as_many_queues_as_it_is_asked_for_and_tells_which_of_them_hold_messages(kind: QueueKind):
    async with kind.store(OPTIONS) as store:
        assert await store.live() == {}
        carol = store.queue("inbox of did:web:carol", OPTIONS)
        assert store.queue("inbox of did:web:carol") is carol
        await put(carol, "a", "k1", "k2", "k3")
        await put(store.outbox, "a", "b")
        await put(store.queue("another"), "a")
        for claimed in await store.queue("another").claim(1):
            await store.queue("another").acknowledge(claimed)
        assert ids(await carol.claim(1)) == ["a"]
        (delayed,) = await carol.claim(1)
        await carol.release(delayed, delay=60)
        # Claimed, delayed, and two that wait behind; what is acknowledged is nobody's business any more.
        assert await store.live() == {"inbox of did:web:carol": 4, "outbox": 2}
        for claimed in await store.outbox.claim(2):
            await store.outbox.bury(claimed, "nobody wants it")
        assert await store.live() == {"inbox of did:web:carol": 4}
        assert await store.inbox.claim(1) == []
