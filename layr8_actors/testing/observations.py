"""What the node saw and did, for tests to look at and to wait for; nothing here polls."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..phoenix import Frame
from .upgrade_request import UpgradeRequest

if TYPE_CHECKING:
    from .node_socket import NodeSocket

__all__ = ("NodeStatistics", "Observations", "ReceivedFrame")


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """One frame that a client sent.

    Args:
        at: when, in seconds of the run's clock.
        socket: the number of the socket it came on, counted from 1.
        frame: the frame as decoded.
    """

    at: float
    socket: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """Counters since the node began, and what lives now.

    Args:
        upgrades: upgrades accepted.
        refused_upgrades: upgrades answered with another status, or not at all.
        sockets: sockets alive.
        topics: topics joined now, over all sockets.
        joins: joins accepted, by topic.
        refused_joins: joins refused, by topic.
        frames: frames received.
        bad_frames: messages that were no frame, each of which closed its socket with 1011.
        heartbeats: heartbeats received.
        delivered: messages pushed into live joins, by DID.
    """

    upgrades: int
    refused_upgrades: int
    sockets: int
    topics: int
    joins: dict[str, int]
    refused_joins: dict[str, int]
    frames: int
    bad_frames: int
    heartbeats: int
    delivered: dict[str, int]


class Observations:
    """Counts and keeps; everyone who waits is woken at each change.

    Args:
        frames_kept: how many received frames are kept; older ones are forgotten.
    """

    def __init__(self, frames_kept: int) -> None:
        self.requests: deque[UpgradeRequest] = deque(maxlen=frames_kept)
        self.upgrades = 0
        self.refused_upgrades = 0
        self.frames = 0
        self.bad_frames = 0
        self.heartbeats = 0
        self.joins: Counter[str] = Counter()
        self.joins_by_did: Counter[str] = Counter()
        self.refused_joins: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self._received: deque[tuple[ReceivedFrame, NodeSocket]] = deque(maxlen=frames_kept)
        self._changed = trio.Event()

    def changed(self) -> None:
        """Wake everyone who waits for a condition."""
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()`` is true; it is called now and after each change. Checkpoints."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    # --- what is told -------------------------------------------------------------------------------------------------

    def upgraded(self, request: UpgradeRequest) -> None:
        """An upgrade was answered, or given up (status 0)."""
        self.requests.append(request)
        if request.status == 101:
            self.upgrades += 1
        else:
            self.refused_upgrades += 1
        self.changed()

    def received(self, socket: NodeSocket, frame: Frame) -> None:
        """A frame came in."""
        self.frames += 1
        if frame.event == "heartbeat" and frame.topic == "phoenix":
            self.heartbeats += 1
        self._received.append((ReceivedFrame(trio.current_time(), socket.number, frame), socket))
        self.changed()

    def bad_frame(self) -> None:
        """A message came in that is no frame."""
        self.bad_frames += 1
        self.changed()

    def joined(self, socket: NodeSocket, topic: str, *, accepted: bool) -> None:
        """A join was accepted or refused."""
        if accepted:
            self.joins[topic] += 1
            self.joins_by_did[socket.dids.get(topic, topic)] += 1
        else:
            self.refused_joins[topic] += 1
        self.changed()

    def message_delivered(self, did: str) -> None:
        """A message went to a live join of a DID."""
        self.delivered[did] += 1
        self.changed()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def statistics(self, sockets: int, topics: int) -> NodeStatistics:
        """Return all counters as they are now, with the numbers of sockets and topics that live."""
        return NodeStatistics(
            upgrades=self.upgrades,
            refused_upgrades=self.refused_upgrades,
            sockets=sockets,
            topics=topics,
            joins=dict(self.joins),
            refused_joins=dict(self.refused_joins),
            frames=self.frames,
            bad_frames=self.bad_frames,
            heartbeats=self.heartbeats,
            delivered=dict(self.delivered),
        )

    def received_frames(self, did: str | None, event: str | None) -> list[ReceivedFrame]:
        """The kept frames on the topics of a DID, or all; of one event, or all."""
        return [
            received
            for received, socket in self._received
            if (event is None or received.frame.event == event)
            and (did is None or (isinstance(received.frame.topic, str) and _did(socket, received.frame.topic) == did))
        ]


def _did(socket: NodeSocket, topic: str) -> str:
    # A topic whose join was refused has no DID assigned; the one that it names is meant then.
    return socket.dids.get(topic) or topic.partition(":")[2]
