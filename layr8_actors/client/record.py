"""What outlives a crash of the dispatcher: a plain record that the client's tree owns and hands to each incarnation.

Every change is made between two checkpoints, so that a task killed at any await leaves the record whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ..errors import NotConnected
from ..telemetry import Event, emit
from ..transport import Secret
from ..transport.redaction import redact
from .events import DispatchReplyDiscarded, MessageEvent
from .inbound import DISCARDED, Inbound, Status, settlement
from .requests import Requests
from .statistics import ClientStatistics, Counters
from .threads import Threads

if TYPE_CHECKING:
    from ..channel import Channel, JoinedTopic
    from .config import ClientConfig
    from .delegation import Delegation
    from .durability import Durability
    from .handlers import Handlers

Topic: TypeAlias = "Channel | JoinedTopic"

__all__ = ("READ_AHEAD", "Record", "handling", "worth_reporting")

READ_AHEAD: Final = 16
"""How many times ``max_queued`` may wait while a request waits: the response may stand behind what waits for it."""

handling: ContextVar[Inbound | None] = ContextVar("handling", default=None)
"""The message that the handler around this code was called with; child tasks of the handler inherit it."""


class Record:
    """The state of one run of a client.

    Args:
        config: the client's.
        handlers: its handlers.
        read_ahead_bytes: of messages that may wait beyond ``max_queued``.
    """

    def __init__(self, config: ClientConfig, handlers: Handlers, read_ahead_bytes: int) -> None:
        self.config = config
        self.handlers = handlers
        self.counters = Counters()
        self.requests = Requests()
        self.threads = Threads()
        self.running: dict[Inbound, None] = {}
        self.unsettled: list[tuple[Inbound, Status]] = []
        """What the node could not be told, because who did so was cancelled; the dispatcher sees to it."""

        self.channel: Topic | None = None
        self.delegation: Delegation | None = None
        self.replies = True  # whether the join in force wants dispatch_replies
        self.durability: Durability | None = None
        self.joined = trio.Event()  # a new one after each loss of the link or the topic
        self.entered = trio.Event()  # what the first join says is known, or the end has come before
        self.serve: Callable[[], None] | None = None  # of the dispatcher that runs
        self.ending = False  # no dispatcher will begin with anything any more
        self._bytes_ahead = 0
        self._read_ahead_bytes = read_ahead_bytes
        self._room: trio.Event | None = None

    # --- the channel --------------------------------------------------------------------------------------------------

    def connected(self) -> Topic:
        """Return the channel.

        Raises:
            NotConnected: it does not run yet.
        """
        if self.channel is None:
            raise NotConnected("the client's channel is not up yet; wait for connect")
        return self.channel

    @property
    def did(self) -> str:
        """The DID that is bound, as far as it is known."""
        return self.config.agent_did if self.channel is None else self.channel.assigned_did

    # --- the queue ----------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the channel has to wait before it hands over the next message."""
        waiting = self.threads.waiting
        if waiting < self.config.max_queued:
            return False
        # A handler that waits for a response would wait in vain if nobody read on to it.
        ahead = waiting < READ_AHEAD * self.config.max_queued and self._bytes_ahead < self._read_ahead_bytes
        return not (len(self.requests) and ahead)

    def put(self, inbound: Inbound) -> None:
        """Queue a message, and have it handled as soon as its turn comes."""
        self._bytes_ahead += inbound.size
        self.threads.put(inbound)
        if self.serve is not None:
            self.serve()

    @property
    def ready(self) -> int:
        """How many messages may be taken now."""
        return min(self.threads.ready, self.config.max_handlers - len(self.running))

    def take(self) -> Inbound | None:
        """Take the next message that may be handled now; it is running from here on."""
        if len(self.running) >= self.config.max_handlers:
            return None
        inbound = self.threads.take()
        if inbound is not None:
            self._bytes_ahead -= inbound.size
            self.running[inbound] = None
            self.make_room()
        return inbound

    def finish(self, inbound: Inbound) -> None:
        """A message that was taken is dealt with."""
        self.running.pop(inbound, None)
        self.threads.release(inbound)

    def drain(self) -> list[Inbound]:
        """Take all that waits, because nobody will handle it."""
        self._bytes_ahead = 0
        drained = self.threads.drain()
        self.make_room()
        return drained

    def make_room(self) -> None:
        """Let the channel go on if there is room; called too when a request begins to wait."""
        if self._room is not None and not self.full:
            self._room.set()

    async def room(self) -> None:
        """Wait until there is room. Checkpoints only if it waits; cancellation leaves nothing behind."""
        while self.full:
            self._room = trio.Event()
            try:
                await self._room.wait()
            finally:
                self._room = None

    # --- telling the node ---------------------------------------------------------------------------------------------

    def settle_now(self, inbound: Inbound, status: Status, code: str = "", text: str = "") -> bool:
        """Do what :meth:`settle` does where there is room; no checkpoint.

        Args:
            inbound: as there.
            status: as there.
            code: as there.
            text: as there.

        Returns:
            False where there is none: the node was not told.
        """
        if inbound.settled:
            return True
        if not _is_silent(inbound, status):
            event, payload = settlement(inbound.message.id, inbound.replies, status, code, text)
            try:
                if not self.connected().send_nowait(event, payload, join_ref=inbound.join_ref):
                    return False
            except DISCARDED as error:
                self._discard(inbound.message.id, status, error)
        inbound.settled = True
        return True

    async def settle(self, inbound: Inbound, status: Status, code: str = "", text: str = "") -> None:
        """Tell the node what became of a message: once, under the join that it came under, and never under another.

        Args:
            inbound: the message; nothing happens if the node was told before.
            status: what became of it.
            code: of an error.
            text: of an error.

        Waits only while the channel's outbox is full; cancelled, it has told nothing, and the dispatcher does so.
        """
        if self.settle_now(inbound, status, code, text):
            return
        inbound.settled = True
        event, payload = settlement(inbound.message.id, inbound.replies, status, code, text)
        done = False
        try:
            await self.tell(event, payload, inbound.message.id, status, inbound.join_ref)
            done = True
        finally:
            if not done:
                inbound.settled = False
                self.unsettled.append((inbound, status))
                if self.serve is not None:
                    self.serve()

    async def tell(
        self, event: str, payload: dict[str, object], message_id: str, status: Status, join_ref: str | None
    ) -> None:
        """Send a settlement, or count and report that its join is over."""
        try:
            await self.connected().send_fire_and_forget(event, payload, join_ref=join_ref)
        except DISCARDED as error:
            self._discard(message_id, status, error)

    def _discard(self, message_id: str, status: Status, error: Exception) -> None:
        self.counters.dispatch_replies_discarded += 1
        self.emit(
            DispatchReplyDiscarded(
                at=trio.current_time(), did=self.did, message_id=message_id, status=status.value, error=error
            )
        )

    # --- telemetry ----------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Hand ``event`` to the user's hook; a hook that raises changes nothing."""
        emit(self.config.on_event, event)

    def report(self, kind: type[MessageEvent], inbound: Inbound, **fields: Any) -> None:
        """Report something about one message."""
        message = inbound.message
        self.emit(
            kind(
                at=trio.current_time(),
                did=self.did,
                message_id=message.id,
                message_type=message.type,
                sender=message.from_,
                **fields,
            )
        )

    def redact(self, text: str) -> str:
        """A text for a peer, without the key where that is known: an error of a handler may quote it."""
        key = self.config.api_key
        return redact(text, key) if isinstance(key, Secret) else text

    def statistics(self) -> ClientStatistics:
        """Return all figures as they are now."""
        return ClientStatistics(
            **dataclasses.asdict(self.counters),
            handlers_running=len(self.running),
            messages_waiting=self.threads.waiting,
            threads=self.threads.busy,
            requests_waiting=len(self.requests),
        )


def _is_silent(inbound: Inbound, status: Status) -> bool:
    # An ack would say that it is safe; without one the node delivers it again.
    return inbound.stores and not inbound.replies and status is not Status.HANDLED


def worth_reporting(count: int) -> bool:
    """Whether what came so often is reported: the 1st to 8th, then each power of two, so that no log is flooded."""
    return count <= 8 or count & (count - 1) == 0
