"""Which adapter the names of the option ``transport`` stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from ..errors import InvalidOption
from .dial import OpenStream
from .port import Connector
from .trio_websocket import TrioWebSocketConnector

__all__ = ("TransportName", "connector_named")

TransportName = Literal["auto", "websockets", "trio-websocket"]
"""``"websockets"`` needs the extra ``fast``; ``"auto"`` takes it where it is installed, else ``"trio-websocket"``."""


def connector_named(name: TransportName, open_stream: OpenStream | None = None) -> Connector:
    """Return a connector of the adapter of that name.

    Without ``open_stream`` it is the same one for a whole process: a connector keeps nothing but the default TLS
    context, which takes 0.8 MiB and 17 ms to make. So the system's certificates are read once, by the first dial of a
    ``wss`` URL that has no ``ssl_context`` of its own.

    Args:
        name: one of :data:`TransportName`.
        open_stream: connects to a host and a port; the default is TCP.

    Raises:
        InvalidOption: the adapter's library is not installed; install ``layr8-actors[fast]``, or say ``"auto"``.
    """
    if name != "trio-websocket":
        try:
            from .websockets import WebSocketsConnector  # noqa: PLC0415 - it may not be installed
        except ImportError:
            if name == "websockets":
                allowed = '"auto" or "trio-websocket" without the extra fast: pip install "layr8-actors[fast]"'
                raise InvalidOption("transport", name, allowed) from None
        else:
            return _over_tcp(WebSocketsConnector) if open_stream is None else WebSocketsConnector(open_stream)
    return _over_tcp(TrioWebSocketConnector) if open_stream is None else TrioWebSocketConnector(open_stream)


@functools.cache
def _over_tcp(adapter: Callable[[], Connector]) -> Connector:
    return adapter()
