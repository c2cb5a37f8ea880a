"""A further DID of a blocking client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import trio

from ..channel.statistics import ChannelState
from ..client import ClientStatistics, Delegation, JoinedDid as AsyncJoinedDid, Message
from ..client.sending import REQUEST_TIMEOUT

__all__ = ("JoinedDid",)

T = TypeVar("T")


class Call(Protocol):
    """Awaits a function in the loop of the client, and returns what it returned."""

    def __call__(self, function: Callable[..., Awaitable[T]], *args: Any) -> T: ...


class JoinedDid:
    """:class:`layr8_actors.client.JoinedDid` for code without async; made by ``join_did`` of the blocking client.

    It lives until it is left or the client is closed. All methods may be called from any thread, also from handlers
    that are plain functions.
    """

    def __init__(self, joined: AsyncJoinedDid, call: Call) -> None:
        self._joined = joined
        self._call = call

    def __repr__(self) -> str:
        return f"<blocking JoinedDid {self.did!r}>"

    def connect(self) -> None:
        """Wait until the DID is joined: it is at first, and again after each reconnect.

        Raises:
            Layr8Error: as :meth:`layr8_actors.client.JoinedDid.connect`.
        """
        self._call(self._joined.connect)

    def send(self, message: Message) -> Message:
        """Send a message from this DID, and return once the node has accepted it.

        Args:
            message: to send.

        Returns:
            The message as it went out.

        Raises:
            Layr8Error: as :meth:`layr8_actors.client.JoinedDid.send`.
        """
        return self._call(self._joined.send, message)

    def send_durably(self, message: Message) -> Message:
        """Store a message to be sent from this DID, and return once it is stored.

        Args:
            message: to send.

        Returns:
            The message as it was stored.

        Raises:
            Layr8Error: as :meth:`layr8_actors.client.JoinedDid.send_durably`.
        """
        return self._call(self._joined.send_durably, message)

    def request(
        self, message: Message, *, timeout: float = REQUEST_TIMEOUT, survive_reconnect: bool = False
    ) -> Message:
        """Send a message from this DID and wait for the response in its thread.

        Args:
            message: to send.
            timeout: seconds for sending and waiting together.
            survive_reconnect: wait on when the link drops.

        Returns:
            The response.

        Raises:
            Layr8Error: as :meth:`layr8_actors.client.JoinedDid.request`.
        """

        async def request() -> Message:
            return await self._joined.request(message, timeout=timeout, survive_reconnect=survive_reconnect)

        return self._call(request)

    def leave(self) -> None:
        """Cancel its handlers, tell the node of each message, and leave; the client and its other DIDs go on.

        Idempotent. Called from within one of its own handlers it ends that handler too: ``trio.Cancelled`` comes out.
        It returns when plain functions of its handlers have.

        Raises:
            Layr8Error: as :meth:`layr8_actors.client.JoinedDid.leave`.
        """
        self._call(self._joined.leave)

    @property
    def asynchronous(self) -> AsyncJoinedDid:
        """The handle in the loop, for async handlers; nothing else may touch it."""
        return self._joined

    @property
    def did(self) -> str:
        """The DID that the node bound at the last join."""
        return self._joined.did

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join of this DID."""
        return self._joined.capabilities

    @property
    def delegation(self) -> Delegation | None:
        """The last reading of the credentials delegated to it."""
        return self._joined.delegation

    @property
    def state(self) -> ChannelState:
        """Where its topic stands now.

        Raises:
            NotConnected: the client has not run.
            ChannelClosed: it has ended.
        """

        async def state() -> ChannelState:
            await trio.lowlevel.checkpoint()
            return self._joined.state

        return self._call(state)

    def statistics(self) -> ClientStatistics:
        """Counts since it was joined, and gauges of this moment."""
        return self._joined.statistics()
