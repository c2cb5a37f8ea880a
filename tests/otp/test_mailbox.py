"""The mailbox on its own (rows G18 and G19)."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import assert_checkpoints, assert_no_checkpoints

from layr8_actors.errors import ActorDied, ActorNotRunning, InvalidOption, MailboxFull
from layr8_actors.otp import ExitKind, ExitReason, Mailbox, MailboxStatistics

GONE = ExitReason(ExitKind.ERROR, ValueError("the owner's"))


async def test_G1_first_in_first_out() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    for number in range(5):
        await mailbox.put(number)
    assert [await mailbox.get() for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_G18_a_full_mailbox_makes_senders_wait_in_turn() -> None:
    mailbox: Mailbox[int] = Mailbox("a", 2)
    mailbox.put_nowait(0)
    mailbox.put_nowait(1)
    with pytest.raises(MailboxFull, match="'a' holds 2"):
        mailbox.put_nowait(2)
    assert not mailbox.try_put(2)
    async with trio.open_nursery() as nursery:
        for number in (2, 3):
            nursery.start_soon(mailbox.put, number)
            await trio.testing.wait_all_tasks_blocked()
        assert mailbox.statistics() == MailboxStatistics(depth=2, capacity=2, waiting_senders=2)
        assert [await mailbox.get() for _ in range(4)] == [0, 1, 2, 3]


async def test_G18_a_cancelled_sender_has_sent_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("a", 1)
    mailbox.put_nowait(0)
    with trio.move_on_after(1) as scope:
        await mailbox.put(1)
    assert scope.cancelled_caught
    assert await mailbox.get_batch() == [0]


async def test_G19_closing_releases_waiting_senders_with_the_reason() -> None:
    mailbox: Mailbox[int] = Mailbox("a", 1)
    mailbox.put_nowait(0)
    errors: list[ActorDied] = []

    async def send() -> None:
        with pytest.raises(ActorDied) as caught:
            await mailbox.put(1)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert mailbox.close(GONE) == 1
    assert errors[0] is not errors[1]
    assert all(error.__cause__ is GONE.error for error in errors)


async def test_G2_a_closed_mailbox_refuses() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    assert mailbox.close(GONE) == 0
    assert mailbox.close(ExitReason(ExitKind.NORMAL)) == 0
    assert mailbox.closed_with is GONE
    with pytest.raises(ActorNotRunning):
        mailbox.put_nowait(1)
    with pytest.raises(ActorNotRunning):
        await mailbox.put(1)


async def test_get_takes_all_that_is_queued_and_always_checkpoints() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    for number in range(3):
        with assert_no_checkpoints():
            mailbox.put_nowait(number)
    with assert_checkpoints():
        assert await mailbox.get_batch() == [0, 1, 2]
    mailbox.put_nowait(3)
    with assert_checkpoints():
        assert await mailbox.get() == 3
    with pytest.raises(trio.WouldBlock):
        mailbox.get_nowait()


async def test_a_batch_is_bounded_even_when_senders_wait() -> None:
    mailbox: Mailbox[int] = Mailbox("a", 2)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(mailbox.put, number)
        await trio.testing.wait_all_tasks_blocked()
        batch = await mailbox.get_batch()
        assert len(batch) == 3
        while len(batch) < 10:
            batch += await mailbox.get_batch()
    assert sorted(batch) == list(range(10))


async def test_a_cancelled_get_takes_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    mailbox.put_nowait(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.get()
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.get_batch()
    assert await mailbox.get_batch() == [1]


async def test_a_message_for_a_reader_that_is_cancelled_in_the_same_instant_is_not_lost() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mailbox.get)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    assert mailbox.statistics().depth == 2
    assert await mailbox.get_batch() == [1, 2]


async def test_a_reader_that_waits_gets_what_is_put_in_order() -> None:
    mailbox: Mailbox[int] = Mailbox("a", 2)
    taken: list[int] = []

    async def read() -> None:
        while len(taken) < 6:
            taken.append(await mailbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with assert_checkpoints():
            await mailbox.put(0)
        for number in range(1, 6):
            await mailbox.put(number)
    assert taken == list(range(6))


async def test_a_cancelled_put_to_a_reader_that_waits_has_sent_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await mailbox.put(1)
        assert scope.cancelled_caught
        assert mailbox.statistics().depth == 0
        nursery.cancel_scope.cancel()


async def test_an_interrupted_reader_returns_without_a_message() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    mailbox.interrupt()  # nobody is there, so nobody returns early later on
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        mailbox.interrupt()
    assert mailbox.pop(None) is None


async def test_an_interrupted_get_waits_on() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.interrupt()
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        mailbox.put_nowait(1)


async def test_closing_releases_the_reader() -> None:
    mailbox: Mailbox[int] = Mailbox("a")

    async def read() -> None:
        with pytest.raises(ActorNotRunning):
            await mailbox.get()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close(GONE)


async def test_a_message_that_waited_leaves_no_channel_behind() -> None:
    mailbox: Mailbox[int] = Mailbox("a")
    mailbox.put_nowait(1)
    assert await mailbox.get_batch() == [1]
    assert mailbox._send is None
    assert mailbox._receive is None


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, None])
def test_G18_a_mailbox_is_always_bounded(capacity: int) -> None:
    with pytest.raises(InvalidOption, match="mailbox_capacity"):
        Mailbox("a", capacity)


@given(st.lists(st.sampled_from(["put", "get", "batch"]), max_size=60), st.integers(1, 5))
def test_G1_order_survives_any_mix_of_puts_and_gets(steps: list[str], capacity: int) -> None:
    async def run() -> None:
        mailbox: Mailbox[int] = Mailbox("a", capacity)
        sent, taken = 0, []
        for step in steps:
            if step == "put":
                sent += mailbox.try_put(sent)
            elif mailbox.statistics().depth:
                taken += [await mailbox.get()] if step == "get" else await mailbox.get_batch()
            assert len(taken) + mailbox.statistics().depth == sent
        assert taken == list(range(len(taken)))

    trio.run(run)
