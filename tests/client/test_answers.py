"""Answers of handlers, from the node's being told to its own reply: each goes out once, and its end is known."""

from __future__ import annotations

import trio

from layr8_actors import Disconnected, Message
from layr8_actors.client.events import ReplyFailed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    REPORT,
    REQUEST,
    RESPONSE,
    agent,
    of,
    plaintext,
    request_to,
    settle,
    settled_once,
    statuses,
    strict_node,
)


def answer(message: Message) -> Message:
    return message.reply(RESPONSE, message.id)


async def test_where_there_is_room_for_the_nodes_word_alone_the_answer_waits_and_goes_out_once() -> None:
    async with strict_node() as node:
        alice = agent(node, channel={"outbox_capacity": 1})
        alice.handle(REQUEST)(answer)
        async with alice, agent(node, BOB):
            for number in range(3):
                node.deliver(ALICE, plaintext(number))
            await settle()
            assert [frame.payload["body"] for frame in node.frames(ALICE, event="message")] == ["0", "1", "2"]
            assert settled_once(node)
            statistics = alice.statistics()
            assert (statistics.messages_handled, statistics.handlers_running, statistics.replies_failed) == (3, 0, 0)
            await trio.sleep(60)
            assert alice.channel.statistics().reply_timeouts == 0
            assert alice.statistics().messages_handled == 3


async def test_where_there_is_no_room_at_all_both_wait_and_go_out_once_and_in_order() -> None:
    async with CloudNode(memory=True, capacity=1024) as node:
        alice = agent(node, channel={"outbox_capacity": 1, "reply_timeout": 30})
        alice.handle(REQUEST)(answer)
        async with alice, agent(node, BOB), trio.open_nursery() as nursery:
            node.stop_reading()
            while not alice.channel.statistics().outbox_waiting:
                nursery.start_soon(alice.send, request_to(BOB, "x" * 2048))
                await settle()
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            assert alice.statistics().handlers_running == 1
            node.resume()
            await settle()
            sent = [frame.event for frame in node.frames(ALICE) if frame.event in ("dispatch_reply", "message")]
            assert sent[-2:] == ["dispatch_reply", "message"]
            answers = [frame for frame in node.frames(ALICE, event="message") if frame.payload["type"] == RESPONSE]
            assert [frame.payload["body"] for frame in answers] == ["m1"]
            await trio.sleep(60)
            assert alice.channel.statistics().reply_timeouts == 0
            assert alice.channel.statistics().replies_waiting == 0
            assert (alice.statistics().messages_handled, alice.statistics().replies_failed) == (1, 0)


async def test_an_answer_that_a_drop_cuts_off_is_an_event_and_frees_its_place() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        alice = agent(node, events=events, max_handlers=1)
        alice.handle(REQUEST)(answer)
        async with alice, agent(node, BOB):
            node.drop_replies(did=ALICE, event="message", count=1)
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            assert alice.statistics().handlers_running == 1, "until the node has taken the answer"
            node.drop(ALICE)
            await settle()
            (failed,) = of(events, ReplyFailed)
            assert failed.message_id == "m1"
            assert isinstance(failed.error, Disconnected)
            assert alice.statistics().handlers_running == 0
            await node.wait_joined(ALICE, 2)
            node.deliver(ALICE, plaintext("m2"))
            await settle()
            assert statuses(node)["m2"] == ["handled"]


async def test_the_next_message_of_a_thread_waits_until_the_node_has_taken_the_answer_to_the_one_before() -> None:
    handled: list[str] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node, channel={"reply_timeout": 10})

        @alice.handle(REQUEST)
        def handle(message: Message) -> Message:
            handled.append(message.id)
            return answer(message)

        async with alice, agent(node, BOB):
            node.drop_replies(did=ALICE, event="message", count=1)
            for number in range(3):
                node.deliver(ALICE, plaintext(number, thid="t"))
            node.deliver(ALICE, plaintext("other"))
            await trio.sleep(9)
            assert handled == ["0", "other"]
            await trio.sleep(2)
            assert handled == ["0", "other", "1", "2"]
            assert alice.statistics().replies_failed == 1


async def test_after_a_crash_of_the_dispatcher_nobody_hears_of_the_answers_that_were_on_their_way() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node, events=events)
        alice.handle(REQUEST)(answer)
        async with alice, agent(node, BOB):
            node.drop_replies(did=ALICE, event="message", count=1)
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            alice.supervisor.exit_child("dispatcher", ValueError("staged"))
            await settle()
            statistics = alice.statistics()
            assert (statistics.handlers_running, statistics.messages_interrupted) == (0, 1)
            types = [frame.payload["type"] for frame in node.frames(ALICE, event="message")]
            assert types == [RESPONSE, REPORT]
            await trio.sleep(60)
            assert of(events, ReplyFailed) == []
            assert alice.channel.statistics().reply_timeouts == 0
            node.deliver(ALICE, plaintext("m2"))
            await settle()
            assert alice.statistics().messages_handled == 2


async def test_an_answer_on_its_way_at_the_end_of_the_client_is_waited_for_within_the_grace() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node, events=events, shutdown_grace=3)
        alice.handle(REQUEST)(answer)
        async with alice, agent(node, BOB):
            node.drop_replies(did=ALICE, event="message", count=1)
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            begun = trio.current_time()
            await alice.close()
            assert 3 <= trio.current_time() - begun < 4
            assert [event.message_id for event in of(events, ReplyFailed)] == ["m1"]
