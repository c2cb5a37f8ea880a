"""How a dial fails: at each step, for each reason, with nothing left behind and the key nowhere to be seen."""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trio.testing
import trustme

from layr8_actors.errors import ConnectFailed, TransportClosed
from layr8_actors.transport import Connector, Endpoint, TrioWebSocketConnector

MakeEndpoint = Callable[..., Endpoint]
Serve = Callable[[trio.abc.Stream], Awaitable[None]]


connector_class: Callable[..., Connector] = TrioWebSocketConnector


@pytest.fixture(autouse=True)
def _each_connector(connector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here is run for the connector of each adapter."""
    monkeypatch.setattr(sys.modules[__name__], "connector_class", connector)


class Node:
    """A connector whose dials end at ``serve``, over memory streams; remembers what was dialled."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.dialled: list[tuple[str, int]] = []
        self.ours: trio.abc.Stream | None = None
        self.theirs: trio.abc.Stream | None = None

    def connector(self, nursery: trio.Nursery) -> Connector:
        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            self.dialled.append((host, port))
            self.ours, self.theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(self.serve, self.theirs)
            return self.ours

        return connector_class(open_stream)

    async def socket_is_gone(self) -> bool:
        assert self.ours is not None
        with pytest.raises(trio.ClosedResourceError):
            await self.ours.receive_some(1)
        return True


async def read_request(stream: trio.abc.Stream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(65536)
        if not data:
            await trio.sleep_forever()  # the dial was given up; the test ends this task
        head += data
    return head


def answering(answer: bytes, *, close: bool = False) -> Serve:
    async def serve(stream: trio.abc.Stream) -> None:
        await read_request(stream)
        await stream.send_all(answer)
        if close:
            await stream.aclose()

    return serve


async def fail_to_open(serve: Serve, endpoint: Endpoint) -> ConnectFailed:
    """Dial, expect ConnectFailed, and check that neither a task nor a socket is left."""
    node = Node(serve)
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        error: ConnectFailed | None = None
        try:
            await node.connector(peers).open(nursery, endpoint)
        except ConnectFailed as caught:
            error = caught
        assert error is not None
        assert not nursery.child_tasks
        assert await node.socket_is_gone()
        peers.cancel_scope.cancel()
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


# --- refusals by HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "permanent"),
    [
        (401, "HTTP 401 Unauthorized", True),
        (403, "HTTP 403 Forbidden", True),
        (404, "HTTP 404 Not Found", False),
        (500, "HTTP 500 Internal Server Error", False),
        (503, "HTTP 503 Service Unavailable", False),
        (302, "HTTP 302 Found; redirects are not followed", False),
        (200, "HTTP 200 OK", False),
        (103, "HTTP 103 Early Hints", False),
        (599, "HTTP 599", False),
    ],
)
async def test_http_refusal_gives_its_status(endpoint: MakeEndpoint, status: int, text: str, permanent: bool) -> None:
    answer = f"HTTP/1.1 {status} peers own phrase\r\ncontent-length: 0\r\nlocation: http://x/?api_key=y\r\n\r\n"
    error = await fail_to_open(answering(answer.encode()), endpoint())
    assert error.status == status
    assert error.permanent is permanent
    assert text in str(error)
    assert "peers own phrase" not in str(error)
    assert error.url == "ws://node.test/plugin_socket/websocket"


async def test_refusal_with_an_endless_body_is_reported_at_once(endpoint: MakeEndpoint) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"10\r\n0123456789abcdef\r\n")

    error = await fail_to_open(serve, endpoint())
    assert error.status == 500
    assert trio.current_time() == 0


async def test_refusal_that_comes_byte_by_byte_is_understood(endpoint: MakeEndpoint) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await read_request(stream)
        for byte in b"HTTP/1.1 403 Forbidden\r\n\r\n":
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()

    assert (await fail_to_open(serve, endpoint())).status == 403


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x50", "not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "not HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "no valid HTTP status line"),
        (b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: " + b"y" * 70_000, "more than 65536 bytes of headers"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n",
            "Bad accept token|invalid Sec-WebSocket-Accept header",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "Missing header, 'Connection: Upgrade'|missing Connection header",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\xff\xfe\x00: \x00\r\n\r\n", "Bad HTTP message|valid HTTP response"),
    ],
)
async def test_answer_that_is_no_upgrade_is_named(endpoint: MakeEndpoint, answer: bytes, text: str) -> None:
    error = await fail_to_open(answering(answer), endpoint())
    assert error.status is None
    assert re.search(text, str(error))  # where the library has the word, each has its own
    assert trio.current_time() == 0


