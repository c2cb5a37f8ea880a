"""A node that is slow, endless or treacherous before there is a WebSocket: refused on time, without the key."""

from __future__ import annotations

import datetime
import functools
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trustme

from layr8_actors.channel import ChannelOptions, open_channel
from layr8_actors.errors import ConnectFailed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from layr8_actors.testing.memory_stream import MemoryStream
from layr8_actors.transport import TrioWebSocketConnector
from tests.hostile.raw_node import RawNode, Serve, accept, read_request

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
DID = "did:web:node.test:alice"


async def fail_to_connect(serve: Serve, url: str = "ws://node.test/s", **more: Any) -> ConnectFailed:
    """Connect a channel, expect ConnectFailed, and check that no socket and no task is left."""
    async with trio.open_nursery() as nursery:
        node = RawNode(nursery, serve)
        options = ChannelOptions(ws_url=url, api_key="s3cr3t-k3y", agent_did=DID, transport=node.connector, **more)
        async with open_channel(options) as channel:
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
            assert all(stream.closed for stream in node.ours)
            assert len(node.dialled) == 1
            assert channel.state.status.value == "idle"
        nursery.cancel_scope.cancel()
    return caught.value


def slowly(data: Iterator[bytes] | bytes, seconds: float = 1.0, *, ask: bool = True) -> Serve:
    """Says it byte by byte, or piece by piece, with so many seconds before each."""

    async def serve(stream: MemoryStream) -> None:
        if ask:
            await read_request(stream)
        for piece in data:
            await trio.sleep(seconds)
            await stream.send_all(bytes([piece]) if isinstance(piece, int) else piece)
        await trio.sleep_forever()

    return serve


HEAD = b"HTTP/1.1 101 Switching Protocols\r\n"


def endless_headers() -> Iterator[bytes]:
    yield HEAD
    while True:
        yield b"x: y\r\n"


@pytest.mark.parametrize(
    ("serve", "url", "step"),
    [
        (slowly(HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"), "ws://node.test/s", "the WebSocket upgrade"),
        (slowly(endless_headers()), "ws://node.test/s", "the WebSocket upgrade"),
        (slowly(b"\x16\x03\x03\x40\x00" + b"\x02" * 100, ask=False), "wss://node.test/s", "the TLS handshake"),
        (slowly(b"", ask=False), "wss://node.test/s", "the TLS handshake"),
    ],
    ids=["a byte a second", "a header a second", "a byte of TLS a second", "silence in TLS"],
)
async def test_a_node_that_drips_its_handshake_is_given_up_at_connect_timeout(
    serve: Serve, url: str, step: str
) -> None:
    error = await fail_to_connect(serve, url, connect_timeout=10.0)
    assert f"timed out after 10 s during {step}" in str(error)
    assert trio.current_time() == pytest.approx(10)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"x: " + b"y" * 70_000,
        HEAD + b"x: y\r\n" * 20_000,
        HEAD + b"y" * 70_000,
        b"HTTP/1.1 101 " + b"y" * 70_000,
        b"HTTP/1." + b"1" * 70_000,
    ],
    ids=[
        "one huge header",
        "headers without end",
        "a name without end",
        "a phrase without end",
        "a version without end",
    ],
)
async def test_a_head_without_end_is_refused_at_64_kib_and_not_read_any_further(head: bytes) -> None:
    sent = 0

    async def serve(stream: MemoryStream) -> None:
        nonlocal sent
        await read_request(stream)
        for position in range(0, len(head), 1000):
            await stream.send_all(head[position : position + 1000])
            sent = position + 1000

    error = await fail_to_connect(serve)
    assert "answer to the upgrade" in str(error)
    assert len(str(error)) < 300
    assert error.status is None
    assert trio.current_time() == 0


async def test_an_answer_within_64_kib_of_headers_is_accepted() -> None:
    """The bound is against the endless, not against proxies that say a lot."""
    async with CloudNode(memory=True) as node:

        async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
            return Chatty(await node.open_stream())

        connector = TrioWebSocketConnector(open_stream)
        options = ChannelOptions(ws_url=node.url, api_key="k", agent_did=DID, transport=connector)
        async with open_channel(options) as channel:
            await channel.connect(PROTOCOLS)
            assert channel.state.joined


