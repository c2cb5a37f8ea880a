"""The client's side of one topic, transition by transition."""

from __future__ import annotations

from typing import Any

import pytest

from layr8_actors.errors import LocalProtocolError
from layr8_actors.phoenix import (
    Frame,
    FrameIgnored,
    JoinMalformed,
    JoinRefused,
    JoinSucceeded,
    LeaveSucceeded,
    MessageReceived,
    ReplyMalformed,
    ReplyReceived,
    Topic,
    TopicClosed,
    TopicErrored,
    TopicStatus,
    TopicUnmatched,
)

NAME = "plugins:alice"
STALE = FrameIgnored("stale join_ref")
NOT_JOINED = FrameIgnored("not joined")
UNEXPECTED = FrameIgnored("unexpected")
NULL_JOIN_REF = FrameIgnored("null join_ref")


def reply(join_ref: str | int | None, ref: str | int | None, status: Any = "ok", response: Any = None) -> Frame:
    payload = {"status": status, "response": {} if response is None else response}
    return Frame(join_ref, ref, NAME, "phx_reply", payload)


def unmatched(ref: str) -> Frame:
    """What Phoenix answers where it has no channel: no join_ref, whatever was sent."""
    return reply(None, ref, "error", {"reason": "unmatched topic"})


def closed() -> Topic:
    return Topic(NAME)


def joining(ref: str = "1") -> Topic:
    topic = Topic(NAME)
    topic.join(ref, {})
    return topic


def joined(ref: str = "1") -> Topic:
    topic = joining(ref)
    topic.receive(reply(ref, ref))
    assert topic.status is TopicStatus.JOINED
    return topic


def leaving() -> Topic:
    topic = joined()
    topic.leave("2")
    return topic


def errored() -> Topic:
    topic = joined()
    topic.receive(Frame("1", "1", NAME, "phx_error", {}))
    return topic


EVERY_STATE = pytest.mark.parametrize("make", [closed, joining, joined, leaving, errored])
IN_FORCE = pytest.mark.parametrize("make", [joining, joined, leaving])
NOT_IN_FORCE = pytest.mark.parametrize("make", [closed, errored])


def state(topic: Topic) -> tuple[TopicStatus, str | None]:
    return topic.status, topic.join_ref


# --- what we send -----------------------------------------------------------------------------------------------------


def test_a_topic_begins_closed_and_shows_its_state() -> None:
    topic = Topic(NAME)
    assert (topic.topic, topic.status, topic.join_ref) == (NAME, TopicStatus.CLOSED, None)
    topic.join("1", {"secret": "hunter2"})
    assert repr(topic) == "<Topic 'plugins:alice' joining join_ref='1'>"


@EVERY_STATE
def test_join_is_legal_in_every_state_and_its_ref_is_the_join_ref(make: Any) -> None:
    topic = make()
    assert topic.join("9", {"a": 1}) == Frame("9", "9", NAME, "phx_join", {"a": 1})
    assert state(topic) == (TopicStatus.JOINING, "9")
    assert topic.receive(reply("9", "9", "ok", {"did": "d"})) == JoinSucceeded("9", {"did": "d"})
    assert state(topic) == (TopicStatus.JOINED, "9")


@pytest.mark.parametrize("make", [joining, joined])
def test_leave_carries_the_join_ref(make: Any) -> None:
    topic = make()
    assert topic.leave("5") == Frame("1", "5", NAME, "phx_leave", {})
    assert state(topic) == (TopicStatus.LEAVING, "1")


@pytest.mark.parametrize("make", [closed, leaving, errored])
def test_leave_where_there_is_nothing_to_leave_is_refused(make: Any) -> None:
    topic = make()
    before = state(topic)
    with pytest.raises(LocalProtocolError, match=f"leave on a topic that is {topic.status.value}"):
        topic.leave("5")
    assert state(topic) == before


def test_a_push_carries_the_join_ref_of_the_join_in_force() -> None:
    topic = joined()
    assert topic.push("2", "message", [1]) == Frame("1", "2", NAME, "message", [1])
    topic.join("3", {})
    topic.receive(reply("3", "3"))
    assert topic.push("4", "message", b"binary") == Frame("3", "4", NAME, "message", b"binary")


