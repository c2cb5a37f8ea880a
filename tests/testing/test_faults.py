"""Each fault of FaultProxy as both ends see it: plain streams, over memory and over real sockets."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.errors import InvalidOption, NotConnected
from layr8_actors.testing import CloudNode, FaultProxy, RawClient, memory_stream_pair

Connect = Callable[[], Awaitable[tuple[Any, Any]]]
both = pytest.mark.parametrize("memory", [True, False], ids=["memory", "tcp"])


@contextlib.asynccontextmanager
async def proxied(memory: bool, seed: int = 0) -> AsyncIterator[tuple[FaultProxy, Connect]]:
    """A proxy, and a function that connects through it and returns the client's end and the node's."""
    if memory:
        ends: list[Any] = []

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = memory_stream_pair()
            ends.append(theirs)
            return ours

        async with FaultProxy("", 0, seed=seed, memory=True, open_stream=open_stream) as proxy:

            async def connect() -> tuple[Any, Any]:
                client = await proxy.open_stream()
                return client, ends.pop()

            yield proxy, connect
        return
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(listener)
        proxy = FaultProxy("127.0.0.1", listener.socket.getsockname()[1], seed=seed)
        await stack.enter_async_context(proxy)

        async def connect_by_tcp() -> tuple[Any, Any]:
            client = await stack.enter_async_context(await proxy.open_stream())
            node = await stack.enter_async_context(await listener.accept())
            await wait_all_tasks_blocked()  # the proxy hears a moment later that its own dial succeeded
            return client, node

        yield proxy, connect_by_tcp


async def read(stream: Any, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = await stream.receive_some(size - len(got))
        if not data:
            break
        got += data
    return got


async def hears_nothing(stream: Any, seconds: float = 3600) -> bool:
    with trio.move_on_after(seconds) as scope:
        await stream.receive_some(1)
    return scope.cancelled_caught


def open_descriptors() -> int:
    """Of this process; 0 where the system does not show them."""
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


async def is_reset(stream: Any) -> bool:
    try:
        await stream.receive_some(1)
    except trio.BrokenResourceError:
        return True
    return False


# --- a network that works ---------------------------------------------------------------------------------------------


@both
async def test_without_a_fault_bytes_pass_both_ways_and_are_counted(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        await client.send_all(b"question")
        assert await read(node, 8) == b"question"
        await node.send_all(b"answer")
        assert await read(client, 6) == b"answer"
        await wait_all_tasks_blocked(0.01)
        statistics = proxy.statistics()
        assert (statistics.connections, statistics.live) == (1, 1)
        assert (statistics.bytes_to_node, statistics.bytes_to_client, statistics.faults) == (8, 6, {})
        await client.aclose()
        assert await node.receive_some(1) == b""
        await node.aclose()
        await wait_all_tasks_blocked(0.01)
        statistics = proxy.statistics()
        assert (statistics.connections, statistics.live) == (1, 0)
        assert (statistics.bytes_to_node, statistics.bytes_to_client) == (8, 6)


@both
async def test_a_half_close_passes_while_the_other_way_goes_on(memory: bool) -> None:
    async with proxied(memory) as (_, connect):
        client, node = await connect()
        await client.send_all(b"last")
        await client.send_eof()
        assert await read(node, 100) == b"last"
        await node.send_all(b"still here")
        assert await read(client, 10) == b"still here"


@both
async def test_a_sender_waits_while_the_other_end_does_not_read_and_all_of_it_arrives(memory: bool) -> None:
    sent = os.urandom(5_000_000)
    async with proxied(memory) as (proxy, connect), trio.open_nursery() as nursery:
        client, node = await connect()
        nursery.start_soon(client.send_all, sent)
        await wait_all_tasks_blocked(0.01)
        (connection,) = proxy.connections
        assert connection.bytes_from_client < len(sent)
        assert await read(node, len(sent)) == sent


@both
async def test_a_reset_of_one_end_reaches_the_other(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy_end = proxy.connections[0]
        proxy_end.half_open("node")  # the shortest way to a reset of one end alone
        assert await is_reset(node)
        assert await hears_nothing(client)


async def test_leaving_the_block_ends_every_connection_and_leaves_no_task_and_no_file_descriptor() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = open_descriptors()
    for memory in (True, False):
        async with proxied(memory) as (proxy, connect):
            pairs = [await connect() for _ in range(3)]
            proxy.half_open("client", proxy.connections[0])
            proxy.stall(connection=proxy.connections[1])
            await proxy.ignore_dials()
            waiting = await proxy.open_stream()
        for client, node in pairs[1:]:
            await client.aclose()
            await node.aclose()
        await pairs[0][0].aclose()
        await pairs[0][1].aclose()
        await waiting.aclose()
        assert proxy.connections == ()
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_descriptors() == descriptors


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with proxied(True) as (_, connect):
            await connect()
            raise KeyError("mine")


@both
async def test_a_node_that_refuses_is_a_refusal_to_the_client(memory: bool) -> None:
    async with CloudNode(memory=memory) as node, FaultProxy.around(node) as proxy:
        await node.stop()
        if memory:
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
        else:
            async with await proxy.open_stream() as stream:
                assert await is_reset(stream)
        assert proxy.statistics().refused == 1
        await node.start()
        async with RawClient.connect(node, open_stream=proxy.open_stream):
            assert len(proxy.connections) == 1


# --- slow -------------------------------------------------------------------------------------------------------------


@both
async def test_latency_delays_each_way_on_its_own_and_keeps_the_throughput(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        proxy.delay(2.0, direction="to_node")
        client, node = await connect()
        began = trio.current_time()
        for _ in range(3):
            await client.send_all(b"x")
            await trio.sleep(0.5)
        assert await read(node, 1) == b"x"
        assert trio.current_time() - began == pytest.approx(2.0)
        assert await read(node, 2) == b"xx"
        assert trio.current_time() - began == pytest.approx(3.0)
        await node.send_all(b"y")
        assert await read(client, 1) == b"y"
        assert trio.current_time() - began == pytest.approx(3.0)


@both
async def test_jitter_is_drawn_from_the_seed_and_never_reorders(memory: bool) -> None:
    async def arrivals(seed: int) -> list[float]:
        async with proxied(memory, seed) as (proxy, connect):
            proxy.delay(1.0, jitter=1.0)
            client, node = await connect()
            times = []
            for number in range(6):
                began = trio.current_time()
                await client.send_all(bytes([number]))
                assert await read(node, 1) == bytes([number])
                times.append(round(trio.current_time() - began, 6))
            for number in range(20):
                await client.send_all(bytes([number]))
                await wait_all_tasks_blocked()
            assert await read(node, 20) == bytes(range(20))
            return times

    first = await arrivals(1)
    assert all(1.0 <= seconds <= 2.0 for seconds in first)
    assert len(set(first)) == 6
    assert await arrivals(1) == first
    assert await arrivals(2) != first


@both
async def test_a_narrow_line_lets_so_many_bytes_a_second_through(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        proxy.throttle(1000, direction="to_client")
        client, node = await connect()
        began = trio.current_time()
        await node.send_all(b"x" * 5000)  # it is on its way at once,
        assert trio.current_time() == began
        assert await read(client, 5000) == b"x" * 5000  # and arrives in its time
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.2)


@both
async def test_a_slow_reader_takes_so_many_bytes_a_second_and_then_none(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        proxy.read_slowly(1000, direction="to_node")
        client, node = await connect()
        (connection,) = proxy.connections
        await client.send_all(b"x" * 5000)
        await trio.sleep(2.01)
        assert connection.bytes_from_client == pytest.approx(2000, abs=60)
        proxy.read_slowly(0, direction="to_node")
        taken = connection.bytes_from_client
        await trio.sleep(1000)
        assert connection.bytes_from_client == taken
        proxy.heal()
        assert await read(node, 5000) == b"x" * 5000


@both
async def test_a_reader_that_reads_nothing_blocks_the_sender_in_the_end(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        proxy.read_slowly(0)
        client, node = await connect()
        sent = b"x" * 5_000_000
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            @nursery.start_soon
            async def send() -> None:
                await client.send_all(sent)
                done.set()

            await trio.sleep(3600)
            assert not done.is_set()
            assert proxy.statistics().bytes_to_node == 0
            proxy.heal()
            assert len(await read(node, len(sent))) == len(sent)
            await done.wait()


# --- held back, or thrown away ----------------------------------------------------------------------------------------


@both
async def test_a_stall_holds_bytes_and_the_end_back_and_releases_all_of_it_in_order(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.stall(direction="to_node")
        await client.send_all(b"one")
        await client.send_all(b"two")
        await client.send_eof()
        assert await hears_nothing(node)
        await node.send_all(b"other way")
        assert await read(client, 9) == b"other way"
        proxy.release()
        assert await read(node, 100) == b"onetwo"


@both
async def test_one_way_silence_throws_that_way_away_and_a_hole_never_heals(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.silence("to_client")
        await node.send_all(b"lost")
        await client.send_all(b"heard")
        assert await read(node, 5) == b"heard"
        assert await hears_nothing(client)
        assert proxy.connections[0].broken
        proxy.heal()
        await node.send_all(b"lost too, for a stream has no holes")
        assert await hears_nothing(client)
        second, its_node = await connect()
        await its_node.send_all(b"well")
        assert await read(second, 4) == b"well"


@both
async def test_silence_that_threw_nothing_away_heals(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.silence("to_client")
        await trio.sleep(100)
        assert not proxy.connections[0].broken
        proxy.heal()
        await node.send_all(b"well")
        assert await read(client, 4) == b"well"


@both
async def test_in_a_silent_direction_the_end_of_the_connection_is_not_heard_either(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.silence("to_client")
        await node.aclose()
        assert await hears_nothing(client)
        await client.send_all(b"into the void")
        assert await hears_nothing(client)


# --- gone -------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("gone", ["client", "node"])
async def test_a_half_open_connection_has_lost_one_end_and_the_other_one_does_not_know(memory: bool, gone: Any) -> None:
    async with proxied(memory) as (proxy, connect):
        ends = dict(zip(("client", "node"), await connect(), strict=True))
        left = ends.pop(gone)
        (other,) = ends.values()
        proxy.half_open(gone)
        assert await is_reset(left)
        await other.send_all(b"anybody there?")
        assert await hears_nothing(other)
        assert len(proxy.connections) == 1
        await other.aclose()
        await wait_all_tasks_blocked(0.01)
        assert proxy.connections == ()


@both
async def test_a_reset_breaks_both_ends(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.reset()
        assert await is_reset(client)
        assert await is_reset(node)
        assert proxy.connections == ()


@both
async def test_a_drop_ends_both_ends_without_a_reset(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.drop()
        assert await client.receive_some(1) == b""
        assert await node.receive_some(1) == b""


@both
async def test_a_truncation_cuts_after_so_many_bytes(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.truncate("to_node", after=7)
        assert proxy.statistics().faults == {}
        await client.send_all(b"12345")
        assert await read(node, 5) == b"12345"
        await client.send_all(b"67890")
        assert await read(node, 100) == b"67"
        assert await client.receive_some(1) == b""
        assert proxy.statistics().faults == {"truncate": 1}


async def test_a_truncation_without_a_number_cuts_within_the_next_piece_at_a_point_of_the_seed() -> None:
    async def arrived(seed: int) -> int:
        async with proxied(True, seed) as (proxy, connect):
            client, node = await connect()
            proxy.truncate("to_client")
            await node.send_all(b"x" * 1000)
            return len(await read(client, 1000))

    cuts = [await arrived(seed) for seed in range(5)]
    assert all(0 < cut < 1000 for cut in cuts)
    assert len(set(cuts)) == 5
    assert [await arrived(seed) for seed in range(5)] == cuts


@both
async def test_a_truncation_with_a_reset(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        client, node = await connect()
        proxy.truncate("to_node", after=3, reset=True)
        await client.send_all(b"12345")
        await wait_all_tasks_blocked(0.01)
        assert await is_reset(client)
        with contextlib.suppress(trio.BrokenResourceError):
            assert len(await read(node, 5)) <= 3


# --- a dead accept queue ----------------------------------------------------------------------------------------------


@both
async def test_a_dead_accept_queue_accepts_dials_and_never_answers_until_it_does(memory: bool) -> None:
    async with proxied(memory) as (proxy, _):
        await proxy.ignore_dials()
        async with await proxy.open_stream() as stream:
            await stream.send_all(b"hello?")
            assert await hears_nothing(stream)
            assert proxy.statistics().connections == 0
            proxy.answer_dials()
            await wait_all_tasks_blocked(0.01)
        assert proxy.statistics().connections == 1
        assert proxy.statistics().faults == {"ignore_dials": 1}


@both
async def test_a_full_accept_queue_lets_the_dial_itself_hang_until_it_has_room(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        await proxy.ignore_dials(accepted=False)
        for _ in range(3):
            with trio.move_on_after(100) as scope:
                await proxy.open_stream()
            assert scope.cancelled_caught
        proxy.answer_dials()
        client, node = await connect()
        await client.send_all(b"well")
        assert await read(node, 4) == b"well"


@both
@pytest.mark.parametrize("turns", range(12))
async def test_dials_may_be_answered_again_while_the_queue_is_still_being_filled(memory: bool, turns: int) -> None:
    async with proxied(memory) as (proxy, connect):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: proxy.ignore_dials(accepted=False))
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            proxy.answer_dials()
        proxy.answer_dials()  # where it came before anything was ignored
        client, node = await connect()
        await client.send_all(b"well")
        assert await read(node, 4) == b"well"


# --- for one, for all -------------------------------------------------------------------------------------------------


@both
async def test_a_fault_for_one_connection_leaves_the_others_alone(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        first, _ = await connect()
        second, its_node = await connect()
        chosen = proxy.connections[0]
        proxy.stall(connection=chosen)
        await second.send_all(b"passes")
        assert await read(its_node, 6) == b"passes"
        assert chosen.conditions("to_node").stalled
        third, third_node = await connect()
        await third.send_all(b"passes")
        assert await read(third_node, 6) == b"passes"
        proxy.reset(chosen)
        assert await is_reset(first)
        assert len(proxy.connections) == 2
        assert proxy.statistics().faults == {"stall": 1, "reset": 1}


@both
async def test_a_fault_for_all_holds_for_the_connections_to_come(memory: bool) -> None:
    async with proxied(memory) as (proxy, connect):
        proxy.stall()
        client, node = await connect()
        await client.send_all(b"x")
        assert await hears_nothing(node)
        proxy.heal()
        assert await read(node, 1) == b"x"
        second, its_node = await connect()
        await second.send_all(b"y")
        assert await read(its_node, 1) == b"y"


async def test_what_another_connection_does_changes_nothing_of_what_is_drawn() -> None:
    async def delays(others: int) -> list[float]:
        async with proxied(True, 5) as (proxy, connect):
            proxy.delay(0.0, jitter=1.0)
            client, node = await connect()
            more = [await connect() for _ in range(others)]
            times = []
            for _ in range(4):
                for other, _ in more:
                    await other.send_all(b"noise")
                began = trio.current_time()
                await client.send_all(b"x")
                await read(node, 1)
                times.append(round(trio.current_time() - began, 6))
            return times

    assert await delays(0) == await delays(2)


async def test_a_fault_that_hits_nobody_is_an_error() -> None:
    async with proxied(True) as (proxy, connect):
        for fault in (proxy.reset, proxy.drop, lambda: proxy.half_open("node"), lambda: proxy.truncate("to_node")):
            with pytest.raises(NotConnected):
                fault()
        await connect()
        (connection,) = proxy.connections
        proxy.reset()
        with pytest.raises(NotConnected):
            proxy.stall(connection=connection)


async def test_options_and_arguments_are_checked() -> None:
    with pytest.raises(InvalidOption):
        FaultProxy("", 0, memory=True)
    async with proxied(True) as (proxy, connect):
        await connect()
        for call in (
            lambda: proxy.delay(-1),
            lambda: proxy.delay(1, jitter=math.nan),
            lambda: proxy.throttle(0),
            lambda: proxy.read_slowly(-1),
            lambda: proxy.silence("sideways"),  # type: ignore[arg-type]
            lambda: proxy.truncate("to_node", after=-1),
            lambda: proxy.truncate("up"),  # type: ignore[arg-type]
            lambda: proxy.half_open("both"),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidOption):
                call()


async def test_a_connection_that_is_cut_before_it_first_runs_is_cut_all_the_same() -> None:
    async with proxied(True) as (proxy, connect):
        client, node = await connect()
        proxy.reset()
        assert await is_reset(client)
        assert await is_reset(node)
        assert await connect()


async def test_streams_that_are_neither_tcp_nor_memory_are_cut_and_half_opened_too() -> None:
    import trio.testing as trio_testing

    ours, theirs = trio_testing.memory_stream_pair()
    reserve, reserve_end = trio_testing.memory_stream_pair()
    ends = [ours, reserve]

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ends.pop(0)

    async with FaultProxy("", 0, memory=True, open_stream=open_stream) as proxy:
        client = await proxy.open_stream()
        await client.send_all(b"x")
        assert await read(theirs, 1) == b"x"
        proxy.half_open("node")
        assert await theirs.receive_some(1) == b""
        assert await hears_nothing(client)
        second = await proxy.open_stream()
        proxy.reset(proxy.connections[-1])
        assert await is_reset(second)
        assert await reserve_end.receive_some(1) == b""
