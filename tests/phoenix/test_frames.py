"""The frame and the names around it."""

from __future__ import annotations

import gc

import pytest

from layr8_actors.phoenix import HEARTBEAT, PHX_CLOSE, PHX_ERROR, PHX_JOIN, PHX_LEAVE, PHX_REPLY, RESERVED_EVENTS, Frame


def test_a_frame_is_immutable_and_equal_by_its_fields() -> None:
    frame = Frame("1", "2", "t", "e", {"a": 1})
    assert frame == Frame("1", "2", "t", "e", {"a": 1})
    assert frame != Frame("1", "3", "t", "e", {"a": 1})
    with pytest.raises(AttributeError):
        frame.topic = "other"  # type: ignore[misc]


def test_a_frame_costs_the_garbage_collector_nothing() -> None:
    assert not gc.is_tracked(Frame("1", "2", "t", "e", {"a": 1}))


def test_reserved_events_are_those_that_steer_a_channel() -> None:
    assert {PHX_JOIN, PHX_LEAVE, PHX_REPLY, PHX_ERROR, PHX_CLOSE} == RESERVED_EVENTS
    assert HEARTBEAT not in RESERVED_EVENTS
