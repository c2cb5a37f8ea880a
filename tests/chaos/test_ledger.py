"""The ledger of chaos can fail: each rule is broken here once, and noticed."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Ledger, Outcome, Stamp

DID = "did:web:node.test:a0"


def deliver(ledger: Ledger, *numbers: int, socket: int = 1, join: str = "1") -> list[Stamp]:
    stamps = [Stamp(socket, join, number) for number in numbers]
    ledger.joined(DID, join)
    for stamp in stamps:
        ledger.pushed(DID, stamp)
    return stamps


def violation(ledger: Ledger) -> str:
    (text,) = ledger.violations
    return text


def test_a_run_without_a_fault_balances() -> None:
    ledger = Ledger()
    for stamp in deliver(ledger, 1, 2, 3):
        ledger.read(DID, stamp)
        ledger.handed(DID, stamp)
    for outcome in Outcome:
        ledger.send_began(outcome.name, 15.0)
        if outcome in (Outcome.ANSWERED, Outcome.REFUSED):
            ledger.node_got(outcome.name)
        ledger.send_ended(outcome.name, outcome, 1.0)
    ledger.disconnected(DID)
    ledger.reconnected(DID)
    assert ledger.unsettled({DID: 1}) == []
    ledger.settle({DID: 1}, {})
    assert ledger.violations == []
    assert (ledger.began, ledger.pushes, ledger.handed_over, ledger.cut_off) == (5, 3, 3, 0)


def test_a_message_lost_in_the_middle_of_a_socket_is_noticed() -> None:
    ledger = Ledger()
    first, _, third = deliver(ledger, 1, 2, 3)
    ledger.read(DID, first)
    ledger.read(DID, third)
    assert "lost in the middle" in violation(ledger)


@pytest.mark.parametrize("again", [1, 2])
def test_a_message_doubled_or_disordered_on_the_wire_is_noticed(again: int) -> None:
    ledger = Ledger()
    stamps = deliver(ledger, 1, 2)
    for stamp in (*stamps, Stamp(1, "1", again)):
        ledger.read(DID, stamp)
    assert "doubled or disordered" in violation(ledger)


def test_a_message_that_the_node_never_pushed_is_noticed() -> None:
    ledger = Ledger()
    ledger.read(DID, Stamp(1, "1", 1))
    assert "never pushed" in violation(ledger)


def test_a_message_that_was_read_and_never_handed_over_is_noticed() -> None:
    ledger = Ledger()
    for stamp in deliver(ledger, 1, 2):
        ledger.read(DID, stamp)
    ledger.handed(DID, Stamp(1, "1", 1))
    ledger.settle({DID: 1}, {})
    assert "was not handed 1 messages" in violation(ledger)


def test_a_message_skipped_on_the_way_to_the_application_is_noticed() -> None:
    ledger = Ledger()
    for stamp in deliver(ledger, 1, 2):
        ledger.read(DID, stamp)
    ledger.handed(DID, Stamp(1, "1", 2))
    assert "1 lost or disordered" in violation(ledger)


def test_a_message_handed_over_twice_is_noticed() -> None:
    ledger = Ledger()
    for stamp in deliver(ledger, 1):
        ledger.read(DID, stamp)
        ledger.handed(DID, stamp)
        ledger.handed(DID, stamp)
    assert "doubled" in violation(ledger)


def test_a_message_of_a_live_socket_that_is_never_read_is_noticed() -> None:
    ledger = Ledger()
    deliver(ledger, 1)
    ledger.settle({DID: 1}, {})
    assert "has read 0 of 1" in violation(ledger)


def test_the_unread_end_of_a_socket_that_died_is_cut_off_and_no_loss() -> None:
    ledger = Ledger()
    first, *_ = deliver(ledger, 1, 2, 3)
    ledger.read(DID, first)
    ledger.handed(DID, first)
    ledger.socket_ended(DID, 1, whole=False)
    deliver(ledger, 4)  # the node does not know yet
    ledger.settle({DID: 2}, {})
    assert ledger.violations == []
    assert ledger.cut_off == 3


def test_the_unread_end_of_a_socket_that_the_node_closed_is_a_loss() -> None:
    ledger = Ledger()
    deliver(ledger, 1)
    ledger.socket_ended(DID, 1, whole=True)
    assert "close frame" in violation(ledger)


def test_a_join_that_was_given_up_may_lose_its_end_if_the_channel_counts_it() -> None:
    for counted in (0, 2):
        ledger = Ledger()
        for stamp in deliver(ledger, 1, 2):
            ledger.read(DID, stamp)
        ledger.gave_up(DID, "1")
        (stamp,) = deliver(ledger, 3, join="2")
        ledger.read(DID, stamp)
        ledger.handed(DID, stamp)
        ledger.settle({DID: 1}, {DID: counted})
        assert ledger.ignored == 2
        assert len(ledger.violations) == (0 if counted else 1)


def test_a_join_that_was_never_acknowledged_may_be_ignored_if_the_channel_counts_it() -> None:
    for counted in (0, 1):
        ledger = Ledger()
        unheard = Stamp(1, "1", 1)  # the node had accepted the join, after the channel had given it up
        ledger.pushed(DID, unheard)
        ledger.read(DID, unheard)
        (stamp,) = deliver(ledger, 2, join="2")
        ledger.read(DID, stamp)
        ledger.handed(DID, stamp)
        ledger.settle({DID: 1}, {DID: counted})
        assert len(ledger.violations) == (0 if counted else 1)


def test_a_hung_caller_is_noticed() -> None:
    ledger = Ledger()
    ledger.send_began("x", 15.0)
    assert ledger.hanging(15.0) == []
    assert ledger.hanging(15.1) == ["x"]
    ledger.settle({}, {})
    assert "1 callers wait" in violation(ledger)


def test_a_caller_who_is_told_too_late_or_twice_is_noticed() -> None:
    ledger = Ledger()
    ledger.send_began("x", 15.0)
    ledger.send_ended("x", Outcome.WRITTEN, 20.0)
    assert "5.0 s after its deadline" in violation(ledger)
    ledger.send_ended("x", Outcome.WRITTEN, 20.0)
    assert "ended twice" in ledger.violations[1]


@pytest.mark.parametrize("node_first", [True, False])
def test_a_send_said_not_to_be_written_that_reaches_the_node_is_noticed(node_first: bool) -> None:
    ledger = Ledger()
    ledger.send_began("x", 15.0)
    if node_first:
        ledger.node_got("x")
    ledger.send_ended("x", Outcome.UNWRITTEN, 1.0)
    if not node_first:
        ledger.node_got("x")
    assert "said not to be written" in violation(ledger)


def test_a_send_that_reaches_the_node_twice_is_noticed_and_so_is_an_answer_to_one_that_never_did() -> None:
    ledger = Ledger()
    ledger.send_began("x", 15.0)
    ledger.node_got("x")
    ledger.node_got("x")
    assert "twice" in violation(ledger)
    ledger.send_began("y", 15.0)
    ledger.send_ended("y", Outcome.ANSWERED, 1.0)
    assert "never got it" in ledger.violations[1]


def test_callbacks_that_do_not_alternate_are_noticed() -> None:
    ledger = Ledger()
    ledger.reconnected(DID)
    ledger.disconnected(DID)
    ledger.disconnected(DID)
    assert len(ledger.violations) == 2


def test_the_books_do_not_grow_with_the_length_of_the_run() -> None:
    ledger = Ledger()
    for number in range(8000):
        ledger.send_began(str(number), 15.0)
        ledger.send_ended(str(number), Outcome.WRITTEN, 1.0)
        stamp = Stamp(number, "1", 1)
        ledger.pushed(DID, stamp)
        ledger.joined(DID, str(number))
        ledger.read(DID, stamp)
        ledger.handed(DID, stamp)
        ledger.socket_ended(DID, number, whole=False)
        if number % 100 == 0:
            ledger.settle({DID: number}, {})
    assert ledger.violations == []
    assert len(ledger._over) <= 2000
    assert len(ledger._of(DID).pushed) <= 101
