"""The further topics of one socket: who they are, and what the channel's own actors ask and tell them.

Router hands each frame of theirs over here, one at a time, and sends them on once per batch; in between they are kept
here and not in the actor, so that its crash costs none. Connection asks which joins are in force, and for the leaves.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import trio

from ..errors import AlreadyConnected, InvalidOption, JoinRejected, TopicDown
from ..otp import ChildSpec, ChildType, DynamicSupervisor
from ..phoenix import Frame, Ref, TopicStatus
from .link_state import LinkStatus
from .messages import FramesArrived, LinkEnded, TopicEnded

if TYPE_CHECKING:
    from .record import Record
    from .topic_tree import TopicTree

__all__ = ("MAX_TOPICS", "Topics")

MAX_TOPICS = 100
"""Topics of one socket, the channel's own included: Phoenix' ``max_channels_per_transport`` (1.7.24, from 1.8.9 on)."""

MAX_JOINS_AT_ONCE = 8
"""Joins of further topics that may be unanswered at a time. Ours: a node runs those of one socket one after another, so
more would gain a round trip and lose all of the last ones' ``join_timeout`` (10 s) where each takes a second."""


class Topics:
    """The further topics of one channel, in the order in which they were asked for.

    Args:
        channel: the channel's record.
    """

    __slots__ = ("_arrived", "_channel", "_trees", "supervisor")

    def __init__(self, channel: Record) -> None:
        self._channel = channel
        self._trees: dict[str | int, TopicTree] = {}
        self._arrived: dict[TopicTree, list[FramesArrived]] = {}
        # A topic that gives up is nobody else's business: all children are temporary, so there is no budget to spend.
        self.supervisor = DynamicSupervisor(
            name=f"topics of {channel.topic.topic}", on_event=channel.options.on_event, max_restarts=0
        )

    def child(self) -> ChildSpec:
        """Describe what runs the topics as a child of the channel's supervisor."""
        return ChildSpec(id="topics", start=self._start, type=ChildType.SUPERVISOR)

    def _start(self, *, task_status: trio.TaskStatus[Any]) -> Coroutine[Any, Any, None]:
        return self._run(self.supervisor.run(task_status=task_status))

    async def _run(self, running: Coroutine[Any, Any, None]) -> None:
        try:
            await running
        finally:
            for tree in list(self):
                tree.end()  # by now they are over, but for one that had still to be started

    def __len__(self) -> int:
        return len(self._trees)

    def __iter__(self) -> Iterator[TopicTree]:
        return iter(self._trees.values())

    def get(self, topic: str) -> TopicTree | None:
        """Return who has this topic, if anybody has."""
        return self._trees.get(topic)

    def add(self, tree: TopicTree) -> None:
        """Take in one more topic.

        Args:
            tree: not started yet.

        Raises:
            InvalidOption: it has no DID.
            AlreadyConnected: the channel itself has this DID, or another further topic has.
            JoinRejected: the socket has as many topics as Phoenix lets it have.
        """
        options = tree.record.options
        if not options.agent_did:
            raise InvalidOption("agent_did", options.agent_did, "a DID; only the channel itself may ask for any")
        topic = tree.record.topic.topic
        channel = self._channel
        if topic in (channel.topic.topic, f"plugins:{channel.assigned_did}") or topic in self._trees:
            raise AlreadyConnected(f"{options.agent_did} is joined on this channel already; leave it first")
        if len(self._trees) + 1 >= MAX_TOPICS:
            raise JoinRejected("too many channels joined", permanent=False)
        self._trees[topic] = tree

    def forget(self, tree: TopicTree) -> None:
        """A topic has ended, and what still comes for it is of an unknown one."""
        if self._trees.get(tree.record.topic.topic) is tree:
            del self._trees[tree.record.topic.topic]
        self._arrived.pop(tree, None)

    # --- what Router does ---------------------------------------------------------------------------------------------

    def take(self, link: int, frame: Frame, size: int) -> bool:
        """Take a frame over if it is of a further topic; it stays counted as unhandled.

        Args:
            link: the number of the socket it came from.
            frame: any.
            size: that it was read as.
        """
        tree = self._trees.get(frame.topic)
        if tree is None:
            return False
        batches = self._arrived.setdefault(tree, [])
        if not batches or batches[-1].link != link:
            batches.append(FramesArrived(link, [], []))
        batches[-1].frames.append(frame)
        batches[-1].sizes.append(size)
        tree.record.own_backlog.add(1, size)
        return True

    def deliver(self) -> None:
        """Send on what was taken since the last time."""
        while self._arrived:
            tree, batches = self._arrived.popitem()
            for batch in batches:
                tree.router.cast_nowait(batch)  # its mailbox outlives a stop by hand too

    def link_opened(self) -> None:
        """The channel has sent its own join on a socket: now the others may."""
        for tree in self:
            tree.look()

    def link_ended(self, number: int, error: Exception) -> None:
        """A socket has ended, behind all frames that came from it."""
        for tree in self:
            tree.router.cast_nowait(LinkEnded(number, error))

    def may_join(self) -> bool:
        """Whether one more join may be under way."""
        return self._free_joins() > 0

    def begin_next_join(self) -> None:
        """A join was answered or given up: it is the turn of the next ones that wait for nothing else."""
        free = self._free_joins()
        for tree in self:
            if free <= 0:
                return
            machine = tree.record.machine
            if machine.status is LinkStatus.WAITING and machine.deadline is None and tree.record.caught_up:
                free -= 1
                tree.look()

    def _free_joins(self) -> int:
        return MAX_JOINS_AT_ONCE - sum(tree.record.machine.status is LinkStatus.JOINING for tree in self)

    # --- what Connection asks -----------------------------------------------------------------------------------------

    def joins_in_force(self) -> frozenset[Ref]:
        """The join_refs under which frames of further topics may be written now."""
        topics = (tree.record.topic for tree in self)
        return frozenset(topic.join_ref for topic in topics if topic.status is TopicStatus.JOINED)

    def leaves(self, link: int) -> list[Frame]:
        """The leaves to write when the channel is closed: the last one joined goes first.

        Args:
            link: the number of the socket; those that are not joined on it need not leave it.
        """
        frames: list[Frame] = []
        for tree in reversed(self._trees.values()):
            frame = tree.record.leave_frame(link)
            if frame is not None:
                frames.append(frame)
        return frames

    # --- what Backlog asks --------------------------------------------------------------------------------------------

    @property
    def join_awaited(self) -> bool:
        """Whether the answer to a join of one of them has to be read."""
        return any(tree.record.topic.status is TopicStatus.JOINING for tree in self)

    @property
    def reply_awaited(self) -> bool:
        """Whether somebody waits for a reply on one of them."""
        return any(tree.record.waiting for tree in self)

    @property
    def patience(self) -> float:
        """Seconds that one further topic may keep the socket unread: as long as callers on it wait for a reply."""
        return self._channel.options.reply_timeout

    def leave_slowest(self) -> None:
        """The socket has not been read for too long: leave the further topic that holds most of what waits.

        What it holds is still handed over, and it is joined again once that is done. Where the channel's own topic
        holds most there is none to leave: its slowness is the link's, as of a channel without further topics.
        """
        backlog = self._channel.backlog
        unread, unread_size = backlog.unread
        frames, size = backlog.frames - unread, backlog.size - unread_size
        slowest: TopicTree | None = None
        for tree in self:
            frames, size = frames - tree.record.own_backlog.counted, size - tree.record.own_backlog.counted_size
            if slowest is None or tree.record.own_backlog.share > slowest.record.own_backlog.share:
                slowest = tree
        if slowest is None or slowest.record.own_backlog.share < backlog.share_of(frames, size):
            return
        record = slowest.record
        record.own_backlog.set_apart()
        if not slowest.router.running:
            record.leave_ahead()  # else the node would send on until it runs again, and hold up the others again
        error = TopicDown(f"it was not handled within {self.patience:g} s what others on the socket waited behind")
        slowest.router.cast_nowait(TopicEnded(record.topic_link, error))
