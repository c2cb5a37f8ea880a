"""What must outlive a crash of any one actor: a plain record that the tree owns and hands to each incarnation.

Actors hold only what they can lose. Each field below names the one who writes it; all others only read. Every change is
made between two checkpoints, so that an actor killed at any await leaves the record whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from ..errors import ChannelClosed, Disconnected, Layr8Error
from ..otp import ExitKind, ExitReason
from ..phoenix import Refs, Serializer, Topic
from ..telemetry import Event, emit
from ..transport.redaction import redact_all
from .backlog import Backlog
from .events import FrameIgnored, FrameRefused, SendsDiscarded
from .lazy_event import LazyEvent
from .link_state import LinkMachine
from .reply_deadlines import ReplyDeadlines
from .statistics import Counters

if TYPE_CHECKING:
    from ..otp import Supervisor
    from ..transport import Endpoint
    from .link import Link
    from .messages import FramesArrived, Joined
    from .options import ChannelOptions
    from .topics import Topics
    from .waiter import Waiter

__all__ = ("ConnectRequest", "Record")


@dataclasses.dataclass(slots=True, eq=False)
class ConnectRequest:
    """One call of connect that waits for its outcome."""

    protocols: tuple[str, ...]
    persist: bool = False
    accepted: bool = False
    done: trio.Event = dataclasses.field(default_factory=trio.Event)
    error: Exception | None = None

    def finish(self, error: Exception | None) -> None:
        """Release the caller, with ``error`` or with success; only the first outcome counts."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


