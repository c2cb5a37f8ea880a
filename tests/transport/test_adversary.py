"""Every WebSocket adapter in the moments that a peer, or a caller, would choose to do harm."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.events import AcceptConnection, Ping

from layr8_actors.errors import TransportClosed
from layr8_actors.transport.websockets import WebSocketsConnector

Connect = Callable[..., Any]


async def closed_error(transport: Any) -> TransportClosed:
    with pytest.raises(TransportClosed) as caught:
        await transport.receive()
    return caught.value


async def test_close_frame_amid_a_fragmented_message_gives_the_peers_code(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.stream.send_all(b"\x81\x01a\x01\x01b\x89\x00\x00\x01c\x88\x04\x03\xf4up")
        assert await link.transport.receive() == ["a"]
        error = await closed_error(link.transport)
        assert (error.code, error.reason) == (1012, "up")


async def test_fragments_with_control_frames_between_them_are_one_message(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.stream.send_all(b"\x01\x01\xc3\x89\x02hi\x00\x01\xbc\x8a\x00\x80\x00\x02\x01b\x80\x01c")
        got: list[Any] = []
        while len(got) < 2:
            got += await link.transport.receive()
        assert got == ["ü", b"bc"]
        await link.transport.send(["still open"])


@pytest.mark.parametrize("fragment", [b"\x00\x00", b"\x00\x01x"])
async def test_fragments_without_end_cost_no_more_than_their_bytes(connect_websocket: Connect, fragment: bytes) -> None:
    async with connect_websocket() as link:
        await link.peer.stream.send_all(b"\x01\x00")
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        before = len(gc.get_objects())
        await link.peer.stream.send_all(fragment * 20_000)
        await link.peer.stream.send_all(b"\x89\x01!")
        await link.peer.event()
        gc.collect()
        assert len(gc.get_objects()) - before < 2_000


async def test_pings_to_a_blocked_writer_are_not_hoarded(connect_websocket: Connect) -> None:
    async with connect_websocket(narrow=True) as link:
        link.nursery.start_soon(link.transport.send, ["x" * (16 * 1024 * 1024)])
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            for _ in range(200):
                await link.peer.stream.send_all((b"\x89\x7d" + b"p" * 125) * 100)
        await trio.testing.wait_all_tasks_blocked()
        queued = link.transport._writer._queued if link.transport.name == "websockets" else []
        assert sum(map(len, queued)) < 300_000


class Deaf(trio.abc.Stream):
    """Cannot be written to any more once told so, and can still be read from."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken:
            raise trio.BrokenResourceError
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_pings_after_a_failed_write_are_not_hoarded(endpoint: Any, raw_peer: Any) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = Deaf(ours)

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return stream

    peer = raw_peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        transport = await WebSocketsConnector(open_stream).open(nursery, endpoint())
        await trio.testing.wait_all_tasks_blocked()
        stream.broken = True
        with pytest.raises(TransportClosed):
            await transport.send(["into the void"])
        for _ in range(50):
            await theirs.send_all((b"\x89\x7d" + b"p" * 125) * 100)
            await trio.sleep(0.05)
        assert sum(map(len, transport._writer._queued)) < 1000
        await theirs.send_all(b"\x81\x04last")
        assert await transport.receive() == ["last"]
        transport.abort()


