"""The rows of the failure table in supervisor.md that are no crash of ours, and the counting of callbacks."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, LinkStatus, open_channel
from layr8_actors.channel.events import AttemptFailed, CallbackFailed, FrameRefused, GaveUp, SendsDiscarded, TopicLost
from layr8_actors.errors import (
    Disconnected,
    JoinRejected,
    NotConnected,
    RemoteProtocolError,
    ReplyTimeout,
    TopicDown,
    TransportClosed,
)
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
DID = "did:web:node.test:alice"
TOPIC = f"plugins:{DID}"


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


class Sender:
    """One send_msg in a task of its own, with its outcome."""

    def __init__(self, nursery: trio.Nursery, channel: Channel, payload: Any = None) -> None:
        self.outcome: Any = None
        self.done = False
        nursery.start_soon(self._run, channel, payload or {})

    async def _run(self, channel: Channel, payload: Any) -> None:
        try:
            self.outcome = await channel.send_msg("message", payload)
        except Exception as error:
            self.outcome = error
        self.done = True


# --- the socket is lost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1006, 1011, 1012, 4001])
async def test_a_lost_socket_of_any_code_fails_calls_at_once_and_is_redialled_with_one_callback_each(
    node: Any, calls: Any, code: int
) -> None:
    node.mute = True
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sender = Sender(nursery, channel)
            await settle()
            start = trio.current_time()
            node.socket.drop(code)
        assert trio.current_time() - start < 0.1
        assert isinstance(sender.outcome, Disconnected)
        assert sender.outcome.written
        assert isinstance(sender.outcome.__cause__, TransportClosed)
        with pytest.raises(NotConnected):
            await channel.send_msg("message", {})
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        assert isinstance(calls.disconnects[0], TransportClosed)
        assert calls.disconnects[0].code == code
        assert 0.5 <= trio.current_time() - start <= 1.1
        assert (node.open_sockets, node.most_at_once) == (1, 1)


async def test_replies_and_messages_that_were_read_before_the_drop_still_count(node: Any, calls: Any) -> None:
    node.mute = True
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sender = Sender(nursery, channel)
            await settle()
            node.socket.message(1)
            node.socket.reply(node.socket.pushes[0])
            node.socket.message(2)
            node.socket.drop()
        await settle()
        assert sender.outcome.ok
        assert calls.ids == [1, 2]


async def test_after_a_write_that_fails_what_had_arrived_is_read_to_the_end_the_close_code_included(
    node: Any, calls: Any
) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        broken = node.socket

        async def send(batch: Any) -> None:
            await trio.lowlevel.checkpoint()
            broken.message(1)
            broken.message(2)
            broken.drop(4001)
            raise TransportClosed(1006, detail="broken pipe")

        broken.send = send
        await channel.send_fire_and_forget("message", {})
        await settle()
        assert calls.ids == [1, 2]
        assert [error.code for error in calls.disconnects] == [4001]


async def test_a_send_that_never_reached_the_wire_says_so(node: Any) -> None:
    async with open_channel(node.options(outbox_capacity=2)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        async with trio.open_nursery() as nursery:
            first = Sender(nursery, channel)
            await settle()
            later = [Sender(nursery, channel) for _ in range(5)]
            await settle()
            node.socket.drop()
        assert first.outcome.written
        assert [sender.outcome.written for sender in later] == [False] * 5


async def test_flapping_right_after_each_join_backs_off_instead_of_looping(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(6):
            node.socket.drop()
            await settle()
            await channel.connect(PROTOCOLS)
        await settle()
        assert trio.current_time() > 0.5 * (1 + 2 + 4 + 8 + 16 + 30)
        assert calls.order == ["disconnect", "reconnect"] * 6
        assert node.dials == 7


async def test_a_node_that_stays_away_is_dialled_at_the_capped_pace_and_every_failure_is_seen(
    node: Any, calls: Any
) -> None:
    from layr8_actors.errors import ConnectFailed

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.dial_error = ConnectFailed("ws://node.test/plugin_socket/websocket", "connection refused")
        node.socket.drop()
        await trio.sleep(600)
        failures = node.seen(AttemptFailed)
        assert 20 <= len(failures) <= 45
        assert all(failure.retry_in <= 30 for failure in failures)
        assert channel.state.last_error is node.dial_error
        assert channel.state.attempt == len(failures) + 1
        node.dial_error = None
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]


# --- the topic is lost ------------------------------------------------------------------------------------------------


def crash(socket: Any) -> None:
    socket.say(Frame(socket.join_ref, socket.join_ref, TOPIC, "phx_error", {}))


def close(socket: Any) -> None:
    socket.say(Frame(socket.join_ref, socket.join_ref, TOPIC, "phx_close", {}))


def unmatched(socket: Any) -> None:
    payload = {"status": "error", "response": {"reason": "unmatched topic"}}
    socket.say(Frame(None, socket.pushes[-1].ref, TOPIC, "phx_reply", payload))


@pytest.mark.parametrize("end", [crash, close, unmatched])
async def test_a_topic_ended_by_the_node_is_joined_again_on_the_same_socket(node: Any, calls: Any, end: Any) -> None:
    node.mute = True
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sender = Sender(nursery, channel)
            await settle()
            start = trio.current_time()
            end(node.socket)
        assert trio.current_time() - start < 0.1
        assert isinstance(sender.outcome, Disconnected)
        assert isinstance(sender.outcome.__cause__, TopicDown)
        with pytest.raises(NotConnected):
            await channel.send_fire_and_forget("message", {})
        await channel.connect(PROTOCOLS)
        await settle()
        assert (node.dials, node.joins, node.open_sockets) == (1, 2, 1)
        assert calls.order == ["disconnect", "reconnect"]
        assert isinstance(calls.disconnects[0], TopicDown)
        assert len(node.seen(TopicLost)) == 1


async def test_three_replies_in_a_row_that_do_not_come_are_a_hung_topic_and_it_is_left_and_joined_again(
    node: Any, calls: Any
) -> None:
    node.mute = True
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(3):
            with pytest.raises(ReplyTimeout) as caught:
                await channel.send_msg("message", {})
            assert caught.value.written
        node.mute = False
        await settle()
        assert calls.order == ["disconnect"]
        await channel.connect(PROTOCOLS)
        await settle()
        assert (node.dials, node.joins) == (1, 2)
        assert [frame.event for frame in node.socket.frames if frame.event.startswith("phx_")] == [
            "phx_join",
            "phx_leave",
            "phx_join",
        ]
        assert calls.order == ["disconnect", "reconnect"]
        assert (await channel.send_msg("message", {})).ok


async def test_a_reply_in_between_starts_the_count_of_missing_replies_again(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks(), reply_timeout=1.0)) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(4):
            node.mute = True
            for _ in range(2):
                with pytest.raises(ReplyTimeout):
                    await channel.send_msg("message", {})
            node.mute = False
            assert (await channel.send_msg("message", {})).ok
        assert calls.order == []


async def test_pushes_queued_under_a_join_that_ended_are_not_written_under_the_next(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        socket = node.socket
        socket.stop_reading()
        async with trio.open_nursery() as nursery:
            first = Sender(nursery, channel, {"n": 0})  # the writer takes it and is stuck in it
            await settle()
            queued = Sender(nursery, channel, {"n": 1})
            await settle()  # or the crash might be read before it has begun
            await channel.send_fire_and_forget("message", {"n": 2})
            await settle()
            crash(socket)
            await settle()
            socket.writable.set()
        assert isinstance(first.outcome, Disconnected)
        assert first.outcome.written
        assert isinstance(queued.outcome, Disconnected)
        assert not queued.outcome.written
        await channel.connect(PROTOCOLS)
        await settle()
        assert [frame.payload for frame in socket.pushes] == [{"n": 0}]
        assert sum(event.count for event in node.seen(SendsDiscarded)) == 2


# --- frames that are not for us ---------------------------------------------------------------------------------------


async def test_frames_of_an_older_join_another_topic_or_an_abandoned_socket_change_nothing(
    node: Any, calls: Any
) -> None:
    node.mute = True
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sender = Sender(nursery, channel)
            await settle()
            push = node.socket.pushes[0]
            ok = {"status": "ok", "response": {}}
            node.socket.say(
                Frame("77", None, TOPIC, "message", {"plaintext": {"id": "1"}}),
                Frame(node.socket.join_ref, None, "plugins:did:web:other", "message", {"plaintext": {"id": "2"}}),
                Frame("77", push.ref, TOPIC, "phx_reply", ok),
                Frame(push.join_ref, push.ref, "plugins:did:web:other", "phx_reply", ok),
                Frame("77", "77", TOPIC, "phx_close", {}),
                Frame("77", "77", TOPIC, "phx_error", {}),
                Frame(None, "9999", TOPIC, "phx_reply", ok),
            )
            await settle()
            assert not sender.done
            node.socket.reply(push)
        assert sender.outcome.ok
        assert calls.ids == []
        assert channel.state.status is LinkStatus.JOINED
        assert channel.statistics().frames_ignored >= 5


async def test_a_bad_frame_is_counted_reported_and_changes_nothing_else(node: Any, calls: Any) -> None:
    bad: list[Any] = ["", "{}", "[1,2", "[1,2,3]", "[" * 200 + "]" * 200, b"", b"\x09xxxx", '["1",null,"t","e"]']
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.say(*bad)
        node.socket.message(1)
        node.socket.say(Frame(node.socket.join_ref, None, TOPIC, "message", ["not", "an", "object"]))
        await settle()
        assert calls.ids == [1]
        assert channel.statistics().frames_refused == len(bad) + 1
        assert [event.count for event in node.seen(FrameRefused)] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert all("xxxx" not in str(event.error) for event in node.seen(FrameRefused))
        assert (await channel.send_msg("message", {})).ok
        assert (calls.order, node.dials) == ([], 1)


async def test_a_flood_of_bad_frames_is_reported_ever_more_rarely(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.say(*["nonsense"] * 1000)
        await settle()
        assert channel.statistics().frames_refused == 1000
        assert [event.count for event in node.seen(FrameRefused)][-3:] == [128, 256, 512]


@pytest.mark.parametrize("payload", [None, [], "ok", {}, {"status": 1, "response": {}}])
async def test_a_reply_that_is_none_fails_its_caller_with_a_protocol_error_and_nobody_else(
    node: Any, calls: Any, payload: Any
) -> None:
    def answer(socket: Any, frame: Frame) -> None:
        socket.say(Frame(frame.join_ref, frame.ref, frame.topic, "phx_reply", payload))

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.on_push = answer
        with pytest.raises(RemoteProtocolError):
            await channel.send_msg("message", {})
        node.on_push = None
        assert (await channel.send_msg("message", {})).ok
        assert calls.order == []


# --- refusals after the first join ------------------------------------------------------------------------------------


async def test_a_transient_refusal_of_a_rejoin_is_retried_for_as_long_as_it_lasts(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.join_refusal = "e.connect.plugin.failed: protocols_already_bound"
        crash(node.socket)
        await trio.sleep(300)
        assert channel.state.status in (LinkStatus.WAITING, LinkStatus.JOINING)
        assert len(node.seen(AttemptFailed)) > 8
        node.join_refusal = None
        await channel.connect(PROTOCOLS)
        await settle()
        assert (calls.order, node.dials) == (["disconnect", "reconnect"], 1)


async def test_a_permanent_refusal_of_a_rejoin_ends_the_channel_with_join_rejected_after_three(
    node: Any, calls: Any
) -> None:
    with pytest.raises(JoinRejected) as caught:
        async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
            await channel.connect(PROTOCOLS)
            node.join_refusal = "e.join.plugin.parent.not-found"
            crash(node.socket)
            await trio.sleep(600)
    assert caught.value.permanent
    assert trio.current_time() < 70
    assert (node.joins, node.open_sockets) == (4, 0)
    assert len(node.seen(GaveUp)) == 1
    assert calls.order == ["disconnect"]


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_callback_that_raises_is_reported_and_changes_nothing(node: Any, kind: str) -> None:
    happened: list[str] = []

    def fail(name: str) -> None:
        happened.append(name)
        raise ValueError(f"boom in {name}")

    if kind == "sync":
        callbacks = Callbacks(
            lambda message: fail("on_message"), lambda error: fail("on_disconnect"), lambda: fail("on_reconnect")
        )
    else:

        async def on_message(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            fail("on_message")

        async def on_disconnect(error: Exception) -> None:
            await trio.lowlevel.checkpoint()
            fail("on_disconnect")

        async def on_reconnect() -> None:
            await trio.lowlevel.checkpoint()
            fail("on_reconnect")

        callbacks = Callbacks(on_message, on_disconnect, on_reconnect)

    async with open_channel(node.options(callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.message(1)
        node.socket.message(2)
        await settle()
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await settle()
        assert happened == ["on_message", "on_message", "on_disconnect", "on_reconnect"]
        reports = node.seen(CallbackFailed)
        assert [report.callback for report in reports] == happened
        assert all(report.error.__traceback__ is not None for report in reports)
        assert all(child.restarts == 0 for child in channel.supervisor.which_children())
        assert (await channel.send_msg("message", {})).ok


async def test_a_slow_on_message_does_not_hold_up_the_other_callbacks(node: Any, calls: Any) -> None:
    async def on_message(message: Any) -> None:
        await trio.sleep_forever()

    callbacks = Callbacks(on_message, calls.on_disconnect, calls.on_reconnect)
    async with open_channel(node.options(callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.message(1)
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]


async def test_an_event_hook_that_raises_changes_nothing(
    node: Any, calls: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: object) -> None:
        raise RuntimeError("bad hook")

    async with open_channel(node.options(callbacks=calls.callbacks(), on_event=hook)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
    assert "the event hook raised" in caplog.text
