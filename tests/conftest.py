"""What every test gets: the Trio backend on virtual time, and the `real_clock` marker to opt out of it.

Virtual time is right as long as all peers live in the test's own Trio loop, sockets included. With a peer in another
thread or process the clock would jump past every deadline while that peer works: mark such a test, or its whole module
with `pytestmark = pytest.mark.real_clock`.

No fixture may hold a nursery across its yield: when a child crashes there, anyio's runner hangs (anyio#805).
"""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Trio with a fresh clock at 0 that jumps to the next deadline whenever all tasks are blocked."""
    if request.node.get_closest_marker("real_clock") is not None:
        return ("trio", {})
    # Synchronous on purpose: a MockClock must exist before the loop it drives.
    return ("trio", {"clock": MockClock(autojump_threshold=0)})
