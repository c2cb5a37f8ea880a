"""Bugs of the peers with replies and links: each test stages the row of its number and asserts the opposite.

Rows 22, 26 and 27.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, NotConnected, open_channel
from layr8_actors.channel.events import LinkLost, SendsDiscarded
from layr8_actors.channel.messages import FramesArrived
from layr8_actors.phoenix import Frame
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, PROTOCOLS, TOPIC, Sender, of, options, plaintext, settle


def dispatch_reply(message_id: str) -> dict[str, Any]:
    return {"message_id": message_id, "status": "handled"}


@pytest.mark.parametrize("end", ["socket", "topic"])
async def test_peer_bug_22_a_dispatch_reply_queued_on_the_old_link_is_counted_and_never_written_on_the_new_one(
    end: str,
) -> None:
    """It waits behind a peer that does not read, link or topic is lost, and the next join sees nothing of it."""
    events: list[Event] = []
    async with (
        CloudNode(memory=True, capacity=1024) as node,
        open_channel(options(node, events)) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.stop_reading()
        await channel.send_fire_and_forget("message", plaintext(padding="x" * 4096))
        await settle()
        await channel.send_fire_and_forget("dispatch_reply", dispatch_reply("of the old link"))
        if end == "socket":
            node.drop(reset=True)
        else:
            node.crash_topic()
            await settle()
            node.resume()
        await node.wait_joined(ALICE, 2)
        await trio.sleep(60)
        assert node.frames(ALICE, event="dispatch_reply") == []
        assert [event.discarded for event in of(events, LinkLost)] == ([1] if end == "socket" else [])
        assert [event.count for event in of(events, SendsDiscarded)] == ([1] if end == "topic" else [])
        assert node.statistics().upgrades == (2 if end == "socket" else 1)
        assert channel.statistics().sends_discarded == 1


async def test_peer_bug_22_a_dispatch_reply_during_the_backoff_is_refused_aloud_and_nothing_is_queued() -> None:
    """A handler that works on over a drop is told NotConnected; the peer's reply vanished without a report.

    A handler that outlives backoff and rejoin too is the client's case: see client/test_dispatch.py. It notes the join
    of each dispatch, by ``message_join_ref``, and what it sends under an older one is refused.
    """
    outcomes: list[Any] = []

    async def on_message(message: Any) -> None:
        await trio.sleep(0.2)
        try:
            await channel.send_fire_and_forget("dispatch_reply", dispatch_reply(message["plaintext"]["id"]))
            outcomes.append("sent")
        except NotConnected as error:
            outcomes.append(error)

    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.deliver(ALICE, plaintext(1))
        await settle()
        node.drop()
        await node.wait_joined(ALICE, 2)
        await trio.sleep(60)
        assert [type(outcome) for outcome in outcomes] == [NotConnected]
        assert node.frames(ALICE, event="dispatch_reply") == []


async def test_peer_bug_26_a_reply_on_an_abandoned_socket_resolves_no_send_of_the_new_one(scripted: Any) -> None:
    """The old socket is given up by its heartbeat, and then speaks: of its own refs, and of the new socket's.

    Refs are never used twice, so that a reply could not match even if it came through; and none does: what the reader
    had taken from the old socket is dropped by the router, which is staged here by putting it there.
    """
    scripted.mute = True
    async with open_channel(scripted.options(heartbeat_interval=1, reply_timeout=600)) as channel:
        await channel.connect(PROTOCOLS)
        old = scripted.socket
        async with trio.open_nursery() as nursery:
            Sender(nursery, channel)
            await settle()
            scripted.deaf = True
            await trio.sleep(2.1)
            assert not old.open
            scripted.deaf = False
            await trio.sleep(1.5)
            new = scripted.socket
            assert new is not old
            sender = Sender(nursery, channel)
            await settle()
            (request,) = new.pushes
            assert {frame.ref for frame in old.frames} & {frame.ref for frame in new.frames} == set()
            late = [
                Frame(join_ref, ref, TOPIC, "phx_reply", {"status": "ok", "response": {}})
                for join_ref in (old.join_ref, new.join_ref, None)
                for ref in (old.pushes[0].ref, request.ref)
            ]
            old.say(*late)
            channel._record.backlog.add(len(late), len(late))
            channel._tree.router.cast_nowait(FramesArrived(1, late, [1] * len(late)))
            await settle()
            assert sender.at is None
            assert channel.statistics().frames_ignored == len(late)
            new.reply(request)
        assert sender.outcome.ok
        assert (channel.statistics().replies, channel.statistics().replies_unclaimed) == (1, 0)


async def test_peer_bug_27_a_response_can_be_answered_with_a_dispatch_reply_on_the_join_it_came_on() -> None:
    """send_fire_and_forget from within on_message writes it, with the join_ref, on the first join and on a later one.

    That each correlated response gets exactly one is left to the client.
    """

    async def on_message(message: Any) -> None:
        await channel.send_fire_and_forget("dispatch_reply", dispatch_reply(message["plaintext"]["id"]))

    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        # A request to oneself: its acknowledgement and the response come by the same socket.
        assert (await channel.send_msg("message", plaintext(1, thid="1"))).ok
        await settle()
        node.crash_topic()
        await node.wait_joined(ALICE, 2)
        await settle()
        assert (await channel.send_msg("message", plaintext(2, thid="2"))).ok
        await settle()
        joins = [frame.ref for frame in node.frames(ALICE, event="phx_join")]
        answers = node.frames(ALICE, event="dispatch_reply")
        assert [(frame.join_ref, frame.payload["message_id"]) for frame in answers] == [
            (joins[0], "1"),
            (joins[1], "2"),
        ]
