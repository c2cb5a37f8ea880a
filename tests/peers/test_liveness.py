"""Bugs of the peers that take a dead node for a live one: each test stages its row and asserts the opposite.

Rows 16 and 18.
"""

from __future__ import annotations

import pytest
import trio

from layr8_actors import Callbacks, ReplyTimeout, open_channel
from layr8_actors.errors import TopicDown, TransportClosed
from layr8_actors.phoenix import Frame
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, PROTOCOLS, Calls, options, plaintext, settle

OK = {"status": "ok", "response": {}}


async def test_peer_bug_16_garbage_in_place_of_heartbeat_replies_is_noticed_after_60_s(calls: Calls) -> None:
    """Frames keep coming, answers to other heartbeats among them: only a beat's own reply counts as life."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.ignore_heartbeats()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                while True:
                    node.send_raw("garbage")
                    node.deliver(ALICE, plaintext())
                    for ref in ("9999", "1", None):
                        node.send_reply(ALICE, ref, OK)
                        node.send_frame(Frame(None, ref, "phoenix", "phx_reply", OK))
                    await trio.sleep(1.5)

            nursery.start_soon(talk)
            await trio.sleep(59.9)
            assert calls.order == []
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        assert calls.order == ["disconnect"]
        assert calls.times[0] - start == pytest.approx(60)
        assert isinstance(calls.disconnects[0], TransportClosed)
        node.ignore_heartbeats(False)
        await node.wait_joined(ALICE, 2)
        await settle()
        assert (calls.order, len(node.connections)) == (["disconnect", "reconnect"], 1)


async def test_peer_bug_16_total_silence_is_noticed_after_60_s_and_not_after_90(calls: Calls) -> None:
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        node.go_silent()
        await trio.sleep(100)
        assert calls.times[0] - start == pytest.approx(60)
        assert calls.order == ["disconnect", "reconnect"]


async def test_peer_bug_16_a_hung_channel_behind_an_answering_socket_is_noticed_by_three_missing_replies(
    calls: Calls,
) -> None:
    """Heartbeats are answered by the socket's process all along; the topic is left and joined anew after 45 s."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute()
        start = trio.current_time()
        for _ in range(3):
            with pytest.raises(ReplyTimeout):
                await channel.send_msg("message", plaintext())
        await settle()
        assert (calls.order, calls.times[0] - start) == (["disconnect"], 45)
        assert isinstance(calls.disconnects[0], TopicDown)
        await node.wait_joined(ALICE, 2)
        await settle()
        assert (await channel.send_msg("message", plaintext())).ok
        assert (node.statistics().upgrades, node.statistics().heartbeats) == (1, 1)


@pytest.mark.parametrize("version", ["1.7.24", "1.8.11", "1.8.12"])
async def test_peer_bug_18_messages_acks_and_the_leave_are_taken_by_every_version_of_phoenix(
    version: str, calls: Calls
) -> None:
    """1.8.3 to 1.8.11 drop every frame whose join_ref is null, without a word; ours all carry the join's."""
    async with CloudNode(memory=True, phoenix=version) as node:
        async with open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel:
            for joins in (1, 2):
                await channel.connect(PROTOCOLS)
                await node.wait_joined(ALICE, joins)
                await settle()
                assert (await channel.send_msg("message", plaintext(joins))).ok
                await channel.send_ack([str(joins)])
                await channel.send_fire_and_forget("dispatch_reply", {"message_id": str(joins), "status": "handled"})
                await settle()
                node.drop()
                await settle()
            await channel.connect(PROTOCOLS)
        await settle()
        assert node.dids == ()  # the leave was acted on
        assert calls.ids == ["1", "2"]
        frames = [frame for frame in node.frames(ALICE) if frame.event not in ("phx_join", "heartbeat")]
        assert [frame.event for frame in frames] == ["message", "ack", "dispatch_reply"] * 2 + ["phx_leave"]
        joins_seen = [frame.ref for frame in node.frames(ALICE, event="phx_join")]
        assert [frame.join_ref for frame in frames] == [joins_seen[0]] * 3 + [joins_seen[1]] * 3 + [joins_seen[2]]
        assert len(set(joins_seen)) == 3
