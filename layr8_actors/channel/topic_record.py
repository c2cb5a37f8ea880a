"""The record of one further topic: all that a channel's own record has, but for the link, which is the channel's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ChannelClosed
from ..phoenix import PHX_LEAVE, Frame, TopicStatus
from .record import Record
from .topic_backlog import TopicBacklog
from .topic_state import TopicMachine

if TYPE_CHECKING:
    from .options import ChannelOptions

__all__ = ("TopicRecord",)


class TopicRecord(Record):
    """The state of one further topic, over all incarnations of its actors.

    Args:
        options: the channel's, with the DID, the spec and the callbacks of this topic.
        channel: the record of the channel that owns the link.
    """

    __slots__ = ("_ending", "asked", "channel", "own_backlog")

    def __init__(self, options: ChannelOptions, channel: Record) -> None:
        self.channel = channel
        self._ending = False
        self.asked: str | None = None  # the join_ref of the last join that was sent, whatever came of it
        super().__init__(options)
        # One socket has one counter: a ref names one frame of it, whichever topic that is of.
        self.refs = channel.refs
        self.serializer = channel.serializer
        self.backlog = self.own_backlog = TopicBacklog(options, self.topic, self.waiting, channel.backlog)
        self.machine = TopicMachine(
            backoff=options.backoff,
            join_timeout=options.join_timeout,
            ws_url=options.public_url,
            may_join=self._may_join,
        )

    @property
    def closing(self) -> bool:
        """True once this topic, or the channel, is about to end."""
        return self._ending or self.channel.closing

    @closing.setter
    def closing(self, closing: bool) -> None:
        self._ending = closing

    @property
    def left_alone(self) -> bool:
        """True where this topic ends and the channel goes on, so that the node has to be told."""
        return self._ending and not self.ends_with_channel

    @property
    def open_link(self) -> int:
        """The number of the open socket once the channel has sent its own join on it, which goes first; else 0."""
        link = self.channel.link
        return link.number if link is not None and self.channel.topic_link == link.number else 0

    def attach(self) -> None:
        """From now on the topic is one of the socket that is open now."""
        self.link = self.channel.link
        self.endpoint = self.channel.endpoint

    @property
    def ends_with_channel(self) -> bool:
        """True where the whole channel ends, whose last act on the socket is to leave all topics in order."""
        return self.channel.closing or self.channel.tree_stopping()

    def leave_frame(self, link: int) -> Frame | None:
        """The ``phx_leave`` to write, if the topic is joined or being joined on this socket; from now on it is neither.

        Args:
            link: the number of the socket.
        """
        if self.topic_link != link or self.topic.status not in (TopicStatus.JOINING, TopicStatus.JOINED):
            return None
        return self.topic.leave(self.refs.next())

    def leave_ahead(self) -> None:
        """Queue the ``phx_leave`` of a topic whose Router does not run, which is still to route what was read of it.

        So the state stays, and Router learns of the end by what the node answers.
        """
        link, topic = self.link, self.topic
        if link is not None and not link.ended.is_set() and topic.status is TopicStatus.JOINED:
            leave = Frame(topic.join_ref, self.refs.next(), topic.topic, PHX_LEAVE, {})
            link.post(self.serializer.encode(leave))

    def leave(self) -> None:
        """Queue the ``phx_leave`` if there is something to leave; nobody waits for its answer."""
        link = self.link
        leave = None if link is None or link.ended.is_set() else self.leave_frame(link.number)
        if link is not None and leave is not None:
            link.post(self.serializer.encode(leave))

    def closed_error(self) -> ChannelClosed:
        """A fresh error for a caller who comes late, with the reason of the end as its cause."""
        if self.failure is None and self.channel.closing:
            return self.channel.closed_error()
        error = ChannelClosed(f"the topic {self.topic.topic} has ended; join it again")
        error.__cause__ = self.failure
        return error

    def _may_join(self) -> bool:
        return self.caught_up and (self.channel.topics is None or self.channel.topics.may_join())

    @property
    def caught_up(self) -> bool:
        """Whether all is handled that it was left for not having handled."""
        return not (self.own_backlog.apart and self.own_backlog.read_by_user)
