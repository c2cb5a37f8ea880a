"""What :class:`layr8_actors.transport.Transport` promises, for every adapter alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import TransportClosed
from layr8_actors.transport import Transport

Connect = Callable[..., Any]
BIG = "x" * (16 * 1024 * 1024)  # more than any socket buffer holds


async def receive_all(transport: Transport, count: int) -> list[str | bytes]:
    messages: list[str | bytes] = []
    while len(messages) < count:
        messages += await transport.receive()
    return messages


async def closed_error(transport: Transport) -> TransportClosed:
    with pytest.raises(TransportClosed) as caught:
        await transport.receive()
    return caught.value


async def test_adapter_satisfies_the_port(connect: Connect) -> None:
    async with connect() as link:
        assert isinstance(link.transport, Transport)
        assert link.transport.name in ("memory", "trio-websocket", "websockets")


async def test_messages_arrive_once_in_order_with_their_type(connect: Connect) -> None:
    sent: list[str | bytes] = ["a", b"\x00\xff", "", b"", "ü€😀", "z" * 70_000, b"y" * 70_000, *map(str, range(300))]
    async with connect() as link:
        link.nursery.start_soon(link.peer.send, sent)
        assert await receive_all(link.transport, len(sent)) == sent


async def test_send_writes_the_batch_in_order_with_types(connect: Connect) -> None:
    sent: list[str | bytes] = ["a", b"\x00\xff", "", b"", "ü€😀", "z" * 70_000, b"y" * 70_000, *map(str, range(300))]
    async with connect() as link, trio.open_nursery() as sending:  # the peer may have it all before send returns
        sending.start_soon(link.transport.send, sent)
        assert [await link.peer.receive() for _ in sent] == sent


async def test_what_came_together_is_received_as_one_batch(connect: Connect) -> None:
    async with connect() as link:
        async with trio.open_nursery() as nursery:
            batches: list[list[str | bytes]] = []

            async def receive() -> None:
                batches.append(await link.transport.receive())

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await link.peer.send([str(number) for number in range(100)])
        assert batches == [[str(number) for number in range(100)]]


async def test_empty_batch_writes_nothing(connect: Connect) -> None:
    async with connect() as link:
        await link.transport.send([])
        await link.transport.send(["only"])
        assert await link.peer.receive() == "only"


async def test_cancelled_receive_loses_nothing(connect: Connect) -> None:
    async with connect() as link:
        got: list[str | bytes] = []
        link.nursery.start_soon(link.peer.send, [str(number) for number in range(50)])
        for passes in range(200):
            if len(got) == 50:
                break
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel_after(count: int, scope: trio.CancelScope) -> None:
                        for _ in range(count):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel_after, passes % 7, scope)
                    got += await link.transport.receive()
        assert got == [str(number) for number in range(50)]


async def test_every_call_checkpoints(connect: Connect) -> None:
    async with connect() as link:
        await link.peer.send(["a", "b"])
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            assert "a" in await link.transport.receive()
        with trio.testing.assert_checkpoints():
            await link.transport.send([])
        with trio.testing.assert_checkpoints():
            await link.transport.send(["a"])
        link.nursery.start_soon(link.peer.closed)
        with trio.testing.assert_checkpoints():
            await link.transport.close(timeout=5)
        with trio.testing.assert_checkpoints():
            await link.transport.close(timeout=5)
        with trio.testing.assert_checkpoints(), pytest.raises(TransportClosed):
            await receive_all(link.transport, 10)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (1011, "ü"), (1012, ""), (4999, "own")])
async def test_peers_close_comes_after_its_messages_with_code_and_reason(
    connect: Connect, code: int, reason: str
) -> None:
    async with connect() as link:
        await link.peer.send(["one", "two"])
        await link.peer.close(code, reason)
        assert await receive_all(link.transport, 2) == ["one", "two"]
        first = await closed_error(link.transport)
        second = await closed_error(link.transport)
        assert (first.code, first.reason) == (code, reason)
        assert (second.code, second.reason) == (code, reason)
        assert first is not second
        with pytest.raises(TransportClosed) as caught:
            await link.transport.send(["late"])
        assert caught.value.code == code


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4000, "own")])
async def test_our_close_reaches_the_peer_with_code_and_reason(connect: Connect, code: int, reason: str) -> None:
    async with connect() as link:
        await link.transport.send(["last"])
        async with trio.open_nursery() as nursery:
            seen: list[Any] = []

            async def peer() -> None:
                seen.append(await link.peer.receive())
                seen.append(await link.peer.closed())

            nursery.start_soon(peer)
            await link.transport.close(code, reason, timeout=5)
        assert seen == ["last", (code, reason)]
        assert trio.current_time() == 0
        error = await closed_error(link.transport)
        assert (error.code, error.reason) == (code, reason)
        with pytest.raises(TransportClosed):
            await link.transport.send(["late"])


async def test_messages_that_arrived_before_our_close_are_still_received(connect: Connect) -> None:
    async with connect() as link:
        await link.peer.send(["kept"])
        await trio.testing.wait_all_tasks_blocked()
        link.nursery.start_soon(link.peer.closed)
        await link.transport.close(timeout=5)
        assert await link.transport.receive() == ["kept"]
        await closed_error(link.transport)


async def test_close_wakes_a_waiting_receiver(connect: Connect) -> None:
    async with connect() as link:
        async with trio.open_nursery() as nursery:
            errors: list[TransportClosed] = []

            async def receive() -> None:
                errors.append(await closed_error(link.transport))

            nursery.start_soon(receive)
            nursery.start_soon(link.peer.closed)
            await trio.testing.wait_all_tasks_blocked()
            await link.transport.close(timeout=5)
        assert errors[0].code == 1000


async def test_close_is_idempotent_also_concurrently_and_after_abort(connect: Connect) -> None:
    async with connect() as link:
        link.nursery.start_soon(link.peer.closed)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: link.transport.close(timeout=5))
        link.transport.abort()
        await link.transport.close(1001, "again", timeout=5)
        assert (await closed_error(link.transport)).code == 1000
        assert trio.current_time() == 0


async def test_close_keeps_its_deadline_against_a_peer_that_stopped_reading(connect: Connect) -> None:
    async with connect(narrow=True) as link:
        async with trio.open_nursery() as nursery:
            errors: list[TransportClosed] = []

            async def write() -> None:
                with pytest.raises(TransportClosed) as caught:
                    await link.transport.send([BIG, BIG])
                errors.append(caught.value)

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            await link.transport.close(timeout=5)
            assert trio.current_time() - before <= 5
        assert len(errors) == 1
        await closed_error(link.transport)
        await link.peer.gone()


async def test_close_that_is_cancelled_drops_the_link(connect: Connect) -> None:
    async with connect(narrow=True) as link:
        link.nursery.start_soon(_ignore_closed, link.transport.send, [BIG, BIG])
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await link.transport.close(timeout=60)
        assert trio.current_time() <= 1
        await closed_error(link.transport)
        await link.peer.gone()


async def _ignore_closed(function: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(TransportClosed):
        await function(*args)


async def test_close_in_a_cancelled_scope_leaves_no_socket(connect: Connect) -> None:
    async with connect() as link:
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.transport.close(timeout=60)
        assert scope.cancelled_caught
        await closed_error(link.transport)
        await link.peer.gone()


async def test_abort_drops_at_once_and_is_idempotent(connect: Connect) -> None:
    async with connect() as link:
        async with trio.open_nursery() as nursery:
            errors: list[TransportClosed] = []

            async def receive() -> None:
                errors.append(await closed_error(link.transport))

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            link.transport.abort()
            link.transport.abort()
        assert errors[0].code == 1006
        with pytest.raises(TransportClosed):
            await link.transport.send(["late"])
        code, _reason = await link.peer.closed()
        assert code == 1006
        assert trio.current_time() == 0


async def test_nothing_is_written_after_abort_even_in_the_same_pass(connect: Connect) -> None:
    async with connect() as link:
        link.transport.abort()
        with pytest.raises(TransportClosed):
            await link.transport.send(["late"])
        code, _reason = await link.peer.closed()
        assert code == 1006


async def test_abort_frees_a_writer_whose_peer_does_not_read(connect: Connect) -> None:
    async with connect(narrow=True) as link:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ignore_closed, link.transport.send, [BIG, BIG])
            await trio.testing.wait_all_tasks_blocked()
            link.transport.abort()
        assert trio.current_time() == 0


async def test_peer_that_resets_ends_receive_and_send_with_1006(connect: Connect) -> None:
    async with connect() as link:
        await link.peer.send(["before"])
        assert await link.transport.receive() == ["before"]
        link.peer.reset()
        assert (await closed_error(link.transport)).code == 1006
        with pytest.raises(TransportClosed) as caught:
            await link.transport.send(["late"])
        assert caught.value.code == 1006


async def test_peer_that_resets_ends_a_blocked_send(connect: Connect) -> None:
    async with connect(narrow=True) as link:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ignore_closed, link.transport.send, [BIG, BIG])
            await trio.testing.wait_all_tasks_blocked()
            link.peer.reset()
        assert (await closed_error(link.transport)).code == 1006


async def test_cancelled_nursery_ends_the_transport_and_leaves_no_task(
    connect: Connect, tasks_left: Callable[[], int]
) -> None:
    before = tasks_left()
    async with connect() as link:
        link.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            if link.transport.name == "memory":
                link.transport.abort()  # a bare pair lives in no nursery
            assert (await closed_error(link.transport)).code == 1006
            await link.peer.gone()
    assert tasks_left() == before


async def test_closed_transport_leaves_no_task(connect: Connect, tasks_left: Callable[[], int]) -> None:
    async with connect() as link:
        link.nursery.start_soon(link.peer.closed)
        await link.transport.close(timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        assert not link.nursery.child_tasks


async def test_a_test_that_fails_with_a_link_open_is_seen_to_fail(connect: Connect) -> None:
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        async with connect():
            raise ZeroDivisionError
