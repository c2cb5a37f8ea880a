"""Slow topics: one bound for all that a socket has read, and a further topic that holds up the others is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, JoinedTopic, LinkStatus, events, open_channel
from layr8_actors.errors import TopicDown
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.channel.topics_on_a_node import ALICE, CAROL, DAVE, PROTOCOLS, Agent, join, options, plaintext, until


async def flood(node: CloudNode, did: str, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        node.deliver(did, plaintext(number, did))
        await trio.sleep(0.001)


async def test_all_topics_share_one_bound_at_which_reading_stops() -> None:
    carol, dave = Agent(), Agent()
    carol.gate, dave.gate = trio.Event(), trio.Event()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        first, second = await join(channel, CAROL, carol), await join(channel, DAVE, dave)
        for _ in range(6):
            node.deliver(CAROL, plaintext(1, CAROL))
            node.deliver(DAVE, plaintext(1, DAVE))
            await trio.sleep(0.01)
        statistics = channel.statistics()
        assert statistics.reading_paused
        assert first.statistics().reading_paused
        assert statistics.frames_waiting == 10
        waiting = [handle.statistics().frames_waiting for handle in (first, second)]
        assert waiting == [5, 5]
        assert statistics.bytes_waiting == sum(handle.statistics().bytes_waiting for handle in (first, second))
        carol.gate.set()
        dave.gate.set()
        await until(lambda: (len(carol.ids), len(dave.ids)) == (6, 6), 1)
        for who in (channel, first, second):
            assert (who.statistics().frames_waiting, who.statistics().bytes_waiting) == (0, 0)
        assert not channel.statistics().reading_paused


async def test_a_topic_that_holds_up_the_others_for_reply_timeout_is_left_and_joined_again_once_it_has_caught_up() -> (
    None
):
    slow, quick = Agent(), Agent()
    seen: list[Event] = []
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, inbox_capacity=10, events=seen)) as channel:
            await channel.connect(PROTOCOLS)
            handle, other = await join(channel, CAROL, slow), await join(channel, DAVE, quick)
            slow.gate = trio.Event()
            await flood(node, CAROL, 11)
            node.deliver(DAVE, plaintext("held up", DAVE))
            began = trio.current_time()
            await until(lambda: quick.ids == ["held up"])
            assert trio.current_time() - began == pytest.approx(15.0, abs=0.1)
            await node.wait_for(lambda: CAROL not in node.dids)
            await until(lambda: slow.order == ["disconnect"], 1)
            assert isinstance(slow.disconnects[0], TopicDown)
            assert (handle.state.status, other.state.joined, channel.state.joined) == (LinkStatus.WAITING, True, True)
            # However long it takes: nobody else is held up any more, and what was read is its own.
            await flood(node, DAVE, 50)
            await trio.sleep(100)
            assert (len(quick.ids), node.joins(CAROL), handle.state.retry_in) == (51, 1, None)
            assert (channel.statistics().frames_waiting, handle.statistics().frames_waiting) == (0, 10)
            assert channel.statistics().reading_pauses == 1
            slow.gate.set()
            await node.wait_joined(CAROL, 2)
            await until(lambda: slow.order == ["disconnect", "reconnect"], 1)
            assert slow.ids == [str(number) for number in range(11)]
            node.deliver(CAROL, plaintext("again", CAROL))
            await until(lambda: slow.ids[-1] == "again", 1)
            assert (handle.statistics().frames_waiting, handle.statistics().bytes_waiting) == (0, 0)
            lost = [event.topic for event in seen if isinstance(event, events.TopicLost)]
            assert lost == [f"plugins:{CAROL}"]


async def test_replies_that_others_wait_for_meanwhile_do_not_put_off_the_leave_of_a_slow_topic() -> None:
    slow = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, CAROL, slow)
        other = await join(channel, DAVE)
        slow.gate = trio.Event()
        await flood(node, CAROL, 12)
        began = trio.current_time()
        while CAROL in node.dids:
            assert not (await other.send_msg("message", plaintext(1, "did:web:nobody"))).ok
            node.deliver(CAROL, plaintext("more", CAROL))
            await trio.sleep(1)
        assert 15 <= trio.current_time() - began <= 17


async def test_a_topic_that_is_slow_now_and_then_is_not_left() -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, CAROL, agent)
        for _ in range(5):
            agent.gate = trio.Event()
            await flood(node, CAROL, 12)
            assert channel.statistics().reading_paused
            await trio.sleep(10)
            agent.gate.set()
            await trio.sleep(1)
        assert (len(agent.ids), agent.order, node.joins(CAROL)) == (60, [], 1)


async def test_bytes_are_shared_and_held_against_the_topic_that_takes_most_of_them() -> None:
    slow, quick = Agent(), Agent()
    bounds: dict[str, Any] = {"max_message_size": 10_000, "inbox_bytes": 20_000}
    async with CloudNode(memory=True) as node, open_channel(options(node, **bounds)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, slow)
        await join(channel, DAVE, quick)
        slow.gate, quick.gate = trio.Event(), trio.Event()
        node.deliver(DAVE, {**plaintext(0, DAVE), "body": "y" * 3_000})
        for number in range(4):
            node.deliver(CAROL, {**plaintext(number, CAROL), "body": "x" * 9_000})
            await trio.sleep(0.01)
        assert channel.statistics().reading_paused
        await node.wait_for(lambda: CAROL not in node.dids)
        assert DAVE in node.dids
        assert channel.statistics().bytes_waiting < 4_000
        assert handle.statistics().bytes_waiting > 16_000
        slow.gate.set()
        quick.gate.set()
        await node.wait_joined(CAROL, 2)
        await until(lambda: channel.statistics().bytes_waiting == handle.statistics().bytes_waiting == 0, 1)


async def test_the_channels_own_did_is_never_left_for_its_slowness() -> None:
    own, other = Agent(), Agent()
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, callbacks=own.callbacks(), inbox_capacity=10)) as channel:
            await channel.connect(PROTOCOLS)
            await join(channel, CAROL, other)
            own.gate = trio.Event()
            await flood(node, ALICE, 11)
            node.deliver(CAROL, plaintext("held up", CAROL))
            await trio.sleep(300)
            assert (other.ids, own.order, other.order) == ([], [], [])
            assert channel.statistics().reading_paused
            own.gate.set()
            await until(lambda: other.ids == ["held up"], 1)
            assert node.joins(ALICE) == node.joins(CAROL) == 1


@pytest.mark.parametrize("on", ["its own topic", "another topic", "the channel"])
async def test_an_on_message_that_sends_and_waits_gets_its_reply_from_behind_a_full_inbox(on: str) -> None:
    replies: list[str] = []
    senders: dict[str, Any] = {}

    async def on_message(payload: Any) -> None:
        reply = await senders[on].send_msg("message", plaintext("from within", "did:web:nobody"))
        replies.append(reply.status)

    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=4)) as channel:
        await channel.connect(PROTOCOLS)
        own = await channel.join(CAROL, PROTOCOLS, callbacks=Callbacks(on_message))
        senders.update({"its own topic": own, "another topic": await join(channel, DAVE), "the channel": channel})
        for number in range(40):
            node.deliver(CAROL, plaintext(number, CAROL))
        before = trio.current_time()
        await until(lambda: len(replies) == 40, 10)
        assert trio.current_time() - before < 2
        assert set(replies) == {"error"}
        assert node.joins(CAROL) == 1


async def test_a_full_inbox_keeps_no_topic_from_being_joined_or_joined_again() -> None:
    slow = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, CAROL, slow)
        slow.gate = trio.Event()
        await flood(node, CAROL, 12)
        assert channel.statistics().reading_paused
        before = trio.current_time()
        handle = await join(channel, DAVE)
        assert trio.current_time() == before
        node.crash_topic(DAVE)
        slow.gate.set()
        await node.wait_joined(DAVE, 2)
        await until(lambda: handle.state.joined)
        await until(lambda: len(slow.ids) == 12)


async def test_a_topic_whose_messages_nobody_reads_holds_up_nobody_and_the_oldest_go() -> None:
    quick = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        unread = await join(channel, CAROL)
        await join(channel, DAVE, quick)
        await flood(node, CAROL, 100)
        await flood(node, DAVE, 100)
        await until(lambda: len(quick.ids) == 100, 1)
        statistics = unread.statistics()
        assert (statistics.messages_waiting, statistics.messages_dropped) == (10, 90)
        assert channel.statistics().frames_waiting == 0
        stream = unread.messages()
        assert [(await anext(stream))["plaintext"]["id"] for _ in range(10)] == [str(n) for n in range(90, 100)]
        # Read from now on, they count like any other.
        await flood(node, CAROL, 3)
        assert channel.statistics().frames_waiting == 3
        for _ in range(3):
            await anext(stream)
        assert channel.statistics().frames_waiting == 0


async def test_a_topic_that_is_left_with_a_full_inbox_lets_the_others_go_on_at_once() -> None:
    slow, quick = Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        handle: JoinedTopic = await join(channel, CAROL, slow)
        await join(channel, DAVE, quick)
        slow.gate = trio.Event()
        await flood(node, CAROL, 12)
        node.deliver(DAVE, plaintext("held up", DAVE))
        await trio.sleep(1)
        assert quick.ids == []
        await handle.leave()
        await until(lambda: quick.ids == ["held up"], 0.1)
        await until(lambda: channel.statistics().frames_waiting == 0, 0.1)


async def test_a_hundred_slow_topics_keep_what_waits_within_the_bound() -> None:
    agents = [Agent() for _ in range(99)]
    dids = [f"did:web:node.test:agent-{number}" for number in range(99)]
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=100)) as channel:
        await channel.connect(PROTOCOLS)
        for did, agent in zip(dids, agents, strict=True):
            await join(channel, did, agent)
            agent.gate = trio.Event()
        most = 0
        for number in range(10):
            for did in dids:
                node.deliver(did, plaintext(number, did))
            await trio.sleep(0.01)
            most = max(most, channel.statistics().frames_waiting)
        assert channel.statistics().reading_paused
        assert most <= 100 + 99  # by one read, at the most
        for agent in agents:
            agent.gate.set()
        await until(lambda: all(len(agent.ids) == 10 for agent in agents), 10)
        assert all(agent.ids == [str(number) for number in range(10)] for agent in agents)
        assert channel.statistics().frames_waiting == channel.statistics().bytes_waiting == 0


async def test_a_topic_whose_router_is_stopped_by_hand_holds_up_the_others_once_and_is_whole_once_it_runs() -> None:
    """Only that router left it; so the others were held up again every 15 s, and what waited for it grew for ever."""
    agent, quick = Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        handle, other = await join(channel, CAROL, agent), await join(channel, DAVE, quick)
        await handle.supervisor.terminate_child("router")
        await flood(node, CAROL, 11)
        await node.wait_for(lambda: CAROL not in node.dids)
        await trio.sleep(1)
        held = handle.statistics().frames_waiting
        for number in range(20):
            node.deliver(DAVE, plaintext(number, DAVE))
            await trio.sleep(1)
        assert (len(quick.ids), other.state.joined, channel.statistics().reading_pauses) == (20, True, 1)
        assert handle.statistics().frames_waiting == held <= 14
        await handle.supervisor.restart_child("router")
        await node.wait_joined(CAROL, 2)
        await until(lambda: handle.state.joined, 1)
        assert agent.ids == [str(number) for number in range(11)]
        assert agent.order == ["disconnect", "reconnect"]
        node.deliver(CAROL, plaintext("again", CAROL))
        await until(lambda: agent.ids[-1] == "again", 1)
        assert (handle.statistics().frames_waiting, handle.statistics().bytes_waiting) == (0, 0)
