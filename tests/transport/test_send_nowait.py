"""Writing at once: all of a message, or none of it, or a beginning whose rest comes before anything else."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import TransportClosed
from layr8_actors.transport import Transport
from layr8_actors.transport.bare_socket import BareSocket, bare_socket
from layr8_actors.transport.websockets import WebSocketsConnector

Connect = Callable[..., Any]
STEPS = 8


def narrow(stream: trio.SocketStream) -> trio.SocketStream:
    """One whose kernel takes little: Linux doubles it, and has a least of its own."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return stream


@pytest.fixture
def connect_narrow(endpoint: Any, raw_peer: Any) -> Connect:
    """Opens a transport of websockets over TCP to a peer that reads only when it is asked to, both of small buffers."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[tuple[Any, Any, trio.SocketStream]]:
        ours: list[trio.SocketStream] = []

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            ours.append(narrow(await trio.open_tcp_stream(host, port)))
            return ours[0]

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = listener.socket.getsockname()[1]
        peers: list[Any] = []

        async def accept() -> None:
            peers.append(raw_peer(await listener.accept()))
            await peers[0].accept()

        async with trio.open_nursery() as nursery:
            async with listener, trio.open_nursery() as accepting:
                accepting.start_soon(accept)
                url = f"ws://127.0.0.1:{port}/socket"
                transport = await WebSocketsConnector(open_stream).open(nursery, endpoint(url))
            async with peers[0].stream:
                yield transport, peers[0], ours[0]

    return connect


def fill(transport: Transport) -> tuple[list[str], bool]:
    """Write until no more is taken; returns what was, and whether the last of it is whole."""
    sent: list[str] = []
    try:
        while True:
            message = f"{len(sent)}:" + "x" * 20_000
            whole = transport.send_nowait(message)
            sent.append(message)
            if not whole:
                return sent, False
    except trio.WouldBlock:
        return sent, True


async def filled(transport: Transport) -> list[str]:
    """Write until a message is begun and not finished; the odd buffer that ends with a frame is given another try."""
    sent, whole = fill(transport)
    while whole:
        more, whole = fill(transport)
        sent += more
        await trio.lowlevel.checkpoint()
    return sent


async def test_it_is_written_whole_and_in_order_with_what_is_sent_or_refused_and_then_not_at_all(
    connect: Connect,
) -> None:
    async with connect() as link:
        taken: list[str | bytes] = []
        for number in range(20):
            message: str | bytes = f"now {number}" if number % 2 else b"now %d" % number
            with trio.testing.assert_no_checkpoints():
                try:
                    assert link.transport.send_nowait(message)
                    taken.append(message)
                except trio.WouldBlock:
                    pass
            await link.transport.send([f"sent {number}"])
            taken.append(f"sent {number}")
        assert [await link.peer.receive() for _ in taken] == taken


async def test_over_plain_tcp_websockets_takes_a_lone_message_and_over_anything_else_it_does_not(
    connect_websocket: Connect, request: pytest.FixtureRequest
) -> None:
    async with connect_websocket() as link:
        if "websockets over TCP" in request.node.name:
            assert link.transport.send_nowait("ü")
            assert await link.peer.receive() == "ü"
        else:
            with pytest.raises(trio.WouldBlock):
                link.transport.send_nowait("ü")
        with pytest.raises(trio.WouldBlock):
            link.transport.send_nowait("x" * 1_000_000)


async def test_after_the_end_however_it_came_it_refuses(connect: Connect) -> None:
    async with connect() as link:
        link.transport.abort()
        with pytest.raises(trio.WouldBlock):
            link.transport.send_nowait("late")
    async with connect() as link:
        link.nursery.start_soon(link.peer.closed)
        await link.transport.close(timeout=5)
        with pytest.raises(trio.WouldBlock):
            link.transport.send_nowait("late")
    async with connect() as link:
        await link.peer.close(1001, "away")
        with pytest.raises(TransportClosed):
            await link.transport.receive()
        with pytest.raises(trio.WouldBlock):
            link.transport.send_nowait("late")


async def test_the_rest_of_what_was_begun_is_written_first_by_whoever_sends_next(connect_narrow: Connect) -> None:
    async with connect_narrow() as (transport, peer, _), trio.open_nursery() as nursery:
        sent = await filled(transport)
        for _ in range(3):  # nothing may come in between
            with pytest.raises(trio.WouldBlock):
                transport.send_nowait("not now")
        written: list[str] = []

        async def finish() -> None:
            await transport.send(["behind"])
            written.append("behind")

        nursery.start_soon(finish)
        await trio.testing.wait_all_tasks_blocked()
        assert not written  # as much as any write, it waits for a peer that does not read
        got = [await peer.receive() for _ in range(len(sent) + 1)]
        assert got == [*sent, "behind"]
        assert transport.send_nowait("and again")
        assert await peer.receive() == "and again"


async def test_an_empty_batch_writes_the_rest_and_waits_until_it_is_written(connect_narrow: Connect) -> None:
    async with connect_narrow() as (transport, peer, _):
        sent = await filled(transport)
        finished = trio.Event()

        async def finish() -> None:
            await transport.send([])
            finished.set()

        async with trio.open_nursery() as writing:
            writing.start_soon(finish)
            await trio.testing.wait_all_tasks_blocked()
            assert not finished.is_set()
            assert [await peer.receive() for _ in sent] == sent
        assert transport.send_nowait("next")
        assert await peer.receive() == "next"


async def test_the_rest_whose_writing_is_cancelled_ends_the_link_and_no_byte_follows_it(
    connect_narrow: Connect,
) -> None:
    async with connect_narrow() as (transport, peer, _), trio.open_nursery() as nursery:
        sent = await filled(transport)
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await transport.send(["never"])
        assert scope.cancelled_caught
        with pytest.raises(TransportClosed):
            await transport.receive()
        with pytest.raises(TransportClosed):
            await transport.send([])
        received = bytearray()
        with pytest.raises(trio.BrokenResourceError):  # closed with bytes unwritten: a reset, or else the end
            while data := await peer.stream.receive_some(65536):
                received += data
            raise trio.BrokenResourceError
        assert len(received) < sum(len(message) + 8 for message in sent)


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_close_writes_the_rest_before_the_close_frame(connect_narrow: Connect) -> None:
    async with connect_narrow() as (transport, peer, _):
        sent = await filled(transport)
        async with trio.open_nursery() as closing:
            closing.start_soon(lambda: transport.close(1000, "bye", timeout=5))
            assert [await peer.receive() for _ in sent] == sent
            assert await peer.closed() == (1000, "bye")


@pytest.mark.parametrize("what", ["reset", "abort", "socket closed"])
async def test_a_socket_that_goes_away_under_the_rest_is_told_to_who_writes_it(
    connect_narrow: Connect, what: str
) -> None:
    async with connect_narrow() as (transport, peer, stream), trio.open_nursery() as nursery:
        await filled(transport)

        async def strike() -> None:
            await trio.testing.wait_all_tasks_blocked()
            if what == "reset":
                peer.reset()
            elif what == "abort":
                transport.abort()
            else:
                await trio.aclose_forcefully(stream)

        nursery.start_soon(strike)
        with pytest.raises(TransportClosed):
            await transport.send([])
        with pytest.raises(trio.WouldBlock):
            transport.send_nowait("late")
        with pytest.raises(TransportClosed):
            await transport.receive()


@pytest.mark.parametrize("step", range(STEPS))
async def test_who_finishes_it_may_be_cancelled_at_any_step_and_the_peer_reads_whole_messages_or_the_end(
    connect_narrow: Connect, step: int
) -> None:
    async with connect_narrow() as (transport, peer, _):
        sent = await filled(transport)
        got: list[Any] = []

        async def read() -> None:
            try:
                while True:
                    got.append(await peer.receive())
            except AssertionError:  # of the peer: it is the end of the stream
                pass

        async with trio.open_nursery() as writing:
            writing.start_soon(read)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as one:
                    one.start_soon(_cancel_after, step, scope)
                    await transport.send(["behind"])
            transport.abort()
        assert got == [*sent, "behind"][: len(got)]
        if not scope.cancelled_caught:
            with pytest.raises(TransportClosed):
                await transport.send([])


async def _cancel_after(count: int, scope: trio.CancelScope) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# --- the bare socket --------------------------------------------------------------------------------------------------


async def pair() -> tuple[BareSocket, trio.SocketStream, trio.SocketStream]:
    """A bare socket, its stream, and the peer's."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        theirs = await listener.accept()
    bare = bare_socket(ours)
    assert bare is not None
    return bare, ours, theirs


