"""The kinds of queue that every conformance test runs over, and a Redis server where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.durable.queues import MemoryKind, QueueKind, RedisKind, SqliteKind
from tests.client.durable.redis_server import REDIS_SERVER, RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    if REDIS_SERVER is None:
        pytest.skip("no redis-server on PATH (Debian and Ubuntu: apt-get install redis-server)")
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> QueueKind:
    if request.param == "memory":
        return MemoryKind()
    if request.param == "sqlite":
        return SqliteKind(tmp_path)
    return RedisKind(request.getfixturevalue("redis_server").url)
