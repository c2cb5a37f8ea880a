"""The client as a script sees it."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from ..channel.statistics import ChannelState
from ..client import (
    Client as AsyncClient,
    ClientConfig,
    ClientStatistics,
    Delegation,
    DidHandlers,
    HandlerFunction,
    JoinedDid as AsyncJoinedDid,
    Message,
)
from ..client.sending import REQUEST_TIMEOUT
from ..errors import AlreadyConnected, ChannelClosed, NotConnected
from .joined_did import JoinedDid
from .loop import Loop
from .workers import Workers

if TYPE_CHECKING:
    from ..client.durability import DurableStore

__all__ = ("Client",)

T = TypeVar("T")
F = TypeVar("F", bound=HandlerFunction)
C = TypeVar("C", bound=Callable[..., object])


class Client:
    """:class:`layr8_actors.Client` for code without async: it runs in a thread of its own, on Trio.

    Use it as a context manager, or call :meth:`connect` and :meth:`close`. All methods may be called from any thread,
    also from handlers that are plain functions; from an async handler await :attr:`asynchronous` instead.

    Plain functions run in worker threads: up to ``max_handlers`` at once, one at a time within a thread of messages, so
    what they share needs a lock. A thread cannot be cancelled from outside. When its time is over, or the client ends,
    ``trio.Cancelled`` is raised at the function's next call of this client, or where it calls
    ``anyio.from_thread.check_cancelled()``; let it pass, it is no Exception. A function that does neither is
    waited for, by :meth:`close` too, and its answer still goes out.

    Ctrl-C raises KeyboardInterrupt in the main thread wherever it waits; what it waited for is cancelled, and leaving
    the block closes the client in order.

    A running client that is dropped, or left open at the end of the script, is closed with a ResourceWarning.

    Args:
        config: as of :class:`layr8_actors.Client`.
        durable: a store, as there, that is not open: :meth:`connect` opens it, and :meth:`close` closes it.

    Raises:
        InvalidOption: ``config`` is not ClientConfig, or ``durable`` is no store.
    """

    def __init__(self, config: ClientConfig, *, durable: DurableStore | None = None) -> None:
        self._client = AsyncClient(config, durable=durable)
        self._store = durable
        # One more than the handlers: the other functions are called one at a time.
        self._workers = Workers(config.max_handlers + 1)
        self._loop: Loop | None = None
        self._reminder: weakref.finalize[..., Any] | None = None

    def __repr__(self) -> str:
        return f"<blocking {repr(self._client)[1:]}"

    # --- registering --------------------------------------------------------------------------------------------------

    def handle(self, type: str, *, timeout: float | None = None, accept_first: bool = False) -> Callable[[F], F]:
        """Register the function below as the handler of one message type, as :meth:`layr8_actors.Client.handle` does.

        Args:
            type: the whole URI of the message type.
            timeout: seconds, as there; a plain function notices it at its next call.
            accept_first: as there.

        Raises:
            Layr8Error: as there.
        """

        def register(function: F) -> F:
            self._client.handle(type, timeout=timeout, accept_first=accept_first)(self._in_thread(function))
            return function

        return register

    def handle_all(self, function: F) -> F:
        """Register the function below as the handler of every type that has none of its own.

        Raises:
            Layr8Error: as of :meth:`handle`.
        """
        self._client.handle_all(self._in_thread(function))
        return function

    def on_delegation(self, function: C) -> C:
        """Register what is called with each new reading of the delegated credentials, as the async client does."""
        self._client.on_delegation(self._in_thread(function))
        return function

    def on_disconnect(self, function: C) -> C:
        """Register what is called with the error that ended a joined link, as the async client does."""
        self._client.on_disconnect(self._in_thread(function))
        return function

    def on_reconnect(self, function: C) -> C:
        """Register what is called after each rejoin, as the async client does."""
        self._client.on_reconnect(self._in_thread(function))
        return function

    def _in_thread(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._workers.in_thread(function) if callable(function) else function

    # --- running ------------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start the thread, run the client in it, and return when it has joined.

        Raises:
            AlreadyConnected: it runs already.
            Layr8Error: as :meth:`layr8_actors.Client.connect`; no thread is left then, and it may be called again.
            StoreFailed: the store cannot be opened; likewise.
        """
        if self._loop is not None and self._loop.running:
            raise AlreadyConnected("the client runs already; close it first")
        loop = Loop(self._client, self._store)
        loop.start()
        self._loop = loop
        # Neither the thread nor these hold this object: it can be dropped, and that is what they are for.
        self._reminder = weakref.finalize(self, loop.forgotten)
        self._reminder.atexit = False  # the loop sees to that

    def close(self) -> None:
        """End the client in order, and its thread; idempotent.

        Calls that wait in other threads get ChannelClosed. It returns when plain functions of handlers have. Called
        from within a handler it ends that handler too: ``trio.Cancelled`` comes out.

        Raises:
            RestartLimitExceeded: the client gave up on its actors before.
            JoinRejected: the node refused for good before.
        """
        loop = self._loop
        if loop is None:
            return
        if self._workers.inside:
            loop.request_stop()
            self._workers.call(self._client.close)
            return
        if self._reminder is not None:
            self._reminder.detach()
        loop.end()

    def __enter__(self) -> Self:
        """Connect; see :meth:`connect`."""
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close. That the client gave up takes the place of ChannelClosed, and of no other error of the block."""
        try:
            self.close()
        except Exception as failure:
            if error is None or isinstance(error, ChannelClosed):
                raise failure from failure.__cause__
            error.add_note(f"and the client gave up: {failure}")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the client ends, for a script that only handles messages; Ctrl-C ends the waiting.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            False where ``timeout`` is over first, True where somebody closed the client.

        Raises:
            NotConnected: the client does not run.
            RestartLimitExceeded: the client gave up on its actors.
            JoinRejected: the node refused for good.
        """
        return self._running().wait(timeout)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> Message:
        """Send a message, and return once the node has accepted it, as :meth:`layr8_actors.Client.send` does.

        Args:
            message: to send.

        Returns:
            The message as it went out.

        Raises:
            Layr8Error: as there.
        """
        return self._call(self._client.send, message)

    def send_durably(self, message: Message) -> Message:
        """Store a message to be sent, and return once it is stored, as :meth:`layr8_actors.Client.send_durably` does.

        Args:
            message: to send.

        Returns:
            The message as it was stored.

        Raises:
            Layr8Error: as there; ChannelClosed once the client has ended, for then its store is closed too.
        """
        return self._call(self._client.send_durably, message)

    def request(
        self, message: Message, *, timeout: float = REQUEST_TIMEOUT, survive_reconnect: bool = False
    ) -> Message:
        """Send a message and wait for the response in its thread, as :meth:`layr8_actors.Client.request` does.

        Args:
            message: to send.
            timeout: seconds for sending and waiting together.
            survive_reconnect: wait on when the link drops.

        Returns:
            The response.

        Raises:
            Layr8Error: as there.
        """

        async def request() -> Message:
            return await self._client.request(message, timeout=timeout, survive_reconnect=survive_reconnect)

        return self._call(request)

    # --- further DIDs -------------------------------------------------------------------------------------------------

    def join_did(
        self,
        did: str,
        handlers: DidHandlers | None = None,
        *,
        protocols: Sequence[str] = (),
        parent_did: str = "",
    ) -> JoinedDid:
        """Join a further DID on the same socket, as :meth:`layr8_actors.Client.join_did` does.

        Args:
            did: the DID to bind.
            handlers: of this DID, as for the async client; plain functions run in worker threads of this DID's own,
                ``max_handlers`` at once.
            protocols: to bind besides those of the handlers.
            parent_did: the DID that ``did`` is borrowed from.

        Returns:
            The handle to send, to ask, to look and to leave with. It ends when the client is closed.

        Raises:
            Layr8Error: as there.
        """
        given = handlers
        if isinstance(handlers, DidHandlers):
            workers = self._workers.others(self._client.config.max_handlers + 1)
            given = handlers.through(workers.in_thread)

        async def join() -> AsyncJoinedDid:
            return await self._client.join_did(did, given, protocols=protocols, parent_did=parent_did)

        return JoinedDid(self._call(join), self._call)

    def waiting_dids(self) -> dict[str, int]:
        """Return of which further DIDs messages are stored that are not joined now, as the async client does.

        Raises:
            Layr8Error: as :meth:`layr8_actors.Client.waiting_dids`.
        """
        return self._call(self._client.waiting_dids)

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        if self._workers.inside:
            return self._workers.call(function, *args)
        return self._running().call(function, *args)

    def _running(self) -> Loop:
        if self._loop is None:
            raise NotConnected("the client does not run; use `with client:` or client.connect()")
        return self._loop

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def asynchronous(self) -> AsyncClient:
        """The client in the loop, for async handlers; nothing else may touch it."""
        return self._client

    @property
    def did(self) -> str:
        """The DID that the node bound at the last join."""
        return self._client.did

    @property
    def protocols(self) -> tuple[str, ...]:
        """What a join binds."""
        return self._client.protocols

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join."""
        return self._client.capabilities

    @property
    def delegation(self) -> Delegation | None:
        """The last reading of the credentials delegated to a borrowed DID."""
        return self._client.delegation

    @property
    def state(self) -> ChannelState:
        """Where the channel stands now.

        Raises:
            NotConnected: the client has not run.
            ChannelClosed: it has ended.
        """

        async def state() -> ChannelState:
            await trio.lowlevel.checkpoint()
            return self._client.state

        return self._call(state)

    def statistics(self) -> ClientStatistics:
        """Counts of this run, and gauges of this moment.

        Raises:
            NotConnected: the client has not run.
        """
        return self._client.statistics()
