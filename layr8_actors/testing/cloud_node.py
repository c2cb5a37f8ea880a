"""CloudNode: a Layr8 cloud-node inside the test's own Trio loop, over TCP or over memory."""

from __future__ import annotations

import contextlib
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

import trio

from ..errors import InvalidOption
from ..phoenix import Frame
from ..transport import Connector, connector_named
from .memory_stream import memory_stream_pair
from .node_behaviours import NodeBehaviours
from .node_channel import NodeChannel
from .node_socket import MAX_CHANNELS, NodeSocket
from .observations import NodeStatistics, Observations, ReceivedFrame
from .phoenix_version import phoenix_version
from .plugin_channel import PluginChannel
from .upgrade_policy import UpgradePolicy
from .upgrade_request import UpgradeRequest
from .web_socket import ServerWebSocket, SocketEnded

__all__ = ("CAPABILITIES", "CloudNode")

CAPABILITIES: Final = ("reply_protocol/1", "ephemeral_delegation/1")
"""What the recorded stand-in of a node advertises in its join reply."""

_PATH: Final = "/plugin_socket/websocket"
_HOST: Final = "127.0.0.1"


class CloudNode(NodeBehaviours):
    """A Layr8 node for tests: speaks Phoenix Channels V2 as recorded from Phoenix, and misbehaves on demand.

    Use it as ``async with CloudNode() as node:``, in one task and never across the yield of a fixture. Clients dial
    ``node.url``, over memory with ``node.connector``. Leaving the block ends every socket at once, and leaves no task.
    Whatever a client sends, the node goes on; an error in the node itself, or in a channel class of yours, comes out
    of the block.

    Args:
        memory: no sockets; ``node.connector`` (and :meth:`open_stream`) hand out memory streams, on which WebSocket
            bytes run as on TCP, so that all deadlines are under the test's virtual clock.
        port: of 127.0.0.1; 0 takes a free one.
        phoenix: whose rules it follows: ``"1.7.24"``, ``"1.8.11"`` or ``"1.8.12"``, those that were recorded.
        api_keys: the keys that are accepted; ``None`` accepts any that is not empty. Others get HTTP 403.
        capabilities: what the join reply advertises.
        exclusive: refuse a join with ``protocols_already_bound`` while another socket holds the DID with the same
            protocols.
        seed: of the ephemeral DIDs.
        idle_timeout: seconds without a frame in either direction after which a socket is closed with 1002, as by
            Bandit; 60, Phoenix's default. ``math.inf`` for never.
        close_timeout: seconds that a closing socket waits for the client's close frame; 5, Bandit's default.
        upgrade_timeout: seconds for the upgrade request to come; 60, Bandit's default.
        max_message_size: bytes above which a message closes the socket with 1009; ``None``, Bandit's default.
        max_channels: topics of one socket; 100, Phoenix's default.
        channels: channel classes by topic prefix; ``{"plugins:": PluginChannel}`` by default.
        ssl_context: serve TLS with it; the URL is ``wss://localhost`` then.
        capacity: bytes that a memory stream holds in each direction before its sender waits.
        frames_kept: how many received frames and requests are kept for looking at.

    Raises:
        InvalidOption: an option is not allowed.
    """

    def __init__(
        self,
        *,
        memory: bool = False,
        port: int = 0,
        phoenix: str = "1.7.24",
        api_keys: Iterable[str] | None = None,
        capabilities: Iterable[str] = CAPABILITIES,
        exclusive: bool = True,
        seed: int = 0,
        idle_timeout: float = 60.0,
        close_timeout: float = 5.0,
        upgrade_timeout: float = 60.0,
        max_message_size: int | None = None,
        max_channels: int = MAX_CHANNELS,
        channels: Mapping[str, type[NodeChannel]] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        capacity: int = 64 * 1024,
        frames_kept: int = 100_000,
    ) -> None:
        super().__init__()
        for option, value in (("idle_timeout", idle_timeout), ("close_timeout", close_timeout)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InvalidOption(option, value, "a positive number of seconds")
        if isinstance(api_keys, str):
            raise InvalidOption("api_keys", api_keys, "a collection of str, not one str")
        self.memory = memory
        self.version = phoenix_version(phoenix)
        self.capabilities = tuple(capabilities)
        self.exclusive = exclusive
        self.idle_timeout = idle_timeout
        self.close_timeout = close_timeout
        self.max_channels = max_channels
        self.observations = Observations(frames_kept)
        self._port = port
        keys = None if api_keys is None else frozenset(api_keys)
        self._upgrade_policy = UpgradePolicy(_PATH, keys, self.rules, self.observations, close_timeout)
        self._random = random.Random(seed)
        self._upgrade_timeout = upgrade_timeout
        self._max_message_size = max_message_size
        self._channel_types = {"plugins:": PluginChannel} if channels is None else dict(channels)
        self._ssl_context = ssl_context
        self._capacity = capacity
        self._count = 0
        self._nursery: trio.Nursery | None = None
        self._nursery_manager: contextlib.AbstractAsyncContextManager[trio.Nursery] | None = None
        self._accepting: trio.CancelScope | None = None
        self._listeners: list[trio.SocketListener] = []
        self._upgrading: set[ServerWebSocket] = set()
        self._connector = connector_named("auto", self.open_stream if memory else None)

    def __repr__(self) -> str:
        where = "memory" if self.memory else f"port {self._port}"
        return f"<CloudNode {where} phoenix={self.version.name} sockets={len(self._sockets)} dids={self.dids}>"

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise RuntimeError("this node runs already")
        listeners = await self._listen()
        # From here to the return nothing awaits, so that no cancellation can leave the nursery half open.
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._accept_from(listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._nursery is not None
        assert self._nursery_manager is not None
        self._accepting = None
        self._nursery.cancel_scope.cancel()
        try:
            return await self._nursery_manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # A test that fails inside the block should fail with its own exception, not with a group around it.
            if error is not None and list(_leaves(group)) == list(_leaves(error)):
                return False
            raise
        finally:
            self._nursery = None

    async def start(self) -> None:
        """Accept connections (again), on the same port as before; does nothing when it does. Checkpoints.

        Raises:
            OSError: the port is taken; entering the node's block raises it too, and then nothing is left.
        """
        self._running()
        if self._accepting is not None:
            await trio.lowlevel.checkpoint()
            return
        listeners = await self._listen()
        self._accept_from(listeners)

    async def _listen(self) -> list[trio.SocketListener]:
        if self.memory:
            await trio.lowlevel.checkpoint()
            return []
        return await trio.open_tcp_listeners(self._port, host=_HOST)

    def _accept_from(self, listeners: list[trio.SocketListener]) -> None:
        self._accepting = trio.CancelScope()
        self._listeners = listeners
        if listeners:
            self._port = int(listeners[0].socket.getsockname()[1])
            self._running().start_soon(self._accept, listeners, self._accepting)

    async def _accept(self, listeners: list[trio.SocketListener], scope: trio.CancelScope) -> None:
        with scope:
            # The sockets live in the node's nursery, so that they outlast the listener in an orderly stop.
            await trio.serve_listeners(self._serve, listeners, handler_nursery=self._running())

    async def stop(self, *, abrupt: bool = False) -> None:
        """Stop as a node does: accept no more connections, end every socket, and return when they are gone.

        Args:
            abrupt: with RST, as a killed node; else orderly, with 1012 for a socket with a topic and 1000 for one
                without, as Bandit does.

        What :class:`CloudNode` was told about upgrades, joins and replies stays in force. Checkpoints; when cancelled,
        the sockets go on closing.
        """
        self._running()
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
            for listener in self._listeners:
                listener.socket.close()
        for web_socket in list(self._upgrading):
            web_socket.reset()
        for socket in list(self._sockets):
            if abrupt:
                socket.web_socket.reset()
                socket.drop_channels()
            else:
                socket.close_soon(1012 if socket.channels else 1000)
        await self.observations.wait_for(lambda: not self._sockets and not self._upgrading)

    @contextlib.asynccontextmanager
    async def down(self, *, abrupt: bool = False) -> AsyncIterator[None]:
        """Be stopped for the length of a ``with`` block, then start again on the same port; see :meth:`stop`."""
        await self.stop(abrupt=abrupt)
        try:
            yield
        finally:
            if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
                await self.start()

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("this node does not run; use it in `async with`")
        return self._nursery

    # --- how to reach it ----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port; 0 over memory."""
        return self._port

    @property
    def url(self) -> str:
        """What clients dial: the socket's URL, without key and vsn."""
        # A certificate is for a name, so TLS is dialled by one; over memory no name is looked up.
        scheme, host = ("ws", _HOST) if self._ssl_context is None else ("wss", "localhost")
        authority = host if self.memory else f"{host}:{self._port}"
        return f"{scheme}://{authority}{_PATH}"

    @property
    def connector(self) -> Connector:
        """The connector with which a channel reaches this node: ``ChannelOptions(transport=node.connector)``."""
        return self._connector

    async def open_stream(self, host: str = "", port: int = 0) -> trio.abc.Stream:
        """Return a raw stream to the node, for a client that speaks HTTP and WebSocket itself; checkpoints.

        Args:
            host: ignored, as is ``port``: there is one node only.

        Raises:
            OSError: the node is stopped (:class:`ConnectionRefusedError`).
        """
        await trio.lowlevel.checkpoint()
        if not self.memory:
            return await trio.open_tcp_stream(_HOST, self._port)
        if self._accepting is None or self._nursery is None:
            raise ConnectionRefusedError("the node is stopped")
        ours, theirs = memory_stream_pair(self._capacity)
        self._nursery.start_soon(self._serve, ours)
        return theirs

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _serve(self, stream: trio.abc.Stream) -> None:
        transport: trio.abc.Stream = stream
        if self._ssl_context is not None:
            transport = trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)
        web_socket = ServerWebSocket(transport, max_message_size=self._max_message_size)
        try:
            socket = await self._upgrade(web_socket)
            if socket is None:
                return
            try:
                await socket.run()
            finally:
                self._sockets.remove(socket)
                self.observations.changed()
        finally:
            web_socket.drop()

    async def _upgrade(self, web_socket: ServerWebSocket) -> NodeSocket | None:
        upgraded = None
        self._upgrading.add(web_socket)
        try:
            with trio.move_on_after(self._upgrade_timeout):
                upgraded = await self._upgrade_policy.answer(web_socket)
        except SocketEnded:
            return None
        finally:
            self._upgrading.discard(web_socket)
            self.observations.changed()
        if upgraded is None:
            return None
        request, serializer = upgraded
        self._count += 1
        socket = NodeSocket(self, self._count, request, web_socket, serializer)
        self._sockets.append(socket)
        self.observations.upgraded(request)
        return socket

    # --- for channels -------------------------------------------------------------------------------------------------

    def channel_type(self, topic: str) -> type[NodeChannel] | None:
        """Return the channel class of a topic, ``None`` where no channel matches."""
        for prefix, channel_type in self._channel_types.items():
            if topic.startswith(prefix):
                return channel_type
        return None

    def channels_on(self, topic: str) -> list[NodeChannel]:
        """Return the joined channels of a topic, over all sockets in the order of their upgrades."""
        return [socket.channels[topic] for socket in self._sockets if topic in socket.channels]

    def channels_of(self, did: str) -> list[NodeChannel]:
        """Return the joined channels of a DID, in the order of their joins."""
        return list(self._by_did.get(did, ()))

    def new_did(self) -> str:
        """Return an ephemeral DID: twelve hexadecimal digits from the node's seed."""
        return f"did:web:node.test:{self._random.getrandbits(48):012x}"

    # --- what it saw --------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> tuple[NodeSocket, ...]:
        """The live sockets, in the order of their upgrades; look at ``number``, ``request``, ``channels``."""
        return tuple(socket for socket in self._sockets if socket.live)

    @property
    def dids(self) -> tuple[str, ...]:
        """The DIDs that are joined now."""
        return tuple(self._by_did)

    @property
    def requests(self) -> tuple[UpgradeRequest, ...]:
        """The upgrades seen, refused ones included; their text shows no key."""
        return tuple(self.observations.requests)

    def frames(self, did: str | None = None, *, event: str | None = None) -> list[Frame]:
        """Return the frames received, in order and over all sockets.

        Args:
            did: only those on the topics of this DID, joins included; ``None`` for all, heartbeats included.
            event: only those of this event.
        """
        return [received.frame for received in self.observations.received_frames(did, event)]

    def received(self, did: str | None = None, *, event: str | None = None) -> list[ReceivedFrame]:
        """Return what :meth:`frames` returns, each with its time and the number of its socket."""
        return self.observations.received_frames(did, event)

    def joins(self, did: str) -> int:
        """How many joins of a DID were accepted since the node began."""
        return self.observations.joins_by_did[did]

    def delivered(self, did: str) -> int:
        """How many messages were pushed into live joins of a DID since the node began."""
        return self.observations.delivered[did]

    def statistics(self) -> NodeStatistics:
        """Return all counters as they are now."""
        topics = sum(len(socket.channels) for socket in self._sockets)
        return self.observations.statistics(len(self._sockets), topics)

    async def wait_for(self, condition: Callable[[], object], *, timeout: float = math.inf) -> None:
        """Wait until ``condition()`` is true; it is looked at now, and after everything that happens at the node.

        Args:
            condition: called without arguments, quick and without side effects.
            timeout: seconds.

        Raises:
            TimeoutError: it did not become true in time; the text says what the node has seen.
        """
        with trio.move_on_after(timeout) as scope:
            await self.observations.wait_for(condition)
        if scope.cancelled_caught:
            raise TimeoutError(f"not within {timeout:g} s: {self!r} {self.statistics()!r}")

    async def wait_joined(self, did: str, count: int = 1, *, timeout: float = math.inf) -> None:
        """Wait until a DID is joined now, and has been joined ``count`` times since the node began.

        Raises:
            TimeoutError: as :meth:`wait_for`.
        """
        await self.wait_for(lambda: did in self._by_did and self.joins(did) >= count, timeout=timeout)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    # Trio takes cancellations out of groups, which makes new groups around the same exceptions.
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
