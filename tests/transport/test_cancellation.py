"""Whatever is cancelled, dropped or broken at any step of a busy link: nobody hangs, nothing stays, no byte is lost."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.events import AcceptConnection, Ping

from layr8_actors.errors import TransportClosed

Connect = Callable[..., Any]
STEPS = 10


async def passes(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


class Busy:
    """A link on which a receiver, two senders and the peer are at work, each in a scope of its own."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.scopes = {name: trio.CancelScope() for name in ("receiver", "sender", "other sender", "closer")}
        self.ended: list[str] = []

    async def run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        with self.scopes[name], contextlib.suppress(TransportClosed):
            await work()
        self.ended.append(name)

    async def receive(self) -> None:
        while True:
            await self.link.transport.receive()

    async def send(self) -> None:
        for _ in range(3):
            await self.link.transport.send(["small", "x" * 200_000])

    async def close(self) -> None:
        await passes(3)
        await self.link.transport.close(1000, "bye", timeout=5)

    async def peer(self, reads: bool) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
            await self.link.peer.stream.send_all(b"\x81\x01a\x89\x01?\x01\x01b\x89\x00\x80\x01c")
            if reads:
                while True:
                    await self.link.peer.receive()

    def strike(self, what: str) -> None:
        if what == "abort":
            self.link.transport.abort()
        elif what == "nursery":
            self.link.nursery.cancel_scope.cancel()
        elif what == "reset":
            self.link.peer.reset()
        else:
            self.scopes[what].cancel()


@pytest.mark.parametrize("reads", [True, False], ids=["peer reads", "peer is deaf"])
@pytest.mark.parametrize("what", ["abort", "nursery", "reset", "receiver", "sender", "closer"])
async def test_strike_at_any_step_of_a_busy_link_leaves_nobody_waiting_and_nothing_behind(
    connect_websocket: Connect, what: str, reads: bool
) -> None:
    for step in range(STEPS):
        async with connect_websocket(narrow=True) as link:
            busy = Busy(link)
            began = trio.current_time()
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(busy.run, "receiver", busy.receive)
                    nursery.start_soon(busy.run, "sender", busy.send)
                    nursery.start_soon(busy.run, "other sender", busy.send)
                    nursery.start_soon(busy.peer, reads)
                    if what == "closer":
                        nursery.start_soon(busy.run, "closer", busy.close)
                    await passes(step)
                    busy.strike(what)
                    await trio.testing.wait_all_tasks_blocked()
                    if what in ("abort", "nursery", "closer") and step > 6:
                        assert {"receiver", "sender", "other sender"} <= set(busy.ended)
                        assert trio.current_time() == began
                    await link.transport.close(timeout=5)
                    await link.transport.close(timeout=5)
                    assert trio.current_time() <= began + 5
                    if what != "reset" and not reads:
                        await link.peer.gone()
                    await trio.testing.wait_all_tasks_blocked()
                    assert {"receiver", "sender", "other sender"} <= set(busy.ended)
                    nursery.cancel_scope.cancel()
                with pytest.raises(TransportClosed):
                    await link.transport.send(["late"])
                await trio.testing.wait_all_tasks_blocked()
                assert not link.nursery.child_tasks


@pytest.mark.parametrize("piece", [1, 2, 5, 50])
async def test_receive_cancelled_again_and_again_loses_no_byte_of_frames_cut_anywhere(
    connect_websocket: Connect, piece: int
) -> None:
    async with connect_websocket() as link:
        stream = b"".join(
            b"\x81\x03%03d" % number
            + b"\x89\x01?" * (number % 3 == 0)
            + b"\x02\x01x\x8a\x00\x80\x01y" * (number % 5 == 0)
            + b"\x82\x7e\x01\x00" * (number % 7 == 0)
            + b"z" * 256 * (number % 7 == 0)
            for number in range(40)
        )
        expected: list[str | bytes] = []
        for number in range(40):
            expected += [f"{number:03}"]
            expected += [b"xy"] * (number % 5 == 0)
            expected += [b"z" * 256] * (number % 7 == 0)

        async def write() -> None:
            for at in range(0, len(stream), piece):
                await link.peer.stream.send_all(stream[at : at + piece])

        async def cancel_after(count: int, scope: trio.CancelScope) -> None:
            await passes(count)
            scope.cancel()

        got: list[str | bytes] = []
        link.nursery.start_soon(write)
        turns = 0
        while len(got) < len(expected):
            turns += 1
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, turns % 9, scope)
                    got += await link.transport.receive()
        assert got == expected


