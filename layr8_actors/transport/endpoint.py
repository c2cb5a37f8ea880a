"""Where to dial and with which key, checked once and safe to print."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import math
import re
import ssl
from typing import Literal
from urllib.parse import SplitResult, quote, unquote_plus, urlsplit

from ..errors import InvalidOption
from .hidden_arguments import hide_arguments
from .redaction import redact
from .secret import Secret

__all__ = ("Auth", "Endpoint", "checked_url", "normalize_url")

Auth = Literal["query", "header"]
"""Where the key travels: in the query as ``api_key`` (all released nodes), or in the upgrade's ``x-api-key`` header."""

_OURS = ("api_key", "vsn")
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
# RFC 3986: what may stand in a path or query unescaped; "%" because what is escaped already must stay as it is.
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + "?"


class NormalUrl(str):
    """A URL that was checked and is in the form in which it is dialled, so that nobody has to do that again."""

    __slots__ = ()


def normalize_url(ws_url: str) -> str:
    """Check a node's URL and bring it into the form in which it is dialled.

    ``http`` and ``https`` are turned into ``ws`` and ``wss``, as all Layr8 SDKs do. ``api_key`` and ``vsn`` are taken
    out of the query, because the dial sets both itself and the result may be printed; other keys stay.

    Args:
        ws_url: such as ``wss://node.example.com/plugin_socket/websocket``.

    Returns:
        A ``ws://`` or ``wss://`` URL; normalising it again changes nothing.

    Raises:
        InvalidOption: names ``ws_url`` and what is allowed, never the URL itself; correct the option.
    """
    checked = checked_url(ws_url)
    if isinstance(checked, InvalidOption):
        del ws_url  # it may carry a key in its query, which a traceback with locals would show
        raise checked
    return checked


def checked_url(ws_url: object) -> NormalUrl | InvalidOption:
    """The normalised URL, or the error to raise from a frame that no longer holds the URL; see :func:`normalize_url`.

    Args:
        ws_url: the URL, or whatever came in its place.
    """
    if isinstance(ws_url, NormalUrl):
        return ws_url
    if not isinstance(ws_url, str):
        return InvalidOption("ws_url", ws_url, "a str such as 'wss://node.example.com/plugin_socket/websocket'")
    if "?" in ws_url or "@" in ws_url:
        return _normalized(ws_url)  # a key or a password may stand in it, which must not stay in a cache
    try:
        return _known(ws_url)
    except InvalidOption as error:
        return error.with_traceback(None)


@functools.lru_cache(maxsize=64)
def _known(ws_url: str) -> NormalUrl:
    """The normalised URL, once for all channels to one node; what is refused is not kept."""
    checked = _normalized(ws_url)
    if isinstance(checked, InvalidOption):
        raise checked
    return checked


def _normalized(ws_url: str) -> NormalUrl | InvalidOption:
    if _CONTROL_OR_SPACE.search(ws_url):
        return InvalidOption("ws_url", ws_url, "a URL without spaces and control characters")
    try:
        parts = urlsplit(ws_url)
        port = parts.port
    except ValueError:
        return InvalidOption("ws_url", ws_url, "a URL whose port is between 1 and 65535 and whose brackets match")
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        return InvalidOption("ws_url", ws_url, "a URL whose scheme is ws, wss, http or https")
    if "@" in parts.netloc:
        return InvalidOption("ws_url", ws_url, "a URL without user name and password; the key goes into api_key")
    if "#" in ws_url:
        return InvalidOption("ws_url", ws_url, "a URL without a fragment (RFC 6455 section 3)")
    if port == 0:
        return InvalidOption("ws_url", ws_url, "a URL whose port is between 1 and 65535")
    host = _ascii_host(parts.hostname)
    if host is None or ("[" in parts.netloc and ":" not in host):  # brackets are for IPv6 only
        return InvalidOption("ws_url", ws_url, "a URL with a host name or an IP address")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[scheme]:
        netloc += f":{port}"
    pieces = [quote(piece, safe=_QUERY_SAFE) for piece in parts.query.split("&") if piece and _name(piece) not in _OURS]
    return NormalUrl(SplitResult(scheme, netloc, quote(parts.path, safe=_PATH_SAFE), "&".join(pieces), "").geturl())


def _name(piece: str) -> str:
    return unquote_plus(piece.partition("=")[0])


def _ascii_host(host: str | None) -> str | None:
    if not host:
        return None
    if ":" in host:
        if "%" in host:
            return None  # a zone means something on this host only, and may not stand in a Host header (RFC 6874)
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            return None
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return name if _HOST_NAME.fullmatch(name) else None


