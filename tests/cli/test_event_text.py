"""Events in plain words: one line each, and nothing that the node could use to write over the screen."""

from __future__ import annotations

from typing import Any

import pytest

from layr8_actors.channel.events import (
    AttemptFailed,
    CallbackFailed,
    FrameIgnored,
    LinkLost,
    MessageInterrupted,
    TopicJoined,
)
from layr8_actors.cli.event_text import event_text
from layr8_actors.errors import JoinRejected, TransportClosed
from layr8_actors.otp import ExitKind, ExitReason, Restart
from layr8_actors.otp.events import ChildExited, ChildRestarted, ChildStarted, RestartScheduled
from layr8_actors.telemetry import Event

TOPIC = "plugins:did:web:a"
CHILD: dict[str, Any] = {"at": 0.0, "path": "channel", "id": "router", "incarnation": 2, "restart": Restart.PERMANENT}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            LinkLost(at=0.0, topic=TOPIC, link=3, error=TransportClosed(1012), discarded=0),
            "socket 3 is lost: the connection was closed with code 1012",
        ),
        (
            TopicJoined(
                at=0.0, topic=TOPIC, link=1, join_ref="1", assigned_did="did:web:a", capabilities=(), rejoin=True
            ),
            "joined again as did:web:a on socket 1",
        ),
        (
            AttemptFailed(at=0.0, topic=TOPIC, attempt=2, error=JoinRejected("gone\x1b[2J\n", False), retry_in=1.5),
            "attempt 2 failed: the node refused the join: gone\\x1b[2J\\n (it may pass, try again); again in 1.5 s",
        ),
        (
            CallbackFailed(at=0.0, topic=TOPIC, callback="on_message", error=KeyError("x")),
            "on_message raised KeyError('x'); the next message is delivered",
        ),
        (FrameIgnored(at=0.0, topic=TOPIC, link=1, why="stale join_ref", count=1), None),
        (ChildStarted(**CHILD), None),
        (ChildRestarted(**CHILD), "router is restarted, incarnation 2"),
        (RestartScheduled(**CHILD, delay=0.0, attempt=0, group=("router",)), None),
        (RestartScheduled(**CHILD, delay=1.0, attempt=1, group=("router",)), "router is restarted in 1.0 s"),
        (
            ChildExited(
                **CHILD,
                reason=ExitReason(ExitKind.ERROR, ValueError("bug")),
                restarts_used=1,
                restarts_allowed=3,
                uptime=1.0,
            ),
            "router crashed (error: ValueError('bug')); 1 of 3 restarts used",
        ),
    ],
)
def test_an_event_is_one_printable_line_or_none(event: Event, text: str | None) -> None:
    assert event_text(event) == text


def test_the_payload_of_an_interrupted_message_is_not_shown() -> None:
    text = event_text(MessageInterrupted(at=0.0, topic=TOPIC, payload={"secret": "body"}))
    assert text is not None
    assert "body" not in text
