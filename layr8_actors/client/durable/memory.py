"""Queues in memory with the rules of the durable ones, for tests of handlers; they are gone with the process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Literal, Self

import trio

from ...otp.validation import checked_count, checked_seconds, checked_text
from ...telemetry import Hook, emit, log_event
from .events import MessageDead
from .queue import Claimed, DeadLetter, QueueOptions, QueueStatistics, checked_put
from .work_signal import WorkSignal

__all__ = ("MemoryQueue", "MemoryStore")

LEASE_RAN_OUT = "the lease ran out: whoever had it died, hung, or lost the store"

State = Literal["ready", "blocked", "claimed", "delayed", "dead", "remembered"]


@dataclasses.dataclass(slots=True)
class _Message:
    id: str
    body: bytes
    key: str | None
    put_at: float
    state: State
    attempts: int = 0
    token: int = 0
    due: float = 0.0
    ended_at: float = 0.0
    reason: str = ""


class MemoryQueue:
    """A :class:`~layr8_actors.client.durable.DurableQueue` that stores nothing: for tests, and as the plainest
    statement of the rules.

    Args:
        name: for events.
        options: lease, attempts and retention.
        clock: seconds of the epoch; a test may turn it.
        on_event: gets a :class:`~layr8_actors.client.durable.events.MessageDead` for each dead letter.
    """

    def __init__(
        self,
        name: str = "memory",
        options: QueueOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        on_event: Hook = log_event,
    ) -> None:
        self._name = name
        self._options = options or QueueOptions()
        self._clock = clock
        self._on_event = on_event
        self._signal = WorkSignal()
        self._tokens = 0
        # In the order in which they are handed out.
        self._messages: dict[str, _Message] = {}

    @property
    def name(self) -> str:
        """For events."""
        return self._name

    @property
    def options(self) -> QueueOptions:
        """Lease, attempts and retention."""
        return self._options

    async def put(self, id: str, body: bytes, *, key: str | None = None) -> bool:
        """Keep a message, or return False where its id is known."""
        checked_put(id, body, key)
        await trio.lowlevel.checkpoint()
        now = self._clock()
        known = self._messages.get(id)
        if known is not None:
            if known.state != "remembered" or known.ended_at > now - self._options.retention:
                return False
            del self._messages[id]
        self._messages[id] = _Message(id, body, key, now, "blocked" if self._is_live(key) else "ready")
        self._signal.notify()
        return True

    async def claim(self, limit: int) -> list[Claimed]:
        """Take up to ``limit`` messages for the time of a lease."""
        checked_count("limit", limit, minimum=1)
        await trio.lowlevel.checkpoint()
        count = self._signal.looked()
        now = self._clock()
        self._look_for_due(now)
        taken: list[Claimed] = []
        for message in [message for message in self._messages.values() if message.state == "ready"][:limit]:
            message.state = "claimed"
            message.due = now + self._options.lease
            message.attempts += 1
            self._renew(message)
            token = str(message.token)
            taken.append(Claimed(message.id, message.body, message.key, message.attempts, message.put_at, token))
        if len(taken) < limit:
            self._signal.found_nothing(count)
        return taken

    async def extend(self, claimed: Claimed) -> bool:
        """Start the lease of a claim anew."""
        await trio.lowlevel.checkpoint()
        message = self._held(claimed)
        if message is None:
            return False
        message.state = "claimed"
        message.due = self._clock() + self._options.lease
        return True

    async def acknowledge(self, claimed: Claimed) -> bool:
        """Say that a message is handled."""
        await trio.lowlevel.checkpoint()
        message = self._messages.get(claimed.id)
        if message is not None and message.state == "remembered" and str(message.token) == claimed.token:
            return message.ended_at > self._clock() - self._options.retention  # else forgotten, if not yet removed
        message = self._held(claimed)
        if message is None:
            return False
        self._end(message, "remembered", "")
        message.body = b""
        return True

    async def release(self, claimed: Claimed, *, delay: float = 0.0, reason: str = "", counted: bool = True) -> bool:
        """Give a claim back for another attempt."""
        checked_seconds("delay", delay)
        await trio.lowlevel.checkpoint()
        message = self._held(claimed)
        if message is None:
            return False
        if not counted:
            message.attempts -= 1
        elif message.attempts >= self._options.max_attempts:
            self._end(message, "dead", reason)
            return True
        self._renew(message)
        message.state = "delayed" if delay else "ready"
        message.due = self._clock() + delay
        message.reason = reason
        self._signal.notify()
        return True

    async def bury(self, claimed: Claimed, reason: str) -> bool:
        """Make a claim a dead letter now."""
        await trio.lowlevel.checkpoint()
        message = self._held(claimed)
        if message is None:
            return False
        self._end(message, "dead", reason)
        return True

    async def wait_for_work(self) -> None:
        """Return when something was put or given back, or the next lease or delay has run out."""
        now = self._clock()
        waits = [message.due for message in self._messages.values() if message.state in ("claimed", "delayed")]
        await self._signal.wait(max(0.0, min(waits) - now) if waits else float("inf"))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, the oldest first."""
        checked_count("limit", limit, minimum=1)
        await trio.lowlevel.checkpoint()
        dead = sorted((m for m in self._messages.values() if m.state == "dead"), key=lambda m: m.ended_at)
        return [DeadLetter(m.id, m.body, m.key, m.attempts, m.reason, m.put_at, m.ended_at) for m in dead[:limit]]

    async def retry_dead(self, id: str) -> bool:
        """Make a dead letter a message again."""
        await trio.lowlevel.checkpoint()
        message = self._messages.get(id)
        if message is None or message.state != "dead":
            return False
        message.attempts = 0
        self._renew(message)
        message.state = "blocked" if self._is_live(message.key) else "ready"
        self._messages[id] = self._messages.pop(id)
        self._signal.notify()
        return True

    async def discard_dead(self, id: str) -> bool:
        """Forget a dead letter and its id."""
        await trio.lowlevel.checkpoint()
        message = self._messages.get(id)
        if message is None or message.state != "dead":
            return False
        del self._messages[id]
        return True

    async def statistics(self) -> QueueStatistics:
        """Count the messages."""
        await trio.lowlevel.checkpoint()
        return self.count()

    def count(self) -> QueueStatistics:
        """Count the messages without a checkpoint."""
        oldest = self._clock() - self._options.retention
        counts: dict[State, int] = {}
        for message in self._messages.values():
            if message.state != "remembered" or message.ended_at > oldest:
                counts[message.state] = counts.get(message.state, 0) + 1
        return QueueStatistics(**counts)

    def _renew(self, message: _Message) -> None:
        self._tokens += 1
        message.token = self._tokens

    def _live(self, key: str | None) -> Iterator[_Message]:
        if key is not None:
            for message in self._messages.values():
                if message.key == key and message.state not in ("dead", "remembered"):
                    yield message

    def _is_live(self, key: str | None) -> bool:
        return any(True for _ in self._live(key))

    def _held(self, claimed: Claimed) -> _Message | None:
        """The message where nobody has claimed it since, also where the lease has run out."""
        message = self._messages.get(claimed.id)
        if message is None or str(message.token) != claimed.token or message.state not in ("ready", "claimed"):
            return None
        return message

    def _look_for_due(self, now: float) -> None:
        for message in [m for m in self._messages.values() if m.state in ("claimed", "delayed") and m.due <= now]:
            if message.state == "claimed" and message.attempts >= self._options.max_attempts:
                self._end(message, "dead", LEASE_RAN_OUT)
            else:
                message.state = "ready"

    def _end(self, message: _Message, state: State, reason: str) -> None:
        message.state = state
        message.reason = reason
        message.ended_at = self._clock()
        heir = next(self._live(message.key), None)
        if heir is not None:
            heir.state = "ready"
            self._signal.notify()
        if state == "dead":
            emit(
                self._on_event,
                MessageDead(
                    at=trio.current_time(),
                    queue=self._name,
                    id=message.id,
                    attempts=message.attempts,
                    reason=reason,
                ),
            )


