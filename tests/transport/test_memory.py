"""The memory connector and the hooks of the memory transport; its port is tested in test_conformance.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from layr8_actors.errors import ConnectFailed, TransportClosed
from layr8_actors.transport import Connector, Endpoint, MemoryConnector, MemoryTransport, memory_pair

MakeEndpoint = Callable[..., Endpoint]


async def test_dial_hands_the_other_end_to_accept(endpoint: MakeEndpoint) -> None:
    accepted: list[tuple[MemoryTransport, Endpoint]] = []

    async def accept(peer: MemoryTransport, dialled: Endpoint) -> None:
        accepted.append((peer, dialled))

    connector = MemoryConnector(accept)
    assert isinstance(connector, Connector)
    wanted = endpoint()
    async with trio.open_nursery() as nursery:
        transport = await connector.open(nursery, wanted)
        peer, dialled = accepted[0]
        assert dialled is wanted
        await peer.send(["hello"])
        assert await transport.receive() == ["hello"]
        await transport.close(timeout=1)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


async def test_accept_may_refuse(endpoint: MakeEndpoint) -> None:
    async def accept(_peer: MemoryTransport, dialled: Endpoint) -> None:
        raise ConnectFailed(dialled.public_url, "refused", status=403)

    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed) as caught:
            await MemoryConnector(accept).open(nursery, endpoint())
        assert caught.value.status == 403
        assert not nursery.child_tasks


async def test_accept_that_hangs_meets_the_open_timeout(endpoint: MakeEndpoint) -> None:
    peers: list[MemoryTransport] = []

    async def accept(peer: MemoryTransport, _dialled: Endpoint) -> None:
        peers.append(peer)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="timed out after 7 s"):
            await MemoryConnector(accept).open(nursery, endpoint(open_timeout=7))
        assert trio.current_time() == 7
        with trio.move_on_after(1) as scope:
            await MemoryConnector(accept).open(nursery, endpoint())
        assert scope.cancelled_caught
        assert not nursery.child_tasks
    for peer in peers:
        with pytest.raises(TransportClosed):
            await peer.receive()


async def test_transport_ends_with_its_nursery(endpoint: MakeEndpoint) -> None:
    peers: list[MemoryTransport] = []

    async def accept(peer: MemoryTransport, _dialled: Endpoint) -> None:
        peers.append(peer)

    async with trio.open_nursery() as nursery:
        await MemoryConnector(accept).open(nursery, endpoint())
        nursery.cancel_scope.cancel()
    with pytest.raises(TransportClosed) as caught:
        await peers[0].receive()
    assert caught.value.code == 1006


async def test_send_waits_for_room_at_the_peer() -> None:
    ours, theirs = memory_pair(capacity=2)
    with trio.move_on_after(1) as scope:
        await ours.send(["a", "b", "c"])
    assert scope.cancelled_caught
    assert await theirs.receive() == ["a", "b"]
    await ours.send(["d"])
    assert await theirs.receive() == ["d"]


@pytest.mark.parametrize("point", ["receive", "send"])
async def test_hung_call_waits_until_released(point: str) -> None:
    ours, theirs = memory_pair()
    await theirs.send(["x"])
    ours.hang(point)  # type: ignore[arg-type]
    call = ours.receive if point == "receive" else lambda: ours.send(["y"])
    with trio.move_on_after(1) as scope:
        await call()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        ours.release(point)  # type: ignore[arg-type]
    ours.release(point)  # type: ignore[arg-type]


async def test_hung_close_meets_its_deadline() -> None:
    ours, theirs = memory_pair()
    ours.hang("close")
    await ours.close(timeout=5)
    assert trio.current_time() == 5
    with pytest.raises(TransportClosed) as caught:
        await theirs.receive()
    assert caught.value.code == 1006


@pytest.mark.parametrize("point", ["receive", "send"])
async def test_hung_call_is_freed_by_abort(point: str) -> None:
    ours, _theirs = memory_pair()
    ours.hang(point)  # type: ignore[arg-type]

    async def call() -> None:
        with pytest.raises(TransportClosed):
            await (ours.receive() if point == "receive" else ours.send(["y"]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        ours.abort()


@pytest.mark.parametrize("point", ["receive", "send"])
async def test_failing_call_breaks_the_link_for_both_sides(point: str) -> None:
    ours, theirs = memory_pair()
    ours.fail(point, 1012, "restart")  # type: ignore[arg-type]
    with pytest.raises(TransportClosed) as caught:
        await (ours.receive() if point == "receive" else ours.send(["y"]))
    assert (caught.value.code, caught.value.reason, caught.value.detail) == (1012, "restart", "injected")
    with pytest.raises(TransportClosed):
        await theirs.receive()


async def test_failing_close_still_never_raises() -> None:
    ours, theirs = memory_pair()
    ours.fail("close")
    await ours.close(timeout=5)
    with pytest.raises(TransportClosed) as caught:
        await theirs.receive()
    assert caught.value.code == 1006
