"""``async with supervisor:`` and ``request_stop``."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import assert_no_checkpoints

from layr8_actors.errors import ChildStartError, RestartLimitExceeded, SupervisionError


async def test_a_block_has_the_tree_running_and_stops_it_in_order(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("abc"))
    async with supervisor as same:
        assert same is supervisor
        assert supervisor.running
        assert lab.took() == ["start a", "start b", "start c"]
    assert not supervisor.running
    assert lab.took() == ["stop c", "stop b", "stop a"]


async def test_a_block_may_be_entered_again_afterwards(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"))
    for _ in range(2):
        async with supervisor:
            pass
    assert lab.took() == ["start a", "stop a"] * 2


async def test_the_blocks_error_comes_out_bare_after_the_ordered_stop(lab: Any) -> None:
    error = ExceptionGroup("of the user", [ValueError("only one")])
    lab.cleanup = dict.fromkeys("ab", 1.0)
    start = trio.current_time()
    with pytest.raises(ExceptionGroup) as caught:
        async with lab.supervisor(lab.children("ab")):
            raise error
    assert caught.value is error
    assert lab.took() == ["start a", "start b", "stop b", "stop a"]
    assert trio.current_time() == start + 2


async def test_giving_up_cancels_the_block_and_comes_out_bare(lab: Any) -> None:
    cancelled = False
    with pytest.raises(RestartLimitExceeded):
        async with lab.supervisor(lab.children("a"), max_restarts=0):
            lab.crash("a")
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled


async def test_an_error_of_the_cancelled_block_comes_out_together_with_the_reason(lab: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with lab.supervisor(lab.children("a"), max_restarts=0):
            lab.crash("a")
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("cleanup")
    assert {type(error) for error in caught.value.exceptions} == {RestartLimitExceeded, KeyError}


async def test_a_child_that_does_not_start_comes_out_bare_and_the_block_is_not_entered(lab: Any) -> None:
    lab.fail_starts["b"] = 1
    supervisor = lab.supervisor(lab.children("ab"))
    with pytest.raises(ChildStartError):
        async with supervisor:
            pytest.fail("entered")
    assert not supervisor.running
    assert not any(lab.live.values())


async def test_a_block_inside_a_block_is_refused_and_the_outer_one_goes_on(lab: Any) -> None:
    supervisor = lab.supervisor(lab.children("a"))
    async with supervisor:
        with pytest.raises(SupervisionError, match="runs already"):
            async with supervisor:
                pytest.fail("entered")
        assert supervisor.running
    assert lab.took() == ["start a", "stop a"]


async def test_cancelling_a_block_stops_the_tree_and_goes_on_upward(lab: Any) -> None:
    with trio.move_on_after(1) as scope:
        async with lab.supervisor(lab.children("ab")):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert lab.took() == ["start a", "start b", "stop b", "stop a"]


async def test_a_block_outlives_a_stop_of_its_supervisor(lab: Any) -> None:
    async with lab.supervisor(lab.children("a")) as supervisor:
        await supervisor.stop()
        await trio.sleep(1)
        lab.log.append("still here")
    assert lab.took() == ["start a", "stop a", "still here"]


async def test_request_stop_begins_the_ordered_stop_without_waiting(lab: Any, settle: Any) -> None:
    supervisor = lab.supervisor(lab.children("ab"))
    with assert_no_checkpoints():
        supervisor.request_stop()  # of one that does not run
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        with assert_no_checkpoints():
            supervisor.request_stop()
            supervisor.request_stop()
        assert supervisor.running
        await settle()
        assert lab.took() == ["start a", "start b", "stop b", "stop a"]
        assert not supervisor.running


async def test_request_stop_gives_up_a_start_in_hand(lab: Any) -> None:
    lab.start_delay["b"] = 20.0
    supervisor = lab.supervisor(lab.children("ab"))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        supervisor.request_stop()
    assert trio.current_time() == start + 1
    assert lab.took() == ["start a", "start b", "stop b", "stop a"]
