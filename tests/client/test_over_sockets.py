"""Two agents over real sockets, with both adapters, and with a network that drops the link again and again."""

from __future__ import annotations

import pytest
import trio

from layr8_actors import Disconnected, Message, NotConnected, ServerReject
from layr8_actors.testing import CloudNode, DispatchingChannel
from layr8_actors.transport import TransportName
from tests.client.agents import (
    ALICE,
    BOB,
    REQUEST,
    RESPONSE,
    agent,
    echo_agent,
    request_to,
    settled_once,
    statuses,
    tasks,
)


@pytest.mark.parametrize("transport", ["websockets", "trio-websocket"])
async def test_two_agents_over_real_sockets(transport: TransportName) -> None:
    before = tasks()
    async with (
        CloudNode(channels={"plugins:": DispatchingChannel}) as node,
        echo_agent(node, transport=transport),
        agent(node, transport=transport) as alice,
    ):
        bodies: list[int] = []

        async def ask(number: int) -> None:
            bodies.append((await alice.request(request_to(BOB, number))).body)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert sorted(bodies) == list(range(50))
        await node.wait_for(lambda: settled_once(node), timeout=10)
        assert len(node.dispatches) == 100
    assert tasks() == before


async def test_over_links_that_drop_each_request_ends_and_no_message_is_told_of_twice() -> None:
    async with CloudNode(channels={"plugins:": DispatchingChannel}) as node:
        bob, alice = agent(node, BOB), agent(node)
        outcomes: list[str] = []

        @bob.handle(REQUEST, accept_first=True)
        async def echo(message: Message) -> Message:
            await trio.sleep(0.3)
            return message.reply(RESPONSE)

        async def ask() -> None:
            for _ in range(30):
                try:
                    outcomes.append((await alice.request(request_to(BOB), timeout=5)).from_)
                except (Disconnected, NotConnected, ServerReject, TimeoutError) as error:
                    outcomes.append(type(error).__name__)
                    await trio.sleep(0.5)

        async with bob, alice:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask)
                for number in range(5):
                    await trio.sleep(2.1)
                    node.drop((ALICE, BOB)[number % 2])
                    await node.wait_joined((ALICE, BOB)[number % 2], 2 + number // 2)
            await alice.connect()
            await bob.connect()
            assert (await alice.request(request_to(BOB))).from_ == BOB
        assert len(outcomes) == 150
        assert outcomes.count(BOB) > 50
        assert {"Disconnected", "NotConnected"} <= set(outcomes)
        assert alice.statistics().requests_waiting == 0
        assert node.stray_replies == []
        for did in (ALICE, BOB):
            assert all(len(told) <= 1 for told in statuses(node, did).values())
