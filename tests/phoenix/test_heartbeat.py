"""The heartbeat's state, with time as an argument."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies as st

from layr8_actors.errors import InvalidOption, LocalProtocolError
from layr8_actors.phoenix import Frame, Heartbeat


def beating(*, interval: float = 30.0, timeout: float = 20.0) -> Heartbeat:
    """A heartbeat opened at 100 whose first beat, ref 1, went out on time at 130."""
    heartbeat = Heartbeat(interval, timeout, 100.0)
    heartbeat.sent("1", 100.0 + interval)
    return heartbeat


def test_the_first_beat_is_due_one_interval_after_opening() -> None:
    heartbeat = Heartbeat(30.0, 20.0, 100.0)
    assert heartbeat.next_deadline == 130.0
    assert not heartbeat.due(129.999)
    assert heartbeat.due(130.0)
    assert heartbeat.due(500.0)
    assert not heartbeat.expired(500.0)
    assert heartbeat.pending is None


def test_a_beat_goes_to_the_phoenix_topic_without_a_join_ref() -> None:
    assert Heartbeat(30.0, 20.0, 0.0).frame("7") == Frame(None, "7", "phoenix", "heartbeat", {})


def test_no_beat_is_due_while_one_is_unanswered() -> None:
    heartbeat = beating(interval=5.0, timeout=60.0)
    assert heartbeat.pending == "1"
    assert not heartbeat.due(120.0)
    assert heartbeat.next_deadline == 165.0
    with pytest.raises(LocalProtocolError, match="waits for its reply already"):
        heartbeat.sent("2", 120.0)
    assert heartbeat.pending == "1"


def test_its_own_reply_gives_the_round_trip_and_sets_the_next_beat_an_interval_later() -> None:
    heartbeat = beating()
    assert heartbeat.replied("1", 130.5) == 0.5
    assert heartbeat.pending is None
    assert heartbeat.next_deadline == 160.5
    assert not heartbeat.expired(1000.0)
    assert heartbeat.due(160.5)


@pytest.mark.parametrize("ref", ["2", "01", 1, None, ""])
def test_any_other_reply_counts_for_nothing(ref: str | int | None) -> None:
    heartbeat = beating()
    assert heartbeat.replied(ref, 131.0) is None
    assert heartbeat.pending == "1"
    assert heartbeat.expired(150.0)


def test_a_second_reply_to_one_beat_counts_for_nothing() -> None:
    heartbeat = beating()
    heartbeat.replied("1", 131.0)
    assert heartbeat.replied("1", 140.0) is None
    assert heartbeat.replied(None, 140.0) is None
    assert heartbeat.next_deadline == 161.0


def test_an_unanswered_beat_expires_after_the_timeout_and_not_before() -> None:
    heartbeat = beating()
    assert heartbeat.next_deadline == 150.0
    assert not heartbeat.expired(149.999)
    assert heartbeat.expired(150.0)


def test_an_owner_that_was_held_up_gives_a_beat_its_timeout_again_but_only_once() -> None:
    heartbeat = Heartbeat(30.0, 30.0, 0.0)
    assert not heartbeat.excuse(10.0)  # nothing is pending
    heartbeat.sent("1", 30.0)
    assert heartbeat.excuse(1000.0)
    assert (heartbeat.expired(1029.9), heartbeat.expired(1030.0), heartbeat.next_deadline) == (False, True, 1030.0)
    assert not heartbeat.excuse(2000.0)
    assert heartbeat.expired(2000.0)
    assert heartbeat.replied("1", 2000.0) == 1970.0
    heartbeat.sent("2", 2030.0)
    assert heartbeat.excuse(3000.0)


def test_while_paused_the_reply_deadline_stands_still() -> None:
    heartbeat = beating()
    heartbeat.pause(140.0)
    heartbeat.pause(145.0)  # Twice changes nothing.
    assert not heartbeat.expired(1000.0)
    heartbeat.resume(1000.0)
    assert heartbeat.next_deadline == 1010.0
    assert not heartbeat.expired(1009.999)
    assert heartbeat.expired(1010.0)


def test_beats_go_on_while_paused_and_only_the_last_one_is_waited_for() -> None:
    heartbeat = Heartbeat(30.0, 20.0, 100.0)
    heartbeat.sent("1", 130.0)
    heartbeat.pause(140.0)
    assert heartbeat.next_deadline == 160.0
    assert not heartbeat.due(159.9)
    assert heartbeat.due(160.0)
    heartbeat.sent("2", 160.0)
    heartbeat.resume(170.0)
    assert heartbeat.replied("1", 170.0) is None
    assert heartbeat.next_deadline == 190.0
    assert heartbeat.replied("2", 171.0) == 11.0


def test_a_beat_sent_while_paused_has_its_whole_timeout_after_the_pause() -> None:
    heartbeat = Heartbeat(30.0, 20.0, 100.0)
    heartbeat.pause(110.0)
    assert heartbeat.next_deadline == 130.0
    assert heartbeat.due(130.0)
    heartbeat.sent("1", 130.0)
    heartbeat.resume(200.0)
    assert heartbeat.next_deadline == 220.0


def test_a_reply_read_while_paused_counts() -> None:
    heartbeat = beating()
    heartbeat.pause(131.0)
    assert heartbeat.replied("1", 180.0) == 50.0
    heartbeat.resume(200.0)
    assert heartbeat.next_deadline == 210.0
    assert not heartbeat.expired(1000.0)


def test_resume_without_a_pause_changes_nothing() -> None:
    heartbeat = beating()
    heartbeat.resume(149.0)
    assert heartbeat.expired(150.0)


def test_an_infinite_interval_sends_none() -> None:
    heartbeat = Heartbeat(math.inf, 20.0, 0.0)
    assert not heartbeat.due(1e300)
    assert heartbeat.next_deadline == math.inf


@pytest.mark.parametrize("value", [0, -1.0, math.nan, True, "30", None])
def test_a_wrong_option_is_refused_by_name_and_type(value: float) -> None:
    with pytest.raises(InvalidOption, match=f"heartbeat interval: got a value of type {type(value).__name__}"):
        Heartbeat(value, 1.0, 0.0)
    with pytest.raises(InvalidOption, match="heartbeat timeout: got a value of type"):
        Heartbeat(1.0, value, 0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["tick", "pause", "resume"]), st.integers(0, 40)), max_size=40))
def test_a_silent_peer_is_noticed_after_exactly_the_timeout_of_time_not_paused(steps: list[tuple[str, int]]) -> None:
    now, running, paused = 0.0, 0.0, False
    heartbeat = Heartbeat(30.0, 50.0, now)
    for action, seconds in steps:
        now += seconds
        if heartbeat.pending is not None and not paused:
            running += seconds
        if action == "pause":
            heartbeat.pause(now)
            paused = True
        elif action == "resume":
            heartbeat.resume(now)
            paused = False
        if heartbeat.due(now):
            heartbeat.sent("1", now)
            running = 0.0
        assert heartbeat.expired(now) == (heartbeat.pending is not None and not paused and running >= 50)
        # Whoever sleeps until next_deadline misses nothing.
        assert (heartbeat.due(now) or heartbeat.expired(now)) == (now >= heartbeat.next_deadline)
