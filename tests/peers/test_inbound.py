"""Bugs of the peers with what comes in: each test stages the row of its number and asserts the opposite.

Rows 11 to 15 and 17.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, Disconnected, open_channel
from layr8_actors.channel.events import AssignedDidChanged, CallbackFailed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, PROTOCOLS, Calls, Sender, of, options, plaintext, settle

# --- 11: one bad message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["thid", "pthid", "id", "type", "from", "attachments"])
@pytest.mark.parametrize("value", [{"a": 1}, [[]], 7, None])
async def test_peer_bug_11_a_message_with_a_field_of_the_wrong_type_is_handed_over_and_breaks_nothing(
    calls: Calls, field: str, value: Any
) -> None:
    """The channel takes no field of a message apart. What a thid that is no string means is left to the client."""
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        bad = {**plaintext(1), field: value}
        node.deliver(ALICE, bad)
        node.deliver(ALICE, plaintext(2))
        await settle()
        assert [message["plaintext"] for message in calls.messages] == [bad, plaintext(2)]
        assert (node.statistics().upgrades, node.joins(ALICE)) == (1, 1)
        assert channel.statistics().callbacks_failed == 0


@pytest.mark.parametrize("error", [KeyError("seq"), ValueError("bad"), TypeError("unhashable type: 'dict'")])
async def test_peer_bug_11_whatever_on_message_raises_is_reported_and_the_link_is_kept(error: Exception) -> None:
    events: list[Event] = []
    seen: list[str] = []

    def on_message(message: Any) -> None:
        seen.append(message["plaintext"]["id"])
        if len(seen) == 1:
            raise error

    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, events, callbacks=Callbacks(on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.deliver(ALICE, plaintext(1))
        node.deliver(ALICE, plaintext(2))
        await settle()
        assert seen == ["1", "2"]
        assert [(event.callback, event.error) for event in of(events, CallbackFailed)] == [("on_message", error)]
        assert (node.statistics().upgrades, channel.statistics().callbacks_failed) == (1, 1)
        assert (await channel.send_msg("message", plaintext())).ok


# --- 12: a flood ------------------------------------------------------------------------------------------------------


async def test_peer_bug_12_a_flood_of_5000_is_handled_one_at_a_time_in_bounded_memory() -> None:
    """What lies between node and handler is bounded throughout: 64 in the inbox, a batch of the transport, the pipe.

    Each message has 4 KiB, so that 1 MiB of reading ahead is 256 of them. The client's own limit on handlers that it
    runs at once is left to the client.
    """
    at_once = most_at_once = handled = most_between = 0

    async def on_message(message: Any) -> None:
        nonlocal at_once, most_at_once, handled, most_between
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        most_between = max(most_between, node.delivered(ALICE) - handled)
        await trio.sleep(0.01)
        assert int(message["plaintext"]["id"]) == handled
        handled += 1
        at_once -= 1

    async with CloudNode(memory=True) as node:
        given = options(node, callbacks=Callbacks(on_message), inbox_capacity=64)
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            await node.flood(ALICE, 5000, lambda number: plaintext(number, padding="x" * 4096))
            while handled < 5000:
                await trio.sleep(1)
            assert channel.statistics().messages_waiting == 0
            assert (channel.statistics().callbacks_failed, node.statistics().upgrades) == (0, 1)
    assert most_at_once == 1
    assert most_between < 1000


async def test_peer_bug_12_nothing_is_handled_after_close_and_what_was_at_work_is_cancelled() -> None:
    started = finished = 0

    async def on_message(message: Any) -> None:
        nonlocal started, finished
        started += 1
        await trio.sleep(0.1)
        await channel.send_fire_and_forget("message", plaintext())
        finished += 1

    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, callbacks=Callbacks(on_message))) as channel:
            await channel.connect(PROTOCOLS)
            await node.flood(ALICE, 500)
            await trio.sleep(1.05)
            await channel.close()
            at_close = (started, finished)
            await trio.sleep(60)
            assert (started, finished) == at_close == (11, 10)
        # What was sent by then was written before the leave: no reply has vanished.
        assert len(node.frames(ALICE, event="message")) == 10
        assert [frame.event for frame in node.frames(ALICE)][-1] == "phx_leave"


# --- 13: problem reports, payload_types -------------------------------------------------------------------------------


async def test_peer_bug_13_a_problem_report_with_only_a_pthid_is_delivered_like_any_message(calls: Calls) -> None:
    """Matching it to the request that it denies, by pthid, and binding its protocol at the join, is the client's."""
    report = {
        "id": "r1",
        "type": "https://didcomm.org/report-problem/2.0/problem-report",
        "pthid": "the-denied-thread",
        "body": {"code": "e.m.authz.denied", "comment": "no grant"},
    }
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect([*PROTOCOLS, "https://didcomm.org/report-problem/2.0"])
        node.deliver(ALICE, report, {"recipient": ALICE, "authorized": False, "sender_credentials": []})
        await settle()
        assert [message["plaintext"] for message in calls.messages] == [report]


