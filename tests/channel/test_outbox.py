"""The queue in front of a socket's writer: order, bound, marks, and what its end leaves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel.outbox import Outbox, Outgoing


def entry(name: str) -> Outgoing:
    return name, "1", None


def names(entries: list[Outgoing]) -> list[Any]:
    return [data for data, _, _ in entries]


async def test_frames_are_taken_in_order_all_at_once_and_those_that_wait_for_room_with_them() -> None:
    outbox = Outbox(2)
    accepted: list[bool] = []

    async def put(name: str) -> None:
        accepted.append(await outbox.put(entry(name)))

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(put, name)
            await wait_all_tasks_blocked()
        assert accepted == [True, True]
        assert len(outbox) == 2
        assert not outbox.put_nowait(entry("late"))  # not in front of those that wait
        assert names(outbox.take()[1]) == ["a", "b", "c", "d"]
    assert accepted == [True] * 4
    assert outbox.take() == ([], [], [])
    assert outbox.put_nowait(entry("e"))


async def test_one_that_is_cancelled_while_it_waits_for_room_has_put_nothing() -> None:
    outbox = Outbox(1)
    assert await outbox.put(entry("a"))
    with trio.move_on_after(1) as scope:
        await outbox.put(entry("b"))
    assert scope.cancelled_caught
    assert names(outbox.take()[1]) == ["a"]


async def test_one_that_was_let_in_has_put_its_frame_also_where_the_outbox_closes_before_it_wakes() -> None:
    """It was told that nothing would be written of what the writer had taken, and may have written."""
    outbox = Outbox(1)
    accepted: dict[str, bool] = {}

    async def put(name: str) -> None:
        accepted[name] = await outbox.put(entry(name))

    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(put, name)
            await wait_all_tasks_blocked()
        assert names(outbox.take()[1]) == ["a", "b"]
        assert outbox.put_nowait(entry("c"))
        assert names(outbox.close()) == ["c"]
    assert accepted == {"a": True, "b": True}


async def test_the_writer_sleeps_until_there_is_something_and_then_gets_all_of_it() -> None:
    outbox = Outbox(8)
    taken: list[Any] = []

    async def writer() -> None:
        while not outbox.closed:
            await outbox.wait()
            urgent, entries, _ = outbox.take()
            taken.append([*urgent, *names(entries)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        await wait_all_tasks_blocked()
        outbox.put_nowait(entry("a"))
        outbox.put_nowait(entry("b"))
        outbox.post("heartbeat")
        await wait_all_tasks_blocked()
        outbox.put_nowait(entry("c"))
        await wait_all_tasks_blocked()
        outbox.close()
    assert taken == [["heartbeat", "a", "b"], ["c"], []]


async def test_a_writer_that_is_cancelled_while_it_sleeps_is_not_woken_any_more() -> None:
    outbox = Outbox(8)
    with trio.move_on_after(1):
        await outbox.wait()
    assert outbox.put_nowait(entry("a"))
    await outbox.wait()
    assert names(outbox.take()[1]) == ["a"]


async def test_urgent_frames_go_past_the_bound() -> None:
    outbox = Outbox(1)
    outbox.put_nowait(entry("a"))
    outbox.post("leave")
    assert len(outbox) == 2
    urgent, entries, _ = outbox.take()
    assert (urgent, names(entries)) == (["leave"], ["a"])


async def test_a_mark_stands_behind_all_that_is_queued_and_behind_those_that_wait_for_room() -> None:
    outbox = Outbox(1)
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(outbox.put, entry(name))
            await wait_all_tasks_blocked()
        mark = outbox.mark()
        _, entries, marks = outbox.take()
        assert (names(entries), marks) == (["a", "b"], [mark])
        assert not mark.is_set()  # the writer does it, once they are written


async def test_the_end_releases_everybody_and_tells_what_was_never_taken() -> None:
    outbox = Outbox(1)
    accepted: list[bool] = []

    async def put(name: str) -> None:
        accepted.append(await outbox.put(entry(name)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(put, "b")
        await wait_all_tasks_blocked()
        outbox.post("heartbeat")
        assert names(outbox.close()) == ["a", "b"]
        assert outbox.close() == []
    assert accepted == [True, False]
    assert not outbox.put_nowait(entry("c"))
    assert not await outbox.put(entry("c"))
    outbox.post("leave")
    assert len(outbox) == 0
    with trio.fail_after(1):
        await outbox.wait()


async def test_a_wait_for_what_is_there_already_is_a_checkpoint_too() -> None:
    outbox = Outbox(1)
    outbox.put_nowait(entry("a"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.wait()
        pytest.fail("it was no checkpoint")


async def test_a_writer_is_started_by_whatever_there_is_to_write_and_once_it_has_left_another_one() -> None:
    started: list[int] = []
    outbox = Outbox(8, lambda: started.append(len(outbox)))
    assert not started
    outbox.post("join")
    outbox.put_nowait(entry("a"))  # the one that was started takes it along
    assert started == [1]
    assert not outbox.leave()  # not with something there
    outbox.take()
    assert outbox.leave()
    outbox.put_nowait(entry("b"))
    assert started == [1, 1]
    outbox.take()
    assert outbox.leave()
    outbox.mark()
    assert started == [1, 1, 0]
    assert not outbox.leave()
    outbox.take()
    assert outbox.leave()
    outbox.close()
    assert started == [1, 1, 0]


async def test_a_writer_that_waits_is_woken_and_no_other_is_started_even_where_it_was_cancelled() -> None:
    started: list[str] = []
    outbox = Outbox(8, lambda: started.append("writer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.wait)
        await wait_all_tasks_blocked()
        outbox.post("heartbeat")
    outbox.take()
    with trio.move_on_after(1):
        await outbox.wait()
    assert outbox.put_nowait(entry("a"))
    assert not started  # the link ends
