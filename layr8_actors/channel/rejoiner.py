"""Rejoiner: decides when one further topic is joined, and joins it again; the socket is the channel's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..otp import ActorRef
from ..phoenix import TopicStatus
from .link_state import LinkStatus
from .reconnector import Reconnector

if TYPE_CHECKING:
    from .topic_record import TopicRecord

__all__ = ("Rejoiner",)


class Rejoiner(Reconnector):
    """The actor that owns the joins of one further topic; what it shares with Reconnector is all but the dials.

    Args:
        record: the topic's record.
        router: joins and leaves.
        inbox: tells the user.
        end_topic: begins the end of the topic's tree, without waiting for it.
    """

    def __init__(self, record: TopicRecord, router: ActorRef, inbox: ActorRef, end_topic: Callable[[], None]) -> None:
        super().__init__(record, router, router, inbox, end_topic)
        self._topic = record
        self._joining = True  # for all we know, until we have looked

    def _resynchronize(self) -> None:
        record = self._topic
        number = record.open_link
        ended_link, error = record.channel.last_end or (0, None)
        machine = record.machine
        joined = record.topic.status is TopicStatus.JOINED and record.topic_link == number
        self._do(
            machine.resynchronize(
                open_link=number,
                dialling=0,
                joined=joined,
                now=trio.current_time(),
                ended=error if ended_link == machine.link else None,
            )
        )

    def _set_alarm(self) -> None:
        """Set the clock, as the last step of each turn; a join that is answered or given up makes room for another."""
        super()._set_alarm()
        joined, self._joining = self._joining, self._topic.machine.status is LinkStatus.JOINING
        if joined and not self._joining and self._topic.channel.topics is not None:
            self._topic.channel.topics.begin_next_join()

    def _serve_requests(self) -> None:
        super()._serve_requests()
        if self._record.machine.status is LinkStatus.WAITING and self._record.machine.deadline is None:
            self._resynchronize()  # there may be a socket to join on already
