"""The HTTP upgrade that a client asked for, as data whose text never shows the API key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import parse_qsl

from wsproto.events import Request

__all__ = ("UpgradeRequest",)

_SECRET = "***"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """One upgrade that the node saw, accepted or not.

    Args:
        at: when, in seconds of the run's clock.
        path: the path of the URL.
        query: its parameters, the last of equal names winning; the key among them, so it is not in the repr.
        headers: by lower-case name; the key may be among them, so they are not in the repr.
        host: the Host header.
        status: the HTTP status that answered it: 101 where it was accepted, 0 where it never was.
    """

    at: float
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    host: str
    status: int = 101

    @classmethod
    def from_event(cls, event: Request, at: float) -> UpgradeRequest:
        """Read what wsproto made of the request; never fails."""
        # Not urlsplit: that one raises on targets which a client may well send.
        path, _, query_text = event.target.partition("?")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.extra_headers}
        if event.subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(event.subprotocols)
        query = dict(parse_qsl(query_text, keep_blank_values=True))
        return cls(at, path, MappingProxyType(query), MappingProxyType(headers), event.host)

    def answered(self, status: int) -> UpgradeRequest:
        """Return the same request with another status."""
        return replace(self, status=status)

    @property
    def api_key(self) -> str:
        """The key, from the query or else from the header ``x-api-key``; empty where there was none."""
        return self.query.get("api_key") or self.headers.get("x-api-key", "")

    @property
    def url(self) -> str:
        """The request target with the key's value replaced by ``***``."""
        shown = [f"{name}={_SECRET if name == 'api_key' else value}" for name, value in self.query.items()]
        return self.path + ("?" + "&".join(shown) if shown else "")

    def __str__(self) -> str:
        return f"{self.url} -> {self.status}"
