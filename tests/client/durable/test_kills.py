"""SIGKILL at random points: 20 and 10 times here, 200 times by ``python -m tests.client.durable.kills``."""

from __future__ import annotations

from tests.client.durable.kills import CONCURRENCY, Report, run
from tests.client.durable.redis_server import RedisServer


def check(report: Report, kills: int) -> None:
    print(report)
    assert report.kills == kills
    assert report.acknowledged >= 100
    assert report.lost == []
    assert report.out_of_order == []
    assert report.failed == []
    # A kill doubles what was in hand, and nothing else does.
    assert sum(report.duplicates.values()) - len(report.duplicates) <= kills * CONCURRENCY


def test_a_durable_handler_that_is_killed_at_random_points_loses_nothing_and_doubles_what_was_in_hand():
    check(run("", 20, seed=1), 20)


def test_so_does_one_over_redis(redis_server: RedisServer):
    check(run(redis_server.url, 10, seed=2), 10)


def test_an_agent_that_acknowledges_before_it_has_persisted_is_found_to_lose_messages():
    assert run("", 10, seed=3, persist_first=False).lost != []
