"""One more DID on the socket of a client: its own handlers, sends, requests and dispatcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import trio

from ..channel import Callbacks
from ..channel.events import GaveUp
from ..channel.statistics import ChannelState
from ..errors import AlreadyConnected, ChannelClosed, ChildAlreadyStarted, InvalidOption, SupervisionError
from ..otp import ActorRef
from .delegation import Delegation
from .dispatch import LAST_WORDS, Dispatcher
from .handlers import Handlers, protocols_of
from .message import Message
from .reception import Reception
from .record import Record
from .registration import Registration
from .sending import REQUEST_TIMEOUT, request_on, send_on
from .statistics import ClientStatistics

if TYPE_CHECKING:
    from ..channel import Channel, JoinedTopic
    from ..telemetry import Event
    from .tree import Tree

__all__ = ("DidHandlers", "JoinedDid", "join_did")


class DidHandlers(Registration):
    """The handlers of one further DID, registered as those of a client are; for :meth:`Client.join_did`.

    They may be given to several joins, and once they are, no more can be registered.

    Args:
        handler_timeout: seconds for handlers that have no ``timeout`` of their own; 30 as in :class:`ClientConfig`.
    """

    def __init__(self, *, handler_timeout: float = 30.0) -> None:
        super().__init__(Handlers(handler_timeout))

    def begin(self) -> Handlers:
        """Return the handlers, to which none can be added from here on; for the join."""
        self._begun = True
        return self._handlers


class LayeredHandlers(Handlers):
    """The handlers of a DID, and behind them those of the client.

    Args:
        own: asked first, its catch-all included.
        behind: asked for what ``own`` has nothing for.
    """

    def __init__(self, own: Handlers, behind: Handlers) -> None:
        super().__init__(1.0)  # nothing is added to it
        self._layers = (own, behind)

    def exact(self, type: str) -> Any:
        """Return the handler of that very type."""
        own, behind = self._layers
        return own.exact(type) or (None if own.find(type) else behind.exact(type))

    def find(self, type: str) -> Any:
        """Return the handler for a message of that type."""
        own, behind = self._layers
        return own.find(type) or behind.find(type)

    @property
    def types(self) -> tuple[str, ...]:
        """The types that have a handler."""
        return tuple({**dict.fromkeys(self._layers[0].types), **dict.fromkeys(self._layers[1].types)})


class JoinedDid:
    """A further DID of a client; made by :meth:`Client.join_did`.

    It lives until it is left, or the run of the client ends; a next run begins without it. All methods may be called
    from any task of the same Trio run, also from within handlers.
    """

    def __init__(self, tree: Tree, record: Record, reception: Reception, topic: JoinedTopic, child: str) -> None:
        self._tree = tree
        self._record = record
        self._reception = reception
        self._topic = topic
        self._child = child

    def __repr__(self) -> str:
        return f"<JoinedDid {self.did!r} {self.state.status.value}>"

    async def send(self, message: Message) -> Message:
        """Send a message from this DID, as :meth:`Client.send` does.

        Args:
            message: to send.

        Returns:
            The message as it went out.

        Raises:
            Layr8Error: as there; ChannelClosed also where this DID alone has ended.
        """
        return await send_on(self._record, message)

    async def request(
        self, message: Message, *, timeout: float = REQUEST_TIMEOUT, survive_reconnect: bool = False
    ) -> Message:
        """Send a message from this DID and wait for its response, as :meth:`Client.request` does.

        Args:
            message: to send.
            timeout: seconds for sending and waiting together.
            survive_reconnect: wait on when the link drops.

        Returns:
            The response.

        Raises:
            Layr8Error: as there; ChannelClosed also where this DID alone has ended.
        """
        return await request_on(self._record, message, timeout, survive_reconnect)

    async def leave(self) -> None:
        """Cancel its handlers, tell the node of each message, and leave; the client and its other DIDs go on.

        Idempotent. Requests that wait get ChannelClosed. The DID may be joined again afterwards. Checkpoints; a leave
        that is cancelled has left nothing half done that another one would not finish.
        """
        tree = self._tree
        self._record.requests.end("the DID was left before the response came", None)
        if tree.further.get(self._topic_name) is self:
            await stop_dispatcher(tree, self._child)
        await self._topic.leave()
        if tree.further.get(self._topic_name) is self:
            del tree.further[self._topic_name]

    def note(self, event: Event) -> None:
        """Act on what the channel reports of this topic or of the link; for the client's tree."""
        self._reception.note(event)
        if isinstance(event, GaveUp):
            self._record.requests.end("the node refused the DID for good", event.error)

    def end(self, cause: Exception | None) -> None:
        """Fail what waits because the client ends; for the client's tree."""
        self._record.requests.end("the client ended before the response came", cause)

    @property
    def _topic_name(self) -> str:
        return topic_of(self._record.config.agent_did)

    @property
    def did(self) -> str:
        """The DID that the node bound at the last join."""
        return self._topic.assigned_did

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join of this DID."""
        return self._topic.capabilities

    @property
    def state(self) -> ChannelState:
        """Where its topic stands now."""
        return self._topic.state

    @property
    def delegation(self) -> Delegation | None:
        """The last reading of the credentials delegated to it; None where there is none."""
        return self._record.delegation

    def statistics(self) -> ClientStatistics:
        """Counts since it was joined, and gauges of this moment; never blocks."""
        return self._record.statistics()


def topic_of(did: str) -> str:
    """The topic that a DID is joined on."""
    return f"plugins:{did}"


async def join_did(
    tree: Tree,
    channel: Channel,
    did: str,
    handlers: DidHandlers | None,
    protocols: Sequence[str],
    parent_did: str,
) -> JoinedDid:
    """Do what :meth:`Client.join_did` says.

    Args:
        tree: of the run.
        channel: of the run.
        did: as there.
        handlers: as there.
        protocols: as there.
        parent_did: as there.
    """
    if not isinstance(did, str) or not did:
        raise InvalidOption("did", did, "a DID")
    given = DidHandlers() if handlers is None else handlers
    if not isinstance(given, DidHandlers):
        raise InvalidOption("handlers", handlers, "DidHandlers(), or None")
    config = dataclasses.replace(
        tree.record.config,
        agent_did=did,
        protocols=protocols,
        parent_did=parent_did,
        did_spec=None,
    )
    layered = LayeredHandlers(given.begin(), tree.record.handlers)
    record = Record(config, layered, tree.read_ahead_bytes)
    reception = Reception(record, given.functions.on_delegation)
    known = trio.Event()

    async def on_message(payload: Any) -> None:
        await known.wait()  # the first messages may be here before the handle is
        await reception.on_message(payload)

    async def on_push(event: str, payload: Any) -> None:
        await known.wait()
        await reception.on_push(event, payload)

    callbacks = Callbacks(
        on_message=on_message,
        on_disconnect=given.functions.on_disconnect,
        on_reconnect=given.functions.on_reconnect,
        on_push=on_push,
        on_join=reception.on_join,
    )
    child = f"dispatcher of {did}"
    if topic_of(did) in tree.further:
        raise AlreadyConnected(f"{did} is joined already; leave it first")
    handle: JoinedDid | None = None
    ours = True
    try:
        dispatcher = Dispatcher.child_spec(ActorRef(child), record, shutdown=config.shutdown_grace + LAST_WORDS)
        try:
            await tree.supervisor.start_child(dispatcher)
        except ChildAlreadyStarted as error:
            ours = False  # another join of it is under way
            raise AlreadyConnected(f"{did} is joined already; leave it first") from error
        except SupervisionError as error:
            raise ChannelClosed("the client ends") from error
        topic = await channel.join(
            did, protocols_of(layered.types, config.protocols), callbacks=callbacks, did_spec=config.did_spec
        )
        record.channel = topic
        handle = tree.further[topic_of(did)] = JoinedDid(tree, record, reception, topic, child)
        known.set()
        return handle
    finally:
        if handle is None and ours:
            with trio.CancelScope(shield=True):  # bounded: nothing is at work in it yet
                await stop_dispatcher(tree, child)


async def stop_dispatcher(tree: Tree, child: str) -> None:
    """Stop the dispatcher of a further DID, and forget it; another may have done so.

    Args:
        tree: of the client.
        child: its id.
    """
    try:
        await tree.supervisor.terminate_child(child)
        await tree.supervisor.delete_child(child)
    except SupervisionError:
        return  # it was not started, another one was faster, or the client ends, which stops it in order
