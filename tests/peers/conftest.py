"""The node that answers frame by frame, for what CloudNode is too polite to do, and callbacks that keep a list."""

from __future__ import annotations

import pytest

from tests.channel.conftest import ScriptedNode
from tests.peers.agents import Calls


@pytest.fixture
def scripted() -> ScriptedNode:
    return ScriptedNode()


@pytest.fixture
def calls() -> Calls:
    return Calls()
