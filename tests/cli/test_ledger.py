"""The demo's accounts: they must be able to say that something was lost, doubled or disordered."""

from __future__ import annotations

from layr8_actors.cli.ledger import Account, Ledger

SOCKET = 7


def sent(ledger: Ledger, number: int | None = None, attempt: int = 1) -> str:
    wire_id = ledger.attempt("alice", ledger.begin("alice") if number is None else number, attempt)
    ledger.replied(wire_id, ok=True)
    return wire_id


def delivered(ledger: Ledger, wire_id: str, socket: int = SOCKET) -> bool:
    ledger.pushed(wire_id, socket)
    return ledger.handed(wire_id, "bob")


def account(ledger: Ledger, *living: int) -> Account:
    return ledger.account("alice", "bob", living or (SOCKET,))


def test_a_message_that_arrives_once_is_neither_lost_nor_doubled() -> None:
    ledger = Ledger(("alice", "bob"))
    assert delivered(ledger, sent(ledger))
    assert account(ledger) == Account(numbered=1, sent=1, answered=1, received_once=1)


def test_a_number_that_never_arrives_is_lost_also_when_the_node_accepted_it() -> None:
    ledger = Ledger(("alice", "bob"))
    delivered(ledger, sent(ledger))
    sent(ledger)
    found = account(ledger)
    assert (found.numbered, found.received_once, found.lost) == (2, 1, 1)


def test_a_number_that_was_repeated_and_never_arrived_is_one_loss() -> None:
    ledger = Ledger(("alice", "bob"))
    for attempt in (1, 2, 3):
        ledger.pushed(sent(ledger, ledger.begin("alice") if attempt == 1 else 1, attempt), SOCKET)
    assert account(ledger).lost == 1


def test_a_push_into_a_living_socket_that_is_not_handed_over_is_lost_although_a_repeat_arrived() -> None:
    ledger = Ledger(("alice", "bob"))
    ledger.pushed(sent(ledger), SOCKET)
    assert ledger.missing([SOCKET]) == ["alice-1-1"]
    assert delivered(ledger, sent(ledger, 1, 2))
    found = account(ledger)
    assert (found.received_once, found.lost, found.cut_off) == (1, 1, 0)


def test_a_push_into_a_socket_that_died_is_cut_off_and_not_lost_once_a_repeat_arrived() -> None:
    ledger = Ledger(("alice", "bob"))
    ledger.pushed(sent(ledger), 3)
    assert delivered(ledger, sent(ledger, 1, 2))
    assert ledger.missing([SOCKET]) == []
    found = account(ledger)
    assert (found.received_once, found.lost, found.cut_off) == (1, 0, 1)


def test_a_push_into_a_dead_socket_is_lost_if_a_later_one_of_that_socket_arrived() -> None:
    ledger = Ledger(("alice", "bob"))
    for handed in (False, True, False):
        wire_id = sent(ledger)
        ledger.pushed(wire_id, 3)
        if handed:
            ledger.handed(wire_id, "bob")
        delivered(ledger, sent(ledger, int(wire_id.split("-")[1]), 2), SOCKET)
    assert ledger.missing([SOCKET]) == ["alice-1-1"]
    found = account(ledger)
    assert (found.received_once, found.lost, found.cut_off) == (3, 1, 1)


def test_one_push_that_is_handed_over_twice_is_doubled() -> None:
    ledger = Ledger(("alice", "bob"))
    wire_id = sent(ledger)
    assert delivered(ledger, wire_id)
    assert not ledger.handed(wire_id, "bob")
    assert account(ledger).doubled == 1


def test_a_repeat_by_the_sender_is_recognised_and_not_doubled() -> None:
    ledger = Ledger(("alice", "bob"))
    assert delivered(ledger, sent(ledger))
    assert not delivered(ledger, sent(ledger, 1, 2))
    found = account(ledger)
    assert (found.received_once, found.repeats, found.doubled) == (1, 1, 0)


def test_a_message_that_the_node_never_pushed_counts_as_doubled() -> None:
    ledger = Ledger(("alice", "bob"))
    assert not ledger.handed(sent(ledger), "bob")
    assert not ledger.handed("from nowhere", "bob")
    assert account(ledger).doubled == 2


def test_a_lost_and_a_doubled_receipt_count_like_messages() -> None:
    ledger = Ledger(("alice", "bob"))
    lost, doubled = ledger.receipt("alice"), ledger.receipt("alice")
    ledger.pushed(lost, SOCKET)
    assert not delivered(ledger, doubled)
    ledger.handed(doubled, "bob")
    found = account(ledger)
    assert (found.numbered, found.lost, found.doubled) == (0, 1, 1)


def test_messages_handed_over_in_another_order_than_pushed_are_counted() -> None:
    ledger = Ledger(("alice", "bob"))
    first, second, third = sent(ledger), sent(ledger), sent(ledger)
    for wire_id in (first, second, third):
        ledger.pushed(wire_id, SOCKET)
    for wire_id in (first, third, second):
        ledger.handed(wire_id, "bob")
    assert account(ledger).disordered == 1


def test_every_attempt_is_counted_by_how_it_ended() -> None:
    ledger = Ledger(("alice", "bob"))
    number = ledger.begin("alice")
    ledger.replied(ledger.attempt("alice", number, 1), ok=False)
    ledger.failed(ledger.attempt("alice", number, 2))
    ledger.attempt("alice", number, 3)
    found = account(ledger)
    assert (found.sent, found.answered, found.refused, found.failed, found.unanswered) == (3, 0, 1, 1, 1)


def test_accounts_add_up_field_by_field() -> None:
    assert Account(sent=1, lost=2) + Account(sent=3, doubled=4) == Account(sent=4, lost=2, doubled=4)
