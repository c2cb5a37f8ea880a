"""A stop of many children at once: it holds up no other task, and leaves none unasked."""

from __future__ import annotations

import pytest
import trio

from layr8_actors.errors import CallingSelf
from layr8_actors.otp import ChildSpec, DynamicSupervisor

MANY = 200


async def idle(*, task_status):
    task_status.started()
    await trio.sleep_forever()


async def run_with_many(nursery, spec, **options):
    supervisor = DynamicSupervisor(**options)
    await nursery.start(supervisor.run)
    for _ in range(MANY):
        await supervisor.start_child(spec)
    return supervisor


async def test_other_tasks_run_between_the_requests():
    counts = []
    async with trio.open_nursery() as nursery:
        supervisor = await run_with_many(nursery, ChildSpec("child", idle))
        supervisor.request_stop()
        while supervisor.running:
            counts.append(supervisor.count_children().active)
            await trio.lowlevel.checkpoint()
    seen = [count for count in set(counts) if 0 < count < MANY]
    assert len(seen) > 3


async def test_a_child_that_ends_by_itself_before_it_is_asked_does_not_disturb_the_stop():
    last = trio.Event()

    async def ends_early(*, task_status):
        task_status.started()
        try:
            await last.wait()
        finally:
            last.set()
        raise ValueError

    async with trio.open_nursery() as nursery:
        supervisor = await run_with_many(nursery, ChildSpec("child", ends_early))
        await supervisor.stop()


async def test_a_deadline_that_is_over_at_once_still_ends_all_children():
    ended = []

    async def slow(*, task_status):
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60, shield=False):
                ended.append(trio.current_time())
                await trio.sleep(60)

    async with trio.open_nursery() as nursery:
        supervisor = await run_with_many(nursery, ChildSpec("child", slow), shutdown_deadline=0)
        await supervisor.stop()
    assert len(ended) == MANY


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_child_is_known_as_one_whatever_its_task_is_called(renamed):
    told: list[str] = []

    async def asks(*, task_status):
        task_status.started()
        if renamed:
            trio.lowlevel.current_task().name = "many/child-1"  # as another one's
        with trio.CancelScope(shield=True):
            try:
                await supervisor.stop()
            except CallingSelf as error:
                told.append(str(error))

    async with trio.open_nursery() as nursery:
        supervisor = await run_with_many(nursery, ChildSpec("child", idle), name="many")
        await supervisor.start_child(ChildSpec("asks", asks))
    assert len(told) == 1
    assert "many/asks-201" in told[0]
