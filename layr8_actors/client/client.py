"""The client as its user sees it: handlers, messages, requests; a run of it is a tree of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from ..channel import Channel
from ..channel.statistics import ChannelState
from ..errors import AlreadyConnected, InvalidOption, NotConnected
from ..otp import ChildSpec, ChildType, Restart, Supervisor
from .block import running_client
from .config import ClientConfig
from .delegation import Delegation
from .did_handlers import DidHandlers
from .handlers import Handlers, protocols_of
from .joined_did import JoinedDid
from .message import Message
from .record import Record
from .registration import Registration
from .sending import REQUEST_TIMEOUT, request_on, send_durably_on, send_on
from .statistics import ClientStatistics
from .tree import Tree

if TYPE_CHECKING:
    from .durability import Durability, DurableStore

__all__ = ("Client",)


class Client(Registration):
    """An agent on a Layr8 node: a description with its handlers, and the handle of whichever run of it is going on.

    Register handlers, then run it: ``async with client:``, :meth:`start_link` in a nursery of your own, or
    :meth:`child_spec` under a supervisor, which may run it again and again. Everybody who holds the client reaches the
    run of the moment, as with an :class:`~layr8_actors.otp.ActorRef`. There is one run at a time.

    All methods may be called from any task of the same Trio run, also from within handlers.

    Args:
        config: everything but the handlers.
        durable: a store that is open for as long as the client runs, and of this client alone; then every message that
            has a handler is stored before the node is told ``handled``, and handled from the store, at least once; for
            each further DID in queues of its own. docs/durable.md tells what changes for handlers.

    Raises:
        InvalidOption: ``config`` is not ClientConfig, or ``durable`` is no store.
    """

    def __init__(self, config: ClientConfig, *, durable: DurableStore | None = None) -> None:
        if not isinstance(config, ClientConfig):
            raise InvalidOption("config", config, "ClientConfig(...)")
        super().__init__(Handlers(config.handler_timeout))
        self.config = config
        self._durability: Callable[..., Durability] | None = None
        if durable is not None:
            from .durability import durability_of  # noqa: PLC0415 - SQLite and all that are for who asks for it

            self._durability = durability_of(durable)
        self._tree: Tree | None = None
        self._under_supervisor = False
        self._block: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        running = self._tree is not None and not self._tree.over.is_set()
        return f"<Client {self.did!r} {'running' if running else 'not running'}>"

    @property
    def protocols(self) -> tuple[str, ...]:
        """What a join binds: the handlers' protocols, the configured ones, and problem reports'; sorted, no doubles."""
        return protocols_of(self._handlers.types, self.config.protocols)

    # --- running ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Run and connect.

        Raises:
            Layr8Error: as :meth:`connect`; nothing runs then, and the client may be entered again.
            AlreadyConnected: it runs already.
        """
        block = running_client(self, self._new_tree())
        await block.__aenter__()
        self._block = block
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        block, self._block = self._block, None
        assert block is not None
        return await block.__aexit__(kind, error, traceback)

    async def start_link(self, nursery: trio.Nursery) -> Self:
        """Start the client in a nursery of your own; it ends with the nursery, and its failure is the nursery's.

        It connects at once, and goes on trying at the backoff; ``await client.connect()`` waits for the join.

        Args:
            nursery: runs the supervision tree.

        Returns:
            The client, whose actors run.

        Raises:
            AlreadyConnected: it runs already.

        Checkpoints. Cancellation before it returns leaves nothing running. Into the nursery go RestartLimitExceeded
        and JoinRejected, when the client gives up.
        """
        await nursery.start(self._run)
        return self

    def child_spec(self, *, id: str = "client", restart: Restart = Restart.PERMANENT) -> ChildSpec:
        """Describe the client as a child of a supervisor; each (re)start is a new run with the same handlers.

        The child counts as started before the join, so that a node that is away does not hold up the whole tree;
        attempts are retried at the backoff, and ``await client.connect()`` waits for the join. Further DIDs that were
        joined, and not left, are joined again by each restart, with the same handlers and the same handles.

        Args:
            id: the child's id.
            restart: permanent (OTP's default), transient or temporary.

        Returns:
            A spec of type supervisor, whose handle is this client.

        Raises:
            InvalidOption: an argument is not allowed.
        """
        return ChildSpec(id=id, start=self._run_again, restart=restart, type=ChildType.SUPERVISOR)

    def _run(self, *, task_status: trio.TaskStatus[Client] = trio.TASK_STATUS_IGNORED) -> Coroutine[Any, Any, None]:
        return self._new_tree().run(self, True, task_status)

    def _run_again(self, *, task_status: trio.TaskStatus[Client]) -> Coroutine[Any, Any, None]:
        return self._new_tree(under_supervisor=True).run(self, True, task_status)

    def _new_tree(self, *, under_supervisor: bool = False) -> Tree:
        if self._tree is not None and not self._tree.over.is_set():
            raise AlreadyConnected("the client runs already; make another one from the same config")
        self._begun = True
        # Who begins a run himself joins what he wants; a supervisor that restarts one asks nobody.
        former = self._tree if under_supervisor and self._under_supervisor else None
        self._under_supervisor = under_supervisor
        self._tree = Tree(self.config, self._handlers, self._functions, self.protocols, self._durability, former)
        return self._tree

    async def connect(self) -> None:
        """Wait until the client has joined, and knows what the join says of capabilities and delegated credentials.

        A client that runs in a nursery or under a supervisor connects by itself and goes on trying, and this waits for
        it through attempts that fail; ``async with`` calls it once, and then the first failure is raised.

        Raises:
            NotConnected: the client does not run.
            ConnectFailed: the node cannot be reached or refused the upgrade (``.status``).
            JoinTimeout: the socket opened, but the join was not answered.
            JoinRejected: the node refused the join; ``.permanent`` tells whether trying again can help.
            RemoteProtocolError: the node answered the join with nonsense.
            ChannelClosed: the client has ended.

        Checkpoints; cancelling it changes nothing for others who wait.
        """
        record = self._running()
        await self.channel.connect(self.protocols)
        await record.entered.wait()

    async def close(self) -> None:
        """End the run: cancel what handlers are at, tell the node, leave and close; idempotent.

        Requests that wait get ChannelClosed. A client that is a permanent child is restarted by its supervisor like any
        other that ends: use ``terminate_child`` there.

        Checkpoints; a cancelled close goes on by itself. Called from within a handler it ends that handler too.
        """
        tree = self._tree
        if tree is None:
            await trio.lowlevel.checkpoint()
            return
        tree.request_stop()
        await tree.over.wait()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Message:
        """Send a message, and return once the node has accepted it; which is not yet delivered.

        Args:
            message: to send; ``from_`` is filled with the client's own DID where it is empty.

        Returns:
            The message as it went out.

        Raises:
            ServerReject: the node refused it.
            InvalidOption: it is no Message, or one whose ``to`` is no list or whose id is no str, for instance.
            LocalProtocolError: the body is not JSON.
            NotConnected: there is no joined topic now, or the client does not run; nothing was sent.
            Disconnected: the link went away first; ``.written`` tells what the node may know.
            ReplyTimeout: no answer of the node within ``reply_timeout`` seconds.
            RemoteProtocolError: the node answered with nonsense.
            ChannelClosed: the client has ended.

        Always checkpoints. Cancellation frees everything here; the node may still act on what was written.
        """
        return await send_on(self._running(), message)

    async def send_durably(self, message: Message) -> Message:
        """Store a message to be sent, and return once it is as safe as the store makes it; which is not yet sent.

        It is sent when the client is joined, also by a later run of the program, at least once, and in order within its
        thread. What the node refuses is tried again, at a backoff, until it is a dead letter of the outbox.

        Args:
            message: to send; ``from_`` is filled as in :meth:`send`, at the latest when it goes out.

        Returns:
            The message as it was stored. One whose id is in the outbox already, or went out within its ``retention``,
            is not stored again.

        Raises:
            InvalidOption: it is no Message, or the client has no ``durable`` store.
            LocalProtocolError: the body is not JSON.
            NotConnected: the client has not run yet.
            StoreFailed: it is not stored.

        Always checkpoints. Cancelled, it was stored or not; the same message may be stored again, which is one message.
        """
        return await send_durably_on(self._running(), message)

    async def request(
        self, message: Message, *, timeout: float = REQUEST_TIMEOUT, survive_reconnect: bool = False
    ) -> Message:
        """Send a message and wait for its response: what comes in the same thread, or is a problem report about it.

        Within a handler it tells the node ``handled`` first: a node of ``reply_protocol/1`` hands over one message at a
        time, and would keep the response back until it is told.

        Args:
            message: to send; ``from_`` is filled as in :meth:`send`, ``thid`` with the message's own id where empty.
            timeout: seconds for sending and waiting together; ``math.inf`` for none.
            survive_reconnect: wait on when the link drops, for a response may come after the rejoin. By default the
                request fails at once, since a node is not known to keep what it has for an agent that is away.

        Returns:
            The response.

        Raises:
            ProblemReportError: the response is a problem report.
            RequestTimeout: none came in time.
            Disconnected: the link dropped first; ``.written`` tells what the node may know.
            InvalidOption: it is no Message, or another request waits in its thread.
            Layr8Error: as for :meth:`send`.

        Always checkpoints. However it ends, cancelled or not, nothing waits for the response any more.
        """
        return await request_on(self._running(), message, timeout, survive_reconnect)

    # --- further DIDs -------------------------------------------------------------------------------------------------

    async def join_did(
        self,
        did: str,
        handlers: DidHandlers | None = None,
        *,
        protocols: Sequence[str] = (),
        parent_did: str = "",
    ) -> JoinedDid:
        """Join a further DID on the same socket, and return once the node has acknowledged the join.

        It is joined again whenever the link is renewed, and whenever a supervisor restarts the client, until it is
        left; a run that you begin yourself, by a block or :meth:`start_link`, begins without it. A refused rejoin stops
        no other one, and is tried again. Where the client is durable, so is this DID, in queues of its own.

        A DID that a restart has brought back may be joined once more: the handle of before has ended then. So a service
        that joins it when it starts may be restarted together with the client, or not.

        Args:
            did: the DID to bind.
            handlers: of this DID; they go before those of the client, which get what these have nothing for.
            protocols: to bind besides those of the handlers.
            parent_did: the DID that ``did`` is borrowed from.

        Returns:
            The handle to send, to ask, to look and to leave with.

        Raises:
            InvalidOption: an argument is not allowed.
            NotConnected: the client has not joined yet.
            AlreadyConnected: the DID was joined in this run already, or is the client's own.
            JoinRejected: the node refused; ``.permanent`` tells whether trying again can help.
            Layr8Error: as :meth:`Channel.join`.

        Checkpoints; one that fails or is cancelled leaves nothing behind.
        """
        tree = self._run_of_now()
        return await tree.further.join(tree.channel(), did, handlers, protocols, parent_did)

    async def waiting_dids(self) -> dict[str, int]:
        """Return of which further DIDs messages are stored that are not joined now, and how many each has.

        After a restart of the program they wait until :meth:`join_did` is called; so this tells whom to join.

        Raises:
            NotConnected: the client has not run.
            StoreFailed: the store cannot tell now.

        Checkpoints.
        """
        return await self._run_of_now().further.waiting()

    def _run_of_now(self) -> Tree:
        if self._tree is None:
            raise NotConnected("the client does not run; use `async with client`, start_link or child_spec")
        return self._tree

    def _running(self) -> Record:
        return self._run_of_now().record

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def did(self) -> str:
        """The DID that the node bound at the last join; before the first the one asked for, or ``""``."""
        return self.config.agent_did if self._tree is None else self._tree.record.did

    @property
    def delegation(self) -> Delegation | None:
        """The last reading of the credentials delegated to a borrowed DID; ``None`` where there is none.

        It is one whole set: look at it once for each message, and a push in between mixes nothing.
        """
        return None if self._tree is None else self._tree.record.delegation

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join; empty before the first."""
        channel = None if self._tree is None else self._tree.record.channel
        return () if channel is None else channel.capabilities

    @property
    def state(self) -> ChannelState:
        """Where the channel stands now; never blocks.

        Raises:
            NotConnected: the client does not run.
        """
        return self.channel.state

    @property
    def channel(self) -> Channel:
        """The channel of the run of now, to look at.

        Raises:
            NotConnected: the client does not run.
        """
        return self._run_of_now().channel()

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of the run of now, to look at; what it supervises is the client's business.

        Raises:
            NotConnected: the client does not run.
        """
        return self._run_of_now().supervisor

    def statistics(self) -> ClientStatistics:
        """Counts of the run of now, or the last one, and gauges of this moment; never blocks.

        Raises:
            NotConnected: the client has not run.
        """
        return self._running().statistics()
