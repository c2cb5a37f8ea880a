"""Scenarios of the peers' own tests that no other test here holds; docs/scenarios.md says which test holds which."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, ConnectFailed, Disconnected, open_channel
from layr8_actors.channel.events import AttemptFailed
from layr8_actors.errors import TransportClosed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, KEY, PROTOCOLS, TOPIC, Calls, Sender, of, options, plaintext, settle

# --- reconnect and close ----------------------------------------------------------------------------------------------


async def test_a_half_dead_connection_is_replaced_within_three_seconds_where_heartbeats_are_that_short(
    calls: Calls,
) -> None:
    """The node swallows all that it is sent; a beat each 0.8 s is given as long again for its answer."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True, exclusive=False) as node:
        async with open_channel(options(node, callbacks=callbacks, heartbeat_interval=0.8)) as channel:
            await channel.connect(PROTOCOLS)
            start = trio.current_time()
            node.stop_reading()
            node.go_silent()
            await node.wait_for(lambda: node.joins(ALICE) == 2, timeout=3)
            await settle()
            assert calls.times[0] - start == pytest.approx(1.6)
            assert calls.order == ["disconnect", "reconnect"]


async def test_our_own_ghost_on_a_node_that_has_not_missed_us_yet_delays_the_rejoin_and_no_more(calls: Calls) -> None:
    """The node still holds the DID for the dead socket: ``protocols_already_bound``, until it notices."""
    events: list[Event] = []
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, events, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.stop_reading()
        node.go_silent()
        await trio.sleep(300)
        assert [failure.error.reason.rpartition(" ")[2] for failure in of(events, AttemptFailed)][:4] == [
            "protocols_already_bound"
        ] * 4
        node.resume()
        await node.wait_joined(ALICE, 2, timeout=31)
        await settle()
        assert (calls.order, len(node.connections)) == (["disconnect", "reconnect"], 1)


