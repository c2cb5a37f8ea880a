"""Peers for the transport tests: a raw wsproto server whose every byte the test decides, over memory and TCP."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Request, TextMessage

from layr8_actors.errors import TransportClosed
from layr8_actors.transport import (
    Endpoint,
    MemoryTransport,
    Secret,
    Transport,
    TrioWebSocketConnector,
    memory_pair,
)
from layr8_actors.transport.websockets import WebSocketsConnector

KEY = "needle-4711/ü?&="


class RawPeer:
    """The node's end of a WebSocket, driven by hand: it reads only when asked to, and writes whatever it is told."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.wsproto = WSConnection(ConnectionType.SERVER)
        self.events: deque[Event] = deque()
        self.request: Request | None = None

    async def event(self) -> Event:
        """The next event; the end of the stream is a close with 1006."""
        while not self.events:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            if not data and self.wsproto.connection is None:
                return CloseConnection(code=1006)  # during the handshake wsproto has no event for it
            self.wsproto.receive_data(bytes(data) or None)
            self.events.extend(self.wsproto.events())
        return self.events.popleft()

    async def accept(self) -> None:
        event = await self.event()
        assert isinstance(event, Request)
        self.request = event
        await self.write(AcceptConnection())

    async def write(self, *events: Event) -> None:
        """All events in one write."""
        await self.stream.send_all(b"".join(self.wsproto.send(event) for event in events))

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await self.write(*(TextMessage(data=m) if isinstance(m, str) else BytesMessage(data=m) for m in messages))

    async def receive(self) -> str | bytes:
        """The next whole message."""
        parts: list[str | bytes] = []
        while True:
            event = await self.event()
            assert isinstance(event, TextMessage | BytesMessage), event
            parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                if isinstance(event, TextMessage):
                    return "".join(str(part) for part in parts)
                return b"".join(bytes(part) for part in parts if not isinstance(part, str))

    async def closed(self) -> tuple[int, str]:
        """Read on until the other side's close frame or end; answer a close frame, then close the stream."""
        while True:
            event = await self.event()
            if isinstance(event, CloseConnection):
                if event.code != 1006:
                    await self.write(event.response())
                await self.stream.aclose()
                return event.code, event.reason or ""

    async def close(self, code: int, reason: str) -> None:
        await self.write(CloseConnection(code=code, reason=reason))

    async def gone(self) -> None:
        """Return when the other side's socket is gone, however it went."""
        with contextlib.suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(65536):
                pass

    def reset(self) -> None:
        """RST on TCP; on memory streams both directions are cut."""
        stream = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
        if isinstance(stream, trio.SocketStream):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        else:
            assert isinstance(stream, trio.StapledStream)
            stream.send_stream.close()
            stream.receive_stream.close()


class MemoryPeer:
    """The other end of a memory pair, with the same face as :class:`RawPeer`."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.batch: list[str | bytes] = []

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await self.transport.send(messages)

    async def receive(self) -> str | bytes:
        if not self.batch:
            self.batch = await self.transport.receive()
        return self.batch.pop(0)

    async def closed(self) -> tuple[int, str]:
        try:
            while True:
                await self.transport.receive()
        except TransportClosed as error:
            return error.code, error.reason

    async def close(self, code: int, reason: str) -> None:
        await self.transport.close(code, reason, timeout=5)

    async def gone(self) -> None:
        await self.closed()

    def reset(self) -> None:
        self.transport.abort()


@dataclasses.dataclass
class Link:
    """A transport, whoever is at its other end, and the nursery that the transport was opened in."""

    transport: Transport
    peer: Any
    nursery: trio.Nursery


Connect = Callable[..., AbstractAsyncContextManager[Link]]


def make_endpoint(url: str = "ws://node.test/plugin_socket/websocket", **options: Any) -> Endpoint:
    return Endpoint(url=url, api_key=Secret(KEY), **options)


@contextlib.asynccontextmanager
async def _memory(*, narrow: bool = False, **_options: Any) -> AsyncIterator[Link]:
    async with trio.open_nursery() as nursery:
        ours, theirs = memory_pair(capacity=1 if narrow else 1024)
        yield Link(ours, MemoryPeer(theirs), nursery)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _over_streams(connector: MakeConnector, *, narrow: bool = False, **options: Any) -> AsyncIterator[Link]:
    """``narrow``: a write waits until the other side has read it."""
    pair = trio.testing.lockstep_stream_pair if narrow else trio.testing.memory_stream_pair
    ours, theirs = pair()

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    peer = RawPeer(theirs)
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        peers.start_soon(peer.accept)
        transport = await connector(open_stream).open(nursery, make_endpoint(**options))
        await trio.testing.wait_all_tasks_blocked()  # the peer's own write of its answer is over too
        yield Link(transport, peer, nursery)
        nursery.cancel_scope.cancel()


@functools.cache
def _tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a client that trusts the certificate of node.test, and of a server that has it."""
    authority = trustme.CA()
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("node.test", "127.0.0.1").configure_cert(server)
    return client, server


