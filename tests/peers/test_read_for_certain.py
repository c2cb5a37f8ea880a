"""Faults that were read in the peers' sources and never run: each is staged here, and the opposite asserted."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, NotConnected, open_channel
from layr8_actors.channel.events import AttemptFailed, LinkLost
from layr8_actors.errors import TopicDown
from layr8_actors.phoenix import Frame
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import (
    ALICE,
    EXACT,
    PROTOCOLS,
    TOPIC,
    Calls,
    Sender,
    has_seen_joins,
    of,
    options,
    plaintext,
    settle,
    tasks,
)


async def test_heartbeats_do_not_add_up_over_redials_whose_rejoin_fails_and_end_with_close() -> None:
    """Node and Go SDK: each dial starts a timer that its end does not stop. Here: one beat per 30 s, before and after.

    Five sockets whose joins fail, then one that stands for ten minutes: at most one beat in any 29 s, none after close.
    """
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, backoff=EXACT)) as channel:
            await channel.connect(PROTOCOLS)
            node.drop()
            for number, reason in enumerate(("join crashed", "too many channels joined", "", "unmatched topic"), 2):
                node.refuse_joins(reason, count=1)
                await node.wait_for(functools.partial(has_seen_joins, node, number))
                await trio.sleep(0.2)
                node.drop()  # the attempt after this one dials anew
            await trio.sleep(40)
            assert channel.state.joined
            assert (len(node.connections), node.statistics().upgrades) == (1, 6)
            await trio.sleep(600)
            beats = [received.at for received in node.received(event="heartbeat")]
            assert 19 <= len(beats) <= 21
            assert min(later - earlier for earlier, later in itertools.pairwise(beats)) > 29
        count = node.statistics().heartbeats
        await trio.sleep(300)
        assert node.statistics().heartbeats == count


async def test_a_rejoin_that_fails_is_no_reconnect_and_is_tried_again(calls: Calls) -> None:
    """Node SDK: a channel whose rejoin failed is never retried, yet its onReconnect fires."""
    events: list[Event] = []
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, events, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.refuse_joins("join crashed", count=3)
        node.drop()
        await node.wait_for(lambda: sum(node.statistics().refused_joins.values()) == 3)
        await settle()
        assert calls.order == ["disconnect"]
        assert not channel.state.joined
        await node.wait_joined(ALICE, 2)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        assert [event.attempt for event in of(events, AttemptFailed)] == [2, 3, 4]


@pytest.mark.parametrize("event", ["phx_error", "phx_close"])
async def test_a_topic_that_ends_as_its_socket_closes_is_one_disconnect(
    event: str, calls: Calls, scripted: Any
) -> None:
    """Go SDK: phx_error and the end of the connection race to call the same function. Both come in one instant here."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with open_channel(scripted.options(callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        join_ref = scripted.socket.join_ref
        scripted.socket.say(Frame(join_ref, join_ref, TOPIC, event, {}))
        scripted.socket.drop(1012)
        await settle()
        assert [type(error) for error in calls.disconnects] == [TopicDown]
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        assert (scripted.dials, scripted.joins, scripted.open_sockets) == (2, 2, 1)


async def test_a_lost_link_is_never_reported_as_a_refusal_of_the_node(calls: Calls) -> None:
    """Go SDK: the caller gets a reply whose reason is "disconnected". Here only what the node said is a reply."""
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute()
        async with trio.open_nursery() as nursery:
            senders = [Sender(nursery, channel) for _ in range(20)]
            await settle()
            node.drop()
        assert all(isinstance(sender.outcome, Exception) for sender in senders)
        assert len({id(sender.outcome) for sender in senders}) == 20  # each caller has an error of its own
        assert channel.statistics().replies == 0


async def test_whatever_the_event_hook_raises_changes_nothing_over_drops_and_failed_attempts(calls: Calls) -> None:
    """Python SDK: on_error that raises tears down the connection."""
    reported: list[Event] = []

    def hook(event: Event) -> None:
        reported.append(event)
        raise KeyError("a bug in the hook")

    callbacks = Callbacks(calls.on_message, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node:
        given = options(node, on_event=hook, callbacks=callbacks)
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            node.refuse_joins("join crashed", count=1)
            node.send_raw("no frame")
            node.drop()
            await node.wait_joined(ALICE, 2)
            node.deliver(ALICE, plaintext(1))
            await settle()
            assert (calls.order, calls.ids) == (["disconnect", "reconnect"], ["1"])
            assert all(child.restarts == 0 for child in channel.supervisor.which_children())
            assert (len(of(reported, LinkLost)), len(of(reported, AttemptFailed))) == (1, 1)


async def test_nothing_is_sent_a_second_time_by_itself_and_nothing_waits_for_the_next_join() -> None:
    """All: no idempotent resend. Ours neither, and it says so: what was in flight or refused is not written later."""
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute()
        async with trio.open_nursery() as nursery:
            Sender(nursery, channel, plaintext(1))
            await settle()
            node.drop()
        with pytest.raises(NotConnected):
            await channel.send_fire_and_forget("message", plaintext(2))
        with pytest.raises(NotConnected):
            await channel.send_ack(["3"])
        await node.wait_joined(ALICE, 2)
        await trio.sleep(120)
        sent = [frame.payload for frame in node.frames(ALICE) if frame.event in ("message", "ack")]
        assert sent == [plaintext(1)]


async def test_a_message_that_the_node_delivers_twice_is_handed_over_twice(calls: Calls) -> None:
    """All: no removal of doubles. The channel reads no ids, so an agent has to bear a redelivery; see guarantees."""
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.deliver(ALICE, plaintext(1))
        await settle()
        node.drop()
        await node.wait_joined(ALICE, 2)
        node.deliver(ALICE, plaintext(1))
        await settle()
        assert calls.ids == ["1", "1"]


async def test_an_agent_of_many_nights_has_as_many_tasks_as_on_its_first_day(calls: Calls) -> None:
    """All: loops, timers and dispatch tasks that nobody holds. A hundred drops later there are as many tasks as before.

    Every tenth time the rejoin is refused, every seventh the topic crashes instead, and a callback of each kind runs.
    """

    async def on_message(message: Any) -> None:
        await trio.sleep(0.01)

    callbacks = Callbacks(on_message, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        await trio.sleep(1)
        before = tasks()
        for night in range(1, 101):
            if night % 10 == 0:
                node.refuse_joins("join crashed", count=1)
            if night % 7 == 0:
                node.crash_topic()
            else:
                node.drop()
            await node.wait_joined(ALICE, night + 1)
            node.deliver(ALICE, plaintext(night))
            await trio.sleep(40)
        assert tasks() == before
        assert (len(node.connections), calls.order) == (1, ["disconnect", "reconnect"] * 100)
        assert channel.statistics().messages_delivered == 100