@pytest.mark.parametrize("make", [closed, joining, leaving, errored])
def test_a_push_where_it_could_reach_no_channel_is_refused(make: Any) -> None:
    topic = make()
    with pytest.raises(LocalProtocolError, match=f"push on a topic that is {topic.status.value}"):
        topic.push("5", "message", {})


@pytest.mark.parametrize("event", ["phx_join", "phx_leave", "phx_reply", "phx_error", "phx_close"])
def test_a_push_of_a_reserved_event_is_refused(event: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"push of the reserved event {event}"):
        joined().push("2", event, {})


def test_a_join_that_timed_out_is_undone_by_a_leave_and_its_late_answer_is_stale() -> None:
    topic = joining()
    assert topic.join_timed_out("2") == Frame("1", "2", NAME, "phx_leave", {})
    assert state(topic) == (TopicStatus.ERRORED, None)
    late = [reply("1", "1", "ok", {"did": "d"}), reply("1", "2"), Frame("1", "1", NAME, "phx_close", {})]
    assert [topic.receive(frame) for frame in late] == [STALE, STALE, STALE]
    assert state(topic) == (TopicStatus.ERRORED, None)


@pytest.mark.parametrize("make", [closed, joined, leaving, errored])
def test_only_a_join_that_is_awaited_can_time_out(make: Any) -> None:
    topic = make()
    before = state(topic)
    with pytest.raises(LocalProtocolError, match="cannot time out"):
        topic.join_timed_out("5")
    assert state(topic) == before


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (closed, TopicStatus.CLOSED),
        (joining, TopicStatus.ERRORED),
        (joined, TopicStatus.ERRORED),
        (leaving, TopicStatus.CLOSED),
        (errored, TopicStatus.ERRORED),
    ],
)
def test_the_loss_of_the_socket_ends_every_join(make: Any, status: TopicStatus) -> None:
    topic = make()
    topic.disconnected()
    assert state(topic) == (status, None)
    assert topic.receive(reply("1", "1")) == STALE


# --- the answer to a join ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"did": "did:web:node.test:alice", "capabilities": ["reply_protocol/1"]},
        {"capabilities": []},
        {"anything": None},
    ],
)
def test_a_join_answered_ok_is_joined(response: dict[str, Any]) -> None:
    topic = joining()
    assert topic.receive(reply("1", "1", "ok", response)) == JoinSucceeded("1", response)
    assert state(topic) == (TopicStatus.JOINED, "1")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"reason": "e.join.plugin.payload-types-missing"}, "e.join.plugin.payload-types-missing"),
        ({}, ""),
        ({"reason": None}, ""),
        ({"reason": {"code": 1}}, ""),
        ([], ""),
        ("reason", ""),
        (b"\x00", ""),
    ],
)
def test_a_join_answered_with_an_error_is_refused_whatever_the_response_is(response: Any, reason: str) -> None:
    topic = joining()
    assert topic.receive(reply("1", "1", "error", response)) == JoinRefused("1", reason, response)
    assert state(topic) == (TopicStatus.ERRORED, None)


def test_a_refusal_without_a_join_ref_is_matched_by_its_ref() -> None:
    topic = joining()
    expected = JoinRefused("1", "unmatched topic", {"reason": "unmatched topic"})
    assert topic.receive(unmatched("1")) == expected


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (None, "the payload of a reply has to be an object, not NoneType"),
        ([], "the payload of a reply has to be an object, not list"),
        ("ok", "the payload of a reply has to be an object, not str"),
        ({}, "the status of a reply has to be a string, not NoneType"),
        ({"status": 1, "response": {}}, "the status of a reply has to be a string, not int"),
        ({"status": "hunter2", "response": {}}, "the status of a join reply has to be ok or error"),
        ({"status": "ok"}, "the response to a join has to be an object, not NoneType"),
        ({"status": "ok", "response": ["hunter2"]}, "the response to a join has to be an object, not list"),
        ({"status": "ok", "response": b"hunter2"}, "the response to a join has to be an object, not bytes"),
        ({"status": "ok", "response": {"did": ""}}, "did has to be a string that is not empty"),
        ({"status": "ok", "response": {"did": None}}, "did has to be a string that is not empty"),
        ({"status": "ok", "response": {"did": 7}}, "did has to be a string that is not empty"),
        ({"status": "ok", "response": {"capabilities": None}}, "capabilities has to be a list of strings"),
        ({"status": "ok", "response": {"capabilities": "x"}}, "capabilities has to be a list of strings"),
        ({"status": "ok", "response": {"capabilities": ["x", 1]}}, "capabilities has to be a list of strings"),
    ],
)
def test_an_answer_to_a_join_that_is_none_is_an_error_that_quotes_nothing(payload: Any, detail: str) -> None:
    topic = joining()
    assert topic.receive(Frame("1", "1", NAME, "phx_reply", payload)) == JoinMalformed("1", detail)
    assert state(topic) == (TopicStatus.ERRORED, None)


