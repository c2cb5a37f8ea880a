"""A client that does what it is told and nothing else: the counterpart of CloudNode for tests of a node."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from ..errors import TransportClosed
from .cloud_node import CloudNode
from .web_socket import close_stream, reset_stream

__all__ = ("RawClient", "UpgradeRefused")


class UpgradeRefused(Exception):
    """The node answered the upgrade with an HTTP status other than 101; ``status``, ``headers`` and ``body`` are it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"HTTP {status}")


class RawClient:
    """One WebSocket, client side, with no task of its own; open it with :meth:`connect`.

    It answers close frames (RFC 6455 section 5.5.1) and nothing else: no ping, no heartbeat, no join.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.headers: dict[str, str] = {}
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._messages: list[str | bytes] = []
        self._parts: list[Any] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        node: CloudNode,
        *,
        api_key: str | None = "key",
        vsn: str | None = "2.0.0",
        path: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        open_stream: Callable[[str, int], Awaitable[trio.abc.Stream]] | None = None,
    ) -> AsyncIterator[Self]:
        """Open a WebSocket to a node for the length of a ``with`` block; leaving it drops the stream.

        Args:
            node: the node to dial.
            api_key: goes into the query; ``None`` leaves it out.
            vsn: goes into the query; ``None`` leaves it out.
            path: in place of the URL's, with its query then.
            headers: more headers of the upgrade.
            open_stream: in place of ``node.open_stream``.

        Raises:
            UpgradeRefused: the node answered with another HTTP status.
            TransportClosed: the node went away before it answered.
            OSError: the node is stopped.
        """
        query = {"api_key": api_key, "vsn": vsn}
        parts = urlsplit(node.url)
        stream = await (open_stream or node.open_stream)(parts.hostname or "", parts.port or 0)
        try:
            client = cls(stream)
            target = path or f"{parts.path}?{urlencode({k: v for k, v in query.items() if v is not None})}"
            await client._upgrade(Request(host=parts.netloc, target=target, extra_headers=_encoded(headers)))
            yield client
        finally:
            close_stream(stream)

    async def _upgrade(self, request: Request) -> None:
        await self._send_wire(self._wire.send(request))
        status, headers, body = 0, {}, b""
        while True:
            data = await self._receive_bytes()
            try:
                self._wire.receive_data(data)
                events = list(self._wire.events())
            except ProtocolError:
                raise TransportClosed(1006, detail="the answer to the upgrade is no HTTP") from None
            for event in events:
                if isinstance(event, AcceptConnection):
                    self.headers = _decoded(event.extra_headers)
                    if event.subprotocol is not None:
                        self.headers["sec-websocket-protocol"] = event.subprotocol
                    return
                if isinstance(event, RejectConnection):
                    status, headers = event.status_code, _decoded(event.headers)
                elif isinstance(event, RejectData):
                    body += bytes(event.data)
                    if event.body_finished:
                        raise UpgradeRefused(status, headers, body)
            if not data:
                raise TransportClosed(1006, detail="the stream ended during the upgrade")

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, *frame: Any) -> None:
        """Send the arguments as one JSON array: ``send(join_ref, ref, topic, event, payload)``; checkpoints."""
        await self.send_raw(json.dumps(frame))

    async def send_raw(self, message: str | bytes) -> None:
        """Send one message, text for ``str`` and binary for ``bytes``; checkpoints."""
        event: TextMessage | BytesMessage
        event = TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
        await self._send_wire(self._wire.send(event))

    async def send_fragments(self, *fragments: str) -> None:
        """Send one text message in several WebSocket frames; checkpoints."""
        for number, fragment in enumerate(fragments, 1):
            last = number == len(fragments)
            await self._send_wire(self._wire.send(TextMessage(data=fragment, message_finished=last)))

    async def ping(self, payload: bytes = b"") -> None:
        """Send a WebSocket ping; the answer goes to ``pongs`` when it is received. Checkpoints."""
        await self._send_wire(self._wire.send(Ping(payload=payload)))

    async def send_wire(self, data: bytes) -> None:
        """Send bytes below WebSocket framing; checkpoints."""
        await self._send_wire(data)

    async def join(self, topic: str, *, ref: str = "1", payload: Any = None) -> Any:
        """Join a topic and return the payload of the reply; other frames before it are kept. Checkpoints."""
        await self.send(ref, ref, topic, "phx_join", {"payload_types": ["*"]} if payload is None else payload)
        return await self.reply(ref)

    async def close(self, code: int = 1000, reason: str = "") -> int:
        """Send a close frame, wait for the node's, and return its code; checkpoints."""
        await self.begin_close(code, reason)
        while self.close_code is None:
            try:
                await self._receive()
            except TransportClosed as error:
                return error.code
        return self.close_code

    async def begin_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame, for a task that leaves the receiving to another; checkpoints."""
        await self._send_wire(self._wire.send(CloseConnection(code=code, reason=reason or None)))

    def reset(self) -> None:
        """Drop the stream with RST."""
        reset_stream(self.stream)

    async def _send_wire(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportClosed(1006) from None

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive_raw(self) -> str | bytes:
        """Return the next message; checkpoints.

        Raises:
            TransportClosed: the node closed, ``code`` is its close code; 1006 where it dropped the stream.
        """
        while not self._messages:
            await self._receive()
        await trio.lowlevel.checkpoint()
        return self._messages.pop(0)

    async def receive(self) -> Any:
        """Return the next message, decoded where it is text; raises as :meth:`receive_raw`."""
        message = await self.receive_raw()
        return json.loads(message) if isinstance(message, str) else message

    async def reply(self, ref: str) -> Any:
        """Return the payload of the next ``phx_reply`` to a ref; what comes before it is kept. Checkpoints."""
        passed: list[str | bytes] = []
        try:
            while True:
                message = await self.receive_raw()
                frame = json.loads(message) if isinstance(message, str) else None
                if isinstance(frame, list) and frame[1] == ref and frame[3] == "phx_reply":
                    return frame[4]
                passed.append(message)
        finally:
            self._messages[:0] = passed

    async def closed(self) -> int:
        """Forget all messages until the node closes, and return the code; checkpoints."""
        try:
            while True:
                await self.receive_raw()
        except TransportClosed as error:
            return error.code

    async def _receive(self) -> None:
        if self.close_code is not None:
            raise TransportClosed(self.close_code)
        data = await self._receive_bytes()
        if not data:
            raise TransportClosed(1006)
        self._wire.receive_data(data)
        for event in self._wire.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                if event.message_finished:
                    text = isinstance(event, TextMessage)
                    self._messages.append("".join(self._parts) if text else b"".join(self._parts))
                    self._parts = []
            elif isinstance(event, Pong):
                self.pongs.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self.close_code = int(event.code)
                self.close_reason = event.reason or ""
                with contextlib.suppress(ProtocolError, TransportClosed):
                    await self._send_wire(self._wire.send(event.response()))

    async def _receive_bytes(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(64 * 1024))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportClosed(1006) from None


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


def _decoded(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