async def test_two_receivers_get_each_message_once_also_when_the_one_that_reads_is_cancelled(
    connect_websocket: Connect,
) -> None:
    async with connect_websocket() as link:
        got: list[Any] = []
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def receive(scope: trio.CancelScope) -> None:
            with scope:
                while True:
                    got.extend(await link.transport.receive())

        for scope in scopes:
            link.nursery.start_soon(receive, scope)
            await trio.testing.wait_all_tasks_blocked()
        await link.peer.send(["1"])
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        await link.peer.send(["2", "3"])
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == ["1", "2", "3"]


async def test_receiver_that_comes_while_the_link_reads_ahead_takes_over(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await trio.sleep(5)  # nobody has received for long
        got: list[Any] = []

        async def receive() -> None:
            for _ in range(3):
                got.append(await link.transport.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for number in range(3):
                await trio.testing.wait_all_tasks_blocked()
                await link.peer.send([str(number)])
        assert got == [["0"], ["1"], ["2"]]


async def test_ping_is_answered_after_a_receiver_has_left(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        for round_, seconds in enumerate((10.5, 0.5, 5.5)):  # first of all one that has waited for long
            with trio.move_on_after(seconds):
                await link.transport.receive()
            await link.peer.write(Ping(payload=b"%d" % round_))
            began = trio.current_time()
            assert (await link.peer.event()).payload == b"%d" % round_
            assert trio.current_time() <= began + 1


async def test_peers_end_is_noticed_though_nobody_receives(
    connect_websocket: Connect, tasks_left: Callable[[], int]
) -> None:
    async with connect_websocket() as link:
        await link.peer.send(["unread"])
        await link.peer.close(1012, "restart")
        await trio.sleep(2)
        assert not link.nursery.child_tasks
        assert await link.transport.receive() == ["unread"]
        with pytest.raises(TransportClosed):
            await link.transport.receive()


@pytest.mark.parametrize("count", range(0, 60, 2))
async def test_cancellation_at_any_pass_of_a_tls_dial_leaves_nothing_or_an_open_link(
    connector: Any, endpoint: Any, raw_peer: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext], count: int
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = tls

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        with contextlib.suppress(trio.BrokenResourceError, AssertionError):
            await raw_peer(trio.SSLStream(theirs, server, server_side=True, https_compatible=True)).accept()

    async def cancel(scope: trio.CancelScope) -> None:
        await passes(count)
        scope.cancel()

    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        peers.start_soon(serve)
        transport = None
        with trio.CancelScope() as scope:
            peers.start_soon(cancel, scope)
            transport = await connector(open_stream).open(nursery, endpoint("wss://node.test/", ssl_context=client))
        if transport is not None:
            transport.abort()
            with pytest.raises(TransportClosed):
                await transport.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some(1)
        peers.cancel_scope.cancel()


async def test_tls_peer_that_cuts_the_connection_without_close_notify_is_1006(
    connector: Any, endpoint: Any, raw_peer: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = tls

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        peer = raw_peer(trio.SSLStream(theirs, server, server_side=True, https_compatible=True))
        event = await peer.event()
        assert event is not None
        await peer.write(AcceptConnection())
        await peer.send(["last"])
        await theirs.send_stream.aclose()  # no close_notify

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        transport = await connector(open_stream).open(nursery, endpoint("wss://node.test/", ssl_context=client))
        assert await transport.receive() == ["last"]
        with pytest.raises(TransportClosed) as caught:
            await transport.receive()
        assert caught.value.code == 1006
