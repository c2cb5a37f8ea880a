"""The restart window (rows I1 to I3)."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from layr8_actors.errors import InvalidOption
from layr8_actors.otp import RestartIntensity


def test_I1_a_restart_exactly_as_old_as_the_window_counts() -> None:
    intensity = RestartIntensity(1, 5.0)
    assert intensity.add(10.0)
    assert not intensity.add(15.0)


def test_I1_a_restart_older_than_the_window_does_not() -> None:
    intensity = RestartIntensity(1, 5.0)
    assert intensity.add(10.0)
    assert intensity.used(15.0) == 1
    assert intensity.used(15.000001) == 0
    assert intensity.add(15.000001)


def test_I2_n_restarts_are_permitted_and_the_next_is_not() -> None:
    intensity = RestartIntensity(3, 5.0)
    assert [intensity.add(0.0) for _ in range(4)] == [True, True, True, False]


def test_I2_zero_permits_none() -> None:
    assert not RestartIntensity(0, 5.0).add(0.0)


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.7, 0.999])
def test_I3_the_window_does_not_depend_on_the_phase_of_the_clock(phase: float) -> None:
    intensity = RestartIntensity(1, 1.0)
    assert intensity.add(100 + phase)
    assert intensity.add(101.5 + phase)


@given(limit=st.integers(0, 5), period=st.floats(0.1, 10), gaps=st.lists(st.floats(0, 5), max_size=40))
def test_I1_it_agrees_with_the_plain_definition(limit: int, period: float, gaps: list[float]) -> None:
    intensity = RestartIntensity(limit, period)
    now = 0.0
    stamps: list[float] = []
    for gap in gaps:
        now += gap
        stamps = [stamp for stamp in stamps if now - stamp <= period] + [now]
        assert intensity.add(now) == (len(stamps) <= limit)


@pytest.mark.parametrize("limit", [-1, 1.0, True])
def test_S2_a_bad_limit_is_refused(limit: int) -> None:
    with pytest.raises(InvalidOption):
        RestartIntensity(limit, 1.0)