@pytest.mark.parametrize("receiving", [True, False])
async def test_silent_peer_that_cannot_be_written_to_is_given_up_at_once(
    connector: Any, endpoint: Any, raw_peer: Any, receiving: bool
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = Deaf(ours)

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return stream

    peer = raw_peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        transport = await connector(open_stream).open(nursery, endpoint())
        await trio.sleep(10)
        async with trio.open_nursery() as receivers:
            if receiving:
                receivers.start_soon(closed_error, transport)
                await trio.sleep(10)
            began = trio.current_time()
            stream.broken = True
            with pytest.raises(TransportClosed):
                await transport.send(["into the void"])
            await trio.sleep(0.5)
            await trio.testing.wait_all_tasks_blocked()
            assert not [task for task in nursery.child_tasks if "run" in task.name]
        await closed_error(transport)
        assert trio.current_time() == began + 0.5


async def test_last_ping_is_answered_once_a_blocked_writer_goes_on(connect_websocket: Connect) -> None:
    async with connect_websocket(narrow=True) as link:
        link.nursery.start_soon(link.transport.send, ["x" * (4 * 1024 * 1024)])
        await trio.testing.wait_all_tasks_blocked()

        async def pings() -> None:
            for number in range(50):
                await link.peer.stream.send_all(b"\x89\x02%02d" % number)

        link.nursery.start_soon(pings)
        await trio.testing.wait_all_tasks_blocked()
        assert len(await link.peer.receive()) == 4 * 1024 * 1024
        while (await link.peer.event()).payload != b"49":
            pass


@pytest.mark.parametrize("code", [0, 1006, 70000])
async def test_close_with_a_code_that_no_frame_may_carry_ends_the_link(connect_websocket: Connect, code: int) -> None:
    async with connect_websocket() as link:
        link.nursery.start_soon(link.peer.gone)
        await link.transport.close(code, "why", timeout=5)
        await closed_error(link.transport)
        await trio.testing.wait_all_tasks_blocked()
        assert not link.nursery.child_tasks


async def test_peers_close_frame_ends_the_link_even_if_nobody_reads_the_answer(connect_websocket: Connect) -> None:
    async with connect_websocket(narrow=True) as link:
        link.nursery.start_soon(link.peer.stream.send_all, b"\x81\x01a\x88\x02\x03\xf4")
        assert await link.transport.receive() == ["a"]
        if link.transport.name == "trio-websocket":  # its library answers in the task that reads, and waits for ever
            await link.transport.close(timeout=5)
            assert trio.current_time() <= 5
            return
        error = await closed_error(link.transport)
        assert error.code == 1012
        assert trio.current_time() <= 1


async def test_memory_of_a_burst_is_given_back(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        link.nursery.start_soon(link.peer.send, ["x" * 1000] * 250)
        got: list[Any] = []
        while len(got) < 250:
            got += await link.transport.receive()
        del got
        await trio.testing.wait_all_tasks_blocked()
        if link.transport.name == "websockets":
            assert link.transport._frames._chunk == b"", "a chunk that is parsed is kept"


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("which", [0, 1])
async def test_two_senders_one_cancelled_at_any_step_while_the_peer_pings(
    connect_websocket: Connect, steps: int, which: int
) -> None:
    async with connect_websocket() as link:
        scopes = [trio.CancelScope(), trio.CancelScope()]
        ended: dict[int, str] = {}

        async def send(number: int) -> None:
            with scopes[number]:
                try:
                    await link.transport.send([f"{number} " + "x" * 100_000])
                    ended[number] = "sent"
                except TransportClosed:
                    ended[number] = "closed"

        async def cancel() -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scopes[which].cancel()

        seen: list[str] = []

        async def peer() -> None:
            try:
                await link.peer.write(Ping(payload=b"?"))
                while True:
                    seen.append(str(await link.peer.receive())[:1])
            except (AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, 0)
            nursery.start_soon(send, 1)
            nursery.start_soon(cancel)
            nursery.start_soon(peer)
            await trio.testing.wait_all_tasks_blocked()
            await link.transport.close(timeout=5)
            nursery.cancel_scope.cancel()
        assert not link.nursery.child_tasks
        await closed_error(link.transport)


@pytest.mark.parametrize("cut", [b"\x81\x01a\x89", b"\x81\x01a\x89\x02h", b"\x81", b"\x81\x01a\x89\x02hi\x81\x7e\x00"])
async def test_frame_that_begins_behind_the_answer_to_the_upgrade_is_not_lost(
    connector: Any, endpoint: Any, raw_peer: Any, cut: bytes
) -> None:
    frames = b"\x81\x01a\x89\x02hi\x81\x7e\x00\x7e" + b"b" * 126
    ours, theirs = trio.testing.memory_stream_pair()

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    async def serve() -> None:
        peer = raw_peer(theirs)
        await peer.event()
        await theirs.send_all(peer.wsproto.send(AcceptConnection()) + cut)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(frames[len(cut) :])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        transport = await connector(open_stream).open(nursery, endpoint())
        got: list[Any] = []
        while len(got) < 2:
            got += await transport.receive()
        assert got == ["a", "b" * 126]
        transport.abort()
