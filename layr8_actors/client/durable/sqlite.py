"""Durable queues in one SQLite file: the default, for handlers on one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import trio

from ...errors import InvalidOption, StoreClosed, StoreFailed
from ...otp.validation import checked_count, checked_seconds, checked_text
from ...telemetry import Hook, emit, log_event
from .events import MessageDead
from .group_commit import GroupCommit, Job
from .queue import Claimed, DeadLetter, QueueOptions, QueueStatistics, checked_put
from .sqlite_file import StoreFile, store_failed
from .sqlite_statements import Died, SqliteStatements, live
from .work_signal import WorkSignal

__all__ = ("SqliteQueue", "SqliteStore")

T = TypeVar("T")

BUSY_TIMEOUT = 5.0  # Python: the default timeout of sqlite3.connect
POLL_INTERVAL = 1.0  # Oban: stage_interval, how often it looks for what is due


class SqliteStore:
    """A file with queues in it, open inside ``async with``.

    All work goes through one thread at a time; what waits for it at the same time is committed together. Several
    processes may open the same file, on one machine and on a local disk: a message is in the hands of one of them.

    Args:
        path: the file; created with mode 0600 where it is not there, in a folder that is. Beside it lie the same name
            with ``-wal``, ``-shm`` and ``-lock``.
        inbox: how :attr:`inbox` treats its messages.
        outbox: how :attr:`outbox` does.
        power_safe: whether what was put and acknowledged is synced to the disk before the call returns, so that a power
            cut does not undo it. Without, only a killed process does not; it saves a write to the disk per commit.
        busy_timeout: seconds to wait for another process before :class:`~layr8_actors.errors.StoreLocked`.
        poll_interval: seconds between two looks for what another process has put.
        clock: seconds of the epoch. It is the clock of the wall because leases outlive processes and machines' boots,
            and no monotonic clock does; where it is set back, nothing waits longer than its own time again.
        on_event: gets a :class:`~layr8_actors.client.durable.events.MessageDead` for each dead letter.

    Raises:
        InvalidOption: a value that is not allowed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        inbox: QueueOptions | None = None,
        outbox: QueueOptions | None = None,
        power_safe: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        poll_interval: float = POLL_INTERVAL,
        clock: Callable[[], float] = time.time,
        on_event: Hook = log_event,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise InvalidOption("path", path, "a str or path that is not empty")
        self.path = Path(path).absolute()
        self._power_safe = power_safe
        self._file = StoreFile(self.path, checked_seconds("busy_timeout", busy_timeout))
        self._synchronous = ""
        self._commits: GroupCommit[sqlite3.Connection] | None = None
        self.poll_interval = checked_seconds("poll_interval", poll_interval, allow_zero=False)
        self.clock = clock
        self.on_event = on_event
        self._queues: dict[str, SqliteQueue] = {}
        self.inbox = self.queue("inbox", inbox)
        """What came in and is to be handled."""
        self.outbox = self.queue("outbox", outbox)
        """What is to be sent."""

    def queue(self, name: str, options: QueueOptions | None = None) -> SqliteQueue:
        """Return the queue of that name, for programs that need more than the two.

        Args:
            name: which one.
            options: how it treats its messages; what was said first stands.
        """
        checked_text("name", name)
        if name not in self._queues:
            self._queues[name] = SqliteQueue(self, name, options or QueueOptions())
        return self._queues[name]

    async def __aenter__(self) -> SqliteStore:
        """Open the file.

        Raises:
            StoreFailed: StoreCorrupt, StoreVersion, StoreReadOnly, StoreLocked or StoreFull; each says what to do.
        """
        if self._commits is not None:
            raise StoreFailed(str(self.path), "this store is open already; make another for another block")
        # Not abandoned when cancelled: a thread that goes on would leave the file open behind our back.
        await trio.to_thread.run_sync(self._file.open)
        self._synchronous = ""
        self._commits = GroupCommit(self._execute)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let what is under way end, and close the file, also when cancelled; bounded by ``busy_timeout``."""
        commits, self._commits = self._commits, None
        with trio.CancelScope(shield=True):
            if commits is not None:
                await commits.idle()
            await trio.to_thread.run_sync(self._file.close)

    async def live(self) -> dict[str, int]:
        """Return how many messages are still to be acknowledged, by the queue's name; only of queues that have any.

        Raises:
            StoreFailed: the file could not be read.

        Checkpoints.
        """
        return await self.submit(live, durable=False)

    async def submit(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Do ``work`` in a transaction; for the queues.

        Raises:
            StoreFailed: it was not committed.
        """
        if self._commits is None:
            raise StoreClosed(str(self.path), "the store is not open; use it inside its async with block")
        return await self._commits.submit(work, durable=durable)

    def _execute(self, jobs: list[Job[sqlite3.Connection, Any]]) -> None:
        """Do jobs in one transaction, in the thread; each has a result or an error afterwards."""
        try:
            connection = self._file.connection
            assert connection is not None
            with self._file.alone():
                # A lease needs no sync of its own: lost in a power cut, the message is claimed again, that is all.
                wanted = "FULL" if self._power_safe and any(job.durable for job in jobs) else "NORMAL"
                if wanted != self._synchronous:
                    connection.execute(f"PRAGMA synchronous = {wanted}")
                    self._synchronous = wanted
                connection.execute("BEGIN IMMEDIATE")
                try:
                    for job in jobs:
                        self._do(connection, job)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except Exception as error:
            failed = store_failed(str(self.path), error) if isinstance(error, (sqlite3.Error, OSError)) else error
            for job in jobs:
                job.result.clear()
                job.error = failed

    def _do(self, connection: sqlite3.Connection, job: Job[sqlite3.Connection, Any]) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.result.append(job.work(connection))
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite has undone all of it, as it does on a full disk
            connection.execute("ROLLBACK TO job")
            job.error = store_failed(str(self.path), error) if isinstance(error, sqlite3.Error) else error
        connection.execute("RELEASE job")


