"""FaultProxy: a network between client and node that fails on demand, over TCP and over memory streams."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import trio

from ..errors import InvalidOption
from ..transport import Connector, connector_named
from .cloud_node import CloudNode
from .fault_connection import Direction, ProxiedConnection
from .memory_stream import memory_stream_pair
from .network_faults import NetworkFaults
from .web_socket import Gate, close_stream, reset_stream

__all__ = ("FaultProxy", "ProxyStatistics")

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128
# Linux takes one connection more than the backlog says; others take a few. Connections to fill the queue with, at most.
_MOST_FILLERS: Final = 16
# Seconds after which a connection over the loopback that is not established will not be: the queue is full.
_FILLED_AFTER: Final = 0.05
# Seconds until another try where accepting failed: the process has no file descriptor left.
_ACCEPT_AGAIN: Final = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """Counters since the proxy began, and what lives now.

    Args:
        connections: connections that were passed on to the node.
        refused: connections that the node refused.
        live: connections alive.
        unanswered: dials that wait for :meth:`FaultProxy.answer_dials`, as far as the proxy knows of them: those over
            TCP lie in the kernel's queue.
        bytes_to_node: bytes handed to the node, over all connections.
        bytes_to_client: bytes handed to the clients.
        faults: how often each fault was put in force, by the name of its method; truncations when they cut.
    """

    connections: int
    refused: int
    live: int
    unanswered: int
    bytes_to_node: int
    bytes_to_client: int
    faults: dict[str, int]


class FaultProxy(NetworkFaults):
    """A proxy on 127.0.0.1, or in memory, that passes bytes to a node and fails on demand.

    Use it as ``async with FaultProxy(host, port, seed=1) as proxy:`` and dial ``proxy.url``; for a :class:`CloudNode`,
    ``FaultProxy.around(node)``, over memory with ``proxy.connector``. Leaving the block closes every socket at once,
    and leaves no task.

    Faults come and go while connections run; see :class:`NetworkFaults`. Jitter and points of truncation are drawn
    from the seed, for each direction of each connection on its own, so that with the same connections the same things
    happen.

    Args:
        host: where the node is.
        port: of the node.
        seed: of all that is drawn.
        path: of ``url``; Layr8's by default.
        tls: ``url`` says wss and ``localhost``. The bytes are passed on as they are, so the node has the certificate.
        memory: no sockets; ``open_stream`` and ``connector`` hand out memory streams.
        open_stream: connects to the node, an async function of host and port; the default is TCP.

    Raises:
        InvalidOption: an option is not allowed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        seed: int = 0,
        path: str = "/plugin_socket/websocket",
        tls: bool = False,
        memory: bool = False,
        open_stream: Callable[[str, int], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        if memory and open_stream is None:
            raise InvalidOption("open_stream", open_stream, "an async function of host and port, where memory is True")
        super().__init__()
        self.memory = memory
        self.seed = seed
        self._host = host
        self._node_port = port
        self._path = path
        self._tls = tls
        self._open_node = open_stream or trio.open_tcp_stream
        self._port = 0
        self._count = 0
        self._refused = 0
        self._bytes: Counter[Direction] = Counter()
        self._nursery: trio.Nursery | None = None
        self._nursery_manager: contextlib.AbstractAsyncContextManager[trio.Nursery] | None = None
        self._listener: trio.socket.SocketType | None = None
        self._accepting: trio.CancelScope | None = None
        self._accept_ended = trio.Event()
        self._fillers: dict[int, trio.socket.SocketType] = {}
        self._dials = Gate()
        self._dials_hang = False
        self._unanswered: list[trio.abc.Stream] = []
        self._connector = connector_named("auto", self.open_stream if memory else None)

    @classmethod
    def around(cls, node: CloudNode, *, seed: int = 0) -> FaultProxy:
        """A proxy to a node in this process, over TCP or memory as the node is. The node may be stopped meanwhile.

        Args:
            node: a running node.
            seed: as above.
        """
        tls = node.url.startswith("wss:")
        path = "/" + node.url.split("/", 3)[3]
        if node.memory:
            return cls("", 0, seed=seed, path=path, tls=tls, memory=True, open_stream=node.open_stream)
        return cls(_HOST, node.port, seed=seed, path=path, tls=tls)

    def __repr__(self) -> str:
        where = "memory" if self.memory else f"port {self._port}"
        return f"<FaultProxy {where} seed={self.seed} connections={len(self._live)}>"

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise RuntimeError("this proxy runs already")
        await trio.lowlevel.checkpoint()
        if not self.memory:
            self._listener = trio.socket.socket()
            with contextlib.ExitStack() as unbound:
                unbound.callback(self._listener.close)
                await self._listener.bind((_HOST, 0))
                self._listener.listen(_BACKLOG)
                unbound.pop_all()
            self._port = int(self._listener.getsockname()[1])
        # From here to the return nothing awaits, so that no cancellation can leave the nursery half open.
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._start_accepting()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._nursery is not None
        assert self._nursery_manager is not None
        self._nursery.cancel_scope.cancel(reason="the proxy's block was left")
        for stream in self._unanswered:
            close_stream(stream)
        self._unanswered.clear()
        self._close_fillers()
        try:
            # The block's own error is not given to the nursery, which would put it into a group.
            await self._nursery_manager.__aexit__(None, None, None)
        finally:
            if self._listener is not None:
                self._listener.close()
            self._nursery = None

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("this proxy does not run; use it in `async with`")
        return self._nursery

    # --- how to reach it ----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port to dial; 0 over memory."""
        return self._port

    @property
    def url(self) -> str:
        """What clients dial instead of the node's URL."""
        scheme, host = ("wss", "localhost") if self._tls else ("ws", _HOST)
        return f"{scheme}://{host}{'' if self.memory else f':{self._port}'}{self._path}"

    @property
    def connector(self) -> Connector:
        """The connector with which a channel goes through this proxy: ``ChannelOptions(transport=proxy.connector)``."""
        return self._connector

    async def open_stream(self, host: str = "", port: int = 0) -> trio.abc.Stream:
        """Return a raw stream through the proxy; checkpoints. Cancelled, it leaves no stream behind.

        Args:
            host: ignored, as is ``port``: there is one proxy only.

        Raises:
            OSError: the node refuses; over TCP the stream is reset instead.
        """
        await trio.lowlevel.checkpoint()
        nursery = self._running()
        if not self.memory:
            return await trio.open_tcp_stream(_HOST, self._port)
        while self._dials_hang:
            await self._dials.wait()
        if self._dials.is_open:
            upstream = await self._dial_node()
            ours, theirs = memory_stream_pair()
            nursery.start_soon(self._add(theirs, upstream).run)
        else:
            ours, theirs = memory_stream_pair()
            self._unanswered.append(theirs)
        return ours

    # --- connections --------------------------------------------------------------------------------------------------

    def _start_accepting(self) -> None:
        if self._listener is not None:
            self._accepting = trio.CancelScope()
            self._accept_ended = trio.Event()
            self._running().start_soon(self._accept, self._listener, self._accepting, self._accept_ended)

    async def _accept(self, listener: trio.socket.SocketType, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with scope:
                while True:
                    try:
                        accepted, address = await listener.accept()
                    except OSError:
                        await trio.sleep(_ACCEPT_AGAIN)  # a client that left the queue, or no file descriptor left
                        continue
                    filler = self._fillers.pop(address[1], None)
                    if filler is not None:  # one of those that filled the queue
                        filler.close()
                        accepted.close()
                        continue
                    self._running().start_soon(self._serve, trio.SocketStream(accepted))
        finally:
            ended.set()

    async def _serve(self, client: trio.abc.Stream) -> None:
        served = False
        try:
            upstream = await self._dial_node()
            served = True
        except OSError:
            return
        finally:
            if not served:
                reset_stream(client)
        await self._add(client, upstream).run()

    async def _dial_node(self) -> trio.abc.Stream:
        try:
            stream: trio.abc.Stream = await self._open_node(self._host, self._node_port)
        except OSError:
            self._refused += 1
            raise
        return stream

    def _add(self, client: trio.abc.Stream, upstream: trio.abc.Stream) -> ProxiedConnection:
        self._count += 1
        connection = ProxiedConnection(
            self._count, client, upstream, self._conditions, self.seed, self._truncated, self._ended
        )
        self._live[connection] = None
        return connection

    def _ended(self, connection: ProxiedConnection) -> None:
        del self._live[connection]
        self._bytes["to_node"] += connection.bytes_to_node
        self._bytes["to_client"] += connection.bytes_to_client

    def statistics(self) -> ProxyStatistics:
        """Return all counters as they are now."""
        return ProxyStatistics(
            connections=self._count,
            refused=self._refused,
            live=len(self.connections),
            unanswered=len(self._unanswered),
            bytes_to_node=self._bytes["to_node"] + sum(connection.bytes_to_node for connection in self._live),
            bytes_to_client=self._bytes["to_client"] + sum(connection.bytes_to_client for connection in self._live),
            faults=dict(self._faults),
        )

    # --- the queue of dials -------------------------------------------------------------------------------------------

    async def ignore_dials(self, *, accepted: bool = True) -> None:
        """Be a dead accept queue: new connections are answered by nobody until :meth:`answer_dials`.

        Args:
            accepted: the connection opens, as by a kernel whose program has hung; False lets the dial itself hang, as
                a full queue does that drops each SYN.

        Raises:
            OSError: over TCP, ``accepted=False`` needs a queue that can be filled, and this machine's cannot.

        Checkpoints; cancelled, it may have taken effect or not.
        """
        self._running()
        self._faults["ignore_dials"] += 1
        self._dials.close()
        self._dials_hang = not accepted
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.cancel(reason="dials are ignored")
            await self._accept_ended.wait()
        # Each await may be the moment in which answer_dials ends it all.
        if self._listener is not None and not accepted and not self._dials.is_open:
            await self._fill_queue(self._listener)
        await trio.lowlevel.checkpoint()

    def answer_dials(self) -> None:
        """End :meth:`ignore_dials`: answer again, and those too who have waited. Never checkpoints."""
        if self._dials.is_open:
            return
        self._dials_hang = False
        self._dials.open()
        waiting, self._unanswered = self._unanswered, []
        for stream in waiting:
            self._running().start_soon(self._serve, stream)
        self._close_fillers()
        if self._listener is not None:
            self._listener.listen(_BACKLOG)
            self._start_accepting()

    async def _fill_queue(self, listener: trio.socket.SocketType) -> None:
        """Leave no room in the kernel's queue, so that it drops every SYN that comes."""
        listener.listen(0)
        for _ in range(_MOST_FILLERS):
            filler = trio.socket.socket()
            await filler.bind((_HOST, 0))
            self._fillers[filler.getsockname()[1]] = filler
            with trio.move_on_after(_FILLED_AFTER) as scope:
                try:
                    await filler.connect((_HOST, self._port))
                except (trio.ClosedResourceError, OSError):
                    if not self._dials.is_open:
                        raise
            if scope.cancelled_caught or self._dials.is_open:
                return
        raise OSError(errno.ENOTSUP, "this machine's kernel takes connections beyond any backlog")

    def _close_fillers(self) -> None:
        for filler in self._fillers.values():
            filler.close()
