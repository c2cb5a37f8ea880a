"""Durable queues on Redis Streams, for handlers that are spread over machines; needs the extra ``redis``."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from types import TracebackType
from typing import Any

import trio

from ...errors import (
    InvalidOption,
    StoreFailed,
)
from ...otp.validation import checked_count, checked_seconds, checked_text
from ...telemetry import Hook, emit, log_event
from .events import DurabilityWeak, MessageDead
from .memory import LEASE_RAN_OUT
from .queue import Claimed, DeadLetter, QueueOptions, QueueStatistics, checked_put
from .redis_connection import RedisConnection
from .work_signal import WorkSignal

__all__ = ("RedisQueue", "RedisStore")

COMMAND_TIMEOUT = 5.0  # ours: a script takes a millisecond, a server that saves or fails over some seconds
POLL_INTERVAL = 1.0  # as for SQLite
CONSUMER_FORGOTTEN = 86_400_000
"""Milliseconds after which the name of a consumer that holds nothing is deleted; it was killed."""


class RedisStore:
    """Queues in a Redis server, open inside ``async with``.

    Any number of processes and machines may use the same queues, with the same options. A lease is the idle time of a
    delivery to the consumer group, measured by the server, so that the clocks of the machines do not matter. How safe a
    message is when its ``put`` returns is up to the server: ``appendonly yes`` and ``appendfsync always`` keep it over
    a power cut, ``everysec`` may lose a second; what is less is a
    :class:`~layr8_actors.client.durable.events.DurabilityWeak` event. The server must not evict keys
    (``maxmemory-policy noeviction``). A failover to a replica may lose what was not replicated yet. It is a client of
    one server, not of a Redis Cluster, though all keys of a queue are in one slot.

    Args:
        url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, or ``unix://path``. The password is
            shown by nothing of this package.
        namespace: the first part of all keys; one for each agent.
        inbox: how :attr:`inbox` treats its messages.
        outbox: how :attr:`outbox` does.
        command_timeout: seconds for a connection or an answer before
            :class:`~layr8_actors.errors.StoreUnreachable`.
        poll_interval: the longest time without a look for leases that have run out, in seconds.
        on_event: gets a :class:`~layr8_actors.client.durable.events.MessageDead` for each dead letter.

    Raises:
        InvalidOption: a value that is not allowed, or the extra ``redis`` is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "layr8",
        inbox: QueueOptions | None = None,
        outbox: QueueOptions | None = None,
        command_timeout: float = COMMAND_TIMEOUT,
        poll_interval: float = POLL_INTERVAL,
        on_event: Hook = log_event,
    ) -> None:
        checked_text("namespace", namespace)
        if "{" in namespace or "}" in namespace:
            raise InvalidOption("namespace", namespace, "a str without braces, which choose the slot in a cluster")
        self._namespace = namespace
        self.connection = RedisConnection(url, checked_seconds("command_timeout", command_timeout, allow_zero=False))
        self.poll_interval = checked_seconds("poll_interval", poll_interval, allow_zero=False)
        self.on_event = on_event
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._queues: dict[str, RedisQueue] = {}
        self.inbox = self.queue("inbox", inbox)
        """What came in and is to be handled."""
        self.outbox = self.queue("outbox", outbox)
        """What is to be sent."""

    def __repr__(self) -> str:
        return f"<RedisStore {self.connection.address} {self._namespace}>"

    def queue(self, name: str, options: QueueOptions | None = None) -> RedisQueue:
        """Return the queue of that name, for programs that need more than the two.

        Args:
            name: which one.
            options: how it treats its messages; what was said first stands.
        """
        checked_text("name", name)
        if "{" in name or "}" in name:
            raise InvalidOption("name", name, "a str without braces, which choose the slot in a cluster")
        if name not in self._queues:
            self._queues[name] = RedisQueue(self, name, self._stem(name), options or QueueOptions())
        return self._queues[name]

    async def live(self) -> dict[str, int]:
        """Return how many messages are still to be acknowledged, by the queue's name; only of queues that have any.

        Of all processes that use the namespace. One request for each queue.

        Raises:
            StoreFailed: as the server, or its absence, said.

        Checkpoints.
        """
        names = [name.decode() for name in await self.connection.run("registered", self._names)]
        looks = [RedisQueue(self, name, self._stem(name), QueueOptions()) for name in names]
        counts = {queue.name: (await queue.statistics()).live for queue in looks}
        return {name: live for name, live in counts.items() if live}

    async def register(self, name: str) -> None:
        """Remember the name of a queue; for the queue, before the first message is put into it."""
        await self.connection.run("register", self._names, name)

    @property
    def _names(self) -> str:
        return f"{self._namespace}:queues"

    def _stem(self, name: str) -> str:
        return f"{self._namespace}:{{{name}}}"

    async def __aenter__(self) -> RedisStore:
        """Connect, and see what the server is like.

        Raises:
            StoreFailed: StoreUnreachable, StoreVersion, StoreReadOnly or StoreFull; or itself where the password is
                refused. Each says what to do.
        """
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.connection)
            for detail in await self.connection.weaknesses():
                emit(self.on_event, DurabilityWeak(at=trio.current_time(), queue=self._namespace, detail=detail))
            for queue in self._queues.values():
                await queue.tidy("")
            stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give up the name of this consumer where it holds nothing, and close the connections; a second at most."""
        try:
            with trio.move_on_after(1.0, shield=True):
                for queue in self._queues.values():
                    await queue.tidy(self.consumer)
        except StoreFailed:
            pass  # the server is gone; a later consumer deletes the name
        finally:
            await self.connection.__aexit__(kind, error, traceback)


class RedisQueue:
    """A :class:`~layr8_actors.client.durable.DurableQueue` in a :class:`RedisStore`, which makes it."""

    def __init__(self, store: RedisStore, name: str, stem: str, options: QueueOptions) -> None:
        self._store = store
        self._name = name
        self._stem = stem
        self._options = options
        self._signal = WorkSignal()
        self._next_due: float | None = None
        self._last_entry = b"0-0"
        self._registered = False

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._name

    @property
    def options(self) -> QueueOptions:
        """Lease, attempts and retention."""
        return self._options

    async def put(self, id: str, body: bytes, *, key: str | None = None) -> bool:
        """Store a message; it is in the server when this returns."""
        checked_put(id, body, key)
        if not self._registered:
            await self._store.register(self._name)
            self._registered = True
        new: bool = await self._run("put", id, body, key or "") == 1
        if new:
            self._signal.notify()
        return new

    async def claim(self, limit: int) -> list[Claimed]:
        """Take up to ``limit`` messages for the time of a lease."""
        checked_count("limit", limit, minimum=1)
        await trio.lowlevel.checkpoint_if_cancelled()
        count = self._signal.looked()
        # Cancelled half-way, what was claimed would be in nobody's hands for a lease. command_timeout bounds it.
        answer: list[Any] = []
        with trio.CancelScope(shield=True):
            answer = await self._run(
                "claim", self._store.consumer, limit, self._lease, self._options.max_attempts, LEASE_RAN_OUT
            )
        rows, died, wait, self._last_entry = answer
        self._next_due = None if wait < 0 else trio.current_time() + wait / 1000
        if len(rows) < limit:
            self._signal.found_nothing(count)
        self._report(died)
        return [
            Claimed(id.decode(), body, key.decode() or None, int(attempt), int(put_at) / 1000, str(int(token)))
            for id, body, key, attempt, put_at, token in rows
        ]

    async def extend(self, claimed: Claimed) -> bool:
        """Start the lease of a claim anew."""
        held: bool = await self._run("extend", claimed.id, claimed.token, self._store.consumer) == 1
        return held

    async def acknowledge(self, claimed: Claimed) -> bool:
        """Say that a message is handled."""
        retention = int(self._options.retention * 1000)
        done: bool = await self._run("acknowledge", claimed.id, claimed.token, retention) == 1
        if done and claimed.key is not None:
            self._signal.notify()
        return done

    async def release(self, claimed: Claimed, *, delay: float = 0.0, reason: str = "", counted: bool = True) -> bool:
        """Give a claim back for another attempt."""
        checked_seconds("delay", delay)
        held, died = await self._run(
            "release",
            claimed.id,
            claimed.token,
            int(delay * 1000),
            reason,
            int(counted),
            self._options.max_attempts,
        )
        self._report(died)
        self._signal.notify()
        return bool(held)

    async def bury(self, claimed: Claimed, reason: str) -> bool:
        """Make a claim a dead letter now."""
        held, died = await self._run("bury", claimed.id, claimed.token, reason)
        self._report(died)
        return bool(held)

    async def wait_for_work(self) -> None:
        """Return when anybody's message joins the stream, when the next delay has run out, or after ``poll_interval``,
        for leases that have run out. Where many queues of the store wait already, what this process puts is noticed at
        once, and what others put after ``poll_interval``.
        """
        seconds = self._store.poll_interval
        if self._next_due is not None:
            seconds = min(seconds, max(0.0, self._next_due - trio.current_time()))
        if not self._signal.idle:
            await trio.lowlevel.checkpoint()
            return
        if not self._store.connection.may_wait:
            await self._signal.wait(seconds)
            return
        await self._store.connection.wait_for_entry(f"{self._stem}:stream", self._last_entry, seconds)

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, the oldest first."""
        checked_count("limit", limit, minimum=1)
        letters: list[DeadLetter] = []
        for flat in await self._run("dead_letters", limit):
            of = dict(zip(flat[::2], flat[1::2], strict=True))
            letters.append(
                DeadLetter(
                    of[b"id"].decode(),
                    of[b"body"],
                    of[b"key"].decode() or None,
                    int(of[b"attempts"]),
                    of[b"reason"].decode(),
                    int(of[b"put_at"]) / 1000,
                    int(of[b"died_at"]) / 1000,
                )
            )
        return letters

    async def retry_dead(self, id: str) -> bool:
        """Make a dead letter a message again, the last of its key."""
        found: bool = await self._run("retry_dead", id) == 1
        self._signal.notify()
        return found

    async def discard_dead(self, id: str) -> bool:
        """Forget a dead letter and its id."""
        found: bool = await self._run("discard_dead", id) == 1
        return found

    async def statistics(self) -> QueueStatistics:
        """Count the messages."""
        return QueueStatistics(*(int(count) for count in await self._run("statistics")))

    async def tidy(self, consumer: str) -> None:
        """Delete the names of consumers that hold nothing: this one, and those not heard of for a day."""
        await self._run("tidy", consumer, CONSUMER_FORGOTTEN)

    @property
    def _lease(self) -> int:
        return max(1, int(self._options.lease * 1000))

    async def _run(self, script: str, *arguments: str | bytes | float) -> Any:
        return await self._store.connection.run(script, self._stem, *arguments)

    def _report(self, died: list[list[bytes]]) -> None:
        for id, attempts, reason in died:
            event = MessageDead(
                at=trio.current_time(),
                queue=self._name,
                id=id.decode(),
                attempts=int(attempts),
                reason=reason.decode(),
            )
            emit(self._store.on_event, event)
        if died:
            self._signal.notify()