@contextlib.asynccontextmanager
async def _over_tls(connector: MakeConnector, *, narrow: bool = False, **options: Any) -> AsyncIterator[Link]:
    pair = trio.testing.lockstep_stream_pair if narrow else trio.testing.memory_stream_pair
    ours, theirs = pair()
    client, server = _tls()
    peer = RawPeer(trio.SSLStream(theirs, server, server_side=True, https_compatible=True))

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        peers.start_soon(peer.accept)
        endpoint = make_endpoint("wss://node.test/socket", ssl_context=client, **options)
        transport = await connector(open_stream).open(nursery, endpoint)
        await trio.testing.wait_all_tasks_blocked()
        yield Link(transport, peer, nursery)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _over_tcp(connector: MakeConnector, *, narrow: bool = False, **options: Any) -> AsyncIterator[Link]:
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        peer: RawPeer | None = None

        async def accept() -> None:
            nonlocal peer
            peer = RawPeer(await listener.accept())
            await peer.accept()

        async with listener:
            peers.start_soon(accept)
            endpoint = make_endpoint(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/socket", **options)
            transport = await connector().open(nursery, endpoint)
        assert peer is not None
        try:
            yield Link(transport, peer, nursery)
        finally:
            nursery.cancel_scope.cancel()
            # Shielded, or its Cancelled takes the place of whatever the test has failed with, and the nursery eats it.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(peer.stream)


MakeConnector = Callable[..., Any]
CONNECTORS: dict[str, MakeConnector] = {"trio-websocket": TrioWebSocketConnector, "websockets": WebSocketsConnector}
WEBSOCKETS: dict[str, Connect] = {
    f"{name} over {way}": functools.partial(over, connector)
    for name, connector in CONNECTORS.items()
    for way, over in (("streams", _over_streams), ("TCP", _over_tcp), ("TLS", _over_tls))
}
ADAPTERS: dict[str, Connect] = {"memory pair": _memory, **WEBSOCKETS}


@pytest.fixture(params=list(ADAPTERS))
def connect(request: pytest.FixtureRequest) -> Connect:
    """Opens a link; parametrised over every adapter."""
    return ADAPTERS[request.param]


@pytest.fixture(params=list(WEBSOCKETS))
def connect_websocket(request: pytest.FixtureRequest) -> Connect:
    """Likewise, over the adapters whose peer is a :class:`RawPeer`."""
    return ADAPTERS[request.param]


@pytest.fixture(params=list(CONNECTORS))
def connector(request: pytest.FixtureRequest) -> MakeConnector:
    """The class of each adapter's connector."""
    return CONNECTORS[request.param]


@pytest.fixture
def endpoint() -> Callable[..., Endpoint]:
    """Makes endpoints with the key of these tests."""
    return make_endpoint


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a client and of a server, which is node.test."""
    return _tls()


@pytest.fixture
def raw_peer() -> type[RawPeer]:
    return RawPeer


@pytest.fixture
def key() -> str:
    """The key of the endpoints, with characters that must be escaped."""
    return KEY


@pytest.fixture
def tasks_left() -> Callable[[], int]:
    """How many tasks live now; a test compares it before and after."""

    def count() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    return count
