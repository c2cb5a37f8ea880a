"""Every WebSocket adapter against peers that misbehave on the level of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from layr8_actors.errors import TransportClosed

Connect = Callable[..., Any]


async def closed_error(transport: Any) -> TransportClosed:
    with pytest.raises(TransportClosed) as caught:
        await transport.receive()
    return caught.value


# --- trio-websocket#184 -----------------------------------------------------------------------------------------------


async def test_ping_after_our_close_frame_ends_in_a_normal_close(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        seen: list[Any] = []

        async def peer() -> None:
            seen.append(await link.peer.event())
            # The ping was on its way before the peer read our close frame: wsproto would not send it afterwards.
            await link.peer.stream.send_all(b"\x89\x02hi")
            await trio.testing.wait_all_tasks_blocked()
            await link.peer.write(CloseConnection(code=1000))
            await link.peer.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            await link.transport.close(1000, "bye", timeout=5)
        assert trio.current_time() == 0
        assert (seen[0].code, seen[0].reason) == (1000, "bye")
        error = await closed_error(link.transport)
        assert (error.code, error.reason) == (1000, "bye")
        assert not link.nursery.child_tasks


async def test_ping_after_our_close_frame_without_an_answer_keeps_the_deadline(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:

        async def peer() -> None:
            await link.peer.event()
            while True:
                await link.peer.stream.send_all(b"\x89\x02hi")
                await trio.sleep(1)

        with pytest.RaisesGroup(trio.BrokenResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer)
                await link.transport.close(timeout=5)
                assert trio.current_time() == 5


async def test_messages_and_pings_before_the_peers_close_answer_do_no_harm(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:

        async def peer() -> None:
            await link.peer.event()
            await link.peer.stream.send_all(b"\x81\x01a\x89\x00\x81\x01b\x88\x02\x03\xe8")
            await link.peer.stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            await link.transport.close(timeout=5)
        assert trio.current_time() == 0


# --- pings and the drain duty -----------------------------------------------------------------------------------------


async def test_ping_is_answered_while_nobody_receives(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.send([f"unread {number}" for number in range(500)])
        await link.peer.write(Ping(payload=b"there?"))
        assert await link.peer.event() == Pong(payload=b"there?")
        got: list[Any] = []
        while len(got) < 500:
            got += await link.transport.receive()
        assert got == [f"unread {number}" for number in range(500)]


async def test_link_that_is_received_from_runs_no_clock_for_a_lone_message_and_is_watched_all_the_same(
    connect_websocket: Connect,
) -> None:
    def clocks() -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    async with connect_websocket() as link:
        news = trio.Event()
        receiving = trio.CancelScope()

        async def receive() -> None:
            nonlocal news
            with receiving:
                while True:
                    await link.transport.receive()
                    news.set()
                    news = trio.Event()

        link.nursery.start_soon(receive)
        await trio.sleep(3)
        for _ in range(3):
            arrived = news
            await link.peer.send(["lone"])
            await arrived.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert clocks() == float("inf")
            await trio.sleep(30)
        receiving.cancel()
        await link.peer.write(Ping(payload=b"nobody?"))
        assert await link.peer.event() == Pong(payload=b"nobody?")


async def test_ping_in_the_midst_of_messages_holds_none_of_them_back(connect_websocket: Connect) -> None:
    async with connect_websocket(narrow=True) as link:
        link.nursery.start_soon(link.peer.write, TextMessage(data="a"), Ping(payload=b"?"), TextMessage(data="b"))
        # Nobody reads our pong, and still the message before it arrives.
        first = await link.transport.receive()
        assert first[0] == "a"
        assert await link.peer.event() == Pong(payload=b"?")
        assert [*first, *([] if len(first) == 2 else await link.transport.receive())] == ["a", "b"]


@pytest.mark.parametrize(("size", "writes"), [(0, 10), (100, 40), (64 * 1024, 12)])
async def test_unread_messages_are_bounded_and_then_slow_the_peer(
    connect_websocket: Connect, size: int, writes: int
) -> None:
    async with connect_websocket(narrow=True) as link:
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(writes):
                await link.peer.send(["x" * size] * (1000 if size < 1000 else 20))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            held_back = sent
            batch = await link.transport.receive()
            one_step = 32 * 1024  # what is parsed at once beyond the bound, at the most
            assert len(batch) <= 4096 + one_step // (size + 2)
            assert sum(map(len, batch)) <= 1024 * 1024 + max(size, one_step)
            got = len(batch)
            while got < writes * (1000 if size < 1000 else 20):
                got += len(await link.transport.receive())
        if size:  # empty frames are so small that the kernel's own buffers hold them all
            assert held_back < writes


async def test_flood_that_goes_on_after_our_close_frame_is_read_and_not_kept(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(100):
                await link.peer.send(["x" * 64 * 1024])
                sent += 1
            await link.peer.closed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked()
            await link.transport.close(timeout=5)
        assert (sent, trio.current_time()) == (100, 0)
        kept = await link.transport.receive()
        assert kept == ["x" * 64 * 1024] * len(kept)
        assert 0 < len(kept) <= 16, "more than the adapter may read ahead was kept"
        assert (await closed_error(link.transport)).code == 1000


# --- sizes and protocol errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["x" * 1001, b"x" * 1001, "x" * 5_000_000])
async def test_message_beyond_the_limit_ends_the_link_with_1009_after_those_before_it(
    connect_websocket: Connect, message: str | bytes
) -> None:
    async with connect_websocket(max_message_size=1000) as link:
        codes: list[int] = []

        async def peer() -> None:
            try:
                await link.peer.send(["x" * 1000, "y", message])
                codes.append((await link.peer.event()).code)
            except trio.BrokenResourceError:
                codes.append(1006)  # a reset overtook the close frame

        link.nursery.start_soon(peer)
        got: list[Any] = []
        while len(got) < 2:
            got += await link.transport.receive()
        assert got == ["x" * 1000, "y"]
        error = await closed_error(link.transport)
        assert error.code == 1009
        assert "1000 bytes" in error.reason
        await trio.testing.wait_all_tasks_blocked()
        assert codes in ([1009], [1006])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02\xff\xfe", 1007),  # not UTF-8
        (b"\x83\x01a", 1002),  # reserved opcode
        (b"\x81\x81\x00\x00\x00\x00a", 1002),  # a server must not mask
        (b"\x80\x01a", 1002),  # continuation of nothing
        (b"\xc1\x01a", 1002),  # an extension nobody has agreed on
        (b"\x88\x01a", 1002),  # half a close code
    ],
)
async def test_frame_against_rfc_6455_ends_the_link_after_the_messages_before_it(
    connect_websocket: Connect, frame: bytes, code: int
) -> None:
    async with connect_websocket() as link:
        await link.peer.stream.send_all(b"\x81\x02ok" + frame)
        assert await link.transport.receive() == ["ok"]
        assert (await closed_error(link.transport)).code == code
        assert not link.nursery.child_tasks


async def test_close_frame_without_a_code_is_1005(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.stream.send_all(b"\x88\x00")
        assert (await closed_error(link.transport)).code == 1005


async def test_end_of_the_stream_without_a_close_frame_is_1006(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.send(["last words"])
        await link.peer.stream.aclose()
        assert await link.transport.receive() == ["last words"]
        error = await closed_error(link.transport)
        assert error.code == 1006
        assert error.detail


async def test_close_frame_and_reset_at_once_gives_the_code(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.send(["last words"])
        await link.peer.close(1012, "restart")
        await trio.testing.wait_all_tasks_blocked()
        link.peer.reset()
        assert await link.transport.receive() == ["last words"]
        assert (await closed_error(link.transport)).code == 1012


# --- writing ----------------------------------------------------------------------------------------------------------


async def test_send_cut_in_two_by_cancellation_aborts_and_sends_no_close_frame(connect_websocket: Connect) -> None:
    async with connect_websocket(narrow=True) as link:
        with trio.move_on_after(1):
            await link.transport.send(["x" * (16 * 1024 * 1024)])
        await link.transport.close(timeout=60)
        assert trio.current_time() == 1
        error = await closed_error(link.transport)
        assert (error.code, error.detail) == (1006, "dropped by this side")
        with pytest.raises(TransportClosed):
            await link.transport.send(["more"])
        # The peer sees the message, or a part of it, and then the end of the stream: no frame of ours follows.
        assert await link.peer.closed() == (1006, "")


async def test_send_cancelled_between_frames_keeps_the_link(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.transport.send(["never written"])
        await link.transport.send(["written"])
        assert await link.peer.receive() == "written"


async def test_failed_write_loses_none_of_the_messages_already_read(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.send([str(number) for number in range(1000)])
        await link.peer.close(1012, "restart")
        if isinstance(link.peer.stream, trio.SSLStream):
            await trio.sleep(2)  # Trio's SSLStream cannot be read from after a failed write: what was not read is lost
        link.peer.reset() if not isinstance(link.peer.stream, trio.SocketStream) else await link.peer.stream.aclose()
        with pytest.raises(TransportClosed):
            for _ in range(1000):
                await link.transport.send(["into the void"])
        got: list[Any] = []
        while len(got) < 1000:
            got += await link.transport.receive()
        assert got == [str(number) for number in range(1000)]
        assert (await closed_error(link.transport)).code == 1012


async def test_two_senders_keep_their_messages_whole(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        batches = [[f"{sender} {number} " + "x" * 5000 for number in range(20)] for sender in "ab"]
        async with trio.open_nursery() as nursery:
            for batch in batches:
                nursery.start_soon(link.transport.send, batch)
            got = [str(await link.peer.receive()) for _ in range(40)]
        assert [message for message in got if message.startswith("a")] == batches[0]
        assert [message for message in got if message.startswith("b")] == batches[1]


class Counting(trio.abc.Stream):
    """Counts the writes that pass through it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.writes: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_batch_is_one_write_and_of_a_cancelled_one_nothing_is_written_later(
    connector: Any, endpoint: Any, raw_peer: Any
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = Counting(ours)

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return stream

    peer = raw_peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        transport = await connector(open_stream).open(nursery, endpoint())
        stream.writes.clear()
        await transport.send([str(number) for number in range(50)])
        assert len(stream.writes) == 1
        assert [await peer.receive() for _ in range(50)] == [str(number) for number in range(50)]
        for passes in range(8):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as both:
                    both.start_soon(transport.send, [f"{passes} {number}" for number in range(5)])
                    for _ in range(passes):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            if transport._end is not None:  # cut in two: nothing is written any more
                break
            await transport.send(["between"])
            got = [str(await peer.receive())]
            while got[-1] != "between":
                got.append(str(await peer.receive()))
            assert got[:-1] in ([], [f"{passes} {number}" for number in range(5)])
        transport.abort()


async def test_message_that_is_neither_text_nor_bytes_is_the_callers_error(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        with pytest.raises(ValueError, match="str or bytes"):
            await link.transport.send([3])
        with pytest.raises(UnicodeEncodeError):
            await link.transport.send(["\ud800"])
        await link.transport.send(["still open"])
        assert await link.peer.receive() == "still open"


async def test_long_close_reason_is_cut_to_what_a_close_frame_holds(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        seen: list[Any] = []

        async def peer() -> None:
            seen.append(await link.peer.closed())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            await link.transport.close(4000, "ü" * 200, timeout=5)
        assert seen == [(4000, "ü" * 61)]


async def test_close_that_cannot_be_encoded_still_ends_the_link(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.transport.close(1000, "\ud800", timeout=5)
        await closed_error(link.transport)
        await link.peer.gone()


async def test_close_while_the_peers_close_is_being_answered(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:
        await link.peer.send(["unread"] * 5000)
        await link.peer.close(1001, "away")
        await trio.testing.wait_all_tasks_blocked()
        link.nursery.start_soon(link.peer.gone)
        await link.transport.close(timeout=5)
        assert trio.current_time() == 0


async def test_peer_that_answers_our_close_late_but_in_time(connect_websocket: Connect) -> None:
    async with connect_websocket() as link:

        async def peer() -> None:
            await trio.sleep(3)
            await link.peer.closed()

        link.nursery.start_soon(peer)
        await link.transport.close(timeout=5)
        assert trio.current_time() == 3


# --- whatever the library does, nothing reaches the nursery -----------------------------------------------------------


class Exploding(trio.abc.Stream):
    """Passes everything through until told to raise something that no stream should raise."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.explode: set[str] = set()

    def _check(self, what: str) -> None:
        if what in self.explode:
            raise ZeroDivisionError(what)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check("send")
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        self._check("receive")
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()
        self._check("close")


@pytest.mark.parametrize("what", ["receive", "send", "close"])
async def test_stream_that_raises_anything_ends_the_link_only(
    connector: Any, endpoint: Any, raw_peer: Any, what: str
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = Exploding(ours)

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return stream

    peer = raw_peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept)
        transport = await connector(open_stream).open(nursery, endpoint())
        stream.explode = {what}
        await peer.write(Ping())
        if what == "close":
            await theirs.aclose()
        error = await closed_error(transport)
        assert error.code == 1006
        await transport.close(timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