def test_a_second_answer_to_a_join_changes_nothing() -> None:
    topic = joined()
    for frame in (reply("1", "1", "error", {"reason": "no"}), unmatched("1"), reply("1", "1")):
        assert topic.receive(frame) == UNEXPECTED
        assert state(topic) == (TopicStatus.JOINED, "1")


def test_while_joining_only_the_answer_to_the_join_is_a_reply() -> None:
    topic = joining("3")
    assert topic.receive(reply("3", "4")) == UNEXPECTED
    assert topic.receive(unmatched("2")) == UNEXPECTED
    assert state(topic) == (TopicStatus.JOINING, "3")


def test_an_answer_to_a_join_while_leaving_it_is_ignored() -> None:
    topic = joining()
    topic.leave("2")
    assert topic.receive(reply("1", "1", "error", {"reason": "no"})) == UNEXPECTED
    assert topic.receive(reply("1", "2")) == LeaveSucceeded("2")


# --- the duplicate join -----------------------------------------------------------------------------------------------


def test_the_close_of_the_old_join_after_the_answer_to_the_new_one_does_not_end_the_new_one() -> None:
    topic = joined()
    topic.join("3", {})
    frames = [
        Frame("1", None, NAME, "message", {"late": 1}),
        reply("1", "2"),
        reply("3", "3"),
        Frame("1", None, NAME, "message", {"late": 2}),
        Frame("1", "1", NAME, "phx_close", {}),
        Frame("1", "1", NAME, "phx_error", {}),
    ]
    assert [topic.receive(frame) for frame in frames] == [STALE, STALE, JoinSucceeded("3", {}), STALE, STALE, STALE]
    assert state(topic) == (TopicStatus.JOINED, "3")


# --- replies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [joined, leaving])
@pytest.mark.parametrize("join_ref", ["1", None, ""])
@pytest.mark.parametrize(
    ("status", "response", "reason"),
    [
        ("ok", {}, ""),
        ("ok", {"reason": "none needed"}, "none needed"),
        ("error", {"reason": "e.route.not-found"}, "e.route.not-found"),
        ("error", {"reason": 404}, ""),
        ("accepted", [1], ""),
        ("ok", b"\x00\xff", ""),
    ],
)
def test_a_reply_to_a_push_is_told_as_it_came(
    make: Any, join_ref: str | None, status: str, response: Any, reason: str
) -> None:
    topic = make()
    before = state(topic)
    assert topic.receive(reply(join_ref, "7", status, response)) == ReplyReceived("7", status, reason, response)
    assert state(topic) == before


def test_a_reply_without_a_response_has_none() -> None:
    frame = Frame("1", "7", NAME, "phx_reply", {"status": "ok"})
    assert joined().receive(frame) == ReplyReceived("7", "ok", "", None)


def test_each_of_two_replies_to_one_ref_is_told() -> None:
    topic = joined()
    assert [topic.receive(reply("1", "2", "ok", {"n": n})) for n in (1, 2)] == [
        ReplyReceived("2", "ok", "", {"n": 1}),
        ReplyReceived("2", "ok", "", {"n": 2}),
    ]


