"""What nobody on our side of the wire can know: each test shows that both answers happen, so that none is promised."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, Disconnected, RemoteProtocolError, ReplyTimeout, open_channel
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, PROTOCOLS, Calls, Sender, options, plaintext, settle

BOB = "did:web:node.test:bob"


async def test_written_after_a_drop_covers_a_message_that_the_node_took_and_one_that_it_never_read(
    calls: Calls,
) -> None:
    """The caller sees the same error both times; only the other side can tell."""
    outcomes: list[Any] = []
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, agent_did=BOB, callbacks=Callbacks(calls.on_message))) as bob,
        open_channel(options(node)) as alice,
    ):
        await bob.connect(PROTOCOLS)
        for number, stage in ((1, "taken, and its reply lost"), (2, "never read")):
            await alice.connect(PROTOCOLS)
            await node.wait_joined(ALICE, number)
            if stage == "never read":
                node.stop_reading(ALICE)
            else:
                node.drop_replies(did=ALICE)
            async with trio.open_nursery() as nursery:
                sender = Sender(nursery, alice, plaintext(number, to=BOB))
                await settle()
                node.drop(ALICE, reset=True)
            outcomes.append(sender.outcome)
            node.behave()
        assert [(type(outcome), outcome.written) for outcome in outcomes] == [(Disconnected, True)] * 2
        await trio.sleep(60)
        assert calls.ids == ["1"]


async def test_ok_is_the_nodes_word_that_it_has_the_message_and_not_that_anybody_got_it(calls: Calls) -> None:
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, agent_did=BOB, callbacks=Callbacks(calls.on_message))) as bob,
        open_channel(options(node)) as alice,
    ):
        await bob.connect(PROTOCOLS)
        await alice.connect(PROTOCOLS)
        node.go_silent(BOB)
        assert (await alice.send_msg("message", plaintext(1, to=BOB))).ok
        await settle()
        node.drop(BOB, reset=True)
        await node.wait_joined(BOB, 2)
        await trio.sleep(60)
        assert calls.ids == []


async def test_what_the_node_had_sent_and_we_had_not_read_goes_with_the_socket(calls: Calls) -> None:
    """Nothing asks for it again: whether it comes again is the node's business."""
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.deliver(ALICE, plaintext(1))
        node.drop(reset=True)
        await node.wait_joined(ALICE, 2)
        node.deliver(ALICE, plaintext(2))
        await trio.sleep(60)
        assert (calls.ids, node.delivered(ALICE)) == (["2"], 2)


async def test_a_reply_that_is_nonsense_says_nothing_of_whether_the_node_acted(calls: Calls) -> None:
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.answer_pushes({}, count=2)
        for recipient in (ALICE, "did:web:node.test:nobody"):
            with pytest.raises(RemoteProtocolError):
                await channel.send_msg("message", plaintext(1, to=recipient))
        await settle()
        assert calls.ids == ["1"]


async def test_a_reply_that_comes_too_late_is_counted_and_its_caller_has_long_been_told(calls: Calls) -> None:
    """The node acted on it after all."""
    async with (
        CloudNode(memory=True) as node,
        open_channel(options(node, callbacks=Callbacks(calls.on_message))) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.delay_replies(20, event="message", count=1)
        with pytest.raises(ReplyTimeout) as caught:
            await channel.send_msg("message", plaintext(1))
        assert caught.value.written
        assert channel.statistics().replies_unclaimed == 0
        await trio.sleep(6)
        assert (channel.statistics().replies_unclaimed, calls.ids) == (1, ["1"])
