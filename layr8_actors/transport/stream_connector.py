"""Opening a WebSocket over a byte stream: the same for every adapter, but for the library that it then speaks."""

from __future__ import annotations

import abc
import ssl
from typing import Generic, TypeVar

import trio

from ..errors import ConnectFailed
from .dial import OpenStream, Progress, Refused, dial, open_tcp_stream
from .endpoint import Endpoint
from .port import Transport

__all__ = ("StreamConnector",)


T = TypeVar("T", bound=Transport)


class StreamConnector(abc.ABC, Generic[T]):
    """Dials, and lets an adapter upgrade the stream; see :class:`layr8_actors.transport.Connector`.

    Args:
        name: the adapter.
        open_stream: connects to a host and a port; the default is TCP.
    """

    def __init__(self, name: str, open_stream: OpenStream | None) -> None:
        self.name = name
        self._open_stream: OpenStream = open_stream or open_tcp_stream
        self._context: ssl.SSLContext | None = None

    async def open(self, nursery: trio.Nursery, endpoint: Endpoint) -> T:
        """See :meth:`layr8_actors.transport.Connector.open`."""
        return await self._open_in_time(nursery, endpoint, attended=False)

    async def _open_in_time(self, nursery: trio.Nursery, endpoint: Endpoint, *, attended: bool) -> T:
        progress = Progress()
        outcome: T | Refused | None = None
        with trio.move_on_after(endpoint.open_timeout):
            outcome = await self._open(nursery, endpoint, progress, attended)
        if outcome is None:
            outcome = Refused(f"timed out after {endpoint.open_timeout:g} s during {progress.step}")
        if not isinstance(outcome, Refused):
            return outcome
        raise ConnectFailed(endpoint.public_url, endpoint.redact(outcome.detail), status=outcome.status)

    async def _open(self, nursery: trio.Nursery, endpoint: Endpoint, progress: Progress, attended: bool) -> T | Refused:
        stream = await dial(endpoint, self._open_stream, self._default_context, progress)
        if isinstance(stream, Refused):
            return stream
        progress.step = "the WebSocket upgrade"
        opened = False
        try:
            outcome = await self._upgrade(nursery, stream, endpoint, attended)
            opened = not isinstance(outcome, Refused)
        finally:
            # Also where the nursery takes no more tasks, so that the transport's own clean-up never began.
            if not opened:
                await trio.aclose_forcefully(stream)
        return outcome

    @abc.abstractmethod
    async def _upgrade(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, endpoint: Endpoint, attended: bool
    ) -> T | Refused:
        """Shake hands on a connected stream, and start what the transport needs in the nursery; for adapters."""

    def _default_context(self) -> ssl.SSLContext:
        # Kept, because it costs some ten milliseconds to load the system's certificates.
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context
