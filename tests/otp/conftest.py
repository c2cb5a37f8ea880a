"""A laboratory of children that do what a test tells them, and note when they start and stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from layr8_actors.otp import ChildSpec, DynamicSupervisor, Supervisor
from layr8_actors.otp.events import ChildEvent
from layr8_actors.telemetry import Event

E = TypeVar("E", bound=Event)


class Crash(Exception):
    """What a child raises when it is told to."""


class Lab:
    """Makes children and supervisors, and keeps what happened."""

    Crash = Crash

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events: list[Event] = []
        self.starts: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.fail_starts: Counter[str] = Counter()
        """How many of the next starts of a child shall fail."""
        self.start_delay: dict[str, float] = {}
        self.cleanup: dict[str, float] = {}
        self.cleanup_error: dict[str, Exception] = {}
        self._orders: dict[str, tuple[trio.Event, list[BaseException | None]]] = {}

    def child(self, id: str, **options: Any) -> ChildSpec:
        """A plain service of that id."""
        return ChildSpec(id=id, start=partial(self.service, id), **options)

    def children(self, ids: str, **options: Any) -> list[ChildSpec]:
        """Plain services, one for each letter."""
        return [self.child(id, **options) for id in ids]

    def supervisor(self, children: list[ChildSpec], **options: Any) -> Supervisor:
        """A supervisor whose events are kept."""
        return Supervisor(children, on_event=self.events.append, **options)

    async def service(self, id: str, *, task_status: trio.TaskStatus[str]) -> None:
        self.log.append(f"start {id}")
        self.starts[id] += 1
        self.live[id] += 1
        try:
            if id in self.start_delay:
                await trio.sleep(self.start_delay[id])
            if self.fail_starts[id]:
                self.fail_starts[id] -= 1
                raise Crash(f"start of {id}")
            order = self._orders[id] = (trio.Event(), [])
            task_status.started(f"{id}{self.starts[id]}")
            await order[0].wait()
            error = order[1][0]
            if error is not None:
                raise error
        finally:
            if id in self.cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.cleanup[id])
            self.live[id] -= 1
            self.log.append(f"stop {id}")
            if id in self.cleanup_error:
                raise self.cleanup_error[id]

    def end(self, id: str, error: BaseException | None = None) -> None:
        """Make the running incarnation return, or raise ``error``."""
        event, errors = self._orders[id]
        errors.append(error)
        event.set()

    def crash(self, id: str) -> None:
        """Make the running incarnation crash."""
        self.end(id, Crash(id))

    def took(self) -> list[str]:
        """The log since the last look."""
        log, self.log = self.log, []
        return log

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def story(self, id: str) -> list[str]:
        """The names of the events of one child."""
        return [type(event).__name__ for event in self.events if isinstance(event, ChildEvent) and event.id == id]

    @asynccontextmanager
    async def running(self, children: list[ChildSpec], **options: Any) -> AsyncIterator[Supervisor]:
        """A supervisor that runs in a nursery of its own until the block ends."""
        supervisor = self.supervisor(children, **options)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            yield supervisor
            await supervisor.stop()
        assert not any(self.live.values())

    @asynccontextmanager
    async def running_dynamic(self, **options: Any) -> AsyncIterator[DynamicSupervisor]:
        """An empty dynamic supervisor, its events kept, that runs until the block ends or it gives up."""
        async with DynamicSupervisor(on_event=self.events.append, **options) as supervisor:
            yield supervisor


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def make_lab() -> type[Lab]:
    """For tests that need many of them."""
    return Lab


@pytest.fixture
def settle() -> Callable[[], Any]:
    """Let everything happen that can happen without time passing."""
    return trio.testing.wait_all_tasks_blocked
