"""Backoff arithmetic (rows K1 to K3) and its check against the window (row K9)."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from layr8_actors.errors import InvalidOption
from layr8_actors.otp import Backoff, Supervisor


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.delay(attempt, Random(1)) for attempt in range(count)]


def test_K1_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    assert delays(Backoff(initial=3, maximum=30, factor=2, jitter=0), 6) == [3, 6, 12, 24, 30, 30]


def test_K1_a_huge_attempt_does_not_overflow() -> None:
    assert Backoff(jitter=0).delay(10**9, Random()) == 30
    assert Backoff(factor=1, jitter=0).delay(10**9, Random()) == 1
    assert Backoff(factor=1e308, maximum=1e308, jitter=0).delay(10**6, Random()) == 1e308


def test_K3_first_delay_comes_before_the_row() -> None:
    assert delays(Backoff(first_delay=0.0, jitter=0), 4) == [0, 1, 2, 4]


@given(
    attempt=st.integers(0, 2000),
    initial=st.floats(0.001, 10),
    span=st.floats(1, 1000),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_K2_jitter_only_ever_shortens(
    attempt: int, initial: float, span: float, factor: float, jitter: float, seed: int
) -> None:
    backoff = Backoff(initial=initial, maximum=initial * span, factor=factor, jitter=jitter)
    delay, longest = backoff.delay(attempt, Random(seed)), backoff.longest_delay(attempt)
    assert longest * (1 - jitter) <= delay <= longest <= backoff.maximum
    assert longest <= backoff.longest_delay(attempt + 1)


def test_K2_a_herd_is_spread_at_the_cap_too() -> None:
    random = Random(7)
    waits = [Backoff().delay(100, random) for _ in range(200)]
    assert max(waits) <= 30
    assert min(waits) >= 15
    assert len(set(waits)) == 200


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("initial", 0),
        ("initial", math.inf),
        ("maximum", 0.5),
        ("factor", 0.9),
        ("factor", math.inf),
        ("factor", True),
        ("jitter", 1.1),
        ("jitter", "0"),
        ("reset_after", -1),
        ("first_delay", math.nan),
    ],
)
def test_S2_a_bad_backoff_is_refused(option: str, value: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        options: dict[str, Any] = {option: value}
        Backoff(**options)
    assert caught.value.option == option


def test_K9_a_window_that_can_never_fill_needs_a_word() -> None:
    slow = Backoff(initial=1, jitter=0)
    with pytest.raises(InvalidOption, match="max_seconds"):
        Supervisor(backoff=slow, max_restarts=3, max_seconds=7)
    Supervisor(backoff=slow, max_restarts=3, max_seconds=7.001)
    Supervisor(backoff=slow, max_restarts=3, max_seconds=7, give_up_never=True)
    Supervisor(backoff=slow, max_restarts=0, max_seconds=0.1)
    Supervisor(backoff=Backoff(initial=1, first_delay=0.0), max_restarts=3, max_seconds=3.001)