@pytest.mark.parametrize("ref", [None, "", 2])
def test_a_reply_to_a_ref_that_is_none_of_ours_is_ignored(ref: str | int | None) -> None:
    assert joined().receive(reply("1", ref)) == UNEXPECTED
    assert joining().receive(reply("1", ref)) == UNEXPECTED


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (None, "the payload of a reply has to be an object, not NoneType"),
        (b"", "the payload of a reply has to be an object, not bytes"),
        ({"response": {}}, "the status of a reply has to be a string, not NoneType"),
        ({"status": ["hunter2"]}, "the status of a reply has to be a string, not list"),
    ],
)
def test_a_malformed_reply_names_the_ref_and_quotes_nothing(payload: Any, detail: str) -> None:
    topic = joined()
    assert topic.receive(Frame("1", "7", NAME, "phx_reply", payload)) == ReplyMalformed("7", detail)
    assert state(topic) == (TopicStatus.JOINED, "1")


# --- unmatched topic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("join_ref", "ref"), [("1", "2"), ("9", "10"), ("1", "9" * 5000), ("09", "10")])
def test_unmatched_topic_to_a_push_of_this_join_means_that_the_channel_is_gone(join_ref: str, ref: str) -> None:
    topic = joined(join_ref)
    assert topic.receive(unmatched(ref)) == TopicUnmatched(ref)
    assert state(topic) == (TopicStatus.ERRORED, None)


@pytest.mark.parametrize(
    ("join_ref", "ref"), [("10", "9"), ("5", "4"), ("5", "05"), ("1", "abc"), ("x", "2"), ("1", "²")]
)
def test_unmatched_topic_to_a_push_of_an_older_join_is_but_a_reply(join_ref: str, ref: str) -> None:
    topic = joined(join_ref)
    assert isinstance(topic.receive(unmatched(ref)), ReplyReceived)
    assert state(topic) == (TopicStatus.JOINED, join_ref)


@pytest.mark.parametrize(("join_ref", "status"), [("1", "error"), (None, "ok")])
def test_unmatched_topic_in_the_words_of_the_channel_itself_is_but_a_reply(join_ref: str | None, status: str) -> None:
    topic = joined()
    response = {"reason": "unmatched topic"}
    expected = ReplyReceived("2", status, "unmatched topic", response)
    assert topic.receive(reply(join_ref, "2", status, response)) == expected
    assert state(topic) == (TopicStatus.JOINED, "1")


def test_unmatched_topic_while_leaving_does_not_make_an_error_of_the_leave() -> None:
    topic = leaving()
    assert isinstance(topic.receive(unmatched("3")), ReplyReceived)
    assert topic.status is TopicStatus.LEAVING
    assert topic.receive(unmatched("2")) == LeaveSucceeded("2")
    assert state(topic) == (TopicStatus.CLOSED, None)


# --- messages ---------------------------------------------------------------------------------------------------------


@IN_FORCE
@pytest.mark.parametrize("join_ref", ["1", None, ""])
@pytest.mark.parametrize("payload", [{"a": 1}, None, [], b"\x00"])
def test_messages_of_this_join_and_broadcasts_are_told_until_the_end(
    make: Any, join_ref: str | None, payload: Any
) -> None:
    topic = make()
    before = state(topic)
    frame = Frame(join_ref, None, NAME, "message", payload)
    assert topic.receive(frame) == MessageReceived("message", payload)
    assert state(topic) == before


@NOT_IN_FORCE
def test_without_a_join_in_force_nothing_is_for_us(make: Any) -> None:
    topic = make()
    before = state(topic)
    assert topic.receive(Frame(None, None, NAME, "message", {})) == NOT_JOINED
    assert topic.receive(unmatched("7")) == NOT_JOINED
    assert topic.receive(Frame("1", None, NAME, "message", {})) == STALE
    assert topic.receive(Frame("1", "1", NAME, "phx_close", {})) == STALE
    assert state(topic) == before


@IN_FORCE
@pytest.mark.parametrize("event", ["message", "phx_reply", "phx_close", "phx_error"])
@pytest.mark.parametrize("join_ref", ["0", "2", "01", "x", 1])
def test_frames_of_any_other_join_change_nothing(make: Any, event: str, join_ref: str | int) -> None:
    topic = make()
    before = state(topic)
    assert topic.receive(Frame(join_ref, "1", NAME, event, {"status": "ok", "response": {}})) == STALE
    assert state(topic) == before


