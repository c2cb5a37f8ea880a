"""The table of rules is complete, true and up to date."""

from __future__ import annotations

import pytest

from tests.otp.rules import CASES, NOTES, PAGE, ids_of, page, proofs, rules

COUNTS = {"S": 7, "B": 10, "R": 8, "T": 12, "I": 10, "E": 6, "F": 7, "D": 12, "A": 5, "M": 10, "G": 21, "L": 4}
COUNTS |= {"N": 3, "K": 11, "O": 5}


def test_the_page_is_what_the_tests_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.otp.rules"


def test_no_row_is_missing_or_made_up() -> None:
    every = {f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)} - {"T8"}
    assert set(rules()) == every
    assert len(every) == 130
    assert set(NOTES) <= every


def test_every_row_and_every_case_has_a_test() -> None:
    found = proofs()
    assert [id for id in (*rules(), *CASES) if id not in found] == []


def test_no_test_names_a_row_that_does_not_exist() -> None:
    assert set(proofs()) - set(rules()) - set(CASES) == set()


@pytest.mark.parametrize(
    ("name", "ids"),
    [("test_I1_I2_it_is", ["I1", "I2"]), ("test_K10_x", ["K10"]), ("test_it_is_I1", []), ("test_R7", ["R7"])],
)
def test_the_ids_are_those_at_the_beginning(name: str, ids: list[str]) -> None:
    assert list(ids_of(name)) == ids
