"""The topic against a small model of Phoenix' socket process: whatever happens in whatever order, both sides agree."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layr8_actors.phoenix import (
    Frame,
    FrameIgnored,
    JoinMalformed,
    JoinRefused,
    JoinSucceeded,
    LeaveSucceeded,
    MessageReceived,
    ReplyReceived,
    Topic,
    TopicClosed,
    TopicErrored,
    TopicEvent,
    TopicStatus,
    TopicUnmatched,
)

NAME = "plugins:alice"
UNMATCHED = {"status": "error", "response": {"reason": "unmatched topic"}}
OK = {"status": "ok", "response": {}}
REFUSED = {"status": "error", "response": {"reason": "no"}}


class ModelSocket:
    """What Phoenix 1.8.12 does with the frames of one topic; its answers wait in ``wire`` until they are delivered."""

    def __init__(self) -> None:
        self.join_ref: str | None = None
        self.refuses = False
        self.wire: deque[Frame] = deque()

    def send(self, join_ref: str | None, ref: str | None, event: str, payload: Any) -> None:
        self.wire.append(Frame(join_ref, ref, NAME, event, payload))

    def end(self, event: str) -> None:
        """The channel ends: by crash, by its own will, or replaced."""
        self.send(self.join_ref, self.join_ref, event, {})
        self.join_ref = None

    def receive(self, frame: Frame) -> None:
        join_ref, ref = frame.join_ref, frame.ref
        assert isinstance(join_ref, str)
        assert isinstance(ref, str)
        if frame.event == "phx_join":
            old = self.join_ref
            self.send(join_ref, ref, "phx_reply", REFUSED if self.refuses else OK)
            if old is not None:
                self.end("phx_close")
            self.join_ref = None if self.refuses else join_ref
        elif frame.event == "phx_leave":
            if self.join_ref is None:
                self.send(join_ref, ref, "phx_reply", OK)
            elif self.join_ref == join_ref:
                self.send(join_ref, ref, "phx_reply", OK)
                self.end("phx_close")
        elif self.join_ref is None:
            self.send(None, ref, "phx_reply", UNMATCHED)
        elif self.join_ref == join_ref:
            self.send(join_ref, ref, "phx_reply", OK)


class TopicAgainstPhoenix(RuleBasedStateMachine):
    """Rules are what either side may do at any time; the invariants hold between any two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = Topic(NAME)
        self.phoenix = ModelSocket()
        self.last_ref = 0
        self.leave_ref: str | None = None
        self.unanswered: set[str] = set()
        # Set where the server lost a channel without a word, until the topic has found out.
        self.silent_loss = False

    def ref(self) -> str:
        self.last_ref += 1
        return str(self.last_ref)

    @property
    def in_force(self) -> bool:
        return self.topic.join_ref is not None

    # --- what we do ---

    @rule()
    def join(self) -> None:
        self.unanswered.clear()
        self.silent_loss = False
        self.phoenix.receive(self.topic.join(self.ref(), {}))

    @precondition(lambda self: self.topic.status in (TopicStatus.JOINING, TopicStatus.JOINED))
    @rule()
    def leave(self) -> None:
        self.leave_ref = self.ref()
        self.silent_loss = False
        self.phoenix.receive(self.topic.leave(self.leave_ref))

    @precondition(lambda self: self.topic.status is TopicStatus.JOINED)
    @rule()
    def push(self) -> None:
        ref = self.ref()
        frame = self.topic.push(ref, "message", {})
        assert frame.join_ref == self.topic.join_ref
        self.unanswered.add(ref)
        self.phoenix.receive(frame)

    @precondition(lambda self: self.topic.status is TopicStatus.JOINING)
    @rule()
    def join_times_out(self) -> None:
        self.phoenix.receive(self.topic.join_timed_out(self.ref()))
        assert self.topic.status is TopicStatus.ERRORED

    @rule()
    def disconnect(self) -> None:
        self.topic.disconnected()
        self.phoenix = ModelSocket()
        self.unanswered.clear()
        self.silent_loss = False
        assert not self.in_force

    # --- what the server does ---

    @rule(refuses=st.booleans())
    def refuse_joins(self, refuses: bool) -> None:
        self.phoenix.refuses = refuses

    @precondition(lambda self: self.phoenix.join_ref is not None)
    @rule(event=st.sampled_from(["phx_close", "phx_error"]))
    def channel_ends(self, event: str) -> None:
        self.phoenix.end(event)

    @precondition(lambda self: self.phoenix.join_ref is not None)
    @rule()
    def channel_is_lost_without_a_word(self) -> None:
        self.phoenix.join_ref = None
        self.silent_loss = True

    @precondition(lambda self: self.phoenix.join_ref is not None)
    @rule(broadcast=st.booleans())
    def channel_pushes(self, broadcast: bool) -> None:
        self.phoenix.send(None if broadcast else self.phoenix.join_ref, None, "message", {"n": 1})

    @rule(
        join_ref=st.sampled_from(["0", "x", "999999", 1, 0]),
        event=st.sampled_from(["phx_close", "phx_error", "phx_reply", "message", "phx_join"]),
        payload=st.sampled_from([OK, REFUSED, UNMATCHED, None, [], b""]),
    )
    def a_frame_of_another_join_comes(self, join_ref: str | int, event: str, payload: Any) -> None:
        before = self.topic.status, self.topic.join_ref
        assert self.topic.receive(Frame(join_ref, self.topic.join_ref, NAME, event, payload)) == FrameIgnored(
            "stale join_ref"
        )
        assert (self.topic.status, self.topic.join_ref) == before

    @precondition(lambda self: self.phoenix.wire)
    @rule()
    def deliver(self) -> None:
        self.deliver_one()

    def deliver_one(self) -> None:
        frame = self.phoenix.wire.popleft()
        status, join_ref = self.topic.status, self.topic.join_ref
        event = self.topic.receive(frame)
        if join_ref is None or frame.join_ref not in (None, join_ref):
            assert isinstance(event, FrameIgnored)
            assert (self.topic.status, self.topic.join_ref) == (status, join_ref)
        else:
            self.check(frame, event, status, join_ref)

    def check(self, frame: Frame, event: TopicEvent, status: TopicStatus, join_ref: str) -> None:
        """The meaning of a frame of the join in force."""
        match event:
            case JoinSucceeded(ref, response):
                assert status is TopicStatus.JOINING
                assert (ref, response) == (join_ref, {})
                assert frame.payload is OK
            case JoinRefused(ref, reason, _):
                assert status is TopicStatus.JOINING
                assert (ref, reason) == (join_ref, "no")
            case JoinMalformed():
                raise AssertionError("the model sends no malformed frame")
            case ReplyReceived(ref):
                assert frame.ref == ref
                if int(ref) > int(join_ref):
                    # Each push of this join is answered at most once.
                    self.unanswered.remove(ref)
                else:
                    assert frame == Frame(None, ref, NAME, "phx_reply", UNMATCHED)
            case TopicUnmatched(ref):
                assert status is TopicStatus.JOINED
                assert self.silent_loss
                self.unanswered.clear()
                self.silent_loss = False
            case MessageReceived(name, payload):
                assert (name, payload) == (frame.event, frame.payload)
            case LeaveSucceeded(ref):
                assert status is TopicStatus.LEAVING
                assert ref == self.leave_ref
                self.unanswered.clear()
            case TopicClosed(ref):
                assert (frame.event, ref) == ("phx_close", join_ref)
                self.unanswered.clear()
            case TopicErrored(ref, payload):
                assert (frame.event, ref, payload) == ("phx_error", join_ref, {})
                self.unanswered.clear()
            case _:
                # The answer to a join that is being left already; "unmatched topic" to a push of before this join.
                assert event == FrameIgnored("unexpected")
                assert status in (TopicStatus.LEAVING, TopicStatus.JOINING)
                assert self.topic.status is status

    @rule()
    def all_is_delivered(self) -> None:
        while self.phoenix.wire:
            self.deliver_one()
        assert self.topic.status not in (TopicStatus.JOINING, TopicStatus.LEAVING)
        if not self.silent_loss:
            # The heart of it: with nothing under way, both sides say the same.
            assert self.topic.join_ref == self.phoenix.join_ref
            assert not self.unanswered

    # --- what holds always ---

    @invariant()
    def a_join_is_in_force_exactly_while_the_status_says_so(self) -> None:
        active = self.topic.status in (TopicStatus.JOINING, TopicStatus.JOINED, TopicStatus.LEAVING)
        assert self.in_force == active

    @invariant()
    def a_topic_that_calls_itself_joined_was_joined(self) -> None:
        if self.topic.status is TopicStatus.JOINED and not self.silent_loss:
            ends = [frame.join_ref for frame in self.phoenix.wire if frame.event in ("phx_close", "phx_error")]
            assert self.phoenix.join_ref == self.topic.join_ref or self.topic.join_ref in ends


TopicAgainstPhoenix.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_topic_and_phoenix_agree = TopicAgainstPhoenix.TestCase
