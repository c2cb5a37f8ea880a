"""The seam to the network: endpoints, secrets, the port, and its adapters."""

from __future__ import annotations

from .endpoint import Auth as Auth
from .endpoint import Endpoint as Endpoint
from .endpoint import normalize_url as normalize_url
from .memory import MemoryConnector as MemoryConnector
from .memory import MemoryTransport as MemoryTransport
from .memory import memory_pair as memory_pair
from .port import Connector as Connector
from .port import Transport as Transport
from .secret import Secret as Secret
from .trio_websocket import OpenStream as OpenStream
from .trio_websocket import TrioWebSocketConnector as TrioWebSocketConnector
