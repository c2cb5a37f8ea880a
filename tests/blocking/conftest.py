"""A node in another thread, around the tests that block."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.blocking.node_in_a_thread import NodeInAThread, node_in_a_thread, threads


@pytest.fixture(scope="module")
def shared() -> Iterator[NodeInAThread]:
    with node_in_a_thread() as node:
        yield node


@pytest.fixture
def node(shared: NodeInAThread) -> Iterator[NodeInAThread]:
    """The node, before and after which no thread is left but Trio's idle workers."""
    before = threads()
    yield shared
    assert threads() == before
    shared.wait_for(lambda: not shared.node.dids)
