"""Any frames and any acts of ours in any order into the topic's state machine: it never raises, and never lies.

Each step is one byte for what happens, and for a frame four more, which pick its fields from small tables: a byte is
worth a whole choice then, and most sequences get somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layr8_actors.errors import LocalProtocolError
from layr8_actors.phoenix import (
    Frame,
    FrameIgnored,
    JoinSucceeded,
    MessageReceived,
    Ref,
    Topic,
    TopicEvent,
    TopicStatus,
)

__all__ = ("check",)

_NAME = "plugins:did:web:node.test:alice"
_ALIAS = "plugins:did:web:node.test:other"
_TOPICS: tuple[str | int, ...] = (_NAME, _NAME, _NAME, _ALIAS, "phoenix", "", 7)
_EVENTS = ("phx_reply", "phx_reply", "phx_reply", "message", "phx_close", "phx_error", "phx_join", "phx_leave", "x", "")
_PAYLOADS: tuple[Any, ...] = (
    {"status": "ok", "response": {}},
    {"status": "ok", "response": {"did": "did:web:node.test:alice", "capabilities": ["reply_protocol/1"]}},
    {"status": "ok", "response": {"did": ""}},
    {"status": "ok", "response": {"did": 7}},
    {"status": "ok", "response": {"capabilities": [7]}},
    {"status": "ok", "response": b"bytes"},
    {"status": "ok"},
    {"status": "error", "response": {"reason": "unmatched topic"}},
    {"status": "error", "response": {"reason": 7}},
    {"status": "error", "response": None},
    {"status": "maybe", "response": {}},
    {"status": 7},
    {},
    [],
    None,
    "text",
    7,
    b"bytes",
)
_IN_FORCE = (TopicStatus.JOINING, TopicStatus.JOINED, TopicStatus.LEAVING)


def check(data: bytes) -> None:
    """Play one sequence."""
    topic = Topic(_NAME)
    refs = [0]
    steps = iter(data)
    for step in steps:
        before = (topic.status, topic.join_ref)
        if step < 6:
            _act(topic, step, refs, before)
        else:
            a, b, c, d = (next(steps, 0) for _ in range(4))
            frame = Frame(
                _ref(a, refs, topic),
                _ref(b, refs, topic),
                _TOPICS[c % len(_TOPICS)],
                _EVENTS[c // 16 % len(_EVENTS)],
                _PAYLOADS[d % len(_PAYLOADS)],
            )
            _assert_truthful(topic.receive(frame), frame, before, topic)
        assert (topic.join_ref is not None) == (topic.status in _IN_FORCE)


def _next(refs: list[int]) -> str:
    refs[0] += 1
    return str(refs[0])


def _ref(byte: int, refs: list[int], topic: Topic) -> Ref:
    """A ref that may hit: the join in force, a recent one, one of the future, or none at all."""
    choices: tuple[Ref, ...] = (
        topic.join_ref,
        str(refs[0]),
        str(refs[0] - 1),
        None,
        "",
        str(refs[0] + 5),
        refs[0],
        "x",
    )
    return choices[byte % len(choices)]


def _act(topic: Topic, step: int, refs: list[int], before: tuple[TopicStatus, str | None]) -> None:
    acts: tuple[Callable[[], object], ...] = (
        lambda: topic.join(_next(refs), {}),
        lambda: topic.leave(_next(refs)),
        lambda: topic.push(_next(refs), "message", {}),
        lambda: topic.join_timed_out(_next(refs)),
        topic.disconnected,
        lambda: topic.accept_alias(_ALIAS),
    )
    try:
        acts[step]()
    except LocalProtocolError:
        assert (topic.status, topic.join_ref) == before, "a refused act changed the state"


def _assert_truthful(event: TopicEvent, frame: Frame, before: tuple[TopicStatus, str | None], topic: Topic) -> None:
    status, join_ref = before
    now = (topic.status, topic.join_ref)
    if isinstance(event, FrameIgnored):
        assert now == before, "an ignored frame changed the state"
        return
    assert join_ref is not None, "a frame counted though no join was in force"
    assert frame.topic in (_NAME, _ALIAS)
    assert frame.join_ref in (None, "", join_ref), "a frame of another join counted"
    if isinstance(event, MessageReceived):
        assert now == before
        assert event.event not in ("phx_reply", "phx_close", "phx_error", "phx_join", "phx_leave")
    if isinstance(event, JoinSucceeded):
        assert status is TopicStatus.JOINING
        assert frame.ref == join_ref
        assert now == (TopicStatus.JOINED, join_ref)
        did = event.response.get("did", "absent")
        assert isinstance(did, str)
        assert did
    elif topic.status is TopicStatus.JOINED:
        assert status is TopicStatus.JOINED, "joined without an answer to the join"
