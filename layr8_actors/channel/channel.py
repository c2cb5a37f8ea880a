"""The channel as its user sees it; over 400 lines, because what each method promises is written at it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import trio

from ..errors import Disconnected, InvalidOption, Layr8Error, NotConnected, ReplyTimeout, TopicDown
from ..otp import ChildSpec, ChildType, Restart, Supervisor
from ..phoenix import TopicStatus
from .heartbeat import held_up
from .joined_topic import JoinedTopic, join_topic
from .link import Link
from .message_stream import MessageStream
from .messages import TopicEnded
from .options import Callbacks, ChannelOptions, checked_protocols
from .outbox import Outgoing
from .push import Push
from .record import ConnectRequest
from .reply import Reply
from .statistics import ChannelState, ChannelStatistics, take_statistics
from .tree import Tree
from .waiter import Waiter

__all__ = ("Channel", "checked_options", "run_channel")

MAX_TIMEOUTS_IN_A_ROW = 3
"""Replies that fail to come in a row before the topic is taken for hung: heartbeats only prove the socket's process."""

PASSES_BEFORE_SLEEP = 2
"""Passes of Trio's loop, some 5 us each, in which one who has written by itself looks for the reply before the process
may sleep: as many as a writer takes. To be woken takes longer (20 to 30 us on a virtual machine), and a node that is
near has answered by then: 63 us a round trip, not 89, and less CPU time."""


