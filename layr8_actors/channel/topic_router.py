"""The router of one further topic: the channel's own, which gets its frames from that one and not from Connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RemoteProtocolError
from ..otp import ActorRef, ExitKind, ExitReason
from ..phoenix import PHX_LEAVE, Frame
from .router import Router

if TYPE_CHECKING:
    from .topic_record import TopicRecord

__all__ = ("TopicRouter",)


class TopicRouter(Router):
    """The actor that routes the frames of one further topic.

    Args:
        record: the topic's record.
        inbox: gets the messages.
        rejoiner: is told how joins, the topic and the link end.
    """

    def __init__(self, record: TopicRecord, inbox: ActorRef, rejoiner: ActorRef) -> None:
        super().__init__(record, inbox, rejoiner)
        self._topic = record

    def _join(self, number: int, protocols: tuple[str, ...]) -> None:
        self._topic.attach()
        super()._join(number, protocols)
        self._topic.asked = self._topic.topic.join_ref

    def _abandon_join(self, number: int) -> None:
        super()._abandon_join(number)
        record = self._topic
        link = record.link
        if isinstance(record.machine.last_error, RemoteProtocolError) and link is not None and link.number == number:
            # Answered with nonsense: the topic is errored for us, and the node may well hold it.
            leave = Frame(record.asked, record.refs.next(), record.topic.topic, PHX_LEAVE, {})
            link.post(record.serializer.encode(leave))

    def _link_ended(self, number: int, error: Exception) -> None:
        super()._link_ended(number, error)
        if self._topic.link is not None and self._topic.link.number == number:
            self._topic.link = None

    async def terminate(self, reason: ExitReason) -> None:
        """Asked to stop, and the channel is not: write what is queued and leave the topic; then as the channel's."""
        self._topic.note_exit(reason)
        try:
            if reason.kind is ExitKind.SHUTDOWN and self._topic.left_alone:
                await self._leave()
        finally:
            await super().terminate(reason)

    async def _leave(self) -> None:
        link = self._topic.link
        if link is not None and not link.ended.is_set():
            try:
                await link.flush()
            finally:
                self._topic.leave()  # also where there was no time to write what is queued, which is stale from now on
