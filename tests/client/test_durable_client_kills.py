"""SIGKILL at random points: 8 times here, 200 times by ``python -m tests.client.durable_client_kills``."""

from __future__ import annotations

import pytest

from tests.client.durable_client_kills import run

pytestmark = pytest.mark.real_clock


async def test_a_durable_client_with_a_further_did_that_is_killed_at_random_points_loses_nothing() -> None:
    report = await run(8, seed=1)
    print(report)
    assert (report.kills, report.lost, report.unanswered, report.misplaced, report.failed) == (8, [], [], [], [])
    assert report.accepted == 64


async def test_a_client_that_accepts_before_it_has_stored_is_found_to_lose_messages() -> None:
    assert (await run(100, seed=2, durable=False, patience=0)).lost != []
