"""Refs count like phoenix.js."""

from __future__ import annotations

from layr8_actors.phoenix import Refs


def test_refs_are_decimal_strings_from_one_and_never_repeat() -> None:
    refs = Refs()
    assert [refs.next() for _ in range(12)] == [str(number) for number in range(1, 13)]


def test_each_socket_counts_for_itself() -> None:
    first, second = Refs(), Refs()
    first.next()
    assert second.next() == "1"