@pytest.mark.parametrize("reader", ["notices too", "notices nothing"])
async def test_a_write_that_fails_is_told_to_its_callers_and_leaves_nothing_for_close_to_trip_over(
    scripted: Any, reader: str, calls: Calls
) -> None:
    """A socket that only breaks for writing is given up too, though its reader hears nothing of it."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with open_channel(scripted.options(callbacks=callbacks, close_timeout=2)) as channel:
        await channel.connect(PROTOCOLS)
        broken = scripted.socket

        async def send(batch: Sequence[str | bytes]) -> None:
            await trio.lowlevel.checkpoint()
            if reader == "notices too":
                broken.drop()
            raise TransportClosed(1006, detail="broken pipe")

        def send_nowait(message: str | bytes) -> bool:
            raise trio.WouldBlock  # it breaks for both ways of writing; what is wrong is for send to say

        broken.send, broken.send_nowait = send, send_nowait
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            senders = [Sender(nursery, channel) for _ in range(3)]
        assert [type(sender.outcome) for sender in senders] == [Disconnected] * 3
        assert trio.current_time() - start <= 2
        await channel.connect(PROTOCOLS)
        await settle()
        assert (await channel.send_msg("message", plaintext())).ok
        assert calls.order == ["disconnect", "reconnect"]
        assert (scripted.dials, scripted.open_sockets) == (2, 1)
        await channel.close()
    assert scripted.open_sockets == 0


# --- join, URL, key ---------------------------------------------------------------------------------------------------


class Recorder:
    """Keeps the text of what the channel sends, beside decoding it."""

    def __init__(self, inner: Any) -> None:
        self.raw: list[str | bytes] = []
        self._inner = inner

    def decode(self, data: str | bytes) -> Any:
        self.raw.append(data)
        return self._inner.decode(data)

    def encode(self, frame: Any) -> Any:
        return self._inner.encode(frame)


async def test_a_join_that_names_no_parent_is_this_text_on_the_wire_and_the_same_at_each_rejoin(scripted: Any) -> None:
    recorder = scripted.serializer = Recorder(scripted.serializer)
    async with open_channel(scripted.options()) as channel:
        await channel.connect(PROTOCOLS)
        scripted.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
    joins = [text for text in recorder.raw if "phx_join" in str(text)]
    rest = (
        f'"{TOPIC}","phx_join",{{"payload_types":["https://didcomm.org/basicmessage/2.0"],"reply_protocol":true,'
        '"did_spec":{"mode":"Create","storage":"persistent","type":"plugin","verificationMethods":'
        '[{"purpose":"authentication"},{"purpose":"assertionMethod"},{"purpose":"keyAgreement"}]}}]'
    )
    assert joins == [f'["1","1",{rest}', f'["2","2",{rest}']


async def test_a_did_spec_of_the_callers_own_goes_through_at_each_join() -> None:
    spec = {
        "mode": "Require",
        "storage": "persistent",
        "label": "an agent",
        "verificationMethods": [
            {"purpose": "authentication", "type": "Multikey", "id": "#k1"},
            {"purpose": "keyAgreement", "curve": "X25519"},
        ],
    }
    async with CloudNode(memory=True) as node, open_channel(options(node, did_spec=spec)) as channel:
        await channel.connect(PROTOCOLS)
        node.drop()
        await node.wait_joined(ALICE, 2)
        joins = node.frames(ALICE, event="phx_join")
        assert [join.payload["did_spec"] for join in joins] == [{"type": "plugin", **spec}] * 2


async def test_a_blank_did_joins_ephemeral_on_the_bare_topic_and_leaves_the_topic_that_it_joined(calls: Calls) -> None:
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, agent_did="", callbacks=Callbacks(calls.on_message))) as channel:
            await channel.connect(PROTOCOLS)
            assert channel.assigned_did == node.dids[0]
            node.deliver(channel.assigned_did, plaintext(1))
            payload = {"plaintext": plaintext(2)}
            node.send_foreign(channel.assigned_did, "message", payload, topic=f"plugins:{channel.assigned_did}")
            await settle()
            assert calls.ids == ["1", "2"]
        await settle()
        (join,) = node.frames(event="phx_join")
        assert (join.topic, join.payload["did_spec"]["storage"]) == ("plugins:", "ephemeral")
        assert [frame.topic for frame in node.frames(event="phx_leave")] == ["plugins:"]
        assert node.dids == ()


async def test_a_borrowed_did_keeps_the_name_it_was_given_and_asks_for_refreshes_at_each_join() -> None:
    async with CloudNode(memory=True) as node:
        given = options(node, agent_did="", did_spec={"parentDid": ALICE})
        async with open_channel(given) as channel:
            for joins in (1, 2, 3):
                await channel.connect(PROTOCOLS)
                await node.wait_joined(given.agent_did, joins)
                node.drop()
                await settle()
            assert given.agent_did.startswith(f"{ALICE}:")
            frames = node.frames(event="phx_join")
            assert [frame.topic for frame in frames] == [f"plugins:{given.agent_did}"] * 3
            assert [frame.payload["delegation_refresh"] for frame in frames] == [True] * 3
            assert [frame.payload["did_spec"]["storage"] for frame in frames] == ["ephemeral"] * 3


async def test_the_name_that_a_caller_gave_a_borrowed_did_goes_through_with_its_source() -> None:
    child = f"{ALICE}:kid"
    spec = {"parentDid": ALICE, "childNameSource": "client", "label": "", "controller": ""}
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, agent_did=child, did_spec=spec)) as channel,
    ):
        await channel.connect(PROTOCOLS)
        (join,) = node.frames(child, event="phx_join")
        sent = {key: join.payload["did_spec"].get(key) for key in ("parentDid", "childNameSource", "storage", "label")}
        # What is empty is left out, because a node reads "" as a value.
        assert sent == {"parentDid": ALICE, "childNameSource": "client", "storage": "ephemeral", "label": None}
        assert "controller" not in join.payload["did_spec"]


@pytest.mark.parametrize("auth", ["query", "header"])
async def test_the_error_of_a_refused_upgrade_does_not_carry_the_key(auth: str) -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node, auth=auth)) as channel:
        node.refuse_upgrades(401, body=f"bad key {KEY}".encode(), headers={"Location": f"/?api_key={KEY}"})
        with pytest.raises(ConnectFailed) as caught:
            await channel.connect(PROTOCOLS)
        assert node.requests[0].api_key == KEY
        assert caught.value.status == 401
        assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)


# --- send and receive -------------------------------------------------------------------------------------------------


async def test_a_message_that_the_node_refuses_is_told_to_its_caller_and_to_nobody_else(calls: Calls) -> None:
    events: list[Event] = []
    callbacks = Callbacks(calls.on_message, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, events, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        for reason in ("unauthorized", "not_authorized"):
            node.answer_pushes({"status": "error", "response": {"reason": reason}}, count=1)
            reply = await channel.send_msg("message", plaintext())
            assert (reply.ok, reply.reason) == (False, reason)
        await settle()
        assert [event for event in events if event.level >= logging.WARNING] == []
        assert (calls.order, channel.state.last_error) == ([], None)


async def test_what_a_message_holds_goes_out_and_comes_in_as_it_is(calls: Calls) -> None:
    """Threads, traces, attachments and keys that nobody knows: the channel carries them and reads none."""
    message = plaintext(
        1,
        thid="t-1",
        pthid="p-1",
        trace_context={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"},
        attachments=[{"id": "a", "lastmod_time": "no number", "data": {"json": {"n": 12345678901234567890}}}],
        unknown={"": None, "ключ": [1.5, True, "\u2028\U0001f600"]},
    )
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", message)).ok
        await settle()
        assert node.frames(ALICE, event="message")[0].payload == message
        context = {"recipient": ALICE, "authorized": True, "sender_credentials": []}
        assert calls.messages == [{"context": context, "plaintext": message}]


async def test_a_push_of_new_credentials_reaches_nobody_yet_and_breaks_nothing(calls: Calls) -> None:
    """Holding and refreshing them is the client's; the channel counts the push as not for it."""
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.push(ALICE, "delegated_credentials", {"revision": 3, "status": "complete", "credentials": []})
        node.push(ALICE, "delegated_credentials", None)
        node.deliver(ALICE, plaintext(1))
        await settle()
        assert (calls.ids, channel.statistics().frames_ignored) == (["1"], 2)