@pytest.mark.parametrize("answer", [b"", b"HTT", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"])
async def test_close_during_the_upgrade_is_noticed_at_once(endpoint: MakeEndpoint, answer: bytes) -> None:
    error = await fail_to_open(answering(answer, close=True), endpoint())
    assert "closed during the upgrade" in str(error)
    assert trio.current_time() == 0


async def test_peer_that_takes_no_request_is_noticed_at_once(endpoint: MakeEndpoint) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    theirs.receive_stream.close()

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed, match="could not be written"):
            await connector_class(open_stream).open(nursery, endpoint())


async def test_extension_that_was_not_offered_is_refused(endpoint: MakeEndpoint, raw_peer: Any) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        from wsproto.events import AcceptConnection

        peer = raw_peer(stream)
        await peer.event()
        await peer.write(AcceptConnection(extra_headers=[(b"Sec-WebSocket-Extensions", b"permessage-deflate")]))

    assert re.search("unrecognized extension|no extensions supported", str(await fail_to_open(serve, endpoint())))


# --- TCP and DNS ------------------------------------------------------------------------------------------------------


async def open_real(endpoint: Endpoint, connector: Connector | None = None) -> ConnectFailed:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed) as caught:
            await (connector or connector_class()).open(nursery, endpoint)
        assert not nursery.child_tasks
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


async def test_refused_port_is_named(endpoint: MakeEndpoint) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await open_real(endpoint(f"ws://127.0.0.1:{unused.getsockname()[1]}/socket"))
    assert "ConnectionRefusedError: Error connecting to" in str(error)
    assert "Connection refused" in str(error)
    assert error.status is None


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
async def test_address_that_does_not_answer_is_waited_for_and_leaves_no_socket(
    endpoint: MakeEndpoint, tasks_left: Callable[[], int], how: str
) -> None:
    before = tasks_left()
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # nobody accepts them, and there is no room for more
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        nowhere = endpoint(f"ws://127.0.0.1:{listener.getsockname()[1]}/socket", open_timeout=7)
        if how == "deadline":
            assert "timed out after 7 s during DNS and TCP connect" in str(await open_real(nowhere))
            assert trio.current_time() == 7
        else:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(3) as scope:
                    await connector_class().open(nursery, nowhere)
            assert scope.cancelled_caught
    assert tasks_left() == before


async def test_unknown_host_is_named(endpoint: MakeEndpoint) -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    previous = trio.socket.set_custom_hostname_resolver(Resolver())
    try:
        error = await open_real(endpoint())
    finally:
        trio.socket.set_custom_hostname_resolver(previous)
    assert "the host name cannot be resolved (gaierror: Name or service not known)" in str(error)


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (OSError("no route"), "OSError: no route"),
        (ExceptionGroup("both", [ConnectionRefusedError(111, "Connection refused"), TimeoutError(110, "Timed out")]),
         "ConnectionRefusedError: Connection refused; TimeoutError: Timed out"),
        (RuntimeError("proxy said no"), "RuntimeError: proxy said no"),
        (trio.BrokenResourceError(), "the connection was lost"),
        (ValueError(), "ValueError"),
    ],
)  # fmt: skip
async def test_failure_of_a_custom_open_stream_is_a_connect_failed(
    endpoint: MakeEndpoint, raised: Exception, text: str
) -> None:
    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise raised

    assert text in str(await open_real(endpoint(), connector_class(open_stream)))


# --- deadlines and cancellation at each step --------------------------------------------------------------------------