@hide_arguments
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one dial goes, and under which conditions; immutable, and safe to print.

    Args:
        url: the node's socket; normalised by :func:`normalize_url`.
        api_key: the key of this dial.
        auth: where the key travels, see :data:`Auth`.
        ssl_context: for ``wss``; ``None`` for :func:`ssl.create_default_context`. Not looked at for ``ws``.
        max_message_size: largest inbound message accepted, as ``len()`` counts it (bytes of a binary message,
            characters of a text). 8 MiB: Phoenix has no limit, the largest recorded message is 1 MB.
        open_timeout: seconds for DNS, TCP, TLS and upgrade together. 10: the open timeout of all Layr8 SDKs.

    Raises:
        InvalidOption: names the field at fault (``ws_url`` for the URL) and what is allowed; correct the call.
    """

    url: str
    api_key: Secret
    auth: Auth = "query"
    ssl_context: ssl.SSLContext | None = None
    max_message_size: int = 8 * 1024 * 1024
    open_timeout: float = 10.0

    def __post_init__(self) -> None:
        url = checked_url(self.url)
        object.__setattr__(self, "url", url if isinstance(url, str) else "")
        if not isinstance(url, str):
            raise url
        # As plain objects: callers without a type checker pass anything.
        key: object = self.api_key
        size: object = self.max_message_size
        seconds: object = self.open_timeout
        context: object = self.ssl_context
        if not isinstance(key, Secret) or not key:
            error = InvalidOption("api_key", key, "a non-empty Secret")
            object.__setattr__(self, "api_key", Secret(""))
            del key  # a str is a key all the same, and a traceback shows locals
            raise error
        if self.auth not in ("query", "header"):
            raise InvalidOption("auth", self.auth, "'query' | 'header'")
        if self.auth == "header" and not _HEADER_VALUE.fullmatch(key.reveal()):
            raise InvalidOption("api_key", key, "printable ASCII without outer spaces, when auth is 'header'")
        if context is not None and not isinstance(context, ssl.SSLContext):
            raise InvalidOption("ssl_context", context, "ssl.SSLContext, or None")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InvalidOption("max_message_size", size, "an int of at least 1")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= math.inf:
            raise InvalidOption("open_timeout", seconds, "seconds, more than 0")

    def __repr__(self) -> str:
        return f"Endpoint(url={self.public_url!r}, api_key=***, auth={self.auth!r}, open_timeout={self.open_timeout!r})"

    parse_url = staticmethod(normalize_url)

    def within(self, seconds: float) -> Endpoint:
        """The same endpoint with another ``open_timeout``; nothing else of it is checked again.

        Args:
            seconds: more than 0.
        """
        twin = object.__new__(Endpoint)
        for field in dataclasses.fields(Endpoint):
            object.__setattr__(twin, field.name, getattr(self, field.name))
        object.__setattr__(twin, "open_timeout", seconds)
        return twin

    @property
    def public_url(self) -> str:
        """The URL without its query: what error texts and logs may show."""
        return self.url.partition("?")[0]

    @property
    def tls(self) -> bool:
        """True for ``wss``."""
        return self.url.startswith("wss:")

    @property
    def host(self) -> str:
        """The URL's host, in ASCII, without brackets: the name that TLS verifies."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The URL's port, or its scheme's default (RFC 6455 section 3)."""
        parts = urlsplit(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def host_header(self) -> str:
        """The value of the ``Host`` header: host, and the port unless it is the default (RFC 6455 section 4.1)."""
        return urlsplit(self.url).netloc

    @property
    def dial_host(self) -> str:
        """The host to connect to: the URL's, but 127.0.0.1 for ``localhost`` and ``*.localhost``.

        RFC 6761 section 6.3 reserves these names for the loopback address; resolvers that do not know it send them to
        the DNS. Only the address dialled is replaced, never the ``Host`` header or the name that TLS verifies.
        """
        host = self.host
        name = host.removesuffix(".")
        return "127.0.0.1" if name == "localhost" or name.endswith(".localhost") else host

    @property
    def path(self) -> str:
        """The path of the request target; ``/`` where the URL has none (RFC 9112 section 3.2.1)."""
        return urlsplit(self.url).path or "/"

    def request_target(self) -> Secret:
        """Path and query of the upgrade request, with ``vsn=2.0.0`` and, for ``auth="query"``, the key."""
        pieces = [piece for piece in (urlsplit(self.url).query,) if piece]
        if self.auth == "query":
            pieces.append(f"api_key={quote(self.api_key.reveal(), safe='', errors='replace')}")
        return Secret(f"{self.path}?{'&'.join([*pieces, 'vsn=2.0.0'])}")

    def auth_headers(self) -> tuple[tuple[str, Secret], ...]:
        """Headers of the upgrade request that carry the key: ``x-api-key`` for ``auth="header"``, else none."""
        return (("x-api-key", self.api_key),) if self.auth == "header" else ()

    def redact(self, text: str) -> str:
        """A text of foreign origin with every occurrence of the key replaced; see :func:`.redaction.redact`.

        Args:
            text: what the peer, or a library about the peer, says.
        """
        return redact(text, self.api_key)
