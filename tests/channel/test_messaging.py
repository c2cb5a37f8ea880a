"""Sending and receiving: order, matching, deadlines, cancellation, backpressure."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, LinkStatus, Reply, open_channel
from layr8_actors.channel.events import MessageDropped
from layr8_actors.errors import ChannelClosed, InvalidOption, LocalProtocolError, NotConnected, ReplyTimeout
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


# --- send_msg ---------------------------------------------------------------------------------------------------------


async def test_a_push_carries_the_current_join_ref_a_fresh_ref_and_the_payload_as_given(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        assert await channel.send_msg("message", {"id": "1"}) == Reply("ok", "", {})
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await channel.send_msg("message", {"id": "2"})
        first, second = node.sockets[0].pushes[0], node.sockets[1].pushes[0]
        assert (first.join_ref, first.topic, first.event, first.payload) == ("1", TOPIC, "message", {"id": "1"})
        assert second.join_ref == node.sockets[1].join_ref != "1"
        refs = [frame.ref for socket in node.sockets for frame in socket.frames]
        assert len(set(refs)) == len(refs)


async def test_a_refusal_of_the_node_is_a_reply_and_no_exception(node: Any) -> None:
    node.on_push = lambda socket, frame: socket.reply(frame, "error", {"reason": "e.route.not-found"})
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        reply = await channel.send_msg("message", {})
        assert (reply.status, reply.reason, reply.ok) == ("error", "e.route.not-found", False)


def writers() -> int:
    """Tasks of this Trio run that write for a channel."""
    tasks = [trio.lowlevel.current_root_task()]
    for task in tasks:
        if task is not None:
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sum(task is not None and task.name.endswith("Connection._write") for task in tasks)


async def test_a_channel_that_only_beats_has_no_writer_and_one_that_sends_has_one_until_it_beats_again(
    node: Any,
) -> None:
    async with open_channel(node.options(heartbeat_interval=30)) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        assert writers() == 0
        for _ in range(2):
            await channel.send_fire_and_forget("message", {})
            await trio.sleep(1)
            assert writers() == 1
            await channel.send_msg("message", {})
            assert writers() == 1
            await trio.sleep(35)
            assert writers() == 0
    events = [frame.event for frame in node.socket.frames]
    assert events == ["phx_join", *(2 * ["message", "message", "heartbeat"]), "phx_leave"]


async def test_the_writer_is_in_the_context_of_no_sender(node: Any) -> None:
    request = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    def answer(socket: Any, frame: Frame) -> None:
        seen.append(request.get())
        socket.reply(frame)

    node.on_push = answer
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await settle()
        request.set("mine")
        await channel.send_fire_and_forget("message", {})  # which starts the writer; a lone request needs none
        await settle()
    assert seen == ["none"]


@pytest.mark.parametrize("response", [None, [], 7, {"reason": 7}, {"reason": None}])
async def test_a_reply_without_a_reason_that_is_a_string_has_the_reason_empty(node: Any, response: Any) -> None:
    def answer(socket: Any, frame: Frame) -> None:
        payload = {"status": "timeout", "response": response}
        socket.say(Frame(frame.join_ref, frame.ref, frame.topic, "phx_reply", payload))

    node.on_push = answer
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        reply = await channel.send_msg("message", {})
        assert (reply.status, reply.reason, reply.response, reply.ok) == ("timeout", "", response, False)


async def test_replies_in_any_order_and_twice_reach_their_own_caller_once(node: Any) -> None:
    held: list[Frame] = []
    node.on_push = lambda socket, frame: held.append(frame)
    replies: dict[int, Reply] = {}

    async def send(channel: Channel, number: int) -> None:
        replies[number] = await channel.send_msg("message", {"n": number})

    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(send, channel, number)
            await settle()
            for frame in sorted(held, key=lambda frame: -frame.payload["n"]):
                node.socket.reply(frame, "ok", frame.payload)
                node.socket.reply(frame, "ok", {"n": -1})
        assert {number: reply.response["n"] for number, reply in replies.items()} == {n: n for n in range(50)}
        assert channel.statistics().replies_unclaimed == 50
        assert channel.statistics().replies_waiting == 0


async def test_pushes_are_written_in_the_order_of_the_calls_also_when_the_outbox_is_full(node: Any) -> None:
    async with open_channel(node.options(outbox_capacity=3)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()

        async def send_all() -> None:
            for number in range(40):
                if number % 3:
                    await channel.send_fire_and_forget("message", {"n": number})
                else:
                    await channel.send_msg("message", {"n": number})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            await settle()
            node.socket.writable.set()
        await settle()
        assert [frame.payload["n"] for frame in node.socket.pushes] == list(range(40))


async def test_no_reply_in_time_raises_reply_timeout_and_a_late_reply_is_ignored(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        with pytest.raises(ReplyTimeout) as caught:
            await channel.send_msg("message", {})
        assert trio.current_time() - start == pytest.approx(15, abs=0.1)
        assert caught.value.written
        assert isinstance(caught.value, TimeoutError)
        node.socket.reply(node.socket.pushes[0])
        await settle()
        assert channel.statistics().replies_unclaimed == 1
        assert channel.statistics().replies_waiting == 0


async def test_reply_timeout_covers_the_write_to_a_peer_that_stopped_reading(node: Any) -> None:
    async with open_channel(node.options(reply_timeout=5, outbox_capacity=1)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        written: list[bool] = []

        async def send(number: int) -> None:
            with pytest.raises(ReplyTimeout) as caught:
                await channel.send_msg("message", {"n": number})
            written.append(caught.value.written)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(send, number)
                await settle()
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)
        assert sorted(written) == [False, False, False, True]
        node.socket.writable.set()
        await settle()
        assert [frame.payload["n"] for frame in node.socket.pushes] == [0], "what was said not to be written was"


async def test_a_cancelled_send_leaves_nothing_and_what_was_not_written_never_is(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with trio.move_on_after(1):
            await channel.send_msg("message", {"n": 0})
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {"n": 1})
        await settle()
        with trio.move_on_after(1):
            await channel.send_msg("message", {"n": 2})
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send_msg("message", {"n": 3})
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send_fire_and_forget("message", {"n": 4})
        node.socket.writable.set()
        await settle()
        assert [frame.payload["n"] for frame in node.socket.pushes] == [0, 1]
        assert channel.statistics().replies_waiting == 0


async def test_cancelling_two_hundred_senders_leaks_nothing(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(channel.send_msg, "message", {})
            await settle()
            assert channel.statistics().replies_waiting == 200
            nursery.cancel_scope.cancel()
        assert channel.statistics().replies_waiting == 0


@pytest.mark.parametrize("payload", [{1, 2}, object(), float("nan"), {"x": b"bytes"}], ids=repr)
async def test_a_payload_that_is_not_json_is_refused_and_nothing_is_sent(node: Any, payload: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with pytest.raises(LocalProtocolError):
            await channel.send_msg("message", payload)
        with pytest.raises(LocalProtocolError):
            await channel.send_fire_and_forget("message", payload)
        assert node.socket.pushes == []
        assert channel.statistics().replies_waiting == 0
        assert (await channel.send_msg("message", {})).ok


async def test_a_reserved_event_is_refused_because_it_would_crash_the_topic(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with pytest.raises(LocalProtocolError):
            await channel.send_msg("phx_leave", {})


# --- fire and forget, ack ---------------------------------------------------------------------------------------------


async def test_fire_and_forget_does_not_wait_for_the_reply(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        await channel.send_fire_and_forget("message", {"id": "1"})
        assert trio.current_time() == start
        await settle()
        assert node.socket.pushes[0].payload == {"id": "1"}


async def test_fire_and_forget_waits_for_room_no_longer_than_reply_timeout(node: Any) -> None:
    async with open_channel(node.options(outbox_capacity=1, reply_timeout=3)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        with pytest.raises(ReplyTimeout) as caught:
            for _ in range(5):
                await channel.send_fire_and_forget("message", {})
                await settle()
        assert not caught.value.written
        assert trio.current_time() == pytest.approx(3, abs=0.1)


async def test_an_ack_carries_the_ids_and_waits_for_nothing(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await channel.send_ack(iter(["id-1", "id-2"]))
        await settle()
        (push,) = node.socket.pushes
        assert (push.event, push.payload, push.join_ref) == ("ack", {"ids": ["id-1", "id-2"]}, "1")


@pytest.mark.parametrize("ids", ["id-1", b"id-1", None, 7, [7]])
async def test_an_ack_of_something_else_than_ids_is_refused(node: Any, ids: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with pytest.raises(InvalidOption, match="ids"):
            await channel.send_ack(ids)


@pytest.mark.parametrize("when", ["before connect", "while waiting", "while joining", "after close"])
async def test_sending_without_a_join_fails_at_once_and_queues_nothing(node: Any, when: str) -> None:
    async with open_channel(node.options()) as channel:
        if when != "before connect":
            await channel.connect(PROTOCOLS)
        if when == "while waiting":
            node.socket.drop()
            await settle()
        if when == "while joining":  # the join in force has ended, and its socket lives
            node.hold_joins = True
            node.socket.say(Frame(node.socket.join_ref, node.socket.join_ref, TOPIC, "phx_error", {}))
            await trio.sleep(2)
            assert channel.state.status is LinkStatus.JOINING
        if when == "after close":
            await channel.close()
        expected = ChannelClosed if when == "after close" else NotConnected
        start = trio.current_time()
        for send in (channel.send_msg, channel.send_fire_and_forget):
            with pytest.raises(expected):
                await send("message", {})
        with pytest.raises(expected):
            await channel.send_ack(["1"])
        assert trio.current_time() == start


# --- receiving --------------------------------------------------------------------------------------------------------


async def test_messages_arrive_in_order_one_at_a_time_with_their_decoded_payload(node: Any) -> None:
    got: list[Any] = []
    at_work = 0

    async def on_message(payload: Any) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await trio.sleep(0.01)
        got.append(payload)
        at_work -= 1

    async with open_channel(node.options(callbacks=Callbacks(on_message))) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(20):
            node.socket.message(number, context={"authorized": True})
        await trio.sleep(1)
        assert got == [{"plaintext": {"id": str(n)}, "context": {"authorized": True}} for n in range(20)]
        assert channel.statistics().messages_delivered == 20


async def test_a_broadcast_without_a_join_ref_is_a_message_too(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.say(Frame(None, None, TOPIC, "message", {"plaintext": {"id": "7"}}))
        await settle()
        assert calls.ids == [7]


async def test_on_message_may_send_and_wait_for_the_reply_in_the_middle_of_a_flood(node: Any) -> None:
    replies: list[Reply] = []
    channels: list[Channel] = []

    async def on_message(payload: Any) -> None:
        replies.append(await channels[0].send_msg("message", {"re": payload["plaintext"]["id"]}))

    options = node.options(callbacks=Callbacks(on_message), inbox_capacity=10)
    async with open_channel(options) as channel:
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        for number in range(60):
            node.socket.message(number)
            await settle()
        await settle()
        assert len(replies) == 60
        assert trio.current_time() - start < 1


async def test_a_slow_user_stops_the_reading_and_nothing_is_lost(node: Any, calls: Any) -> None:
    async def on_message(payload: Any) -> None:
        await trio.sleep(0.1)
        calls.on_message(payload)

    async with open_channel(node.options(callbacks=Callbacks(on_message), inbox_capacity=16)) as channel:
        await channel.connect(PROTOCOLS)
        most = 0
        for number in range(200):
            node.socket.message(number)
            await settle()
            most = max(most, channel._record.backlog.frames)
        await trio.sleep(60)
        assert calls.ids == list(range(200))
        assert most <= 17
        assert channel.statistics().messages_waiting == 0


async def test_messages_can_be_iterated_instead_and_the_iteration_ends_with_close(node: Any) -> None:
    got: list[str] = []

    async def read(channel: Channel) -> None:
        async for payload in channel.messages():
            got.append(payload["plaintext"]["id"])

    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, channel)
            for number in range(5):
                node.socket.message(number)
            await settle()
            await channel.close()
        assert got == ["0", "1", "2", "3", "4"]


async def test_two_iterators_share_the_messages_and_a_cancelled_wait_takes_none(node: Any) -> None:
    got: list[int] = []

    async def read(channel: Channel) -> None:
        async for payload in channel.messages():
            got.append(int(payload["plaintext"]["id"]))

    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        with trio.move_on_after(1):
            await anext(channel.messages())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, channel)
            nursery.start_soon(read, channel)
            for number in range(10):
                node.socket.message(number)
                await settle()
            await channel.close()
        assert sorted(got) == list(range(10))


async def test_an_iterator_that_is_slow_stops_the_reading(node: Any) -> None:
    async with open_channel(node.options(inbox_capacity=5)) as channel:
        await channel.connect(PROTOCOLS)
        messages = channel.messages()
        for number in range(20):
            node.socket.message(number)
            await settle()
        assert channel.statistics().reading_paused
        assert [int((await anext(messages))["plaintext"]["id"]) for _ in range(20)] == list(range(20))


async def test_an_iterator_beside_on_message_is_refused(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        with pytest.raises(InvalidOption, match="on_message"):
            channel.messages()


async def test_an_agent_that_only_sends_does_not_stall_on_messages_that_nobody_reads(node: Any) -> None:
    async with open_channel(node.options(inbox_capacity=5)) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(50):
            node.socket.message(number)
            await settle()
            assert (await channel.send_msg("message", {})).ok
        assert channel.statistics().messages_dropped == 45
        assert node.seen(MessageDropped)
        first = await anext(channel.messages())
        assert first["plaintext"]["id"] == "45"


async def test_events_other_than_message_are_ignored_and_counted(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.say(Frame("1", None, TOPIC, "delegated_credentials", {"revision": 1}))
        await settle()
        assert calls.messages == []
        assert channel.statistics().frames_ignored == 1
