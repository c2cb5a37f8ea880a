"""Bugs of the peers that a caller of send_msg meets: each test stages the row of its number and asserts the opposite.

Rows 1, 2, 19, 20 and 25.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, ChannelClosed, Disconnected, RemoteProtocolError, ReplyTimeout, open_channel
from layr8_actors.errors import TransportClosed
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, PROTOCOLS, Calls, Sender, options, plaintext, settle, tasks


@pytest.mark.parametrize(("end", "error"), [("drop", Disconnected), ("close", ChannelClosed)])
async def test_peer_bug_01_a_send_in_flight_at_a_drop_or_a_close_gets_a_typed_error_and_no_cancellation(
    end: str, error: type[Exception]
) -> None:
    """The worker has ``except Exception`` and lives on after it; the peer's was left cancelled by nobody."""
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute()
        caught: list[Exception] = []
        went_on = False

        async def worker() -> None:
            nonlocal went_on
            try:
                await channel.send_msg("message", plaintext())
            except Exception as failure:
                caught.append(failure)
            await trio.lowlevel.checkpoint()  # where a cancellation would strike
            went_on = True

        start = trio.current_time()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker)
                await settle()
                if end == "drop":
                    node.drop()
                else:
                    await channel.close()
        assert [type(failure) for failure in caught] == [error]
        assert went_on
        assert not scope.cancelled_caught
        assert trio.current_time() == start
        if isinstance(caught[0], Disconnected):
            assert caught[0].written


async def test_peer_bug_02_a_dropped_link_is_told_at_once_so_that_nobody_waits_out_a_timeout(calls: Calls) -> None:
    """The request is acknowledged and waits for its response when the link drops; another one is still in flight.

    The channel's share: on_disconnect, and every send_msg in flight, hear of it in the same instant, so whoever waits
    for a response by thread can be told then. Keeping the list of those requests is left to the client.
    """
    told = trio.Event()

    def on_disconnect(error: Exception) -> None:
        calls.on_disconnect(error)
        told.set()

    callbacks = Callbacks(on_disconnect=on_disconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", plaintext())).ok
        start = trio.current_time()
        outcome = ""

        async def wait_for_the_response() -> None:
            nonlocal outcome
            with trio.move_on_after(30):
                await told.wait()
                outcome = "told"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_response)
            node.mute()
            sender = Sender(nursery, channel)
            await settle()
            node.drop(reset=True)
        assert (outcome, sender.at, trio.current_time()) == ("told", start, start)
        assert isinstance(sender.outcome, Disconnected)
        assert isinstance(calls.disconnects[0], TransportClosed)


@pytest.mark.parametrize("payload", [None, [], "ok", {}, {"status": None}, {"status": ["ok"]}])
async def test_peer_bug_19_a_reply_that_is_none_is_an_error_of_its_caller_and_never_an_acceptance(payload: Any) -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.answer_pushes(payload, count=1)
        with pytest.raises(RemoteProtocolError):
            await channel.send_msg("message", plaintext())
        assert (await channel.send_msg("message", plaintext())).ok
        assert (node.statistics().upgrades, node.joins(ALICE)) == (1, 1)


@pytest.mark.parametrize("status", ["timeout", "error", "Ok", "ok ", ""])
async def test_peer_bug_19_only_the_status_ok_counts_as_accepted(status: str) -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.answer_pushes({"status": status, "response": {}})
        reply = await channel.send_msg("message", plaintext())
        assert (reply.ok, reply.status) == (False, status)


@pytest.mark.parametrize("stage", ["written", "queued"])
async def test_peer_bug_20_two_hundred_cancelled_sends_leave_no_waiter_behind(stage: str) -> None:
    """Cancelled while the reply is awaited, and while the frame still waits for the writer."""
    async with CloudNode(memory=True, capacity=1024) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        await channel.send_ack(["any"])  # who sends has a writer
        await settle()
        before = tasks()
        node.mute()
        if stage == "queued":
            node.stop_reading()
            await channel.send_fire_and_forget("message", plaintext(padding="x" * 4096))  # the writer is stuck in it
            await settle()
        async with trio.open_nursery() as nursery:
            for number in range(200):
                Sender(nursery, channel, plaintext(number))
            await settle()
            assert channel.statistics().replies_waiting == 200
            nursery.cancel_scope.cancel()
        assert channel.statistics().replies_waiting == 0
        assert tasks() == before
        seen = len(node.frames(ALICE, event="message"))
        assert seen == (200 if stage == "written" else 0)
        node.resume()
        node.unmute()
        assert (await channel.send_msg("message", plaintext())).ok
        # What was cancelled before it was written never is: only the one that blocked the writer comes through.
        assert len(node.frames(ALICE, event="message")) == seen + (1 if stage == "written" else 2)
        assert (channel.statistics().replies_waiting, channel.statistics().outbox_waiting) == (0, 0)


async def test_peer_bug_25_a_peer_that_stops_reading_bounds_the_writes_the_sends_and_the_close() -> None:
    """The send's 15 s cover the write; what waits is bounded by outbox_capacity; close takes its 5 s and no more."""
    async with CloudNode(memory=True, capacity=4096) as node:
        before = tasks()
        async with open_channel(options(node, outbox_capacity=8, heartbeat_interval=600)) as channel:
            await channel.connect(PROTOCOLS)
            node.stop_reading()
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                first = Sender(nursery, channel, plaintext(padding="x" * 8192))  # the writer takes it and is stuck
                await settle()
                senders = [Sender(nursery, channel, plaintext(number)) for number in range(40)]
                await trio.sleep(14)
                assert channel.statistics().outbox_waiting == 8
            assert [sender.at for sender in (first, *senders)] == [start + 15] * 41
            assert all(isinstance(sender.outcome, ReplyTimeout) for sender in (first, *senders))
            # Those that never left the queue say so: they may be sent again without doubt.
            assert first.outcome.written
            assert not any(sender.outcome.written for sender in senders)
            with pytest.raises(ReplyTimeout):
                while True:
                    await channel.send_fire_and_forget("message", plaintext())
            assert trio.current_time() == start + 30
            await channel.close()
            assert trio.current_time() - start - 30 <= 5
        node.resume()  # only now does the node see that the client is gone
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=5)
        await settle()
        assert tasks() == before
