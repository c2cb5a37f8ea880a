"""Random lives of a queue: SQLite and Redis do what the queue in memory does, call by call."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings, strategies as st

from layr8_actors.client.durable import Claimed, DurableQueue, QueueOptions
from tests.client.durable.queues import MemoryKind, QueueKind, RedisKind, SqliteKind
from tests.client.durable.redis_server import RedisServer

OPTIONS = QueueOptions(lease=30, max_attempts=3, retention=200)
IDS = ["k1", "k2", "k3", "j1", "j2", "a", "b", "c"]
"""Those of two letters have the first as their key."""

id = st.sampled_from(IDS)
EXAMPLES = settings().max_examples // 4

claim_number = st.integers(0, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), id),
        st.tuples(st.just("put"), id),
        st.tuples(st.just("claim"), st.sampled_from([1, 2, 9])),
        st.tuples(st.just("claim"), st.just(9)),
        st.tuples(st.just("acknowledge"), claim_number),
        st.tuples(st.just("extend"), claim_number),
        st.tuples(st.just("release"), claim_number, st.sampled_from([0, 0, 50]), st.booleans()),
        st.tuples(st.just("bury"), claim_number),
        st.tuples(st.just("retry_dead"), id),
        st.tuples(st.just("discard_dead"), id),
        st.tuples(st.just("advance"), st.sampled_from([10, 40, 150])),
        st.tuples(st.just("reopen")),
    ),
    max_size=40,
)


@dataclasses.dataclass
class Side:
    """One of the two queues, and the claims it has ever handed out."""

    kind: QueueKind
    queue: DurableQueue
    claims: list[Claimed] = dataclasses.field(default_factory=list)

    async def act(self, step: tuple[Any, ...]) -> Any:
        match step:
            case ("put", str(name)):
                return await self.queue.put(name, name.encode(), key=name[0] if len(name) > 1 else None)
            case ("claim", int(limit)):
                claims = await self.queue.claim(limit)
                self.claims.extend(claims)
                return [(claimed.id, claimed.body, claimed.key, claimed.attempt) for claimed in claims]
            case ("advance", int(seconds)):
                return await self.kind.advance(seconds)
            case ("retry_dead" | "discard_dead" as name, str(which)):
                return await getattr(self.queue, name)(which)
            case (name, int(number), *arguments):
                if not self.claims:
                    return None
                claimed = self.claims[number % len(self.claims)]
                match name:
                    case "release":
                        delay, counted = arguments
                        return await self.queue.release(claimed, delay=delay, reason="r", counted=counted)
                    case "bury":
                        return await self.queue.bury(claimed, "b")
                    case _:
                        return await getattr(self.queue, name)(claimed)
            case _:
                raise AssertionError(step)

    async def view(self) -> Any:
        letters = [
            (letter.id, letter.body, letter.key, letter.attempts, letter.reason)
            for letter in await self.queue.dead_letters()
        ]
        return await self.queue.statistics(), sorted(letters)


def in_order(claims: Any) -> Any:
    """Between keys Redis promises no order: what it takes back from others comes before what is new."""
    return sorted(claims) if isinstance(claims, list) else claims


async def compare(kind: SqliteKind | RedisKind, script: list[tuple[Any, ...]]) -> None:
    model_kind = MemoryKind()
    exact = isinstance(kind, SqliteKind)
    async with model_kind.open(OPTIONS) as model_queue:
        model = Side(model_kind, model_queue)
        claims: list[Claimed] = []
        # A part of the script up to each reopening; the claims outlive it, as those of another process do.
        parts = [list(part) for again, part in itertools.groupby(script, lambda step: step == ("reopen",)) if not again]
        for part in parts or [[]]:
            async with kind.open(OPTIONS) as queue:
                real = Side(kind, queue, claims)
                for step in part:
                    if not exact and step[0] == "claim":
                        step = ("claim", 99)
                    expected, found = await model.act(step), await real.act(step)
                    if not exact:
                        expected, found = in_order(expected), in_order(found)
                        model.claims.sort(key=lambda claimed: (claimed.id, claimed.attempt, int(claimed.token)))
                        real.claims.sort(key=lambda claimed: (claimed.id, claimed.attempt, int(claimed.token)))
                    assert found == expected, step
                    assert await real.view() == await model.view(), step
        events, expected_events = kind.events, model_kind.events
        assert sorted(map(told, events)) == sorted(map(told, expected_events))


def told(event: Any) -> tuple[Any, ...]:
    return (type(event).__name__, event.id, event.attempts, event.reason)


FORGOTTEN = [("put", "k1"), ("claim", 1), ("acknowledge", 0), ("advance", 150), ("advance", 150), ("acknowledge", 0)]
"""An acknowledgement that is repeated once the retention is over is one of nobody's message."""


@settings(max_examples=EXAMPLES)
@example(script=FORGOTTEN)
@given(script=steps)
def test_sqlite_does_what_the_queue_in_memory_does(script: list[tuple[Any, ...]]):
    with tempfile.TemporaryDirectory() as folder:
        trio.run(compare, SqliteKind(Path(folder)), script)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=EXAMPLES)
@example(script=FORGOTTEN)
@given(script=steps)
def test_redis_does_what_the_queue_in_memory_does(redis_server: RedisServer, script: list[tuple[Any, ...]]):
    trio.run(compare, RedisKind(redis_server.url), script)


@pytest.mark.real_clock
async def test_the_comparison_finds_a_queue_that_hands_out_a_message_twice(tmp_path: Path):
    class Forgetful(SqliteKind):
        def store(self, options: QueueOptions | None = None):
            store = super().store(options)
            statements = store.inbox._statements
            statements._options = dataclasses.replace(OPTIONS, lease=0.001)
            return store

    script: list[tuple[Any, ...]] = [("put", "a"), ("claim", 1), ("advance", 10), ("claim", 1)]
    with pytest.raises(AssertionError):
        await compare(Forgetful(tmp_path), script)
    await compare(SqliteKind(tmp_path), script)