class MemoryStore:
    """The queues of a store that stores nothing, for tests of durable handlers: ``Client(config, durable=store)``.

    It need not be opened, and outlives the clients of a test. ``async with`` does nothing.

    Args:
        inbox: how :attr:`inbox` treats its messages.
        outbox: how :attr:`outbox` does.
        clock: seconds of the epoch; ``trio.current_time`` in a test of virtual time.
        on_event: gets a :class:`~layr8_actors.client.durable.events.MessageDead` for each dead letter.
    """

    def __init__(
        self,
        *,
        inbox: QueueOptions | None = None,
        outbox: QueueOptions | None = None,
        clock: Callable[[], float] = time.time,
        on_event: Hook = log_event,
    ) -> None:
        self._clock = clock
        self._on_event = on_event
        self._queues: dict[str, MemoryQueue] = {}
        self.inbox = self.queue("inbox", inbox)
        """What came in and is to be handled."""
        self.outbox = self.queue("outbox", outbox)
        """What is to be sent."""

    def queue(self, name: str, options: QueueOptions | None = None) -> MemoryQueue:
        """Return the queue of that name.

        Args:
            name: which one.
            options: how it treats its messages; what was said first stands.
        """
        checked_text("name", name)
        if name not in self._queues:
            self._queues[name] = MemoryQueue(name, options, clock=self._clock, on_event=self._on_event)
        return self._queues[name]

    async def live(self) -> dict[str, int]:
        """Return how many messages are still to be acknowledged, by the queue's name; only of queues that have any."""
        await trio.lowlevel.checkpoint()
        return {name: live for name, queue in self._queues.items() if (live := queue.count().live)}

    async def __aenter__(self) -> Self:
        """Return the store."""
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Keep everything."""
