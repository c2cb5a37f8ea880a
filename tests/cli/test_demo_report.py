"""The demo's table and verdict: right only if every single figure is."""

from __future__ import annotations

import dataclasses

import pytest

from layr8_actors.cli.demo_report import ACTORS, AgentReport, Recoveries, Report
from layr8_actors.cli.ledger import Account

GOOD_ACCOUNT = Account(numbered=60, sent=70, answered=60, refused=4, failed=6, received_once=60, repeats=2, cut_off=3)


def agent(**changes: object) -> AgentReport:
    good = AgentReport(
        name="alice",
        account=GOOD_ACCOUNT,
        restarts=dict.fromkeys(ACTORS, 1),
        drops=2,
        disconnects=2,
        reconnects=2,
        recoveries=(0.25, 0.75),
        callbacks_failed=1,
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


def report(*agents: AgentReport, complaints: tuple[str, ...] = ()) -> Report:
    return Report(agents=agents or (agent(),), faults=3, complaints=complaints, seconds=1.0)


def test_a_table_that_is_right_has_no_problems() -> None:
    assert report().problems() == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lost", 1, "1 messages lost"),
        ("doubled", 1, "1 messages doubled"),
        ("disordered", 1, "1 messages out of order"),
        ("received_once", 59, "60 messages, but 59 received once"),
        ("failed", 5, "70 sends, but 1 callers wait still"),
        ("numbered", 0, "only 0 messages"),
    ],
)
def test_each_wrong_figure_of_the_messages_is_a_problem(field: str, value: int, said: str) -> None:
    account = dataclasses.replace(GOOD_ACCOUNT, **{field: value})
    if field == "failed":
        account = dataclasses.replace(account, unanswered=1)
    problems = report(agent(account=account)).problems()
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "changes",
    [{"disconnects": 1}, {"disconnects": 3}, {"reconnects": 1}, {"drops": 3}, {"recoveries": (0.25,)}],
)
def test_a_loss_that_was_not_told_or_made_good_exactly_once_is_a_problem(changes: dict[str, object]) -> None:
    (problem,) = report(agent(**changes)).problems()
    assert "connections lost, but on_disconnect was called" in problem


@pytest.mark.parametrize("actor", ACTORS)
def test_a_kind_of_actor_that_was_never_restarted_is_a_problem(actor: str) -> None:
    restarts = {other: 1 for other in ACTORS if other != actor}
    assert report(agent(restarts=restarts)).problems() == [f"no {actor} was restarted"]


def test_faults_that_did_not_happen_are_problems() -> None:
    quiet = agent(callbacks_failed=0, drops=0, disconnects=0, reconnects=0, recoveries=())
    assert report(quiet).problems() == ["no callback raised", "no connection was lost"]


def test_what_the_story_complains_of_is_a_problem() -> None:
    assert report(complaints=("fault 1 was not healed",)).problems() == ["fault 1 was not healed"]


def test_the_rows_have_one_value_for_each_agent_and_the_total() -> None:
    rows = {row[0]: row[1:] for row in report(agent(), agent(name="bob", recoveries=(1.0, 3.0))).rows()}
    assert rows["messages"] == ("from alice", "from bob", "total")
    assert rows["sent"] == ("70", "70", "140")
    assert rows["lost"] == ("0", "0", "0")
    assert rows["restarts of router"] == ("1", "1", "2")
    assert rows["max s to recover"] == ("0.75", "3.00", "3.00")
    assert rows["median s to recover"] == ("0.50", "2.00", "0.88")


def test_a_recovery_lasts_from_the_first_loss_to_the_join_whatever_fails_in_between() -> None:
    recoveries = Recoveries()
    recoveries.lost(1.0)  # before the first join nothing can be lost
    recoveries.joined(2.0)
    assert (recoveries.times, recoveries.down) == ([], False)
    recoveries.lost(3.0)
    recoveries.lost(3.5)
    assert recoveries.down
    recoveries.joined(4.25)
    assert (recoveries.times, recoveries.down) == ([1.25], False)
