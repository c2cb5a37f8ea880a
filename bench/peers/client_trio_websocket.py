"""The floor of trio-websocket: the bare library, tuned, without a codec; what it reads is counted and not decoded."""

from __future__ import annotations

import time

import trio
import trio_websocket
import work

RECEIVE_BUFFER_SIZE = 256 * 1024  # its one parameter that helps: the default of 4 KiB costs a read for each 4 KiB


def push(did: str, event: str, payload: str) -> str:
    """A frame that was encoded beforehand."""
    return f'["1","2","plugins:{did}","{event}",{payload}]'


async def joined(nursery: trio.Nursery, url: str, did: str) -> trio_websocket.WebSocketConnection:
    """A socket on which the topic is joined."""
    socket = await trio_websocket.connect_websocket_url(
        nursery, url, receive_buffer_size=RECEIVE_BUFFER_SIZE, max_message_size=8 * 1024 * 1024
    )
    await socket.send_message(push(did, "phx_join", "{}"))
    await socket.get_message()
    return socket


async def measure(url: str, item: str, count: int) -> dict[str, float]:
    """Do one item."""
    url += "?vsn=2.0.0"
    if item == "connect":
        return await connect(url, count)
    if item == "memory":
        return await memory(url, count)
    walls: list[float] = []
    async with trio.open_nursery() as nursery:
        socket = await joined(nursery, url, work.TOPIC_DID)

        async def several(times: int) -> None:
            if item == "seq" or item.startswith("out"):
                frame = push(work.TOPIC_DID, "message", work.encoded(work.BODY if item == "seq" else int(item[3:])))
                for _ in range(times):
                    start = time.perf_counter()
                    await socket.send_message(frame)
                    await socket.get_message()
                    walls.append(time.perf_counter() - start)
            elif item.startswith("pipe"):
                frame = push(work.TOPIC_DID, "message", work.encoded(work.BODY))
                window = min(times, int(item[4:]))
                for _ in range(window):
                    await socket.send_message(frame)
                for _ in range(times - window):
                    await socket.get_message()
                    await socket.send_message(frame)
                for _ in range(window):
                    await socket.get_message()
            elif item == "fnf":
                frame = push(work.TOPIC_DID, "cast", work.encoded(work.BODY))
                for _ in range(times):
                    await socket.send_message(frame)
                await socket.send_message(push(work.TOPIC_DID, "count", "{}"))
                await socket.get_message()
            else:
                flood = f'{{"count":{times},"size":{item[2:]}}}'
                await socket.send_message(push(work.TOPIC_DID, "flood", flood))
                for _ in range(times + 1):
                    await socket.get_message()

        await several(max(1, count // 10))
        walls.clear()
        timed = work.Timed()
        await several(count)
        timed.stop()
        nursery.cancel_scope.cancel()
    return work.per_unit(count, timed, walls)


async def connect(url: str, count: int) -> dict[str, float]:
    """Connect and join, one after the other; closing is not timed."""
    walls: list[float] = []
    timed = work.Timed()
    for number in range(-2, count):
        async with trio.open_nursery() as nursery:
            timed.start()
            socket = await joined(nursery, url, f"{work.TOPIC_DID}-{number}")
            walls.append(timed.stop())
            await socket.aclose()
        if number < 0:
            timed, walls = work.Timed(), []
    return work.per_unit(count, timed, walls)


async def memory(url: str, count: int) -> dict[str, float]:
    """Growth of anonymous memory over idle sockets."""
    sockets = []
    async with trio.open_nursery() as nursery:
        sockets.append(await joined(nursery, url, work.TOPIC_DID))
        before = work.anonymous_kib()
        for number in range(count):
            sockets.append(await joined(nursery, url, f"{work.TOPIC_DID}-{number}"))
        growth = work.anonymous_kib() - before
        nursery.cancel_scope.cancel()
    return {"n": count, "kib": growth / count}


if __name__ == "__main__":
    work.main(measure, trio.run)
