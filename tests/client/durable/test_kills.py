"""SIGKILL at random points: 20 times each here, 200 times by ``python -m tests.client.durable.kills``."""

from __future__ import annotations

from tests.client.durable.kills import CONCURRENCY, Report, run
from tests.client.durable.redis_server import RedisServer

KILLS = 20


def check(report: Report) -> None:
    print(report)
    assert report.kills == KILLS
    assert report.acknowledged > 100
    assert report.lost == []
    assert report.out_of_order == []
    assert report.failed == []
    # A kill doubles what was in hand, and nothing else does.
    assert sum(report.duplicates.values()) - len(report.duplicates) <= KILLS * CONCURRENCY


def test_a_durable_handler_that_is_killed_at_random_points_loses_nothing_and_doubles_what_was_in_hand():
    check(run("", KILLS, seed=1))


def test_so_does_one_over_redis(redis_server: RedisServer):
    check(run(redis_server.url, KILLS, seed=2))


def test_an_agent_that_acknowledges_before_it_has_persisted_is_found_to_lose_messages():
    assert run("", KILLS, seed=3, persist_first=False).lost != []
