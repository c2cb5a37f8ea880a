"""Through an HTTP proxy, and through any tunnel that a program brings along."""

from __future__ import annotations

import base64
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.errors import ConnectFailed, InvalidOption
from layr8_actors.transport import HttpProxy


async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(65536):
            await sink.send_all(data)
        await sink.aclose()


class Tunnels:
    """A proxy on a loopback port: whatever is behind its tunnels is one node, on a memory stream."""

    def __init__(self, answer: bytes, serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        self.answer = answer
        self.serve = serve
        self.requests: list[bytes] = []
        self.port = 0
        self.tls: ssl.SSLContext | None = None

    async def handle(self, client: trio.abc.Stream) -> None:
        if self.tls is not None:
            client = trio.SSLStream(client, self.tls, server_side=True, https_compatible=True)
        request = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while b"\r\n\r\n" not in request:
                data = await client.receive_some(1)
                if not data:
                    return
                request += data
            self.requests.append(request)
            for byte in self.answer[:40]:
                await client.send_all(bytes([byte]))
            await client.send_all(self.answer[40:])
            if not self.answer.startswith(b"HTTP/1.1 200"):
                await trio.sleep_forever()
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, theirs)
            nursery.start_soon(copy, client, ours)
            nursery.start_soon(copy, ours, client)


@contextlib.asynccontextmanager
async def proxy(answer: bytes, serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> AsyncIterator[Tunnels]:
    tunnels = Tunnels(answer, serve)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tunnels.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, tunnels.handle, listeners)
        try:
            yield tunnels
        finally:
            nursery.cancel_scope.cancel()


async def nobody(_stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


def echo(raw_peer: Any, server: ssl.SSLContext | None) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def serve(stream: trio.abc.Stream) -> None:
        if server is not None:
            stream = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        peer = raw_peer(stream)
        await peer.accept()
        await peer.send([str(await peer.receive())])
        await peer.closed()

    return serve


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_link_through_an_http_proxy_carries_messages(
    connector: Any, endpoint: Any, raw_peer: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext], scheme: str
) -> None:
    client, server = tls
    serve = echo(raw_peer, server if scheme == "wss" else None)
    async with proxy(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 x\r\n\r\n", serve) as tunnels:
        through = HttpProxy(f"http://user%40x:s3cr%3At@127.0.0.1:{tunnels.port}")
        async with trio.open_nursery() as nursery:
            transport = await connector(through).open(nursery, endpoint(f"{scheme}://node.test/s", ssl_context=client))
            await transport.send(["through"])
            assert await transport.receive() == ["through"]
            await transport.close(timeout=5)
    port = 443 if scheme == "wss" else 80
    credentials = base64.b64encode(b"user@x:s3cr:t").decode()
    assert tunnels.requests == [
        f"CONNECT node.test:{port} HTTP/1.1\r\nHost: node.test:{port}\r\n"
        f"Proxy-Authorization: Basic {credentials}\r\n\r\n".encode()
    ]
    assert "s3cr" not in repr(through)


async def test_link_through_a_proxy_over_tls_is_tls_within_tls(
    connector: Any, endpoint: Any, raw_peer: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    client, server = tls
    async with proxy(b"HTTP/1.1 200 OK\r\n\r\n", echo(raw_peer, server)) as tunnels:
        tunnels.tls = server
        through = HttpProxy(f"https://127.0.0.1:{tunnels.port}", ssl_context=client)
        async with trio.open_nursery() as nursery:
            transport = await connector(through).open(nursery, endpoint("wss://node.test/s", ssl_context=client))
            await transport.send(["through"])
            assert await transport.receive() == ["through"]
            await transport.close(timeout=5)
        async with trio.open_nursery() as nursery:
            with pytest.raises(
                ConnectFailed, match="TLS handshake with the proxy failed: the certificate is not accepted"
            ):
                await connector(HttpProxy(f"https://127.0.0.1:{tunnels.port}")).open(nursery, endpoint())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 407 peers own phrase\r\n\r\n", "the proxy answered HTTP 407 Proxy Authentication Required"),
        (b"HTTP/1.1 502 \r\nx: y", "the proxy answered HTTP 502 Bad Gateway"),
        (b"SSH-2.0-OpenSSH", "not HTTP/1.1"),
        (b"HTTP/1.1 2xx\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "more than 65536 bytes of headers"),
    ],
)
async def test_proxy_that_makes_no_tunnel_is_named(connector: Any, endpoint: Any, answer: bytes, text: str) -> None:
    async with proxy(answer, nobody) as tunnels, trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed) as caught:
            await connector(HttpProxy(f"http://127.0.0.1:{tunnels.port}")).open(nursery, endpoint())
        assert text in str(caught.value)
        assert "peers own" not in str(caught.value)
        assert not caught.value.permanent
        assert not nursery.child_tasks


