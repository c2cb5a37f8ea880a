"""The queues under test: each kind is opened, and its time is moved, in its own way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from layr8_actors.client.durable import (
    DurableQueue,
    MemoryQueue,
    QueueOptions,
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
    """One kind of queue; the two methods are all that the tests need to know of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def open(self, options: QueueOptions | None = None) -> contextlib.AbstractAsyncContextManager[DurableQueue]:
        raise NotImplementedError

    async def advance(self, seconds: float) -> None:
        raise NotImplementedError


class MemoryKind(QueueKind):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    @contextlib.asynccontextmanager
    async def open(self, options: QueueOptions | None = None) -> AsyncIterator[DurableQueue]:
        yield MemoryQueue("inbox", options, clock=self.clock, on_event=self.events.append)

    async def advance(self, seconds: float) -> None:
        self.clock.now += seconds


class SqliteKind(QueueKind):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / f"{next(NAMES)}.db"
        self.clock = Clock()

    def store(self, options: QueueOptions | None = None) -> SqliteStore:
        # Not power_safe: no test cuts the power, and the disk of the machine would be what is measured.
        return SqliteStore(self.path, inbox=options, power_safe=False, clock=self.clock, on_event=self.events.append)

    @contextlib.asynccontextmanager
    async def open(self, options: QueueOptions | None = None) -> AsyncIterator[DurableQueue]:
        async with self.store(options) as store:
            yield store.inbox

    async def advance(self, seconds: float) -> None:
        self.clock.now += seconds
