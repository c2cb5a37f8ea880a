"""One more DID on the socket of a channel, as its user sees it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from ..errors import ChildAlreadyStarted, Layr8Error, NotConnected, SupervisionError
from ..otp import Supervisor
from .message_stream import MessageStream
from .options import Callbacks, checked_protocols
from .push import Push
from .record import ConnectRequest
from .reply import Reply
from .statistics import ChannelState, ChannelStatistics
from .topic_tree import TopicTree
from .topics import Topics

if TYPE_CHECKING:
    from .channel import Channel
    from .tree import Tree

__all__ = ("JoinedTopic", "join_topic")


class JoinedTopic:
    """A further DID on the socket of a channel; made by :meth:`Channel.join`.

    It has its own callbacks, its own sends and its own state, and shares the socket, the heartbeats and the bound of
    what may wait with the channel and its other topics. All methods may be called from any task of the same Trio run,
    also from within callbacks.
    """

    def __init__(self, tree: TopicTree, sends: Channel) -> None:
        self._tree = tree
        self._sends = sends

    def __repr__(self) -> str:
        record = self._tree.record
        return f"<JoinedTopic {record.topic.topic!r} {record.machine.status.value}>"

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send_msg(self, event: str, payload: Any, *, join_ref: str | None = None) -> Reply:
        """Push ``event`` on this topic and wait for the node's reply.

        Args:
            event: as in :meth:`Channel.send_msg`.
            payload: likewise.
            join_ref: likewise, of a join of this topic.

        Returns:
            The node's reply. A refusal is a reply too: ``reply.status == "error"``.

        Raises:
            Layr8Error: as in :meth:`Channel.send_msg`; ChannelClosed also where this topic alone has ended.

        Checkpoints and is cancelled as :meth:`Channel.send_msg` is.
        """
        return await self._sends.send_msg(event, payload, join_ref=join_ref)

    async def send_fire_and_forget(self, event: str, payload: Any, *, join_ref: str | None = None) -> None:
        """Push ``event`` on this topic and return as soon as it is queued for writing; its reply is not awaited.

        Args:
            event: as in :meth:`Channel.send_msg`.
            payload: likewise.
            join_ref: likewise, of a join of this topic.

        Raises:
            Layr8Error: as in :meth:`Channel.send_fire_and_forget`; ChannelClosed also where this topic alone has ended.

        Checkpoints and is cancelled as :meth:`Channel.send_fire_and_forget` is.
        """
        await self._sends.send_fire_and_forget(event, payload, join_ref=join_ref)

    def encoded(
        self, event: str, payload: Any, told: Callable[[Reply | Layr8Error], None], *, join_ref: str | None = None
    ) -> Push | None:
        """Encode a push on this topic, as :meth:`Channel.encoded` does; for the library's own.

        Args:
            event: as there.
            payload: likewise.
            told: likewise.
            join_ref: likewise.
        """
        return self._sends.encoded(event, payload, told, join_ref=join_ref)

    @property
    def has_room(self) -> bool:
        """Whether :meth:`send_nowait` has no reason to return False."""
        return self._sends.has_room

    def send_nowait(self, event: str, payload: Any, *, join_ref: str | None = None) -> bool:
        """Push on this topic where there is room, as :meth:`Channel.send_nowait` does; for the library's own.

        Args:
            event: as there.
            payload: likewise.
            join_ref: likewise.
        """
        return self._sends.send_nowait(event, payload, join_ref=join_ref)

    async def send_ack(self, ids: Iterable[str]) -> None:
        """Acknowledge messages that came on this topic, as nodes without ``reply_protocol/1`` want it.

        Args:
            ids: the ids of the messages.

        Raises:
            InvalidOption: ``ids`` is not an iterable of strings.
            Layr8Error: as in :meth:`send_fire_and_forget`.

        Checkpoints as :meth:`send_fire_and_forget` does; cancelled, it has sent nothing.
        """
        await self._sends.send_ack(ids)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def messages(self) -> MessageStream:
        """Iterate over the payloads of inbound messages of this topic, instead of an on_message.

        Returns:
            An async iterator, which ends when the topic is left or the channel closed, and all messages are read. If
            the topic ended with a failure, it raises ChannelClosed with the failure as its cause.

        Raises:
            InvalidOption: the topic has an on_message, which gets all messages.
        """
        return self._sends.messages()

    @property
    def message_join_ref(self) -> str | None:
        """The ``join_ref`` under which came what on_message, on_push or on_join of this topic was called with last."""
        return self._sends.message_join_ref

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def assigned_did(self) -> str:
        """The DID that the node bound at the last join of this topic."""
        return self._sends.assigned_did

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join of this topic, such as ``reply_protocol/1``."""
        return self._sends.capabilities

    @property
    def state(self) -> ChannelState:
        """Where the topic stands now; ``waiting`` without ``retry_in`` where it waits for the socket. Never blocks."""
        return self._sends.state

    @property
    def supervisor(self) -> Supervisor:
        """The topic's own supervisor, to look at; what it supervises is the channel's business."""
        return self._tree.supervisor

    def statistics(self) -> ChannelStatistics:
        """Counts of this topic since it was joined first and gauges of this moment; never blocks.

        ``transport``, ``links_opened``, ``round_trip`` and ``sends_discarded`` are the channel's to know.
        """
        return self._sends.statistics()

    # --- ending -------------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Write what is queued, leave this topic and end its actors; the socket and the other topics go on. Idempotent.

        Whoever still waits for a reply on it gets ChannelClosed. It never raises on account of the node: what cannot be
        done within ``close_timeout`` seconds is cut short. The DID may be joined again afterwards.

        Checkpoints; a cancelled leave goes on by itself. Called from within a callback of this topic it ends that
        callback too.
        """
        self._tree.request_stop()
        await self._tree.record.over.wait()


async def join_topic(
    channel: Tree,
    sends_on: Callable[[TopicTree], Channel],
    agent_did: str,
    protocols: Sequence[str],
    callbacks: Callbacks,
    did_spec: Mapping[str, Any] | None,
    persist: bool,
) -> JoinedTopic:
    """Do what :meth:`Channel.join` says.

    Args:
        channel: the channel's tree.
        sends_on: makes what sends and reads on a topic.
        agent_did: as in :meth:`Channel.join`.
        protocols: likewise.
        callbacks: likewise.
        did_spec: likewise.
        persist: likewise.
    """
    names = checked_protocols(protocols)
    record = channel.record
    options = dataclasses.replace(record.options, agent_did=agent_did, callbacks=callbacks, did_spec=did_spec)
    await trio.lowlevel.checkpoint_if_cancelled()
    if record.topics is None and not record.closing and record.joins:
        record.topics = record.backlog.topics = Topics(record)
    topics = record.topics
    while True:
        if record.closing or record.tree_stopping():
            raise record.closed_error()
        if topics is None:
            raise NotConnected("the channel has not been connected yet; await channel.connect(...) first")
        former = topics.get(f"plugins:{options.agent_did}")
        if former is None or not former.record.closing:
            break
        await former.record.over.wait()  # it is just being left
    tree = TopicTree(options, channel, topics)
    topics.add(tree)
    sends = sends_on(tree)
    joined = False
    try:
        await _start(channel, topics, tree)
        if persist:
            tree.request_connect(ConnectRequest(names, persist=True))
        else:
            await sends.connect(names)
        joined = True
    except Layr8Error:
        tree.request_stop()
        await tree.record.over.wait()  # nothing shall be left behind
        raise
    finally:
        if not joined:
            tree.give_up()
    return JoinedTopic(tree, sends)


async def _start(channel: Tree, topics: Topics, tree: TopicTree) -> None:
    try:
        if not topics.supervisor.running:
            with contextlib.suppress(ChildAlreadyStarted):
                await channel.supervisor.start_child(topics.child())
        tree.asked_to_start = True
        await topics.supervisor.start_child(tree.child())
    except SupervisionError as error:
        tree.end()
        if channel.record.closing or channel.record.tree_stopping():
            raise channel.record.closed_error() from error
        raise NotConnected("the further topics of this channel are being restarted; try again") from error
