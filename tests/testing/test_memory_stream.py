"""Memory streams keep the contract of Trio's streams, and behave like TCP where Trio's own do not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from layr8_actors.testing import MemoryStream, memory_stream_pair


async def test_they_pass_the_checks_that_trio_has_for_streams() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        return memory_stream_pair()

    async def make_clogged() -> tuple[MemoryStream, MemoryStream]:
        pair = memory_stream_pair(capacity=8)
        await pair[0].send_all(b"x" * 8)
        await pair[1].send_all(b"x" * 8)
        return pair

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_a_sender_waits_while_nobody_reads_and_goes_on_when_somebody_does() -> None:
    ours, theirs = memory_stream_pair(capacity=10)
    with trio.move_on_after(5) as scope:
        await ours.send_all(b"0123456789abcdef")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"end")
        got = b""
        while not got.endswith(b"end"):
            got += await theirs.receive_some(4)
    assert got == b"0123456789end"


async def test_after_a_close_the_other_end_reads_the_rest_and_then_the_end() -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"last")
    ours.close()
    assert await theirs.receive_some() == b"last"
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


@pytest.mark.parametrize("waiting", ["receive", "send"])
async def test_a_reset_wakes_the_other_end_at_once_and_loses_what_it_had_not_read(waiting: str) -> None:
    ours, theirs = memory_stream_pair(capacity=4)

    async def wait() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await (theirs.receive_some() if waiting == "receive" else theirs.send_all(b"much too much"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        if waiting == "send":
            await ours.send_all(b"lost")
        ours.reset()
    with pytest.raises(trio.BrokenResourceError):
        await theirs.receive_some()
    ours.reset()
    ours.close()
    assert ours.closed
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
