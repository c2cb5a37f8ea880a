"""What a real Phoenix said, replayed: every frame is read and written as recorded, and topics tell what happened.

``transcripts/README.md`` says what the files are.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from layr8_actors.errors import LocalProtocolError, MalformedFrame
from layr8_actors.phoenix import (
    PHX_JOIN,
    PHX_LEAVE,
    PHX_REPLY,
    RESERVED_EVENTS,
    Frame,
    FrameIgnored,
    Heartbeat,
    JoinRefused,
    JoinSucceeded,
    LeaveSucceeded,
    MessageReceived,
    ReplyReceived,
    Serializer,
    Topic,
    TopicClosed,
    TopicErrored,
    TopicEvent,
    TopicStatus,
    TopicUnmatched,
)

FOLDER = pathlib.Path(__file__).with_name("transcripts")
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.jsonl"))
SERIALIZER = Serializer()

NO_FRAME_OF_OURS = {
    "array_of_4": "sent cut short on purpose",
    "array_of_6": "sent with a sixth element on purpose; we write five",
    "binary_bad_kind": "sent as a reply on purpose, which only a server may send",
    "binary_empty": "sent empty on purpose",
    "binary_truncated": "sent cut short on purpose",
    "empty_text": "sent empty on purpose",
    "http_vsn_missing": "connection B speaks V1 on purpose: its frames are objects",
    "json_object": "sent as a V1 object on purpose",
    "malformed_json": "sent as no JSON on purpose",
    "text_not_utf8": "sent as no UTF-8 on purpose",
}
"""Scenarios with client messages that are no frames, or not the frames that we would write, and why."""

NO_FRAME_OF_V2 = {"http_vsn_missing": 4}
"""How many server messages are no V2 frames: without a vsn Phoenix answers in V1 objects."""


@dataclasses.dataclass(frozen=True)
class Message:
    """One recorded WebSocket message; ``data`` is None where a text message was not UTF-8."""

    conn: str
    ours: bool
    data: str | bytes | None


def messages(name: str) -> Iterator[Message]:
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["dir"] in ("c2s", "s2c"):
            if "text" in entry:
                data: str | bytes | None = entry["text"]
            else:
                data = None if entry.get("opcode") == "text" else bytes.fromhex(entry["hex"])
            yield Message(entry["conn"], entry["dir"] == "c2s", data)


def closes(name: str) -> list[int]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["code"] for entry in map(json.loads, lines) if entry["dir"] == "close"]


def frame_of(message: Message) -> Frame | None:
    """The frame in a message, or None where it is none."""
    if message.data is None:
        return None
    try:
        if message.ours and isinstance(message.data, bytes):
            return SERIALIZER.decode_push(message.data)
        return SERIALIZER.decode(message.data)
    except MalformedFrame:
        return None


# --- the serializer ---------------------------------------------------------------------------------------------------


def test_the_transcripts_are_here() -> None:
    assert len(NAMES) > 100
    assert sum(len(list(messages(name))) for name in NAMES) > 700


@pytest.mark.parametrize("name", NAMES)
def test_every_server_frame_is_read_as_sent_and_could_be_written_back(name: str) -> None:
    refused = 0
    for message in messages(name):
        if message.ours:
            continue
        assert message.data is not None
        try:
            frame = SERIALIZER.decode(message.data)
        except MalformedFrame as error:
            refused += "an object is a V1 frame" in str(error)
            continue
        if isinstance(message.data, str):
            recorded = json.loads(message.data)
            assert [frame.join_ref, frame.ref, frame.topic, frame.event, frame.payload] == recorded
            assert json.loads(SERIALIZER.encode(frame)) == recorded
        else:
            encode = (SERIALIZER.encode_server_push, SERIALIZER.encode_reply, SERIALIZER.encode_broadcast)
            assert encode[message.data[0]](frame) == message.data
    assert refused == NO_FRAME_OF_V2.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_client_frame_of_ours_is_written_as_it_was_sent(name: str) -> None:
    others = []
    for message in messages(name):
        if not message.ours:
            continue
        frame = frame_of(message)
        if frame is None:
            others.append(message)
        elif isinstance(message.data, bytes):
            assert SERIALIZER.encode_push(frame) == message.data
        else:
            assert message.data is not None
            if json.loads(SERIALIZER.encode(frame)) != json.loads(message.data):
                others.append(message)
    assert bool(others) == (name in NO_FRAME_OF_OURS), NO_FRAME_OF_OURS.get(name)


def test_what_phoenix_closes_a_socket_for_is_what_we_refuse_too() -> None:
    for name in NO_FRAME_OF_OURS:
        if name != "array_of_6":
            assert set(closes(name)) <= {1007, 1011, 1000}
            assert any(frame_of(message) is None for message in messages(name) if message.ours)
    # The one exception in both: elements beyond the fifth are dropped.
    assert closes("array_of_6") == [1000]
    assert Frame("1", "2", "plugins:did:web:node.test:alice", "echo", {"x": 1}) in map(frame_of, messages("array_of_6"))


# --- topics -----------------------------------------------------------------------------------------------------------


class Replay:
    """A client of topics driven by a transcript: it sends what the recorded client sent, where its rules allow that.

    ``events`` holds what each topic told, under (connection, topic); frames foreign to a topic are left out.
    ``withheld`` holds the recorded frames that our topics would not send.
    """

    def __init__(self, name: str) -> None:
        self.topics: dict[tuple[str, str], Topic] = {}
        self.events: dict[tuple[str, str], list[TopicEvent]] = collections.defaultdict(list)
        self.withheld: list[Frame] = []
        # Beside each frame the join in force when it came.
        self.received: dict[tuple[str, str], list[tuple[Frame, str | None]]] = collections.defaultdict(list)
        for message in messages(name):
            frame = frame_of(message)
            if frame is None:
                continue
            if message.ours:
                if not self.send(message.conn, frame):
                    self.withheld.append(frame)
            else:
                self.receive(message.conn, frame)

    def send(self, conn: str, frame: Frame) -> bool:
        """Send through the topic; False where it would send another frame, or none."""
        if frame.topic == "phoenix" and isinstance(frame.ref, str):
            return Heartbeat(30.0, 30.0, 0.0).frame(frame.ref) == frame
        if not isinstance(frame.topic, str) or not isinstance(frame.ref, str):
            return False
        topic = self.topics.setdefault((conn, frame.topic), Topic(frame.topic))
        if frame.event == PHX_JOIN:
            return topic.join(frame.ref, frame.payload) == frame
        if frame.join_ref != topic.join_ref:
            return False  # Every frame of ours carries the join_ref in force.
        try:
            if frame.event == PHX_LEAVE:
                return topic.leave(frame.ref) == frame
            return topic.push(frame.ref, frame.event, frame.payload) == frame
        except LocalProtocolError:
            return False

    def receive(self, conn: str, frame: Frame) -> None:
        for (other, name), topic in self.topics.items():
            if other != conn:
                continue
            before = topic.status, topic.join_ref
            event = topic.receive(frame)
            if name != frame.topic:
                assert event == FrameIgnored("foreign topic")
                assert (topic.status, topic.join_ref) == before
                continue
            assert (topic.join_ref is None) == (topic.status in (TopicStatus.CLOSED, TopicStatus.ERRORED))
            if isinstance(event, FrameIgnored):
                assert (topic.status, topic.join_ref) == before
            self.received[conn, name].append((frame, before[1]))
            self.events[conn, name].append(event)


ALICE = "plugins:did:web:node.test:alice"
BOB = "plugins:did:web:node.test:bob"
STALE = FrameIgnored("stale join_ref")
NOT_JOINED = FrameIgnored("not joined")


def joined(join_ref: str, did: str = "did:web:node.test:alice") -> JoinSucceeded:
    return JoinSucceeded(join_ref, {"did": did, "capabilities": ["reply_protocol/1", "ephemeral_delegation/1"]})


def refused(join_ref: str, reason: str) -> JoinRefused:
    return JoinRefused(join_ref, reason, {"reason": reason})


def ok(ref: str, response: Any) -> ReplyReceived:
    return ReplyReceived(ref, "ok", "", response)


def echoed(ref: str, payload: Any) -> ReplyReceived:
    return ok(ref, {"echo": payload})


def message(plaintext: Any) -> MessageReceived:
    context = {"authorized": True, "recipient": "did:web:node.test:alice", "sender_credentials": []}
    return MessageReceived("message", {"context": context, "plaintext": plaintext})


CLOSED, JOINED, ERRORED = TopicStatus.CLOSED, TopicStatus.JOINED, TopicStatus.ERRORED
CRASH = {"reason": "channel_crash"}
PAYLOAD_TYPES_MISSING = "e.join.plugin.payload-types-missing"

EXPECTED: dict[str, tuple[list[TopicEvent], TopicStatus]] = {
    # The answer to the new join comes first, then the close of the old one, which must not end the new one.
    "duplicate_join": (
        [joined("1"), echoed("2", {"n": "old"}), joined("3"), STALE, echoed("4", {"n": "new"})],
        JOINED,
    ),
    "duplicate_join_loses_pending_reply": ([joined("1"), joined("3"), STALE], JOINED),
    # Phoenix 1.7 lets the new channel handle the push of the old join; both answers carry the new join_ref.
    "duplicate_join_pipelined": (
        [joined("1"), joined("4"), STALE, echoed("5", {"stale": True}), echoed("6", {"stale": False})],
        JOINED,
    ),
    # Three late pushes and a late reply of the old join, before the answer to the new one.
    "variants/phoenix-1.8.11-bandit/duplicate_join_pipelined": (
        [joined("1"), STALE, STALE, STALE, STALE, joined("4"), STALE, echoed("6", {"stale": False})],
        JOINED,
    ),
    # The old channel is closed all the same; the answer to a push that went there is nobody's.
    "duplicate_join_rejected": ([joined("1"), refused("2", PAYLOAD_TYPES_MISSING), STALE, NOT_JOINED], ERRORED),
    "join_rejected": ([refused("1", PAYLOAD_TYPES_MISSING), joined("2")], JOINED),
    "join_null_payload": ([refused("1", PAYLOAD_TYPES_MISSING)], ERRORED),
    "join_crash": ([refused("1", "join crashed")], ERRORED),
    "leave_right_join_ref": ([joined("1"), LeaveSucceeded("2"), STALE, NOT_JOINED], CLOSED),
    # The leave's own answer is lost in one recording, and comes first in the other.
    "leave_join_pipelined": ([joined("1"), joined("3"), STALE, echoed("4", {"x": 1})], JOINED),
    "variants/phoenix-1.8.12-bandit/leave_join_pipelined": (
        [joined("1"), STALE, STALE, joined("3"), echoed("4", {"x": 1})],
        JOINED,
    ),
    # A leave that was never joined, or with another join_ref than the one in force, is none that we would send.
    "leave_not_joined": ([STALE], CLOSED),
    "leave_null_join_ref": ([joined("1"), echoed("3", {})], JOINED),
    "leave_stale_join_ref": ([joined("1"), echoed("3", {})], JOINED),
    "crash_rejoin": (
        [joined("1"), TopicErrored("1", {}), NOT_JOINED, joined("4"), echoed("5", {"back": True})],
        JOINED,
    ),
    "variants/phoenix-1.8.12-bandit/crash_rejoin": (
        [joined("1"), TopicErrored("1", CRASH), NOT_JOINED, joined("4"), echoed("5", {"back": True})],
        JOINED,
    ),
    # The push in flight is never answered: all there is, is the error.
    "crash_with_inflight": ([joined("1"), TopicErrored("1", {})], ERRORED),
    "variants/phoenix-1.8.11-bandit/crash_with_inflight": ([joined("1"), TopicErrored("1", CRASH)], ERRORED),
    "push_unknown_event": ([joined("1"), TopicErrored("1", {}), NOT_JOINED], ERRORED),
    "stop_close": ([joined("1"), TopicClosed("1"), NOT_JOINED], CLOSED),
    "stop_with_reply": ([joined("1"), ok("2", {"bye": True}), TopicClosed("1")], CLOSED),
    "stop_shutdown": ([joined("1"), TopicClosed("1")], CLOSED),
    "stop_abnormal": ([joined("1"), TopicErrored("1", {})], ERRORED),
    "variants/phoenix-1.8.12-bandit/stop_abnormal": ([joined("1"), TopicErrored("1", CRASH)], ERRORED),
    "channel_killed": ([joined("1"), TopicErrored("1", {})], ERRORED),
    "variants/phoenix-1.8.12-bandit/channel_killed": ([joined("1"), TopicErrored("1", CRASH)], ERRORED),
    # Answers to pushes on a topic that we never joined: we send none such, and none is for us.
    "push_unjoined_topic": ([NOT_JOINED, NOT_JOINED], CLOSED),
    "broadcast_null_join_ref": ([joined("1"), MessageReceived("announcement", {"hello": "all"}), ok("2", {})], JOINED),
    # Phoenix 1.7 answers a push of another join under the join_ref in force; later versions drop it.
    "push_stale_join_ref": ([joined("1"), echoed("2", {"x": 1})], JOINED),
    "variants/phoenix-1.8.12-bandit/push_stale_join_ref": ([joined("1")], JOINED),
    "push_null_ref": ([joined("1"), FrameIgnored("unexpected")], JOINED),
    "push_before_reply": ([joined("1"), message({"id": "pushed-before-reply"}), ok("2", {})], JOINED),
    "push_pipelined_with_join": ([joined("1"), echoed("2", {"x": 1})], JOINED),
    "push_same_ref_twice": ([joined("1"), echoed("2", {"n": 1}), echoed("2", {"n": 2})], JOINED),
    "reply_twice": ([joined("1"), ok("2", {"first": True}), ok("2", {"first": False})], JOINED),
    "reply_other_status": (
        [joined("1"), ReplyReceived("2", "accepted", "", {"status_was": "accepted"}), ok("3", {})],
        JOINED,
    ),
    "replies_out_of_order": (
        [joined("1"), echoed("4", {"tag": "c"}), ok("3", {"late": "b"}), ok("2", {"late": "a"})],
        JOINED,
    ),
    "mute": ([joined("1"), LeaveSucceeded("5"), STALE], CLOSED),
    "binary_push_reply": (
        [
            joined("1"),
            ok("2", bytes(range(16))),
            ok("3", bytes(range(32))),
            ReplyReceived("4", "error", "", bytes(range(4))),
            ok("5", b""),
        ],
        JOINED,
    ),
    "binary_server_push_broadcast": (
        [joined("1"), MessageReceived("blob", bytes(range(8))), MessageReceived("blob", bytes(range(8)))],
        JOINED,
    ),
    "binary_push_empty_join_ref": ([joined("1"), ok("2", b"\x01\x02")], JOINED),
    "variants/phoenix-1.8.12-bandit/binary_push_empty_join_ref": ([joined("1")], JOINED),
    # Integers come back as integers, which no ref of ours equals.
    "join_integer_refs": ([STALE, STALE, STALE, STALE], CLOSED),
    "topic_not_string": ([joined("1")], JOINED),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_topic_tells_what_the_transcript_shows(name: str) -> None:
    replay = Replay(name)
    events, status = EXPECTED[name]
    assert replay.events.get(("A", ALICE), []) == events
    assert replay.topics.get(("A", ALICE), Topic(ALICE)).status is status


def test_a_join_of_an_unknown_topic_is_refused_though_its_answer_names_no_join() -> None:
    replay = Replay("join_unknown_topic")
    assert replay.events == {("A", "nosuch:topic"): [refused("1", "unmatched topic")]}
    assert replay.topics["A", "nosuch:topic"].status is ERRORED


@pytest.mark.parametrize(
    ("name", "payload"),
    [("two_topics_one_socket", {}), ("variants/phoenix-1.8.12-bandit/two_topics_one_socket", CRASH)],
)
def test_the_crash_of_one_topic_leaves_the_other_alone(name: str, payload: Any) -> None:
    replay = Replay(name)
    assert replay.events == {
        ("A", ALICE): [joined("1"), TopicErrored("1", payload)],
        ("A", BOB): [joined("2", "did:web:node.test:bob"), echoed("4", {"alive": True})],
    }
    assert replay.topics["A", ALICE].status is ERRORED
    assert replay.topics["A", BOB].status is JOINED


def test_each_of_two_sockets_has_the_topic_for_itself() -> None:
    replay = Replay("same_topic_two_sockets")
    for conn in "AB":
        events = replay.events[conn, ALICE]
        assert events[0] == joined("1")
        assert MessageReceived("announcement", {"hello": "both"}) in events
        assert sum(isinstance(event, MessageReceived) for event in events) == 2


def test_a_topic_without_a_did_keeps_its_name_and_is_told_its_did() -> None:
    replay = Replay("join_ephemeral_did")
    answer, reply = replay.events["A", "plugins:"]
    assert isinstance(answer, JoinSucceeded)
    assert answer.response["did"].startswith("did:web:node.test:")
    assert reply == echoed("2", {"x": 1})


def test_the_hundred_and_first_topic_of_a_socket_is_refused() -> None:
    replay = Replay("max_channels")
    last = [events[-1] for events in replay.events.values()]
    assert len(last) == 101
    assert sum(isinstance(event, JoinSucceeded) for event in last) == 100
    assert refused("101", "too many channels joined") in last


@pytest.mark.parametrize("name", ["crash_rejoin", "stop_close", "push_unjoined_topic", "leave_right_join_ref"])
def test_unmatched_topic_ends_a_topic_that_missed_its_own_end(name: str) -> None:
    """The recorded answer, given to a topic that never got the frame that ended it."""
    frames = filter(None, (frame_of(message) for message in messages(name) if not message.ours))
    answer = next(frame for frame in frames if frame.payload.get("response") == {"reason": "unmatched topic"})
    assert isinstance(answer.topic, str)
    topic = Topic(answer.topic)
    topic.join("0", {})
    topic.receive(Frame("0", "0", answer.topic, PHX_REPLY, {"status": "ok", "response": {}}))
    assert topic.receive(answer) == TopicUnmatched(str(answer.ref))
    assert topic.status is ERRORED


WITHHELD = {
    "crash_rejoin": "a push on a topic that is gone",
    "duplicate_join_pipelined": "a push with the join_ref of before, and one ahead of the answer to its join",
    "duplicate_join_rejected": "a push on a topic that was refused",
    "heartbeat": "heartbeats with a join_ref and a payload, and without a ref",
    "join_integer_refs": "refs that are integers",
    "join_null_join_ref": "a join without a join_ref, and frames of other joins",
    "join_null_then_server_join_ref": "a join without a join_ref",
    "leave_not_joined": "a leave of what is not joined",
    "leave_null_join_ref": "a leave without a join_ref",
    "leave_right_join_ref": "a push on a topic that was left",
    "leave_stale_join_ref": "a leave of another join",
    "binary_push_empty_join_ref": "a push without a join_ref",
    "phoenix_topic_other_event": "events other than heartbeats on topic phoenix",
    "push_null_join_ref": "a push without a join_ref",
    "push_null_ref": "a push without a ref",
    "push_pipelined_with_join": "a push ahead of the answer to its join",
    "push_reserved_events": "pushes of Phoenix' own events",
    "push_stale_join_ref": "a push of another join",
    "push_unjoined_topic": "pushes on a topic that is not joined",
    "push_unknown_event": "a push on a topic that is gone",
    "stop_close": "a push on a topic that is gone",
    "topic_not_string": "a topic that is a number",
}
"""The scenarios with frames that our topics refuse to send, and which."""


@pytest.mark.parametrize("name", NAMES)
def test_whatever_phoenix_says_each_frame_is_told_once_and_as_it_came(name: str) -> None:
    """For every transcript: replies, messages and ends of the join in force reach us, in order; nothing else does."""
    replay = Replay(name)
    assert bool(replay.withheld) == (name.rsplit("/", maxsplit=1)[-1] in WITHHELD), replay.withheld
    for key, frames in replay.received.items():
        told = replay.events[key]
        assert len(told) == len(frames)
        for (frame, in_force), event in zip(frames, told, strict=True):
            stale = in_force is None or frame.join_ref not in (None, in_force)
            # What follows from pushes and joins of the bare client that had no ref: a reply to none, an end of no join.
            nameless = frame.event in RESERVED_EVENTS and frame.ref is None
            assert isinstance(event, FrameIgnored) == (stale or nameless)
            response = frame.payload.get("response") if frame.event == PHX_REPLY else None
            match event:
                case JoinSucceeded(join_ref, said) | JoinRefused(join_ref, _, said):
                    assert (frame.event, frame.ref, response) == (PHX_REPLY, join_ref, said)
                case ReplyReceived(ref, status, _, said):
                    assert (frame.event, frame.ref, frame.payload["status"], response) == (PHX_REPLY, ref, status, said)
                case MessageReceived(sent, payload):
                    assert frame.event not in RESERVED_EVENTS
                    assert (frame.event, frame.payload) == (sent, payload)
                case LeaveSucceeded(ref):
                    assert (frame.event, frame.ref) == (PHX_REPLY, ref)
                case TopicClosed(join_ref):
                    assert (frame.event, frame.join_ref) == ("phx_close", join_ref)
                case TopicErrored(join_ref):
                    assert (frame.event, frame.join_ref) == ("phx_error", join_ref)
                case _:
                    assert isinstance(event, FrameIgnored)