async def test_peer_bug_13_the_joins_payload_types_have_one_order_and_no_doubles() -> None:
    """As given, on the rejoin too; a set, which has another order in each run of Python, is sorted."""
    b, a = "https://didcomm.org/b/1.0", "https://didcomm.org/a/1.0"
    for protocols, expected in (([b, a, "*", b, a], [b, a, "*"]), ({b, a, "*"}, ["*", a, b])):
        async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
            await channel.connect(protocols)  # type: ignore[arg-type]
            node.drop()
            await node.wait_joined(ALICE, 2)
            joins = node.frames(ALICE, event="phx_join")
            assert [join.payload["payload_types"] for join in joins] == [expected, expected]


# --- 14, 15: whose message it is --------------------------------------------------------------------------------------


async def test_peer_bug_14_a_message_of_another_topic_or_of_an_older_join_is_not_delivered(calls: Calls) -> None:
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        old = node.frames(ALICE, event="phx_join")[0].ref
        node.crash_topic()
        await node.wait_joined(ALICE, 2)
        await settle()
        payload = {"context": None, "plaintext": plaintext(1)}
        node.send_stale(ALICE, "message", payload, join_ref=old)
        node.send_stale(ALICE, "message", payload, join_ref="77")
        node.send_foreign(ALICE, "message", payload)
        node.send_foreign(ALICE, "message", payload, topic="plugins:")
        node.deliver(ALICE, plaintext(2))
        await settle()
        assert calls.ids == ["2"]
        assert channel.statistics().frames_ignored == 4


async def test_peer_bug_15_a_did_that_the_node_changes_at_a_rejoin_is_known_before_on_reconnect_is_called() -> None:
    """Nothing goes out under the old DID unknowingly: assigned_did is the new one when on_reconnect runs.

    Putting it into ``from`` of what is sent is left to the client.
    """
    events: list[Event] = []
    calls = Calls()
    known: list[str] = []
    callbacks = Callbacks(calls.on_message, None, lambda: known.append(channel.assigned_did))
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, events, agent_did="", callbacks=callbacks)) as channel,
    ):
        await channel.connect(PROTOCOLS)
        first = channel.assigned_did
        node.drop()
        await node.wait_for(lambda: node.statistics().upgrades == 2 and node.dids)
        await settle()
        (second,) = node.dids
        assert second != first
        assert known == [channel.assigned_did] == [second]
        (changed,) = of(events, AssignedDidChanged)
        assert (changed.before, changed.after) == (first, second)
        node.deliver(second, plaintext(1, to=second))
        await settle()
        assert calls.ids == ["1"]


# --- 17: callbacks that raise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raising", ["on_disconnect", "on_reconnect"])
@pytest.mark.parametrize("kind", [ValueError, trio.TooSlowError, ExceptionGroup])
async def test_peer_bug_17_a_callback_that_raises_costs_no_reconnect_no_send_and_no_socket(
    raising: str, kind: type[Exception]
) -> None:
    events: list[Event] = []
    error = ExceptionGroup("boom", [ValueError()]) if kind is ExceptionGroup else kind("boom")

    async def fail(*args: object) -> None:
        raise error

    callbacks = Callbacks(**{raising: fail})
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, events, callbacks=callbacks)) as channel:
            await channel.connect(PROTOCOLS)
            node.mute()
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                sender = Sender(nursery, channel)
                await settle()
                node.drop()
            assert isinstance(sender.outcome, Disconnected)
            assert sender.at == start
            await node.wait_joined(ALICE, 2)
            await trio.sleep(120)
            assert (await channel.send_msg("message", plaintext())).ok
            assert [(event.callback, event.error) for event in of(events, CallbackFailed)] == [(raising, error)]
            assert (node.statistics().upgrades, node.joins(ALICE), len(node.connections)) == (2, 2, 1)
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=1)
