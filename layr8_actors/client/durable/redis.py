"""Durable queues on Redis Streams, for handlers that are spread over machines; needs the extra ``redis``."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from ...errors import (
    InvalidOption,
    StoreClosed,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
    StoreVersion,
)
from ...otp.validation import checked_count, checked_seconds, checked_text
from ...telemetry import Hook, emit, log_event
from ...transport.secret import Secret
from .events import DurabilityWeak, MessageDead
from .memory import LEASE_RAN_OUT
from .queue import Claimed, DeadLetter, QueueOptions, QueueStatistics, checked_put
from .redis_scripts import SCRIPTS
from .work_signal import WorkSignal

if TYPE_CHECKING:
    import coredis
    from coredis.commands import Script
    from coredis.retry import RetryPolicy

__all__ = ("RedisQueue", "RedisStore")

COMMAND_TIMEOUT = 5.0  # redis-py: the socket_timeout its manual recommends; a script of ours takes a millisecond
POLL_INTERVAL = 1.0  # as for SQLite
OLDEST_REDIS = (7, 0)  # what Debian 12 has and what is tested
CONSUMER_FORGOTTEN = 86_400_000
"""Milliseconds after which the name of a consumer that holds nothing is deleted; it was killed."""


class RedisStore:
    """Queues in a Redis server, open inside ``async with``.

    Any number of processes and machines may use the same queues, with the same options. A lease is the idle time of a
    delivery to the consumer group, measured by the server, so that the clocks of the machines do not matter. How safe a
    message is when its ``put`` returns is up to the server: ``appendonly yes`` and ``appendfsync always`` keep it over
    a power cut, ``everysec`` may lose a second; what is less is a
    :class:`~layr8_actors.client.durable.events.DurabilityWeak` event. The server must not evict keys
    (``maxmemory-policy noeviction``). A cluster works, each queue is in one slot of it; a failover to a replica may
    lose what was not replicated yet.

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
        self._address = _address_of(url)
        checked_text("namespace", namespace)
        if "{" in namespace or "}" in namespace:
            raise InvalidOption("namespace", namespace, "a str without braces, which choose the slot in a cluster")
        self._namespace = namespace
        checked_seconds("command_timeout", command_timeout, allow_zero=False)
        self.poll_interval = checked_seconds("poll_interval", poll_interval, allow_zero=False)
        self.on_event = on_event
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        try:
            import coredis.retry  # noqa: PLC0415 - the extra is needed here and nowhere else
        except ImportError:
            raise InvalidOption(
                "url", url, 'a Redis needs the extra redis: pip install "layr8-actors[redis]"'
            ) from None
        self._url = Secret(url)
        self._timeout = command_timeout
        self._no_retry: RetryPolicy = coredis.retry.NoRetryPolicy()
        self._make: Callable[..., coredis.Redis[bytes]] = coredis.Redis.from_url
        self._client: coredis.Redis[bytes] | None = None
        self._scripts: Mapping[str, Script[bytes]] = {}
        self._errors = coredis.exceptions
        self._stack: contextlib.AsyncExitStack | None = None
        self._queues: dict[str, RedisQueue] = {}
        self.inbox = self.queue("inbox", inbox)
        """What came in and is to be handled."""
        self.outbox = self.queue("outbox", outbox)
        """What is to be sent."""

    def __repr__(self) -> str:
        return f"<RedisStore {self._address} {self._namespace}>"

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
            self._queues[name] = RedisQueue(self, name, f"{self._namespace}:{{{name}}}", options or QueueOptions())
        return self._queues[name]

    async def __aenter__(self) -> RedisStore:
        """Connect, and see what the server is like.

        Raises:
            StoreFailed: StoreUnreachable, StoreVersion, StoreReadOnly or StoreFull; or itself where the password is
                refused. Each says what to do.
        """
        if self._stack is not None:
            raise StoreFailed(self._address, "this store is open already; make another for another block")
        opened = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                nursery = await stack.enter_async_context(trio.open_nursery())
                stop = trio.Event()
                stack.callback(stop.set)
                client = self._client = await self._connected(nursery, stop)
                self._scripts = {name: client.register_script(script) for name, script in SCRIPTS.items()}
                self._stack = stack
                await self._look_at_the_server(client)
                for queue in self._queues.values():
                    await queue.tidy("")
                self._stack = stack.pop_all()
            opened = True
        except Exception as raised:
            await trio.lowlevel.checkpoint_if_cancelled()
            error = _only(raised)
            raise self.failed(error) from error
        finally:
            if not opened:
                self._stack = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give up the name of this consumer where it holds nothing, and close the connections; a second at most."""
        stack = self._stack
        assert stack is not None
        try:
            with trio.move_on_after(1.0, shield=True):
                for queue in self._queues.values():
                    await queue.tidy(self.consumer)
        except StoreFailed:
            pass  # the server is gone; a later consumer deletes the name
        finally:
            self._stack = None
            try:
                await stack.__aexit__(kind, error, traceback)
            except BaseExceptionGroup as group:
                # A nursery wraps what the block raised; it is to come out as itself.
                if _only(group) is not error:
                    raise

    async def _connected(self, nursery: trio.Nursery, stop: trio.Event) -> coredis.Redis[bytes]:
        """Have coredis' connections held until ``stop``.

        In a task of their own and shielded: were they cancelled together with the block, nothing in it could be given
        back or acknowledged any more.
        """
        # Not retried: the answer to the second try of a put or claim would hide what the first one did.
        client = self._make(
            self._url.reveal(),
            retry_policy=self._no_retry,
            connect_timeout=self._timeout,
            stream_timeout=self._timeout,
        )
        ready = trio.Event()

        async def hold() -> None:
            with trio.CancelScope(shield=True):
                async with client:
                    ready.set()
                    await stop.wait()

        # Not nursery.start: cancelled, that would wait for a task which waits for stop.
        nursery.start_soon(hold, name=f"{self!r}: connections")
        await ready.wait()
        return client

    async def run(self, name: str, stem: str, *arguments: str | bytes | float) -> Any:
        """Run a script; for the queues.

        Raises:
            StoreFailed: as the server, or its absence, said.
        """
        if self._stack is None:
            raise StoreClosed(self._address, "the store is not open; use it inside its async with block")
        try:
            return await self._scripts[name](keys=[stem], args=list(arguments))
        except (self._errors.RedisError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Cancelled while it connects, coredis says that it could not.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self.failed(error) from error

    async def wait_for_entry(self, stream: str, after: bytes, seconds: float) -> None:
        """Return when the stream has an entry after that one, or after ``seconds``; for the queues."""
        if self._stack is None or self._client is None:
            raise StoreClosed(self._address, "the store is not open; use it inside its async with block")
        try:
            await self._client.xread({stream: after}, count=1, block=max(1, int(seconds * 1000)))
        except (self._errors.RedisError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Cancelled while it connects, coredis says that it could not.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self.failed(error) from error

    def failed(self, error: BaseException) -> StoreFailed:
        """Return the error of this package that says what an error of coredis means."""
        if isinstance(error, StoreFailed):
            return error
        errors = self._errors
        detail = str(error) or type(error).__name__
        if isinstance(error, (errors.AuthenticationError, errors.AuthorizationError)):
            return StoreFailed(self._address, "the server refuses the user or password, or does not allow this user")
        if isinstance(error, errors.ReadOnlyError):
            return StoreReadOnly(self._address, "this server is a replica; give the address of the primary")
        if detail.startswith("OOM") or "maxmemory" in detail:
            return StoreFull(self._address, "the server's memory is used up; raise maxmemory, or handle what waits")
        if detail.startswith("MISCONF") or "unable to persist" in detail.lower():
            return StoreFull(self._address, "the server cannot write to its disk and takes nothing; see its log")
        if isinstance(error, (errors.ConnectionError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)):
            return StoreUnreachable(self._address, f"no answer ({type(error).__name__}); whether it acted is open")
        return StoreFailed(self._address, detail)

    async def _look_at_the_server(self, client: coredis.Redis[bytes]) -> None:
        facts: Mapping[str, Any] = await client.info("server", "persistence", "memory")
        version = str(facts.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
            wanted = ".".join(map(str, OLDEST_REDIS))
            raise StoreVersion(self._address, f"the server is Redis {version}, {wanted} is needed")
        weak: list[str] = []
        if int(facts.get("aof_enabled", 0)) != 1:
            weak.append("appendonly is off: what came after the last snapshot goes with the server")
        else:
            try:
                sync = (await client.config_get(["appendfsync"])).get(b"appendfsync", b"").decode()
            except self._errors.RedisError:
                sync = "not for us to read"
            if sync != "always":
                weak.append(f"appendfsync is {sync}: a power cut may take the last messages")
        policy = str(facts.get("maxmemory_policy", ""))
        if int(facts.get("maxmemory", 0)) and policy != "noeviction":
            weak.append(f"maxmemory-policy is {policy}: it may evict messages")
        for detail in weak:
            emit(self.on_event, DurabilityWeak(at=trio.current_time(), queue=self._namespace, detail=detail))


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
        with trio.CancelScope(shield=True):
            rows, died, wait, self._last_entry = await self._run(
                "claim", self._store.consumer, limit, self._lease, self._options.max_attempts, LEASE_RAN_OUT
            )
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
        for leases that have run out.
        """
        seconds = self._store.poll_interval
        if self._next_due is not None:
            seconds = min(seconds, max(0.0, self._next_due - trio.current_time()))
        if not self._signal.idle:
            await trio.lowlevel.checkpoint()
            return
        await self._store.wait_for_entry(f"{self._stem}:stream", self._last_entry, seconds)

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
        return await self._store.run(script, self._stem, *arguments)

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


def _address_of(url: str) -> str:
    """The URL without user, password and query."""
    allowed = "redis://host[:port][/db], rediss://... or unix://path"
    if not isinstance(url, str):
        raise InvalidOption("url", url, allowed)
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise InvalidOption("url", url, allowed) from None
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.hostname or parts.path):
        raise InvalidOption("url", url, allowed)
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _only(error: BaseException) -> BaseException:
    """What a group of one wraps."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
