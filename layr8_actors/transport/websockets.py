"""The adapter for the sans-I/O core of websockets; with :mod:`.framing` the only module that knows it.

The library never sees a socket: all frames of one chunk of bytes are parsed at once, and all messages of a batch are
one write. So a message costs a fraction of what it does through trio-websocket. Only public names are used.
"""

from __future__ import annotations

import base64
import os
import re

import trio
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.utils import accept_key

from .dial import OpenStream, Refused, explain, receive_answer, send_request
from .endpoint import Endpoint
from .framing import NODE, SILENT
from .stream_connector import StreamConnector
from .upgrade import AnswerHead, UpgradeFailed, request_with_key
from .websockets_transport import WebSocketsTransport

__all__ = ("WebSocketsConnector",)

# Bytes; the answer to the upgrade, and what comes with it, are a few hundred.
_HEAD_SIZE = 4096
_NAME = "websockets"
# The answer of an ordinary node, well-formed and of a size that the library would take as well.
_ORDINARY = re.compile(rb"HTTP/1\.1 101 [ -~]*\r\n(?:[A-Za-z0-9-]+:[ -~]*\r\n){1,64}\r\n")
_ORDINARY_SIZE = 4096
_ACCEPT = b"sec-websocket-accept"
_DECIDING = frozenset((b"connection", b"upgrade", _ACCEPT, b"sec-websocket-extensions", b"sec-websocket-protocol"))


def why_no_handshake(head: bytes, key: str, accept: str | None = None) -> str | None:
    """Say why an answer with status 101 does not complete the handshake of RFC 6455 section 4.1.

    Args:
        head: the answer, to its empty line.
        key: the ``Sec-WebSocket-Key`` of the request.
        accept: what has to answer it, where that is known already.

    Returns:
        The library's words, which may quote the peer; ``None`` where the handshake is complete.
    """
    # What ordinary nodes answer is seen at once; the library, which takes ten times as long, judges all else.
    if len(head) <= _ORDINARY_SIZE and _ORDINARY.fullmatch(head):
        found: list[tuple[bytes, bytes]] = []
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in _DECIDING:
                found.append((name, value.strip() if name == _ACCEPT else value.strip().lower()))
        found.sort()
        if found == [
            (b"connection", b"upgrade"),
            (_ACCEPT, (accept or accept_key(key)).encode()),
            (b"upgrade", b"websocket"),
        ]:
            return None
    protocol = ClientProtocol(NODE, logger=SILENT)
    protocol.key = key
    protocol.receive_data(head)
    return None if protocol.state is State.OPEN else str(protocol.handshake_exc)


class WebSocketsConnector(StreamConnector[WebSocketsTransport]):
    """Opens WebSockets by the sans-I/O core of websockets, as :class:`layr8_actors.transport.Connector` promises.

    Neither compression nor a subprotocol is offered, and no ``Origin`` is sent. ``localhost`` and ``*.localhost`` are
    dialled at 127.0.0.1 (RFC 6761). It needs the extra ``fast``.

    Args:
        open_stream: connects to a host and a port; the default is TCP. TLS is put on top of it for ``wss``. It is
            cancelled at the open timeout, and must leave no socket behind then.
    """

    def __init__(self, open_stream: OpenStream | None = None) -> None:
        super().__init__(_NAME, open_stream)

    async def open_attended(self, nursery: trio.Nursery, endpoint: Endpoint) -> WebSocketsTransport:
        """See :meth:`layr8_actors.transport.port.AttendedConnector.open_attended`."""
        return await self._open_in_time(nursery, endpoint, attended=True)

    async def _upgrade(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, endpoint: Endpoint, attended: bool
    ) -> WebSocketsTransport | Refused:
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET / HTTP/1.1\r\nHost: {endpoint.host_header}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        lost = "the upgrade request could not be written"
        answer = AnswerHead()
        found: tuple[bytes, bytes] | None = None
        try:
            await send_request(stream, request_with_key(request.encode("ascii"), endpoint))
            lost = "the connection was closed during the upgrade"
            accept = accept_key(key)  # while the peer is at it
            while found is None:
                # In no variable, which a traceback would show: a peer may echo the key.
                found = answer.feed(await receive_answer(stream, _HEAD_SIZE))
        except UpgradeFailed as failed:
            return failed.refused
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return Refused(f"{lost}: {explain(error)}")
        head, rest = found
        failure = why_no_handshake(head, key, accept)
        if failure is not None:
            failure = endpoint.redact(failure)
            return Refused(f"the answer to the upgrade is not a WebSocket handshake: {failure}")
        transport = WebSocketsTransport(nursery, stream, endpoint, rest)
        if attended:
            transport.attend(True)
        else:
            transport.start()
        return transport
