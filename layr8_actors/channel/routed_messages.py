"""The first of the two kinds of frame that a router knows at a glance, routed in one loop: a flood has nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..phoenix import Frame, TopicStatus

if TYPE_CHECKING:
    from .record import Record

__all__ = ("route_messages",)


def route_messages(record: Record, link: int, frames: list[Frame], sizes: list[int]) -> None:
    """Route the messages that come next in a batch, up to the first frame that is none.

    They are those of the join in force on the channel's own topic, so no further topic is asked; and nothing is looked
    up anew that no message changes. Router asks about all others one by one.

    Args:
        record: of the router; says with which frame to begin, and is told of each that is done with.
        link: the number of the socket they came from.
        frames: the batch.
        sizes: of each of them.
    """
    topic = record.topic
    if link != record.topic_link or topic.status is not TopicStatus.JOINED:
        return
    join_ref, name = topic.join_ref, topic.topic
    counters, routed, routed_sizes = record.counters, record.routed, record.routed_sizes
    for number in range(record.routed_so_far, len(frames)):
        frame = frames[number]
        payload = frame.payload
        if frame.event != "message" or frame.join_ref != join_ref or frame.topic != name or type(payload) is not dict:
            return
        counters.messages_received += 1
        routed.append(payload)
        routed_sizes.append(sizes[number])
        record.routed_so_far = number + 1
        record.crashes_on_one_frame = 0
