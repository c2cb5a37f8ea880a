"""What one further topic has in front of it: a share of what its channel has read and nobody has handled yet.

There is one socket, so there is one bound for all topics on it: the channel's own backlog. A topic's share is counted
in both, and taken off both. What is in nobody's way is set apart, and then it counts here alone: messages that nobody
reads, and what a topic that was left for its slowness has still to handle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..phoenix import Topic
from .backlog import Backlog

if TYPE_CHECKING:
    from .link import Waiter
    from .messages import Joined
    from .options import ChannelOptions

__all__ = ("TopicBacklog",)


class TopicBacklog(Backlog):
    """The backlog of one further topic; every change of it is one of the channel's too.

    Args:
        options: the topic's.
        topic: likewise.
        waiting: who waits for a reply on it.
        link: the channel's own backlog, which bounds the sum.
    """

    __slots__ = ("_apart", "_apart_size", "_link", "on_empty")

    def __init__(self, options: ChannelOptions, topic: Topic, waiting: dict[str, Waiter], link: Backlog) -> None:
        self._link = link
        self._apart = 0  # frames of ours that do not count in the channel's bound, and their size
        self._apart_size = 0
        self.on_empty: Callable[[], None] | None = None
        """Called when nothing is left of what :meth:`set_apart` took out."""
        super().__init__(options, topic, waiting)

    @property
    def paused(self) -> bool:
        """Whether the socket is not read just now, whichever topic it is that holds it up."""
        return self._link.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        """Connection alone says so, of the channel's backlog."""

    @property
    def apart(self) -> bool:
        """True while something is left that does not count in the channel's bound."""
        return self._apart > 0

    @property
    def counted(self) -> int:
        """Frames of ours that count in the channel's bound."""
        return self.frames - self._apart

    @property
    def counted_size(self) -> int:
        """Their size."""
        return self.size - self._apart_size

    @property
    def share(self) -> float:
        """How much of the channel's bound they take."""
        return self.share_of(self.counted, self.counted_size)

    def set_apart(self) -> None:
        """Take all that waits out of the channel's bound; it is still handed over, and counted here."""
        self._link.remove(self.counted, self.counted_size)
        self._apart, self._apart_size = self.frames, self.size
        self._link.make_room()

    # --- what waits; the channel has counted it when it was read ------------------------------------------------------

    def remove(self, frames: int, size: int) -> None:
        """Take off frames that are dealt with and were no messages; they came last, so they still count."""
        apart, counted, counted_size = self._apart, min(frames, self.counted), min(size, self.counted_size)
        super().remove(frames, size)
        self._apart -= frames - counted
        self._apart_size -= size - counted_size
        self._link.remove(counted, counted_size)
        self._tell_if_emptied(apart)

    def put(self, messages: list[Any], sizes: list[int], joins: Sequence[tuple[int, Joined]] = ()) -> None:
        """Queue messages for the user; those that nobody reads must not hold up the other topics."""
        super().put(messages, sizes, joins)
        if not self.read_by_user:
            self.set_apart()

    def take(self) -> Any:
        """The next payload, from now on the user's; the first ones are those that were set apart."""
        before, apart = self.size, self._apart
        payload = super().take()
        apart_size = min(before - self.size, self._apart_size)
        self._apart = max(0, apart - 1)
        self._apart_size -= apart_size
        self._link.remove(1 - (apart - self._apart), before - self.size - apart_size)
        self._link.make_room()
        self._tell_if_emptied(apart)
        return payload

    def _tell_if_emptied(self, apart: int) -> None:
        if apart and not self._apart and self.on_empty is not None:
            self.on_empty()

    def end(self) -> None:
        """The topic is over: nothing of it counts in the channel's bound any more."""
        self.set_apart()
        super().end()
        self._apart, self._apart_size = self.frames, self.size

    # --- room is the channel's ----------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Wake the reader if enough was handled."""
        self._link.make_room()

    def raise_bounds(self) -> None:
        """Wake the reader if it may go on under bounds that have just risen."""
        self._link.raise_bounds()
