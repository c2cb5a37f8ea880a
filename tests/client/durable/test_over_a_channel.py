"""Inbox and outbox between an application and a channel whose link drops: persist, then acknowledge; put, then send."""

from __future__ import annotations

import functools
import json
from typing import Any

import trio

from layr8_actors import Callbacks, Channel, ChannelOptions, Disconnected, NotConnected, ReplyTimeout, open_channel
from layr8_actors.client.durable import Claimed, MemoryQueue, QueueOptions, QueueStatistics, SnoozeMessage, run_worker
from layr8_actors.otp import Backoff
from layr8_actors.testing import CloudNode

DID = "did:web:node.test:alice"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


class Link:
    """Knows whether the channel is joined."""

    def __init__(self) -> None:
        self.joined = trio.Event()

    def lost(self, _: Exception) -> None:
        self.joined = trio.Event()

    def back(self) -> None:
        self.joined.set()

    async def ready(self) -> None:
        await self.joined.wait()


async def send(channel: Channel, claimed: Claimed) -> None:
    """What an outbox's handler is: acknowledged by returning, where the node has accepted the message."""
    try:
        reply = await channel.send_msg("message", json.loads(claimed.body))
    except (NotConnected, Disconnected, ReplyTimeout) as error:
        raise SnoozeMessage(1, str(error)) from error
    if not reply.ok:
        raise RuntimeError(f"the node refused it: {reply.reason}")


def message(id: str, to: str = DID) -> bytes:
    return json.dumps({"id": id, "from": DID, "to": [to], "type": f"{PROTOCOLS[0]}/message", "body": {}}).encode()


async def test_what_is_in_the_outbox_reaches_the_node_in_order_within_its_key_over_drops_and_a_node_that_is_away():
    link = Link()
    outbox = MemoryQueue("outbox", QueueOptions(max_attempts=2), clock=trio.current_time)
    async with CloudNode(memory=True) as node:
        callbacks = Callbacks(on_message=lambda _: None, on_disconnect=link.lost, on_reconnect=link.back)
        options = ChannelOptions(
            ws_url=node.url, api_key="key", agent_did=DID, transport=node.connector, callbacks=callbacks
        )
        async with open_channel(options) as channel, trio.open_nursery() as nursery:
            deliver = functools.partial(send, channel)
            nursery.start_soon(
                functools.partial(run_worker, outbox, deliver, ready=link.ready, on_event=lambda _: None)
            )
            for number in range(10):
                await outbox.put(f"{number}", message(f"{number}"), key="thread")
            await trio.sleep(100)
            assert (await outbox.statistics()).live == 10
            await channel.connect(PROTOCOLS)
            node.delay_replies(2)
            link.back()
            await trio.sleep(5)
            node.drop(DID)  # while a message is under way, of which nobody knows whether the node has it
            await trio.sleep(1)
            async with node.down():
                await trio.sleep(1000)
            await trio.sleep(1000)
            assert await outbox.statistics() == QueueStatistics(remembered=10)
            nursery.cancel_scope.cancel()
        got = [frame.frame.payload["id"] for frame in node.received(DID, event="message")]
    assert list(dict.fromkeys(got)) == [f"{number}" for number in range(10)]
    assert got == sorted(got, key=int)


async def test_what_the_node_refuses_again_and_again_is_a_dead_letter_and_lets_the_next_of_its_key_go():
    outbox = MemoryQueue("outbox", QueueOptions(max_attempts=3), clock=trio.current_time, on_event=lambda _: None)
    async with CloudNode(memory=True) as node:
        options = ChannelOptions(ws_url=node.url, api_key="key", agent_did=DID, transport=node.connector)
        async with open_channel(options) as channel, trio.open_nursery() as nursery:
            await channel.connect(PROTOCOLS)
            refused: list[Any] = []

            async def deliver(claimed: Claimed) -> None:
                if claimed.id == "poison":
                    node.answer_pushes({"status": "error", "response": {"reason": "no"}}, count=1)
                    refused.append(claimed.attempt)
                await send(channel, claimed)

            await outbox.put("poison", message("poison"), key="thread")
            await outbox.put("good", message("good"), key="thread")
            worker = functools.partial(run_worker, outbox, deliver, backoff=Backoff(), on_event=lambda _: None)
            nursery.start_soon(worker)
            await trio.sleep(100)
            nursery.cancel_scope.cancel()
    assert refused == [1, 2, 3]
    assert await outbox.statistics() == QueueStatistics(dead=1, remembered=1)
    (letter,) = await outbox.dead_letters()
    assert letter.reason == "RuntimeError: the node refused it: no"


async def test_what_comes_in_is_acknowledged_after_it_was_persisted_and_what_comes_twice_is_handled_once():
    inbox = MemoryQueue("inbox", clock=trio.current_time)
    order: list[str] = []
    handled: list[str] = []
    async with CloudNode(memory=True) as node:

        async def persist(payload: dict[str, Any]) -> None:
            id = payload["plaintext"]["id"]
            new = await inbox.put(id, json.dumps(payload).encode(), key=payload["plaintext"].get("thid"))
            order.append(f"{id} {'stored' if new else 'known'}")
            await channel.send_ack([id])

        async def handle(claimed: Claimed) -> None:
            handled.append(json.loads(claimed.body)["plaintext"]["id"])

        options = ChannelOptions(
            ws_url=node.url,
            api_key="key",
            agent_did=DID,
            transport=node.connector,
            callbacks=Callbacks(on_message=persist),
        )
        async with open_channel(options) as channel, trio.open_nursery() as nursery:
            await channel.connect(PROTOCOLS)
            nursery.start_soon(run_worker, inbox, handle)
            for id in ("a", "b", "a"):
                node.deliver(DID, {"id": id, "thid": "thread", "type": f"{PROTOCOLS[0]}/message", "body": {}})
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        acks = [frame.frame.payload["ids"] for frame in node.received(DID, event="ack")]
    assert order == ["a stored", "b stored", "a known"]
    assert acks == [["a"], ["b"], ["a"]]
    assert handled == ["a", "b"]
