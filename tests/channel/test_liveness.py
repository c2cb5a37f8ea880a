"""Heartbeats: when they are sent, what answers them, and what a silence leads to."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, LinkStatus, open_channel
from layr8_actors.errors import TransportClosed
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


def beats(socket: Any) -> list[Frame]:
    return [frame for frame in socket.frames if frame.event == "heartbeat"]


async def test_a_heartbeat_goes_out_each_30_s_on_topic_phoenix_without_a_join_ref(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await trio.sleep(29.9)
        assert beats(node.socket) == []
        await trio.sleep(90)
        assert [(frame.join_ref, frame.topic, frame.payload) for frame in beats(node.socket)] == [
            (None, "phoenix", {})
        ] * 3
        assert channel.statistics().round_trip is not None


async def test_a_heartbeat_without_its_reply_drops_the_link_however_much_else_arrives(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.deaf = True
        first = node.socket
        for second in range(59):
            await trio.sleep(1)
            first.message(second)
            first.say(Frame(None, "nobody", "phoenix", "phx_reply", {"status": "ok", "response": {}}))
        assert first.open
        await trio.sleep(1.5)
        assert first.ended_by == "abort"
        node.deaf = False
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        assert isinstance(calls.disconnects[0], TransportClosed)
        assert "heartbeat" in str(calls.disconnects[0])


async def test_total_silence_is_noticed_within_interval_plus_timeout(node: Any, calls: Any) -> None:
    options = node.options(callbacks=calls.callbacks(), heartbeat_interval=30, heartbeat_timeout=10)
    async with open_channel(options) as channel:
        await channel.connect(PROTOCOLS)
        node.deaf = True
        start = trio.current_time()
        while not calls.disconnects:
            await trio.sleep(0.1)
        assert 39.9 <= trio.current_time() - start <= 40.3
        assert channel.state.status is not LinkStatus.JOINED


async def test_a_peer_that_stops_reading_is_dropped_by_the_unanswered_heartbeat(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {})
        await trio.sleep(61)
        assert len(calls.disconnects) == 1


async def test_each_new_socket_has_a_heartbeat_of_its_own(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await trio.sleep(25)
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await trio.sleep(29)
        assert beats(node.socket) == []
        await trio.sleep(2)
        assert len(beats(node.socket)) == 1


@pytest.mark.parametrize("every", [7.0, 29.0])
async def test_a_heartbeat_actor_that_keeps_crashing_neither_misses_a_beat_nor_drops_a_healthy_link(
    node: Any, calls: Any, every: float
) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks(), max_seconds=5.0)) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        while trio.current_time() - start < 300:
            await trio.sleep(every)
            if channel.supervisor.which_children()[3].state.name == "RUNNING":
                channel.supervisor.exit_child("heartbeat", RuntimeError("injected"))
        assert 5 <= len(beats(node.socket)) <= 11
        assert (calls.order, node.dials) == ([], 1)


async def test_a_slow_user_is_not_taken_for_a_dead_link_and_heartbeats_go_on(node: Any, calls: Any) -> None:
    gate = trio.Event()

    async def on_message(message: Any) -> None:
        await gate.wait()

    callbacks = Callbacks(on_message, calls.on_disconnect, calls.on_reconnect)
    async with open_channel(node.options(callbacks=callbacks, inbox_capacity=10)) as channel:
        await channel.connect(PROTOCOLS)
        for batch in range(20):
            node.socket.message(batch)
            await settle()
        assert channel.statistics().reading_paused
        reads = node.socket.reads
        await trio.sleep(300)
        assert node.socket.reads == reads, "the socket was read in spite of a full inbox"
        assert len(beats(node.socket)) >= 9, "a node closes a socket that sends nothing for 60 s"
        assert (calls.order, node.dials) == ([], 1)
        gate.set()
        await settle()
        assert not channel.statistics().reading_paused
        await trio.sleep(100)
        assert (await channel.send_msg("message", {})).ok
        assert (calls.order, node.dials) == ([], 1)
