"""One further DID in one run of its client: what a join begins, and what a leave or the end of the run takes away."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from ..channel import Callbacks
from ..channel.events import GaveUp
from ..errors import ChannelClosed, Layr8Error, SupervisionError
from ..otp import ActorRef, ChildSpec, Restart
from .did_handlers import DidHandlers, LayeredHandlers
from .dispatch import LAST_WORDS, Dispatcher
from .handlers import protocols_of
from .reception import Reception
from .record import Record

if TYPE_CHECKING:
    from ..channel import Channel, JoinedTopic
    from ..telemetry import Event
    from .config import ClientConfig
    from .tree import Tree

__all__ = ("DidRun", "JoinSpec", "Membership")

LEFT: Final = "the DID was left before the response came"


@dataclasses.dataclass(frozen=True, slots=True)
class JoinSpec:
    """What a DID is joined with, in each run.

    Args:
        did: the DID.
        handlers: of it.
        protocols: to bind besides those of the handlers.
        parent_did: the DID that it is borrowed from, or ``""``.
    """

    did: str
    handlers: DidHandlers
    protocols: Sequence[str]
    parent_did: str

    def config(self, client: ClientConfig) -> ClientConfig:
        """Return the client's configuration, made that of this DID.

        Args:
            client: the client's.

        Raises:
            InvalidOption: what was given is not allowed.
        """
        return dataclasses.replace(
            client, agent_did=self.did, protocols=self.protocols, parent_did=self.parent_did, did_spec=None
        )


class DidRun:
    """The record of a further DID in one run, its children in the client's tree, and its topic.

    Args:
        spec: of the DID.
        tree: of the run.

    Raises:
        InvalidOption: what was given to join with is not allowed.
    """

    def __init__(self, spec: JoinSpec, tree: Tree) -> None:
        self._tree = tree
        client = tree.record
        config = spec.config(client.config)
        handlers = LayeredHandlers(spec.handlers.begin(), client.handlers)
        self.record = record = Record(config, handlers, tree.read_ahead_bytes)
        if tree.durability is not None:
            record.durability = tree.durability(record, spec.did)
        functions = spec.handlers.functions
        self._reception = reception = Reception(record, functions.on_delegation)
        self._protocols = protocols_of(handlers.types, config.protocols)
        self._known = trio.Event()
        self._callbacks = Callbacks(
            on_message=self._on_message,
            on_disconnect=functions.on_disconnect,
            on_reconnect=functions.on_reconnect,
            on_push=self._on_push,
            on_join=reception.on_join,
        )
        name = f"dispatcher of {spec.did}"
        dispatcher = Dispatcher.child_spec(ActorRef(name), record, shutdown=config.shutdown_grace + LAST_WORDS)
        self._children = [dispatcher, *([] if record.durability is None else record.durability.children())]
        self._did = spec.did
        self.topic: JoinedTopic | None = None
        self.ended = False
        self.failure: Exception | None = None
        self._gone = trio.Event()
        self._beginning: trio.Event | None = None

    async def _on_message(self, payload: Any) -> None:
        await self._known.wait()  # the first messages may be here before the topic is known to the record
        await self._reception.on_message(payload)

    async def _on_push(self, event: str, payload: Any) -> None:
        await self._known.wait()
        await self._reception.on_push(event, payload)

    async def begin(self, channel: Channel, *, persist: bool) -> None:
        """Start what serves the DID, and join it; one that fails or is cancelled leaves nothing.

        Args:
            channel: of the run.
            persist: as of :meth:`Channel.join`.

        Raises:
            Layr8Error: as :meth:`Channel.join`.
        """
        started: list[ChildSpec] = []
        self._beginning = trio.Event()
        try:
            for child in self._children:
                started.append(child)  # before, for one that is cancelled may have been started
                try:
                    await self._tree.supervisor.start_child(child)
                except SupervisionError as error:
                    raise ChannelClosed("the client ends") from error
            config = self.record.config
            self.record.channel = self.topic = await channel.join(
                config.agent_did,
                self._protocols,
                callbacks=self._callbacks,
                did_spec=config.did_spec,
                persist=persist,
            )
            self._known.set()
        finally:
            if self.topic is None:
                with trio.CancelScope(shield=True):  # bounded: nothing is at work in them yet
                    await self._stop(started)
            self._beginning.set()

    async def leave(self) -> None:
        """Stop what serves the DID, in order, and leave its topic; cancelled, it goes on by itself, as a child.

        So it may be called from within one of the DID's own handlers, which it cancels.
        """
        if self._gone.is_set():  # what has its name in the tree now is another one's
            await trio.lowlevel.checkpoint()
            return
        self.record.requests.end(LEFT, None)
        leaving = ChildSpec(f"leave of {self._did}", self._leave, restart=Restart.TEMPORARY)
        try:
            await self._tree.supervisor.start_child(leaving)
        except SupervisionError:
            pass  # it is just being left, or the run is about to end, and whoever does either tells us
        await self._gone.wait()

    async def _leave(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._beginning is not None:
            await self._beginning.wait()
        await self._stop(self._children)
        if self.topic is not None:
            await self.topic.leave()
        self._tree.further.forget(self)
        self.end(LEFT, None)

    async def _stop(self, children: list[ChildSpec]) -> None:
        for child in reversed(children):
            try:
                await self._tree.supervisor.terminate_child(child.id)
                await self._tree.supervisor.delete_child(child.id)
            except SupervisionError:
                continue  # it was not started, or the client ends, which stops it in order

    def note(self, event: Event) -> None:
        """Act on what the channel reports of this topic or of the link."""
        self._reception.note(event)
        if isinstance(event, GaveUp):
            self.fail(event.error)

    def fail(self, error: Exception) -> None:
        """The node, or the channel, has refused the DID for good."""
        self.failure = error
        self.record.requests.end("the node refused the DID for good", error)
        self._wake()

    def end(self, detail: str, cause: Exception | None) -> None:
        """It was left, or the run is over.

        Args:
            detail: for those who wait for a response.
            cause: why the client ended, if it failed.
        """
        self.ended = True
        self.record.requests.end(detail, cause)
        self.failure = self.failure or cause
        self._gone.set()
        self._wake()

    async def joined(self) -> None:
        """Wait until it is joined.

        Raises:
            ChannelClosed: it has ended.
        """
        await trio.lowlevel.checkpoint()
        while not self.record.joined.is_set():
            self.check()
            await self.record.joined.wait()
        self.check()

    def check(self) -> None:
        """Refuse where it has ended.

        Raises:
            ChannelClosed: with the reason as its cause.
        """
        if self.ended or self.failure is not None:
            error: Layr8Error = ChannelClosed(f"{self._did} is not joined any more; join it again")
            error.__cause__ = self.failure
            raise error

    def _wake(self) -> None:
        waiting, self.record.joined = self.record.joined, trio.Event()
        waiting.set()


class Membership:
    """That a DID is joined, over all runs of its client, until somebody leaves it.

    Args:
        spec: what it is joined with.
        run: of the client's run of now.
    """

    def __init__(self, spec: JoinSpec, run: DidRun) -> None:
        self.spec = spec
        self.run = run
        self.left = False
        self.restored = False
        """Whether a restart has brought it back, and nobody has asked for it in this run."""

    @property
    def replaceable(self) -> bool:
        """Whether the DID may be joined anew: nobody has asked for it in this run, it is being left, or was refused.

        Whoever joined it before a restart may have been restarted too, and joins it again.
        """
        return self.restored or self.left or self.run.failure is not None

    async def leave(self) -> None:
        """Do what :meth:`JoinedDid.leave` says."""
        self.left = True
        await self.run.leave()
