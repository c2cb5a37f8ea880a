"""Dialling through an HTTP proxy, by CONNECT (RFC 9110 section 9.3.6): an ``open_stream`` for every connector."""

from __future__ import annotations

import base64
import http
import re
import ssl
import urllib.request
from urllib.parse import unquote, urlsplit

import trio

from ..errors import InvalidOption
from .dial import explain, open_tcp_stream
from .secret import Secret

__all__ = ("HttpProxy", "ProxyRefused")

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
# Bytes; proxies send a few hundred. The order of what HTTP servers themselves accept as a head.
_MAX_HEAD = 64 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ProxyRefused(OSError):
    """The proxy makes no tunnel to the node; the text says what it answered."""


class HttpProxy:
    """Opens streams through the tunnels of an HTTP proxy; give it to a connector as ``open_stream``.

    The name of the node is resolved by the proxy. TLS to the node, for ``wss``, goes on inside the tunnel, so the
    proxy sees neither the key nor the messages; with ``ws`` it sees all.

    Args:
        url: the proxy, such as ``http://proxy.example.com:3128``; ``https`` for TLS to the proxy itself. User name and
            password in it, percent-encoded, are sent as ``Proxy-Authorization: Basic``.
        ssl_context: for an ``https`` proxy; ``None`` for :func:`ssl.create_default_context`.

    Raises:
        InvalidOption: names ``proxy`` and what is allowed, never the URL itself; correct the option.
    """

    __slots__ = ("_authorization", "_context", "host", "port")

    def __init__(self, url: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        parsed = _parsed(url)
        del url  # it may carry a password, which a traceback with locals would show
        if isinstance(parsed, InvalidOption):
            raise parsed
        tls, self.host, self.port, self._authorization = parsed
        self._context = (ssl_context or ssl.create_default_context()) if tls else None

    @classmethod
    def from_environment(cls, ws_url: str) -> HttpProxy | None:
        """The proxy that ``HTTPS_PROXY`` (for ``wss``) or ``HTTP_PROXY`` (for ``ws``) names, as other programs read it.

        Args:
            ws_url: the node's URL.

        Returns:
            ``None`` where none is named, or ``NO_PROXY`` excepts the node's host.

        Raises:
            InvalidOption: what is named is no HTTP proxy, a SOCKS proxy for example.
        """
        node = urlsplit(ws_url)
        url = urllib.request.getproxies().get("https" if node.scheme in ("wss", "https") else "http")
        if not url or urllib.request.proxy_bypass(node.hostname or ""):
            return None
        return cls(url)

    def __repr__(self) -> str:
        return f"HttpProxy({self.host}:{self.port})"

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Open a tunnel.

        Args:
            host: of the node.
            port: of the node.

        Returns:
            A stream to the node.

        Raises:
            ProxyRefused: the proxy answered with an HTTP error, or with something else.
            OSError: it cannot be reached.

        Always checkpoints. Failure and cancellation leave no socket behind; the connector's open timeout bounds it.
        """
        plain = await open_tcp_stream(self.host, self.port)
        opened = False
        try:
            stream: trio.abc.Stream = plain
            if self._context is not None:
                stream = await self._secured(plain, self._context)
            await stream.send_all(self._request(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
            await _read_answer(stream)
            opened = True
        finally:
            if not opened:
                await trio.aclose_forcefully(plain)
        return stream

    async def _secured(self, plain: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        stream = trio.SSLStream(plain, context, server_hostname=self.host, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            raise ProxyRefused(f"the TLS handshake with the proxy failed: {explain(error)}") from None
        return stream

    def _request(self, node: str) -> memoryview:
        """The request, as a view, which prints as an address."""
        return memoryview(
            f"CONNECT {node} HTTP/1.1\r\nHost: {node}\r\n{self._authorization.reveal()}\r\n".encode("ascii")
        )


def _parsed(url: object) -> tuple[bool, str, int, Secret] | InvalidOption:
    if not isinstance(url, str):
        return InvalidOption("proxy", url, "a str such as 'http://proxy.example.com:3128'")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return InvalidOption("proxy", url, "a URL whose port is between 1 and 65535 and whose brackets match")
    if parts.scheme not in _DEFAULT_PORTS:
        return InvalidOption("proxy", url, "a URL whose scheme is http or https; for SOCKS give an open_stream")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        return InvalidOption("proxy", url, "a URL of a host and a port, without a path and a query")
    header = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        header = f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}\r\n"
    return parts.scheme == "https", parts.hostname, port or _DEFAULT_PORTS[parts.scheme], Secret(header)


async def _read_answer(stream: trio.abc.Stream) -> None:
    """Read the proxy's answer to its empty line; whatever follows a refusal is left where it is."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(4096)
        if not data:
            raise ProxyRefused("the proxy closed the connection")
        head += data
        line = _STATUS_LINE.match(head)
        if line is None and (b"\n" in head or not head.startswith(b"HTTP/1."[: len(head)])):
            raise ProxyRefused("the proxy's answer is not HTTP/1.1; is it an HTTP proxy, and the right port?")
        if line is not None and line[1][:1] != b"2":
            raise ProxyRefused(_refusal(int(line[1])))
        if len(head) > _MAX_HEAD:
            raise ProxyRefused(f"the proxy's answer has more than {_MAX_HEAD} bytes of headers")
    if not head.endswith(b"\r\n\r\n"):
        raise ProxyRefused("the proxy sent something before the node was spoken to")


def _refusal(status: int) -> str:
    # The phrase is the standard's: the proxy's own may quote the request.
    try:
        phrase = f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    advice = "; it wants other credentials" if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else ""
    return f"the proxy answered HTTP {status}{phrase}{advice}"
