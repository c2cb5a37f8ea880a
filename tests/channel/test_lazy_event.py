"""The event that is made by who waits for it: it behaves as Trio's does."""

from __future__ import annotations

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from layr8_actors.channel.lazy_event import LazyEvent


async def test_who_waits_is_released_and_who_comes_late_does_not_wait() -> None:
    event = LazyEvent()
    released: list[int] = []

    async def wait(number: int) -> None:
        await event.wait()
        released.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(wait, number)
        await wait_all_tasks_blocked()
        assert not event.is_set()
        assert released == []
        event.set()
        event.set()
    assert event.is_set()
    assert sorted(released) == [0, 1]
    with assert_checkpoints():
        await event.wait()


async def test_an_event_that_was_set_before_anybody_waited_holds_nobody_up() -> None:
    event = LazyEvent()
    event.set()
    with assert_checkpoints():
        await event.wait()


async def test_a_cancelled_wait_leaves_the_event_as_it_was() -> None:
    event = LazyEvent()
    with trio.move_on_after(1) as scope:
        await event.wait()
    assert scope.cancelled_caught
    assert not event.is_set()
