"""Any answer to the upgrade, and any bytes behind a good one, into the transport: typed ends, and nothing left behind.

The first byte picks how the answer is cut into reads and whether a good handshake comes before the rest. ``$A`` stands
for the accept token that this request asks for, ``$K`` for the API key: a peer may echo both.
"""

from __future__ import annotations

import base64
import hashlib
import re

import trio

from layr8_actors.errors import ConnectFailed, TransportClosed
from layr8_actors.transport import Endpoint, Secret, Transport, TrioWebSocketConnector

__all__ = ("check",)

_KEY = "needle-4711"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: $A\r\n\r\n"
)
_LIMIT = 1024
_CUTS = (65536, 1, 2, 7, 100)


class _Peer(trio.abc.Stream):
    """A byte stream whose other end reads the request, says its piece, and ends the stream."""

    def __init__(self, answer: bytes, cut: int) -> None:
        self._answer = answer
        self._cut = cut
        self._asked = False
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        if not self._asked:
            self._asked = True
            self._fill_in(bytes(data))

    def _fill_in(self, request: bytes) -> None:
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", request, re.IGNORECASE)
        assert found is not None, "the request has no key of the handshake"
        token = base64.b64encode(hashlib.sha1(found[1] + _GUID).digest())  # noqa: S324 - as RFC 6455 has it
        self._answer = self._answer.replace(b"$A", token).replace(b"$K", _KEY.encode())

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        size = min(self._cut, max_bytes or self._cut)
        chunk, self._answer = self._answer[:size], self._answer[size:]
        return chunk

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def check(data: bytes) -> None:
    """Dial a peer that answers so, read until it ends, and look at what is left."""
    choice = data[0] if data else 0
    peer = _Peer((_GOOD if choice & 1 else b"") + data[1:], _CUTS[(choice >> 1) % len(_CUTS)])

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return peer

    endpoint = Endpoint(url="ws://node.test/s", api_key=Secret(_KEY), max_message_size=_LIMIT)
    with trio.fail_after(60):  # of virtual time: every wait of ours has a shorter deadline
        async with trio.open_nursery() as nursery:
            transport: Transport | None = None
            try:
                transport = await TrioWebSocketConnector(open_stream).open(nursery, endpoint)
            except ConnectFailed as error:
                _assert_silent(error, error.detail)
            if transport is not None:
                await _read_to_the_end(transport)
                await transport.close(timeout=5)
            assert not nursery.child_tasks
    assert peer.closed


async def _read_to_the_end(transport: Transport) -> None:
    while True:
        try:
            batch = await transport.receive()
        except TransportClosed as error:
            _assert_silent(error, error.reason + error.detail)
            return
        assert batch
        for message in batch:
            assert isinstance(message, str | bytes)
            assert len(message) <= _LIMIT


def _assert_silent(error: Exception, *texts: str) -> None:
    assert _KEY not in f"{error!r}{error}{texts}"
    assert error.__cause__ is None
    assert error.__context__ is None