class SqliteQueue:
    """A :class:`~layr8_actors.client.durable.DurableQueue` in a :class:`SqliteStore`, which makes it."""

    def __init__(self, store: SqliteStore, name: str, options: QueueOptions) -> None:
        self._store = store
        self._name = name
        self._options = options
        self._statements = SqliteStatements(name, options)
        self._signal = WorkSignal()
        self._next_due: float | None = None

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._name

    @property
    def options(self) -> QueueOptions:
        """Lease, attempts and retention."""
        return self._options

    async def put(self, id: str, body: bytes, *, key: str | None = None) -> bool:
        """Store a message; it is on the disk when this returns."""
        checked_put(id, body, key)
        clock, statements = self._store.clock, self._statements
        new = await self._store.submit(lambda connection: statements.put(connection, id, body, key, clock()))
        if new:
            self._signal.notify()
        return new

    async def claim(self, limit: int) -> list[Claimed]:
        """Take up to ``limit`` messages for the time of a lease."""
        checked_count("limit", limit, minimum=1)
        count = self._signal.looked()
        clock, statements = self._store.clock, self._statements
        batch = await self._store.submit(lambda connection: statements.claim(connection, limit, clock()), durable=False)
        self._next_due = batch.next_due
        if len(batch.claimed) < limit:
            self._signal.found_nothing(count)
        self._report(batch.died)
        return batch.claimed

    async def extend(self, claimed: Claimed) -> bool:
        """Start the lease of a claim anew."""
        clock, statements = self._store.clock, self._statements
        return await self._store.submit(
            lambda connection: statements.extend(connection, claimed, clock()), durable=False
        )

    async def acknowledge(self, claimed: Claimed) -> bool:
        """Say that a message is handled."""
        clock, statements = self._store.clock, self._statements
        done = await self._store.submit(lambda connection: statements.acknowledge(connection, claimed, clock()))
        if done and claimed.key is not None:
            self._signal.notify()
        return done

    async def release(self, claimed: Claimed, *, delay: float = 0.0, reason: str = "", counted: bool = True) -> bool:
        """Give a claim back for another attempt."""
        checked_seconds("delay", delay)
        clock, statements = self._store.clock, self._statements
        held, died = await self._store.submit(
            lambda connection: statements.release(connection, claimed, delay, reason, counted, clock())
        )
        self._report(died)
        self._signal.notify()
        return held

    async def bury(self, claimed: Claimed, reason: str) -> bool:
        """Make a claim a dead letter now."""
        clock, statements = self._store.clock, self._statements
        held, died = await self._store.submit(lambda connection: statements.bury(connection, claimed, reason, clock()))
        self._report(died)
        return held

    async def wait_for_work(self) -> None:
        """Return when this process put something or gave it back, when the next lease or delay has run out, or after
        ``poll_interval``, for what others did.
        """
        due = self._store.poll_interval if self._next_due is None else self._next_due - self._store.clock()
        await self._signal.wait(min(max(0.0, due), self._store.poll_interval))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, the oldest first."""
        checked_count("limit", limit, minimum=1)
        statements = self._statements
        return await self._store.submit(lambda connection: statements.dead_letters(connection, limit), durable=False)

    async def retry_dead(self, id: str) -> bool:
        """Make a dead letter a message again, the last of its key."""
        statements = self._statements
        found = await self._store.submit(lambda connection: statements.retry_dead(connection, id))
        self._signal.notify()
        return found

    async def discard_dead(self, id: str) -> bool:
        """Forget a dead letter and its id."""
        statements = self._statements
        return await self._store.submit(lambda connection: statements.discard_dead(connection, id))

    async def statistics(self) -> QueueStatistics:
        """Count the messages."""
        clock, statements = self._store.clock, self._statements
        return await self._store.submit(lambda connection: statements.statistics(connection, clock()), durable=False)

    def _report(self, died: list[Died]) -> None:
        for message in died:
            event = MessageDead(
                at=trio.current_time(),
                queue=self._name,
                id=message.id,
                attempts=message.attempts,
                reason=message.reason,
            )
            emit(self._store.on_event, event)
        if died:
            self._signal.notify()
