"""The adapter for the sans-I/O core of websockets; with :mod:`.framing` the only module that knows it.

The library never sees a socket: all frames of one chunk of bytes are parsed at once, and all messages of a batch are
one write. So a message costs a fraction of what it does through trio-websocket. Only public names are used.
"""

from __future__ import annotations

import trio
from websockets.client import ClientProtocol

from .dial import OpenStream, Refused, explain
from .endpoint import Endpoint
from .framing import NODE, SILENT
from .stream_connector import StreamConnector
from .upgrade import AnswerHead, UpgradeFailed, request_with_key
from .websockets_transport import WebSocketsTransport

__all__ = ("WebSocketsConnector",)

# Bytes; the answer to the upgrade, and what comes with it, are a few hundred.
_HEAD_SIZE = 4096
_NAME = "websockets"


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

    async def _upgrade(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, endpoint: Endpoint
    ) -> WebSocketsTransport | Refused:
        protocol = ClientProtocol(NODE, logger=SILENT)  # real target and host are put in below
        request = protocol.connect()
        del request.headers["Host"]
        request.headers["Host"] = endpoint.host_header
        protocol.send_request(request)
        lost = "the upgrade request could not be written"
        answer = AnswerHead()
        found: tuple[bytes, bytes] | None = None
        try:
            await stream.send_all(request_with_key(b"".join(protocol.data_to_send()), endpoint))
            lost = "the connection was closed during the upgrade"
            while found is None:
                # In no variable, which a traceback would show: a peer may echo the key.
                found = answer.feed(await stream.receive_some(_HEAD_SIZE))
        except UpgradeFailed as failed:
            return failed.refused
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return Refused(f"{lost}: {explain(error)}")
        head, rest = found
        protocol.receive_data(head)
        if protocol.handshake_exc is not None:
            failure = endpoint.redact(str(protocol.handshake_exc))
            return Refused(f"the answer to the upgrade is not a WebSocket handshake: {failure}")
        transport = WebSocketsTransport(stream, endpoint, rest)
        nursery.start_soon(transport.run)
        return transport