async def hang(_stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def hang_in_head(stream: trio.abc.Stream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgr")
    await trio.sleep_forever()


STEPS = [
    ("DNS and TCP connect", "ws://node.test/", None),
    ("the TLS handshake", "wss://node.test/", hang),
    ("the WebSocket upgrade", "ws://node.test/", hang),
    ("the WebSocket upgrade", "ws://node.test/", hang_in_head),
]


@pytest.mark.parametrize("how", ["deadline", "cancelled at once", "cancelled later", "nursery cancelled"])
@pytest.mark.parametrize(("step", "url", "serve"), STEPS)
async def test_dial_that_hangs_ends_on_time_and_leaves_nothing(
    endpoint: MakeEndpoint, tasks_left: Callable[[], int], step: str, url: str, serve: Serve | None, how: str
) -> None:
    before = tasks_left()
    streams: list[trio.abc.Stream] = []

    async with trio.open_nursery() as peers:

        async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
            if serve is None:
                await trio.sleep_forever()
            ours, theirs = trio.testing.memory_stream_pair()
            streams.append(ours)
            assert serve is not None
            peers.start_soon(serve, theirs)
            return ours

        connector = connector_class(open_stream)
        if how == "deadline":
            async with trio.open_nursery() as nursery:
                with pytest.raises(ConnectFailed, match=f"timed out after 7 s during {step}"):
                    await connector.open(nursery, endpoint(url, open_timeout=7))
                assert trio.current_time() == 7
                assert not nursery.child_tasks
        elif how == "nursery cancelled":
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.deadline = 3
                await connector.open(nursery, endpoint(url, open_timeout=7))
            assert nursery.cancel_scope.cancelled_caught
        else:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(0 if how == "cancelled at once" else 3) as scope:
                    await connector.open(nursery, endpoint(url, open_timeout=7))
                assert scope.cancelled_caught
                assert not nursery.child_tasks
        for stream in streams:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some(1)
        peers.cancel_scope.cancel()
    assert tasks_left() == before


@pytest.mark.parametrize("passes", range(40))
async def test_cancellation_at_any_pass_of_a_good_dial_leaves_nothing_or_an_open_link(
    endpoint: MakeEndpoint, raw_peer: Any, tasks_left: Callable[[], int], passes: int
) -> None:
    before = tasks_left()
    streams: list[trio.abc.Stream] = []
    async with trio.open_nursery() as peers:

        async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            streams.append(ours)
            peers.start_soon(_accept_or_end, raw_peer(theirs))
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                await trio.aclose_forcefully(ours)
                raise
            return ours

        async def cancel(scope: trio.CancelScope) -> None:
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            transport = None
            with trio.CancelScope() as scope:
                peers.start_soon(cancel, scope)
                transport = await connector_class(open_stream).open(nursery, endpoint())
            if transport is not None:
                transport.abort()
                with pytest.raises(TransportClosed):
                    await transport.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert not nursery.child_tasks
        for stream in streams:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some(1)
        peers.cancel_scope.cancel()
    assert tasks_left() == before


async def _accept_or_end(peer: Any) -> None:
    try:
        await peer.accept()
    except (trio.BrokenResourceError, AssertionError):
        return  # the dial was cancelled meanwhile


async def test_nursery_that_takes_no_tasks_leaves_no_socket(endpoint: MakeEndpoint, raw_peer: Any) -> None:
    node = Node(lambda stream: _accept_or_end(raw_peer(stream)))
    async with trio.open_nursery() as closed:
        pass
    async with trio.open_nursery() as peers:
        with pytest.raises(RuntimeError, match="closed"):
            await node.connector(peers).open(closed, endpoint())
        assert await node.socket_is_gone()
        peers.cancel_scope.cancel()


# --- what is dialled and asked for ------------------------------------------------------------------------------------


async def upgrade_request(endpoint: Endpoint, raw_peer: Any) -> tuple[Any, tuple[str, int]]:
    peer: Any = None

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal peer
        peer = raw_peer(stream)
        await peer.accept()

    node = Node(serve)
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        await node.connector(peers).open(nursery, endpoint)
        nursery.cancel_scope.cancel()
    return peer.request, node.dialled[0]


async def test_key_travels_in_the_query(endpoint: MakeEndpoint, raw_peer: Any, key: str) -> None:
    url = "ws://node.test/plugin_socket/websocket?api_key=old&zone=a%20b&vsn=1"
    request, _ = await upgrade_request(endpoint(url), raw_peer)
    escaped = quote(key, safe="")
    assert request.target == f"/plugin_socket/websocket?zone=a%20b&api_key={escaped}&vsn=2.0.0"
    names = {name for name, _ in request.extra_headers}
    assert names == {b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version"}
    assert request.extensions == []
    assert request.subprotocols == []


async def test_key_travels_in_the_header(raw_peer: Any) -> None:
    from layr8_actors.transport import Secret

    endpoint = Endpoint(url="ws://node.test/s?api_key=old&zone=1", api_key=Secret("header key"), auth="header")
    request, _ = await upgrade_request(endpoint, raw_peer)
    assert request.target == "/s?zone=1&vsn=2.0.0"
    assert dict(request.extra_headers)[b"x-api-key"] == b"header key"


@pytest.mark.parametrize(
    ("url", "dialled", "host"),
    [
        ("ws://localhost:4000/s", ("127.0.0.1", 4000), "localhost:4000"),
        ("ws://Agent.LocalHost:4000/s", ("127.0.0.1", 4000), "agent.localhost:4000"),
        ("http://a.b.localhost/s", ("127.0.0.1", 80), "a.b.localhost"),
        ("ws://localhost.example/s", ("localhost.example", 80), "localhost.example"),
        ("ws://[::1]:4000/s", ("::1", 4000), "[::1]:4000"),
        ("ws://node.test:80/s", ("node.test", 80), "node.test"),
    ],
)
async def test_host_dialled_and_host_header(
    endpoint: MakeEndpoint, raw_peer: Any, url: str, dialled: tuple[str, int], host: str
) -> None:
    request, address = await upgrade_request(endpoint(url), raw_peer)
    assert address == dialled
    assert request.host == host


async def test_localhost_names_reach_a_real_listener_on_127_0_0_1(endpoint: MakeEndpoint, raw_peer: Any) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, trio.open_nursery() as nursery:
        for name in ("localhost", "agent.localhost"):
            peer: Any = None

            async def accept() -> None:
                nonlocal peer
                peer = raw_peer(await listener.accept())
                await peer.accept()

            nursery.start_soon(accept)
            transport = await connector_class().open(nursery, endpoint(f"http://{name}:{port}/s"))
            assert peer.request.host == f"{name}:{port}"
            transport.abort()
            await peer.gone()
            await peer.stream.aclose()


# --- TLS --------------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test, and contexts for both sides."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def server(self, *names: str, expired: bool = False, self_signed: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if self_signed:
            with self.ca.private_key_pem.tempfile() as private, self.ca.cert_pem.tempfile() as public:
                context.load_cert_chain(public, private)
            return context
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        certificate = self.ca.issue_cert(*names, not_after=past if expired else None)
        certificate.configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def tls_node(context: ssl.SSLContext, raw_peer: Any, names: list[str | None]) -> Node:
    context.sni_callback = lambda _ssl, name, _context: names.append(name)

    async def serve(stream: trio.abc.Stream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await tls.do_handshake()
            peer = raw_peer(tls)
            await peer.accept()
            await peer.send([str(await peer.receive())])
            await peer.closed()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    return Node(serve)


@pytest.mark.parametrize("name", ["node.test", "agent.localhost", "127.0.0.1"])
async def test_tls_with_a_good_certificate_carries_messages(
    endpoint: MakeEndpoint, raw_peer: Any, authority: Authority, name: str
) -> None:
    names: list[str | None] = []
    node = tls_node(authority.server(name), raw_peer, names)
    async with trio.open_nursery() as nursery:
        connector = node.connector(nursery)
        transport = await connector.open(nursery, endpoint(f"https://{name}/s", ssl_context=authority.client()))
        await transport.send(["over TLS"])
        assert await transport.receive() == ["over TLS"]
        await transport.close(timeout=5)
        assert await node.socket_is_gone()
    assert node.dialled == [("127.0.0.1" if name == "agent.localhost" else name, 443)]
    assert names == [None if name == "127.0.0.1" else name]  # RFC 6066: no address in SNI


@pytest.mark.parametrize(
    ("issued_to", "flaw", "trusted", "text"),
    [
        ("node.test", {"expired": True}, True, "certificate has expired"),
        ("other.test", {}, True, "Hostname mismatch, certificate is not valid for 'node.test'"),
        ("node.test", {}, False, "unable to get local issuer certificate"),
        ("node.test", {"self_signed": True}, False, "self-signed certificate"),
    ],
)
async def test_tls_certificate_that_is_not_accepted_is_named(
    endpoint: MakeEndpoint,
    raw_peer: Any,
    authority: Authority,
    issued_to: str,
    flaw: dict[str, bool],
    trusted: bool,
    text: str,
) -> None:
    node = tls_node(authority.server(issued_to, **flaw), raw_peer, [])
    client = authority.client() if trusted else None
    error = await fail_to_open(node.serve, endpoint("wss://node.test/s", ssl_context=client))
    assert "the TLS handshake failed: the certificate is not accepted" in str(error)
    assert text in str(error).replace("self signed", "self-signed")
    assert error.status is None


async def test_tls_against_a_plain_port_is_named(endpoint: MakeEndpoint) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    error = await fail_to_open(serve, endpoint("wss://node.test/s"))
    assert "the TLS handshake failed: SSLError" in str(error)


async def test_tls_peer_that_goes_away_is_named(endpoint: MakeEndpoint) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await stream.aclose()

    assert "the TLS handshake failed" in str(await fail_to_open(serve, endpoint("wss://node.test/s")))


# --- the key is nowhere -----------------------------------------------------------------------------------------------


def shown(error: BaseException, seen: set[int] | None = None) -> str:
    """Everything a traceback printer could show: texts, args, causes, contexts, and the locals of all frames."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return ""
    seen.add(id(error))
    parts = [str(error), repr(error), repr(error.args), repr(getattr(error, "__dict__", {}))]
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        parts.append(repr(traceback.tb_frame.f_locals))
        traceback = traceback.tb_next
    related = [error.__cause__, error.__context__]
    if isinstance(error, BaseExceptionGroup):
        related += error.exceptions
    return "\n".join([*parts, *(shown(other, seen) for other in related if other is not None)])


@pytest.mark.parametrize("auth", ["query", "header"])
@pytest.mark.parametrize(
    "serve",
    [
        answering(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
        answering(b"garbage"),
        answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        answering(b"", close=True),
        hang,
    ],
)
async def test_key_is_shown_by_no_failure_and_no_log(caplog: pytest.LogCaptureFixture, serve: Serve, auth: str) -> None:
    from layr8_actors.transport import Secret

    caplog.set_level(logging.DEBUG)
    endpoint = Endpoint(url="ws://node.test/s?api_key=needle-0", api_key=Secret("needle-0"), auth=auth)  # type: ignore[arg-type]
    error = await fail_to_open(serve, endpoint)
    assert "needle" not in shown(error)
    assert "needle" not in caplog.text
    assert "needle" not in repr(endpoint)


@pytest.mark.parametrize("auth", ["query", "header"])
async def test_key_is_in_no_frame_of_a_cancelled_dial(auth: str) -> None:
    from layr8_actors.transport import Secret

    class Stuck(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep_forever()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.sleep_forever()
            return b""

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def open_stream(_host: str, _port: int) -> trio.abc.Stream:
        return Stuck()

    endpoint = Endpoint(url="ws://node.test/s", api_key=Secret("needle-0"), auth=auth)  # type: ignore[arg-type]
    texts: list[str] = []

    async def opening(nursery: trio.Nursery) -> None:
        try:
            await connector_class(open_stream).open(nursery, endpoint)
        except BaseException as error:
            texts.append(shown(error))
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(opening, nursery)
        await trio.testing.wait_all_tasks_blocked()
        texts.append(live_frames(nursery))
        nursery.cancel_scope.cancel()
    assert len(texts) == 2
    assert "send_all" in texts[0]
    assert not [text for text in texts if "needle" in text]


def live_frames(nursery: trio.Nursery) -> str:
    """The locals of every frame of every task in a nursery, however deep."""
    parts: list[str] = []
    for task in nursery.child_tasks:
        for frame, _line in task.iter_await_frames():
            parts.append(f"{frame.f_code.co_name}: {frame.f_locals!r}")
        parts += [live_frames(child) for child in task.child_nurseries]
    return "\n".join(parts)


async def test_key_is_in_no_frame_log_or_error_of_an_open_link(
    caplog: pytest.LogCaptureFixture, endpoint: MakeEndpoint, raw_peer: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    peer: Any = None

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal peer
        peer = raw_peer(stream)
        await peer.accept()

    node = Node(serve)
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        transport = await node.connector(peers).open(nursery, endpoint())
        await transport.send(["message"])
        await trio.testing.wait_all_tasks_blocked()
        texts = [live_frames(nursery), repr(transport)]
        # No local variable here may hold the key: this frame is in the traceback too.
        await peer.close(1008, f"{endpoint().api_key.reveal()} or {quote(endpoint().api_key.reveal(), safe='')}")
        with pytest.raises(TransportClosed) as caught:
            await transport.receive()
        texts.append(shown(caught.value))
    assert caught.value.reason == "*** or ***"
    assert "_reader_task" in texts[0] or "_sleep" in texts[0]
    assert not [text for text in texts if "needle" in text]
    if transport.name == "trio-websocket":  # it logs the peer's own words: what it was given of them has no key in it
        assert "*** or ***" in caplog.text
    assert "needle" not in caplog.text
