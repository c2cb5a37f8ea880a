"""The floor of what Trio can do with websockets' sans-I/O protocol: batches both ways, no codec and no checks."""

from __future__ import annotations

import time

import trio
import trio.testing
import work
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

RECEIVE_SIZE = 256 * 1024


class Socket:
    """A Trio stream and a protocol."""

    def __init__(self, stream: trio.SocketStream, protocol: ClientProtocol) -> None:
        self.stream = stream
        self.protocol = protocol
        self.unread = 0

    async def send(self, frame: bytes, times: int = 1) -> None:
        """Write a message several times in one go."""
        send_text = self.protocol.send_text
        for _ in range(times):
            send_text(frame)
        await self.stream.send_all(b"".join(self.protocol.data_to_send()))

    async def some(self) -> int:
        """Wait for messages, and return how many whole ones came."""
        while True:
            data = await self.stream.receive_some(RECEIVE_SIZE)
            assert data, "the server has gone"
            self.protocol.receive_data(data)
            got = sum(event.fin for event in self.protocol.events_received() if isinstance(event, Frame))
            if got:
                return got

    async def messages(self, count: int) -> None:
        """Read that many messages, which have to be all there are."""
        while count > 0:
            count -= await self.some()
        assert count == 0


def push(did: str, event: str, payload: str) -> bytes:
    """A frame that was encoded beforehand."""
    return f'["1","2","plugins:{did}","{event}",{payload}]'.encode()


async def joined(url: str, did: str) -> Socket:
    """A socket on which the topic is joined."""
    uri = parse_uri(url)
    protocol = ClientProtocol(uri, max_size=8 * 1024 * 1024)
    socket = Socket(await trio.open_tcp_stream(uri.host, uri.port), protocol)
    protocol.send_request(protocol.connect())
    await socket.stream.send_all(b"".join(protocol.data_to_send()))
    while not protocol.events_received():
        protocol.receive_data(await socket.stream.receive_some(RECEIVE_SIZE))
    assert protocol.handshake_exc is None, protocol.handshake_exc
    await socket.send(push(did, "phx_join", "{}"))
    await socket.messages(1)
    return socket


async def measure(url: str, item: str, count: int) -> dict[str, float]:
    """Do one item."""
    url += "?vsn=2.0.0"
    if item == "connect":
        return await connect(url, count)
    if item == "memory":
        return await memory(url, count)
    walls: list[float] = []
    socket = await joined(url, work.TOPIC_DID)

    async def several(times: int) -> None:
        if item == "seq" or item.startswith("out"):
            frame = push(work.TOPIC_DID, "message", work.encoded(work.BODY if item == "seq" else int(item[3:])))
            for _ in range(times):
                start = time.perf_counter()
                await socket.send(frame)
                await socket.messages(1)
                walls.append(time.perf_counter() - start)
        elif item.startswith("pipe"):
            frame = push(work.TOPIC_DID, "message", work.encoded(work.BODY))
            sent = min(times, int(item[4:]))
            await socket.send(frame, sent)
            got = 0
            while got < times:
                some = await socket.some()
                got += some
                more = min(some, times - sent)
                if more:
                    sent += more
                    await socket.send(frame, more)
        elif item == "fnf":
            frame = push(work.TOPIC_DID, "cast", work.encoded(work.BODY))
            for first in range(0, times, 100):
                await socket.send(frame, min(100, times - first))
            await socket.send(push(work.TOPIC_DID, "count", "{}"))
            await socket.messages(1)
        else:
            await socket.send(push(work.TOPIC_DID, "flood", f'{{"count":{times},"size":{item[2:]}}}'))
            await socket.messages(times + 1)

    await several(max(1, count // 10))
    walls.clear()
    timed = work.Timed()
    await several(count)
    timed.stop()
    return work.per_unit(count, timed, walls)


async def connect(url: str, count: int) -> dict[str, float]:
    """Connect and join, one after the other; closing is not timed."""
    walls: list[float] = []
    timed = work.Timed()
    for number in range(-2, count):
        timed.start()
        socket = await joined(url, f"{work.TOPIC_DID}-{number}")
        walls.append(timed.stop())
        await socket.stream.aclose()
        if number < 0:
            timed, walls = work.Timed(), []
    return work.per_unit(count, timed, walls)


async def memory(url: str, count: int) -> dict[str, float]:
    """Growth of anonymous memory over idle sockets, each with the task that a reader takes."""
    sockets = []
    async with trio.open_nursery() as nursery:
        sockets.append(await joined(url, work.TOPIC_DID))
        before = work.anonymous_kib()
        for number in range(count):
            socket = await joined(url, f"{work.TOPIC_DID}-{number}")
            nursery.start_soon(socket.some)
            sockets.append(socket)
        await trio.testing.wait_all_tasks_blocked()
        growth = work.anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return {"n": count, "kib": growth / count}


if __name__ == "__main__":
    work.main(measure, trio.run)
