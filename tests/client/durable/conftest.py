"""The kinds of queue that every conformance test runs over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.durable.queues import MemoryKind, QueueKind, SqliteKind


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> QueueKind:
    if request.param == "memory":
        return MemoryKind()
    return SqliteKind(tmp_path)
