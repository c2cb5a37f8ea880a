"""A node below HTTP: a connector whose every dial ends at a function of the test, over memory streams."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable

import trio

from layr8_actors.testing.memory_stream import MemoryStream, memory_stream_pair
from layr8_actors.transport import TrioWebSocketConnector

__all__ = ("RawNode", "accept", "read_request")

Serve = Callable[[MemoryStream], Awaitable[None]]


class RawNode:
    """Serves each dial by ``serve``, which need not close its stream; what was dialled is in ``dialled``.

    Args:
        nursery: runs what serves.
        serve: handles one connection.
    """

    def __init__(self, nursery: trio.Nursery, serve: Serve) -> None:
        self._nursery = nursery
        self._serve = serve
        self.dialled: list[tuple[str, int]] = []
        self.ours: list[MemoryStream] = []
        self.connector = TrioWebSocketConnector(self._open)

    async def _open(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled.append((host, port))
        ours, theirs = memory_stream_pair()
        self.ours.append(ours)
        self._nursery.start_soon(self._run, theirs)
        return ours

    async def _run(self, stream: MemoryStream) -> None:
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # our side has hung up, which is what most of these tests are after


async def read_request(stream: MemoryStream) -> bytes:
    """The whole upgrade request."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(65536)
        if not data:
            raise trio.BrokenResourceError
        head += data
    return head


async def accept(stream: MemoryStream, *, more: bytes = b"") -> None:
    """Read the request and upgrade, with ``more`` behind the head in the same write."""
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", await read_request(stream), re.IGNORECASE)
    assert found is not None
    token = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + token
        + b"\r\n\r\n"
        + more
    )
