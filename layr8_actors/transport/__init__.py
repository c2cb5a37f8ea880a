"""The seam to the network: endpoints, secrets, the port, and its adapters."""

from __future__ import annotations

from .dial import OpenStream as OpenStream
from .endpoint import Auth as Auth, Endpoint as Endpoint, normalize_url as normalize_url
from .memory import MemoryConnector as MemoryConnector, MemoryTransport as MemoryTransport, memory_pair as memory_pair
from .named import TransportName as TransportName, connector_named as connector_named
from .port import (
    AttendedConnector as AttendedConnector,
    AttendedTransport as AttendedTransport,
    Connector as Connector,
    Transport as Transport,
)
from .proxy import HttpProxy as HttpProxy, ProxyRefused as ProxyRefused
from .redaction import redact as redact
from .secret import Secret as Secret
from .trio_websocket import TrioWebSocketConnector as TrioWebSocketConnector