@EVERY_STATE
@pytest.mark.parametrize("topic_name", ["phoenix", "plugins:bob", "plugins:alic", "", 42])
def test_frames_of_other_topics_change_nothing(make: Any, topic_name: str | int) -> None:
    topic = make()
    before = state(topic)
    for event in ("message", "phx_reply", "phx_close", "phx_error"):
        assert topic.receive(Frame("1", "1", topic_name, event, {})) == FrameIgnored("foreign topic")
    assert state(topic) == before


@IN_FORCE
@pytest.mark.parametrize("event", ["phx_join", "phx_leave"])
def test_what_only_a_client_sends_is_ignored(make: Any, event: str) -> None:
    topic = make()
    before = state(topic)
    assert topic.receive(Frame("1", "1", NAME, event, {})) == UNEXPECTED
    assert state(topic) == before


def test_an_alias_is_the_same_topic_until_another_takes_its_place() -> None:
    topic = Topic("plugins:")
    topic.accept_alias("plugins:d1")
    topic.join("1", {})
    assert topic.receive(Frame("1", "1", "plugins:", "phx_reply", {"status": "ok", "response": {}})) == JoinSucceeded(
        "1", {}
    )
    inbound = Frame("1", None, "plugins:d1", "message", {})
    assert topic.receive(inbound) == MessageReceived("message", {})
    assert topic.push("2", "message", {}).topic == "plugins:"
    topic.accept_alias("plugins:d2")
    assert topic.receive(inbound) == FrameIgnored("foreign topic")
    assert topic.receive(Frame("1", "1", "plugins:d2", "phx_error", {})) == TopicErrored("1", {})


# --- the end ----------------------------------------------------------------------------------------------------------


@IN_FORCE
def test_phx_close_of_this_join_closes(make: Any) -> None:
    topic = make()
    assert topic.receive(Frame("1", "1", NAME, "phx_close", {})) == TopicClosed("1")
    assert state(topic) == (TopicStatus.CLOSED, None)


@pytest.mark.parametrize(
    ("make", "status"),
    [(joining, TopicStatus.ERRORED), (joined, TopicStatus.ERRORED), (leaving, TopicStatus.CLOSED)],
)
@pytest.mark.parametrize("payload", [{}, {"reason": "channel_crash"}, None])
def test_phx_error_of_this_join_is_an_error_unless_we_were_leaving(
    make: Any, status: TopicStatus, payload: Any
) -> None:
    topic = make()
    assert topic.receive(Frame("1", "1", NAME, "phx_error", payload)) == TopicErrored("1", payload)
    assert state(topic) == (status, None)


@IN_FORCE
@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
@pytest.mark.parametrize("join_ref", [None, ""])
def test_an_end_that_names_no_join_ends_none(make: Any, event: str, join_ref: str | None) -> None:
    topic = make()
    before = state(topic)
    assert topic.receive(Frame(join_ref, None, NAME, event, {})) == NULL_JOIN_REF
    assert state(topic) == before


@pytest.mark.parametrize("payload", [{"status": "ok", "response": {}}, {"status": "error"}, None])
def test_any_answer_to_a_leave_ends_it_and_the_close_behind_it_is_stale(payload: Any) -> None:
    topic = leaving()
    assert topic.receive(Frame("1", "2", NAME, "phx_reply", payload)) == LeaveSucceeded("2")
    assert state(topic) == (TopicStatus.CLOSED, None)
    assert topic.receive(Frame("1", "1", NAME, "phx_close", {})) == STALE


def test_a_close_ends_a_leave_whose_answer_was_lost() -> None:
    topic = leaving()
    assert topic.receive(Frame("1", "1", NAME, "phx_close", {})) == TopicClosed("1")
    assert topic.receive(reply("1", "2")) == STALE
    assert state(topic) == (TopicStatus.CLOSED, None)


def test_a_leave_of_before_means_nothing_to_a_new_join() -> None:
    topic = leaving()
    topic.join("3", {})
    assert topic.receive(reply("1", "2")) == STALE
    assert topic.receive(reply("3", "3")) == JoinSucceeded("3", {})
    assert topic.receive(reply("3", "2")) == ReplyReceived("2", "ok", "", {})
    assert state(topic) == (TopicStatus.JOINED, "3")