async def test_proxy_that_never_answers_ends_the_dial_on_time(connector: Any, endpoint: Any) -> None:
    async with proxy(b"", nobody) as tunnels, trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="timed out after 7 s"):
            await connector(HttpProxy(f"http://127.0.0.1:{tunnels.port}")).open(nursery, endpoint(open_timeout=7))
        assert not nursery.child_tasks


async def test_tunnel_cancelled_at_any_step_leaves_no_socket() -> None:
    async with proxy(b"HTTP/1.1 200 OK\r\n\r\n", nobody) as tunnels:
        opened: list[trio.abc.Stream] = []

        async def open_tunnel() -> None:
            opened.append(await HttpProxy(f"http://127.0.0.1:{tunnels.port}")("node.example", 443))

        begun = 0
        for turns in range(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_tunnel)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                begun += not opened
                nursery.cancel_scope.cancel()
            if opened:
                await trio.aclose_forcefully(opened.pop())
                break
        gc.collect()  # a socket that was left open would warn now, which fails the test
        assert begun > 3


@pytest.mark.parametrize(
    "url", ["socks5://proxy:1080", "proxy:3128", "http://", "http://proxy/path", "http://proxy:99999", "", 3]
)
def test_url_of_no_http_proxy_is_refused_and_not_shown(url: Any) -> None:
    with pytest.raises(InvalidOption, match="proxy"):
        HttpProxy(url)


def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert HttpProxy.from_environment("wss://node.test/s") is None
    monkeypatch.setenv("https_proxy", "http://secure.test:3128")
    monkeypatch.setenv("http_proxy", "http://plain.test")
    monkeypatch.setenv("no_proxy", "inside.test")
    assert repr(HttpProxy.from_environment("wss://node.test/s")) == "HttpProxy(secure.test:3128)"
    assert repr(HttpProxy.from_environment("ws://node.test/s")) == "HttpProxy(plain.test:80)"
    assert HttpProxy.from_environment("wss://inside.test/s") is None
    monkeypatch.setenv("https_proxy", "socks5h://secure.test:1080")
    with pytest.raises(InvalidOption, match="SOCKS"):
        HttpProxy.from_environment("wss://node.test/s")


async def test_any_tunnel_will_do_as_open_stream(connector: Any, endpoint: Any, raw_peer: Any) -> None:
    """SOCKS 5 without authentication (RFC 1928), by hand: what a SOCKS library would do for a program."""
    asked: list[bytes] = []

    async def tunnel(client: trio.abc.Stream) -> None:
        assert await client.receive_some(3) == b"\x05\x01\x00"
        await client.send_all(b"\x05\x00")
        asked.append(bytes(await client.receive_some(100)))
        await client.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await echo(raw_peer, None)(client)

    async def socks(host: str, port: int) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        peers.start_soon(tunnel, theirs)
        await ours.send_all(b"\x05\x01\x00")
        assert await ours.receive_some(2) == b"\x05\x00"
        await ours.send_all(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big"))
        assert len(await ours.receive_some(10)) == 10
        return ours

    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        transport = await connector(socks).open(nursery, endpoint("ws://node.test:4000/s"))
        await transport.send(["through"])
        assert await transport.receive() == ["through"]
        await transport.close(timeout=5)
    assert asked == [b"\x05\x01\x00\x03\x09node.test\x0f\xa0"]