class Record:
    """The state of one channel, over all incarnations of its actors.

    Args:
        options: as the user gave them.
    """

    __slots__ = (
        "_arrived",
        "assigned_did",
        "backlog",
        "capabilities",
        "closing",
        "connect_requests",
        "counters",
        "crashes_on_one_frame",
        "dialling",
        "endpoint",
        "failed_now",
        "failure",
        "in_hand",
        "joins",
        "lane_open",
        "last_end",
        "link",
        "machine",
        "mailed",
        "message_join_ref",
        "messages_mailed",
        "notices",
        "options",
        "over",
        "refs",
        "reply_deadlines",
        "round_trip",
        "route",
        "routed",
        "routed_joins",
        "routed_sizes",
        "routed_so_far",
        "serializer",
        "supervisor",
        "take_at_once",
        "timeouts_in_a_row",
        "topic",
        "topic_link",
        "topics",
        "unrouted",
        "waiting",
    )

    def __init__(self, options: ChannelOptions) -> None:
        self.options = options
        self.serializer = Serializer(max_size=options.max_message_size)
        self.refs = Refs()  # never reset, so that a reply of an abandoned socket can match nothing
        self.counters = Counters()

        # Written by Connection: the one open socket. Reconnector says which is dialled, Connection when it is not.
        self.link: Link | None = None
        self.dialling = 0
        self.endpoint: Endpoint | None = None  # of the last dial, with the key that the node was sent
        self.last_end: tuple[int, Exception] | None = None  # of which socket, and why

        # Written by Router: frames to route, the topic, who waits for which reply, messages on their way to Inbox.
        self.unrouted: list[FramesArrived] = []
        self.routed_so_far = 0  # frames of the first of them
        self.route: Callable[[FramesArrived], bool] | None = None  # see Router.route_now
        self.failed_now: FramesArrived | None = None  # what Router is to crash of, of what route could not do
        self.mailed = False  # there may be frames in Router's mailbox; set by Connection
        self.routed: list[Any] = []
        self.routed_sizes: list[int] = []
        self.routed_joins: list[tuple[int, Joined]] = []
        self.topic = Topic(f"plugins:{options.agent_did}")
        self.topic_link = 0
        self.waiting: dict[str, Waiter] = {}
        self.reply_deadlines = ReplyDeadlines(options.reply_timeout, self.waiting)
        self.timeouts_in_a_row = 0
        self.assigned_did = options.agent_did
        self.capabilities: tuple[str, ...] = ()
        self.joins = 0
        self.round_trip: float | None = None
        self.crashes_on_one_frame = 0

        # Written by Inbox: lifecycle notices for the two other callbacks, and the message on_message is at work on.
        self.notices: list[Exception | None] = []
        self.in_hand: tuple[Any] | None = None
        self.message_join_ref: str | None = None  # the join it came under
        self.lane_open = False  # somebody takes messages out of the backlog and will look at it again
        self.messages_mailed = False  # there may be messages in Inbox's mailbox; set by Router
        self.take_at_once: Callable[[], None] | None = None  # see Inbox.take_at_once
        self._arrived: trio.Event | None = None

        # Written by Reconnector: the state of the link and who waits in connect.
        self.machine = LinkMachine(
            backoff=options.backoff, join_timeout=options.join_timeout, ws_url=options.public_url
        )
        self.connect_requests: list[ConnectRequest] = []

        # Written by the tree: why the channel ends, once it does.
        self.failure: Layr8Error | None = None
        self.closing = False
        self.supervisor: Supervisor | None = None
        self.over = LazyEvent()

        # Written by the facade: the further topics of the socket, from the first one on.
        self.topics: Topics | None = None

        # Inbound frames read and not handled yet, wherever they are: Connection adds, Router and Inbox take off.
        self.backlog = Backlog(options, self.topic, self.waiting)

    # --- who iterates ---------------------------------------------------------------------------------------------

    def wake_readers(self) -> None:
        """Wake whoever iterates: messages have come, or the end has."""
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    async def news(self) -> None:
        """Wait for :meth:`wake_readers`. Checkpoints; cancellation leaves nothing behind."""
        if self._arrived is None:
            self._arrived = trio.Event()
        await self._arrived.wait()

    # --- telemetry ----------------------------------------------------------------------------------------------------

    def redact(self, text: str) -> str:
        """What the node said, without the key that it was sent: for errors and events, but not for payloads."""
        return text if self.endpoint is None else self.endpoint.redact(text)

    def redact_all(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """The same for many texts."""
        return texts if self.endpoint is None else redact_all(texts, self.endpoint.api_key)

    def emit(self, event: Event) -> None:
        """Hand ``event`` to the user's hook; a hook that raises changes nothing."""
        emit(self.options.on_event, event)

    def refuse_frame(self, link: int, error: Exception) -> None:
        """Count a frame that is none, and report the first few and then ever fewer."""
        self.counters.frames_refused += 1
        count = self.counters.frames_refused
        if _worth_reporting(count):
            self.emit(FrameRefused(at=trio.current_time(), topic=self.topic.topic, link=link, error=error, count=count))

    def ignore_frame(self, link: int, why: str) -> None:
        """Count a frame that is not for the join in force, and report likewise."""
        self.counters.frames_ignored += 1
        count = self.counters.frames_ignored
        if _worth_reporting(count):
            self.emit(FrameIgnored(at=trio.current_time(), topic=self.topic.topic, link=link, why=why, count=count))

    def discard_sends(self, link: int, count: int) -> None:
        """Count and report frames that were queued and whose join ended before they were written."""
        self.counters.sends_discarded += count
        self.emit(SendsDiscarded(at=trio.current_time(), topic=self.topic.topic, link=link, count=count))

    # --- callers ------------------------------------------------------------------------------------------------------

    def fail_waiting(self, detail: str, *, link: int | None = None, cause: Exception | None = None) -> None:
        """Release all who wait for a reply, each with an error of its own that knows whether its request was written.

        Args:
            detail: what happened, for the error's text.
            link: only those whose request went to that socket; ``None`` for all.
            cause: becomes the error's ``__cause__``.
        """
        for ref, waiter in list(self.waiting.items()):
            if link is None or waiter.link == link:
                del self.waiting[ref]
                error: Layr8Error
                if self.closing:
                    error = ChannelClosed("the channel was closed before the reply came")
                else:
                    error = Disconnected(detail, written=waiter.written)
                error.__cause__ = cause
                waiter.fail(error)

    def note_exit(self, reason: ExitReason) -> None:
        """Called by an actor that ends: if the channel ends with it, whoever waits is told so, and not of a lost link.

        Args:
            reason: how the actor ends. Asked to stop by a tree that comes down, it is over; crashed beyond the budget,
                it will be. An actor may be asked to stop alone: by hand, or because its start took too long.
        """
        tree = self.supervisor
        if tree is None:
            return
        if reason.clean:
            ends = reason.kind is ExitKind.SHUTDOWN and self.tree_stopping()
        else:
            ends = tree.running and tree.restarts_used() >= tree.max_restarts
        self.closing = self.closing or ends

    def tree_stopping(self) -> bool:
        """Whether the whole tree comes down, or has."""
        return self.supervisor is not None and (not self.supervisor.running or self.supervisor.stopping)

    def end(self) -> None:
        """Mark the channel as over and release everybody who still waits; called once, when the tree is gone."""
        self.closing = True
        self.backlog.end()
        self.machine.closed(self.failure)
        self.fail_waiting("the channel has ended", cause=self.failure)
        for request in self.connect_requests:
            request.finish(self.closed_error())
        self.connect_requests.clear()
        self.over.set()
        self.wake_readers()

    def closed_error(self) -> ChannelClosed:
        """A fresh error for a caller who comes late, with the reason of the end as its cause."""
        error = ChannelClosed("the channel is closed; open a new one")
        error.__cause__ = self.failure
        return error


def _worth_reporting(count: int) -> bool:
    return count <= 8 or count & (count - 1) == 0