class Chatty(trio.abc.Stream):
    """A proxy that puts 10 KB of headers into the answer of the node behind it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._first = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        if self._first:
            self._first = False
            line, _, rest = bytes(data).partition(b"\r\n")
            data = line + b"\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 90) for n in range(100)) + rest
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("auth", ["query", "header"])
async def test_a_redirect_is_refused_and_its_target_never_dialled(status: int, auth: Any) -> None:
    async with CloudNode() as node, CloudNode() as thief:
        node.refuse_upgrades(status, headers={"Location": f"{thief.url}?vsn=2.0.0"})
        options = ChannelOptions(ws_url=node.url, api_key="s3cr3t-k3y", agent_did=DID, auth=auth)
        async with open_channel(options) as channel:
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
        assert f"HTTP {status}" in str(caught.value)
        assert "redirects are not followed, correct ws_url" in str(caught.value)
        assert caught.value.status == status
        assert not caught.value.permanent
        assert thief.statistics().upgrades == thief.statistics().refused_upgrades == 0
        assert len(thief.requests) == 0


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"Sec-WebSocket-Extensions: permessage-deflate\r\n", "unrecognized extension"),
        (b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover, x\r\n", "unrecognized extension"),
        (b"Sec-WebSocket-Protocol: phoenix\r\n", "unrecognized subprotocol"),
        (b"Content-Length: 5\r\n", None),
        (b"Transfer-Encoding: chunked\r\n", None),
    ],
)
async def test_what_was_not_asked_for_is_refused_and_a_compressed_bomb_behind_it_is_never_unpacked(
    header: bytes, text: str | None
) -> None:
    bomb = b"\xc1\x7e\x10\x00" + b"\x00" * 4096

    async def serve(stream: MemoryStream) -> None:
        class Adding:
            async def send_all(self, data: bytes) -> None:
                await stream.send_all(data.replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\n" + header))

            receive_some = stream.receive_some

        await accept(Adding(), more=bomb)  # type: ignore[arg-type]
        await trio.sleep_forever()

    error = await fail_to_connect(serve)
    if text is not None:
        assert text in str(error)
    assert trio.current_time() == 0


# --- TLS, over real sockets -------------------------------------------------------------------------------------------


def server_context(ca: trustme.CA, *names: str, **validity: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names, **validity).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("kind", ["expired", "for another name", "of an unknown authority", "of an old TLS version"])
async def test_a_certificate_that_is_no_good_is_refused_by_its_cause_before_the_key_is_sent(
    ca: trustme.CA, kind: str
) -> None:
    """Each is retried as any failed dial is: the node may be about to get a better one."""
    context = server_context(ca, "localhost")
    text = ""
    match kind:
        case "expired":
            past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
            context = server_context(ca, "localhost", not_after=past)
            text = "the certificate is not accepted: certificate has expired"
        case "for another name":
            context = server_context(ca, "node.example")
            text = "the certificate is not accepted: Hostname mismatch, certificate is not valid for 'localhost'"
        case "of an unknown authority":
            context = server_context(trustme.CA(), "localhost")
            text = "the certificate is not accepted: "
        case _:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            text = "the TLS handshake failed"  # the peer hangs up, and does not say why
    client = ssl.create_default_context()
    ca.configure_trust(client)
    if kind == "of an old TLS version":
        client.minimum_version = ssl.TLSVersion.TLSv1_3
    requests = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            while data := await tls.receive_some(65536):
                requests.extend(data)
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        options = ChannelOptions(
            ws_url=f"wss://localhost:{port}/s", api_key="s3cr3t-k3y", ssl_context=client, on_event=events.append
        )
        async with open_channel(options) as channel:
            with pytest.raises(ConnectFailed) as caught:
                await channel.connect(PROTOCOLS)
        nursery.cancel_scope.cancel()
    assert text in str(caught.value)
    assert caught.value.detail.startswith("the TLS handshake failed: ")
    assert caught.value.status is None
    assert not caught.value.permanent
    assert requests == b""  # neither the key nor anything else


async def test_a_node_that_is_slow_within_the_deadline_is_joined() -> None:
    async with CloudNode(memory=True) as node:
        node.delay_upgrades(9.0)
        node.delay_joins(9.0)
        options = ChannelOptions(ws_url=node.url, api_key="k", agent_did=DID, transport=node.connector)
        async with open_channel(options) as channel:
            await channel.connect(PROTOCOLS)
            assert trio.current_time() == pytest.approx(18.0)
