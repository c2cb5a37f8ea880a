"""The queues under test: each kind is opened, and its time is moved, in its own way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import coredis

from layr8_actors.client.durable import (
    DurabilityWeak,
    DurableQueue,
    MemoryStore,
    QueueOptions,
    RedisStore,
    SqliteStore,
)
from layr8_actors.telemetry import Event

EPOCH = 1_800_000_000.0
NAMES = (f"queue-{number}" for number in itertools.count())


@dataclasses.dataclass
class Clock:
    """A clock of the wall that a test turns, backwards too."""

    now: float = EPOCH

    def __call__(self) -> float:
        return self.now


class QueueKind:
    """One kind of queue; the methods are all that the tests need to know of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def store(self, options: QueueOptions | None = None) -> MemoryStore | SqliteStore | RedisStore:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def open(self, options: QueueOptions | None = None) -> AsyncIterator[DurableQueue]:
        async with self.store(options) as store:
            yield store.inbox

    async def advance(self, seconds: float) -> None:
        raise NotImplementedError


class MemoryKind(QueueKind):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def store(self, options: QueueOptions | None = None) -> MemoryStore:
        return MemoryStore(inbox=options, clock=self.clock, on_event=self.events.append)

    async def advance(self, seconds: float) -> None:
        self.clock.now += seconds


class SqliteKind(QueueKind):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / f"{next(NAMES)}.db"
        self.clock = Clock()

    def store(self, options: QueueOptions | None = None) -> SqliteStore:
        # Not power_safe: no test cuts the power, and the disk of the machine would be what is measured.
        return SqliteStore(
            self.path, inbox=options, power_safe=False, poll_interval=60, clock=self.clock, on_event=self.events.append
        )

    async def advance(self, seconds: float) -> None:
        self.clock.now += seconds


class RedisKind(QueueKind):
    """A namespace of its own in a running server. Its time is the server's, so what waits is made older instead."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.namespace = next(NAMES)

    def store(self, options: QueueOptions | None = None) -> RedisStore:
        return RedisStore(self.url, namespace=self.namespace, inbox=options, on_event=self._keep)

    def _keep(self, event: Event) -> None:
        if not isinstance(event, DurabilityWeak):
            self.events.append(event)

    async def advance(self, seconds: float) -> None:
        stem = f"{self.namespace}:{{inbox}}"
        async with coredis.Redis.from_url(self.url) as client:
            await client.eval(AGE, keys=[stem], args=[int(seconds * 1000)])


AGE = """
local stem, older = KEYS[1], tonumber(ARGV[1])
if redis.call('EXISTS', stem .. ':stream') == 0 then return end
for _, pending in ipairs(redis.call('XPENDING', stem .. ':stream', 'handlers', '-', '+', 10000)) do
  redis.call('XCLAIM', stem .. ':stream', 'handlers', pending[2], 0, pending[1], 'IDLE', pending[3] + older, 'JUSTID')
end
for _, id in ipairs(redis.call('ZRANGE', stem .. ':delayed', 0, -1)) do
  redis.call('ZINCRBY', stem .. ':delayed', -older, id)
end
for _, id in ipairs(redis.call('ZRANGE', stem .. ':remembered', 0, -1)) do
  redis.call('ZINCRBY', stem .. ':remembered', -older, id)
  redis.call('PEXPIRE', stem .. ':message:' .. id, redis.call('PTTL', stem .. ':message:' .. id) - older)
end
"""
