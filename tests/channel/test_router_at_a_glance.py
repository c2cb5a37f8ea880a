"""What Router knows at a glance means what the full reading of a frame makes of it, whatever the frame."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from hypothesis import given, settings, strategies as st

from layr8_actors.channel import ChannelOptions
from layr8_actors.channel.record import Record
from layr8_actors.channel.routed_messages import route_messages
from layr8_actors.channel.router import Router
from layr8_actors.channel.waiter import Waiter
from layr8_actors.otp import ActorRef
from layr8_actors.phoenix import Frame, TopicStatus
from tests.channel.conftest import DID, TOPIC


class Told:
    """A mailbox that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[object] = []

    def cast_nowait(self, message: object) -> bool:
        self.messages.append(message)
        return True


class Rig:
    """A router in a given state: joined under ref 2 on socket 1, pushes 3 and 4 awaited."""

    def __init__(self, status: TopicStatus) -> None:
        self.events: list[Any] = []
        options = ChannelOptions(
            ws_url="ws://node.test/",
            api_key="key",
            agent_did=DID,
            on_event=lambda event: self.events.append(type(event)),
        )
        self.record = record = Record(options)
        self.told = Told()
        told = cast("ActorRef", self.told)
        self.router = Router(record, told, told)
        record.topic_link = 1
        record.topic.join("2", {})
        if status is not TopicStatus.JOINING:
            record.topic.receive(Frame("2", "2", TOPIC, "phx_reply", {"status": "ok", "response": {}}))
        self.waiters = {ref: Waiter() for ref in ("3", "4")}
        record.waiting.update(self.waiters)
        if status is TopicStatus.LEAVING:
            record.topic.leave("4")
        if status is TopicStatus.CLOSED:
            record.topic.disconnected()

    def state(self) -> Any:
        record = self.record
        return (
            dataclasses.asdict(record.counters),
            record.routed,
            sorted(record.waiting),
            [(waiter._reply, str(waiter._error)) for waiter in self.waiters.values()],
            repr(record.topic),
            record.timeouts_in_a_row,
            [repr(message) for message in self.told.messages],
            self.events,
        )


REFS = st.sampled_from([None, "", "1", "2", "3", "4", 2, 3, "99"])
RESPONSES: Any = st.sampled_from(
    [None, {}, {"reason": "unmatched topic"}, {"reason": 7}, {"a": 1}, "text", [], b"bytes"]
)
STATUSES = st.sampled_from(["ok", "error", "OK", "", None, 1])
PAYLOADS: Any = (
    st.builds(lambda status, response: {"status": status, "response": response}, STATUSES, RESPONSES)
    | st.sampled_from([{}, {"status": "ok"}, {"plaintext": {}}, None, [], "text", b"bytes", 1])
)  # fmt: skip
FRAMES = st.builds(
    Frame,
    REFS,
    REFS,
    st.sampled_from([TOPIC, TOPIC, TOPIC, "plugins:other", "phoenix", 42]),
    st.sampled_from(["message", "message", "phx_reply", "phx_reply", "phx_close", "phx_error", "phx_join", "other"]),
    PAYLOADS,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.sampled_from(TopicStatus), st.sampled_from([1, 1, 1, 2]))
async def test_what_is_known_at_a_glance_means_what_the_full_reading_says(
    frames: list[Frame], status: TopicStatus, link: int
) -> None:
    quick, full = Rig(status), Rig(status)
    for frame in frames:
        assert quick.router._route_one(link, frame) == full.router._route_any(link, frame)
        assert quick.state() == full.state()


@settings(max_examples=500, deadline=None)
@given(
    st.lists(FRAMES, min_size=1, max_size=6), st.sampled_from(TopicStatus), st.sampled_from([1, 1, 1, 2]), st.booleans()
)
async def test_messages_that_are_routed_in_one_go_are_those_that_the_full_reading_finds(
    frames: list[Frame], status: TopicStatus, link: int, message_first: bool
) -> None:
    if message_first:
        frames = [Frame("2", None, TOPIC, "message", {"plaintext": {}}), *frames]
    quick, full = Rig(status), Rig(status)
    route_messages(quick.record, link, frames, list(range(len(frames))))
    count = quick.record.routed_so_far
    for frame in frames[:count]:
        assert full.router._route_any(link, frame)
    assert quick.state() == full.state()
    assert quick.record.routed_sizes == list(range(count))
    if message_first and link == 1 and status is TopicStatus.JOINED:
        assert count