class Channel:
    """A supervised connection to a Layr8 cloud-node; made by :func:`open_channel`, start_link or child_spec.

    All methods may be called from any task of the same Trio run, also from within the callbacks.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._record = tree.record

    def __repr__(self) -> str:
        return f"<Channel {self._record.topic.topic!r} {self._record.machine.status.value}>"

    # --- starting -----------------------------------------------------------------------------------------------------

    @classmethod
    async def start_link(cls, nursery: trio.Nursery, options: ChannelOptions) -> Channel:
        """Start a channel in a nursery of your own; it ends with the nursery, and its failure is the nursery's.

        Args:
            nursery: runs the supervision tree.
            options: everything else.

        Returns:
            The channel, whose actors run; nothing is dialled before connect.

        Raises:
            InvalidOption: ``options`` is not ChannelOptions.

        Checkpoints. Cancellation before it returns leaves nothing running. Into the nursery go RestartLimitExceeded
        and JoinRejected, when the channel gives up (OTP ``start_link``).
        """
        channel: Channel = await nursery.start(functools.partial(run_channel, checked_options(options), None))
        return channel

    @staticmethod
    def child_spec(
        options: ChannelOptions,
        *,
        id: str = "channel",
        protocols: Sequence[str] | None = None,
        restart: Restart = Restart.PERMANENT,
    ) -> ChildSpec:
        """Describe a channel as a child of a supervisor; each (re)start makes a new one, found by ``whereis(id)``.

        Args:
            options: everything about the channel.
            id: the child's id.
            protocols: what to connect with as soon as it runs. The child counts as started before the join, so that a
                node that is away does not hold up the whole tree; attempts are retried at the backoff, and
                ``await channel.connect(protocols)`` waits for the join. ``None`` leaves connecting to you.
            restart: permanent (OTP's default for a GenServer), transient or temporary.

        Returns:
            A spec of type supervisor, whose handle is the :class:`Channel`.

        Raises:
            InvalidOption: an argument is not allowed.
        """
        names = None if protocols is None else checked_protocols(protocols)
        start = functools.partial(run_channel, checked_options(options), names)
        return ChildSpec(id=id, start=start, restart=restart, type=ChildType.SUPERVISOR)

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def connect(self, protocols: Sequence[str]) -> None:
        """Dial the node and join, and return once the join is acknowledged; from then on a lost link is renewed.

        Where the channel is connected already, or is just reconnecting, this waits for that join.

        Args:
            protocols: URIs of the protocols to bind, such as ``https://didcomm.org/basicmessage/2.0``, or ``"*"``; at
                least one, because a node refuses a join without.

        Raises:
            InvalidOption: ``protocols`` is not a sequence of non-empty strings.
            ConnectFailed: the node cannot be reached or refused the upgrade (``.status``).
            JoinTimeout: the socket opened, but the join was not answered.
            JoinRejected: the node refused the join; ``.permanent`` tells whether trying again can help.
            RemoteProtocolError: the node answered the join with nonsense.
            AlreadyConnected: the channel is connected with other protocols.
            ChannelClosed: the channel has ended.

        Checkpoints. A connect that fails leaves no task and no socket behind and may be called again; so does one that
        is cancelled, unless another caller waits for the same attempt.
        """
        names = checked_protocols(protocols)
        await trio.lowlevel.checkpoint_if_cancelled()
        record = self._record
        if record.closing:
            raise record.closed_error()
        request = ConnectRequest(names)
        self._tree.request_connect(request)
        try:
            await request.done.wait()
        finally:
            self._tree.withdraw_connect(request)
        if request.error is not None:
            raise request.error

    async def join(
        self,
        agent_did: str,
        protocols: Sequence[str],
        *,
        callbacks: Callbacks | None = None,
        did_spec: Mapping[str, Any] | None = None,
        persist: bool = False,
    ) -> JoinedTopic:
        """Join a further DID on the same socket, and return once the join is acknowledged.

        From then on it is joined again whenever the link is renewed or the node ends its topic. A node that refuses it
        for good ends this topic alone.

        Args:
            agent_did: the DID to bind; ``""`` only where ``did_spec`` names a ``parentDid`` of which one is derived.
            protocols: as in :meth:`connect`.
            callbacks: of this DID alone; ``None`` for none. All other options are the channel's.
            did_spec: as in :class:`ChannelOptions`, for this DID.
            persist: return at once, and retry a first join that fails at the backoff, as the protocols of
                :meth:`child_spec` do; ``handle.state`` tells how it stands.

        Returns:
            The handle to send, to look and to leave with.

        Raises:
            InvalidOption: an argument is not allowed.
            NotConnected: :meth:`connect` has not succeeded yet.
            AlreadyConnected: the DID is the channel's own, or is joined on it already.
            JoinRejected: the node refused the join; ``.permanent`` tells whether trying again can help. Also, without
                asking the node, where the socket has the 100 topics that Phoenix allows.
            JoinTimeout: the join was not answered.
            ConnectFailed: the link was lost before the join was answered.
            RemoteProtocolError: the node answered the join with nonsense.
            ChannelClosed: the channel has ended.

        Checkpoints. While the link is just being renewed it waits for that. A join that fails leaves nothing behind and
        may be called again; so does one that is cancelled.
        """
        wanted = callbacks or Callbacks()
        return await join_topic(self._tree, Channel, agent_did, protocols, wanted, did_spec, persist)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send_msg(self, event: str, payload: Any, *, join_ref: str | None = None) -> Reply:
        """Push ``event`` and wait for the node's reply.

        Args:
            event: the name of the event, ``"message"`` for a DIDComm message.
            payload: any JSON value; for a message the bare DIDComm plaintext.
            join_ref: of the join that it belongs to, as :attr:`message_join_ref` tells: an answer that must not go out
                under a later one. ``None`` for the join in force.

        Returns:
            The node's reply. A refusal is a reply too: ``reply.status == "error"``. ``"ok"`` means that the node has
            accepted the message, not that it was delivered.

        Raises:
            InvalidOption: the event is no non-empty str.
            LocalProtocolError: the payload is not JSON, or the event is one of Phoenix' own.
            NotConnected: there is no joined topic now; nothing was sent.
            Disconnected: the link, the topic or the router went away first; ``.written`` tells what the node may know.
                Or the join in force is not the one of ``join_ref``; nothing was sent.
            ReplyTimeout: no reply within ``reply_timeout`` seconds, waiting for room and writing included.
            RemoteProtocolError: the node answered with nonsense.
            ChannelClosed: the channel has ended.

        Always checkpoints. Cancellation frees everything here, and what was not written by then never will be; but the
        node may still act on what was. Pushes are written in the order of the calls.
        """
        waiter = Waiter()
        if self._record.reply_deadlines.watched:
            return await self._ask(event, payload, waiter, join_ref)
        with trio.move_on_after(self._record.options.reply_timeout):
            return await self._ask(event, payload, waiter, join_ref)
        raise self._timed_out(waiter)

    async def _ask(self, event: str, payload: Any, waiter: Waiter, join_ref: str | None) -> Reply:
        record = self._record
        try:
            link, outgoing = self._outgoing(event, payload, waiter, join_ref)
        except Layr8Error:
            await trio.lowlevel.checkpoint_if_cancelled()  # one that tries again and again has to end some day
            raise
        alone = not link.asking
        link.asking += 1
        try:
            if alone:
                await trio.lowlevel.checkpoint_if_cancelled()  # for what is cancelled by now must not be written
            # From here on no await but those for room and for the reply: an error or a cancellation means not queued.
            if alone and link.send_nowait(outgoing):
                record.counters.sent += 1
                return await waiter.wait(PASSES_BEFORE_SLEEP)
            if link.outbox.put_nowait(outgoing) or await self._wait_for_room(link, outgoing):
                record.counters.sent += 1
            return await waiter.wait()
        except ReplyTimeout:
            raise self._timed_out(waiter) from None
        finally:
            waiter.leave()
            record.waiting.pop(waiter.ref, None)
            link.asking -= 1

    def _timed_out(self, waiter: Waiter) -> ReplyTimeout:
        record = self._record
        record.counters.reply_timeouts += 1
        # Where we have not read, or nobody routes what was read, the reply may well be here.
        unheard = record.backlog.paused or not record.reply_deadlines.watched
        if waiter.written and not unheard and not held_up(waiter.deadline, trio.current_time()):
            self._note_timeout(waiter)
        return ReplyTimeout(record.options.reply_timeout, written=waiter.written)

    async def send_fire_and_forget(self, event: str, payload: Any, *, join_ref: str | None = None) -> None:
        """Push ``event`` and return as soon as it is queued for writing; its reply is not awaited.

        Args:
            event: as in :meth:`send_msg`.
            payload: likewise.
            join_ref: likewise.

        Raises:
            InvalidOption: the event is no non-empty str.
            LocalProtocolError: the payload is not JSON, or the event is one of Phoenix' own.
            NotConnected: there is no joined topic now; nothing was sent.
            Disconnected: the link went away while waiting for room, or ``join_ref`` is not of the join in force;
                nothing was sent.
            ReplyTimeout: there was no room within ``reply_timeout`` seconds; nothing was sent.
            ChannelClosed: the channel has ended.

        Checks for cancellation, and then waits only while the outbox is full; cancelled, it has sent nothing. A link
        that is lost before the writer comes to it discards what is queued, which the event LinkLost and the statistics
        count. close writes what is queued first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        link, outgoing = self._outgoing(event, payload, None, join_ref)
        if link.outbox.put_nowait(outgoing) or await self._wait_for_room(link, outgoing):
            self._record.counters.sent += 1

    # --- sending, for the library's own -------------------------------------------------------------------------------

    def encoded(
        self, event: str, payload: Any, told: Callable[[Reply | Layr8Error], None], *, join_ref: str | None = None
    ) -> Push | None:
        """Encode a push whose outcome is told to a function; it has to be queued, or withdrawn, in the same turn.

        Args:
            event: as in :meth:`send_msg`.
            payload: likewise.
            told: see :class:`Push`.
            join_ref: as in :meth:`send_msg`.

        Returns:
            The push; None where nobody is there to tell it that no reply came in time: use :meth:`send_msg`.

        Raises:
            Layr8Error: what :meth:`send_msg` raises before it waits.

        No checkpoint.
        """
        if not self._record.reply_deadlines.watched:
            return None
        push = Push(self._record, told, self._timed_out)
        link, push.outgoing = self._outgoing(event, payload, push, join_ref)
        push.outbox = link.outbox
        return push

    @property
    def has_room(self) -> bool:
        """Whether :meth:`send_nowait` has no reason to return False."""
        link = self._record.link
        return link is None or link.outbox.has_room

    def send_nowait(self, event: str, payload: Any, *, join_ref: str | None = None) -> bool:
        """Do what :meth:`send_fire_and_forget` does where there is room; no checkpoint.

        Args:
            event: as there.
            payload: likewise.
            join_ref: likewise.

        Returns:
            False where there is none: nothing was sent.

        Raises:
            Layr8Error: as there.
        """
        link, outgoing = self._outgoing(event, payload, None, join_ref)
        queued = link.outbox.put_nowait(outgoing)
        self._record.counters.sent += queued
        return queued

    async def send_ack(self, ids: Iterable[str]) -> None:
        """Acknowledge inbound messages, as nodes without ``reply_protocol/1`` want it; no reply is awaited.

        Args:
            ids: the ids of the messages.

        Raises:
            InvalidOption: ``ids`` is not an iterable of strings.
            Layr8Error: as in :meth:`send_fire_and_forget`.

        Checkpoints as :meth:`send_fire_and_forget` does; cancelled, it has sent nothing.
        """
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InvalidOption("ids", ids, "an iterable of str")
        names = list(ids)
        for name in names:
            if not isinstance(name, str):
                raise InvalidOption("ids", name, "an iterable of str")
        await self.send_fire_and_forget("ack", {"ids": names})

    def _outgoing(self, event: str, payload: Any, waiter: Waiter | None, join_ref: str | None) -> tuple[Link, Outgoing]:
        """Check and encode a push, and enter its waiter, which the caller has to take out again."""
        if not isinstance(event, str) or not event:
            raise InvalidOption("event", event, "a non-empty str, such as 'message'")
        link = self._joined_link()
        record = self._record
        topic = record.topic
        if join_ref is not None and join_ref != topic.join_ref:
            raise Disconnected("the join it belongs to is over", written=False)
        ref = record.refs.next()
        frame = topic.push(ref, event, payload)
        data = record.serializer.encode(frame)
        if waiter is not None:
            waiter.ref = ref
            waiter.join_ref = frame.join_ref
            waiter.link = link.number
            record.waiting[ref] = waiter
            record.reply_deadlines.add(waiter)
            if record.backlog.paused:
                record.backlog.raise_bounds()
        return link, (data, frame.join_ref, waiter)

    async def _wait_for_room(self, link: Link, outgoing: Outgoing) -> bool:
        timeout = self._record.options.reply_timeout
        _, _, waiter = outgoing
        queued = False
        # One who waits for a reply is released by whoever tells it that none will come.
        with trio.CancelScope(deadline=math.inf if waiter else trio.current_time() + timeout) as room:
            if waiter is not None:
                waiter.room = room
            queued = await link.outbox.put(outgoing)
        if waiter is None and room.cancelled_caught:
            raise ReplyTimeout(timeout, written=False)
        if waiter is None and not queued:
            raise Disconnected("the link was lost before there was room", written=False)
        return queued

    def _joined_link(self) -> Link:
        record = self._record
        link = record.link
        if record.closing:
            raise record.closed_error()
        if (
            link is None
            or link.error is not None
            or link.broken
            or record.topic.status is not TopicStatus.JOINED
            or record.topic_link != link.number
        ):
            raise NotConnected(f"the channel is {record.machine.status.value}; wait for on_reconnect, or call connect")
        return link

    def _note_timeout(self, waiter: Waiter) -> None:
        record = self._record
        if waiter.join_ref != record.topic.join_ref:
            return  # it says nothing of the join in force
        record.timeouts_in_a_row += 1
        if record.timeouts_in_a_row >= MAX_TIMEOUTS_IN_A_ROW:
            record.timeouts_in_a_row = 0
            error = TopicDown(f"{MAX_TIMEOUTS_IN_A_ROW} replies in a row did not come")
            self._tree.router.cast_nowait(TopicEnded(waiter.link, error))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def messages(self) -> MessageStream:
        """Iterate over the payloads of inbound messages, instead of an on_message; several iterators share them.

        Returns:
            An async iterator, which ends when the channel is closed and all messages are read. If the channel ended
            with a failure, it raises ChannelClosed with the failure as its cause.

        Raises:
            InvalidOption: the channel has an on_message, which gets all messages.
        """
        if self._record.options.callbacks.on_message is not None:
            raise InvalidOption("callbacks.on_message", self._record.options.callbacks.on_message, "None, to iterate")
        self._record.backlog.read_by_user = True
        return MessageStream(self._record)

    @property
    def message_join_ref(self) -> str | None:
        """The ``join_ref`` under which came what on_message, on_push or on_join was called with last."""
        return self._record.message_join_ref

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def assigned_did(self) -> str:
        """The DID that the node bound at the last join; before the first join the one asked for, or ``""``."""
        return self._record.assigned_did

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join, such as ``reply_protocol/1``; empty before the first."""
        return self._record.capabilities

    @property
    def state(self) -> ChannelState:
        """Where the channel stands now, with the last error and when the next attempt is due; never blocks."""
        machine = self._record.machine
        waiting = machine.status.value == "waiting" and machine.deadline is not None
        retry_in = (
            max(0.0, machine.deadline - trio.current_time()) if waiting and machine.deadline is not None else None
        )
        failures = 0 if machine.stands_since(trio.current_time()) else machine.failures
        return ChannelState(machine.status, failures, machine.last_error, retry_in)

    @property
    def supervisor(self) -> Supervisor:
        """The channel's own supervisor, to look at; what it supervises is the channel's business."""
        return self._tree.supervisor

    def statistics(self) -> ChannelStatistics:
        """Counts since the start and gauges of this moment; never blocks."""
        return take_statistics(self._record)

    # --- ending -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is queued, leave the topic, close the socket and end the actors; idempotent and final.

        Further topics are left first, the last one joined before the others.

        Whoever still waits for a reply gets ChannelClosed. It never raises on account of the node: what cannot be done
        within ``close_timeout`` seconds is cut short.

        A channel that is a permanent child is restarted by its supervisor like any other that ends: use
        ``terminate_child`` there.

        Checkpoints; a cancelled close goes on by itself. Called from within a callback it ends that callback too.
        """
        self._tree.request_stop()
        await self._record.over.wait()


def run_channel(
    options: ChannelOptions,
    protocols: tuple[str, ...] | None,
    *,
    task_status: trio.TaskStatus[Channel] = trio.TASK_STATUS_IGNORED,
) -> Coroutine[Any, Any, None]:
    """Make a channel and return what runs it, for a nursery or a child spec to start.

    Args:
        options: as checked.
        protocols: what to connect with at once, or ``None``.
        task_status: is told of the channel once its actors run.
    """
    tree = Tree(options)
    return tree.run(Channel(tree), protocols, task_status)


def checked_options(options: object) -> ChannelOptions:
    """Return ``options``.

    Args:
        options: what a caller gave.

    Raises:
        InvalidOption: it is no ChannelOptions.
    """
    if not isinstance(options, ChannelOptions):
        raise InvalidOption("options", options, "ChannelOptions(...)")
    return options