async def test_a_bare_socket_reads_what_is_there_however_much_it_is_and_then_the_end() -> None:
    bare, ours, theirs = await pair()
    async with ours, trio.open_nursery() as nursery:
        data = bytes(range(256)) * 8192
        nursery.start_soon(theirs.send_all, data)
        got = bytearray()
        while len(got) < len(data):
            with trio.testing.assert_checkpoints():
                some = await bare.receive_some(256 * 1024)
            assert some
            got += some
        assert got == data
        await theirs.aclose()
        assert await bare.receive_some(10) == b""
        assert await bare.receive_some(10) == b""


async def test_a_bare_socket_that_was_full_waits_like_any_other_once_nothing_more_is_there() -> None:
    bare, ours, theirs = await pair()
    async with ours, theirs:
        await theirs.send_all(b"x" * (64 * 1024))
        left = 64 * 1024
        while left:
            left -= len(await bare.receive_some(256 * 1024))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, bare, b"y")
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_all(b"y")


async def _expect(bare: BareSocket, data: bytes) -> None:
    assert await bare.receive_some(10) == data


async def test_a_bare_socket_said_to_be_readable_that_is_not_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, ours, theirs = await pair()
    async with ours, theirs:
        calls: list[int] = []

        def read(descriptor: int, size: int) -> bytes:
            calls.append(size)
            if len(calls) == 1:
                raise BlockingIOError
            return socket.socket.recv(ours_again, size)

        with socket.socket(fileno=socket.dup(ours.socket.fileno())) as ours_again:
            monkeypatch.setattr("layr8_actors.transport.bare_socket.os.read", read)
            await theirs.send_all(b"z")
            assert await bare.receive_some(10) == b"z"
        assert len(calls) == 2


async def test_a_bare_socket_that_is_closed_or_reset_says_so_and_takes_nothing() -> None:
    bare, ours, theirs = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_closed_under, bare)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await bare.receive_some(10)
    assert bare.send_some(b"x") == 0
    await theirs.aclose()
    bare, ours, theirs = await pair()
    async with ours:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        theirs.socket.close()
        with pytest.raises(trio.BrokenResourceError):
            await bare.receive_some(10)
        assert bare.send_some(b"x") == 0


async def _closed_under(bare: BareSocket) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await bare.receive_some(10)


async def test_a_stream_that_is_none_of_tcp_itself_has_no_bare_socket() -> None:
    one, _ = trio.testing.memory_stream_pair()
    assert bare_socket(one) is None
