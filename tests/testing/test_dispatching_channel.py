"""The node that hands over one message at a time: what it waits for, and what it does with each answer."""

from __future__ import annotations

from typing import Any

import trio

from layr8_actors import Callbacks, Channel, ChannelOptions, open_channel
from layr8_actors.testing import CloudNode, DispatchingChannel

ALICE = "did:web:node.test:alice"
BOB = "did:web:node.test:bob"
PROTOCOL = "https://example.org/x/1.0"
PING = "https://didcomm.org/trust-ping/2.0"


def waiting_node() -> CloudNode:
    return CloudNode(memory=True, channels={"plugins:": DispatchingChannel})


def options(node: CloudNode, did: str, seen: list[Any]) -> ChannelOptions:
    return ChannelOptions(
        ws_url=node.url,
        api_key="k",
        agent_did=did,
        transport=node.connector,
        callbacks=Callbacks(lambda payload: seen.append(payload["plaintext"])),
        on_event=lambda event: None,
    )


def plaintext(id: str, type: str = f"{PROTOCOL}/m", to: str = ALICE) -> dict[str, Any]:
    return {"id": id, "type": type, "from": BOB, "to": [to], "body": {}}


async def settle_message(channel: Channel, message_id: str, status: str = "handled") -> None:
    await channel.send_fire_and_forget("dispatch_reply", {"message_id": message_id, "status": status})
    await quiet()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def test_the_next_message_comes_when_the_one_before_is_settled() -> None:
    seen: list[Any] = []
    async with waiting_node() as node, open_channel(options(node, ALICE, seen)) as alice:
        await alice.connect([PROTOCOL])
        for number in range(3):
            node.deliver(ALICE, plaintext(str(number)))
        for number in range(3):
            await quiet()
            assert [message["id"] for message in seen] == [str(done) for done in range(number + 1)]
            await settle_message(alice, str(number))
        assert [dispatch.status for dispatch in node.dispatches] == ["handled"] * 3
        assert node.stray_replies == []


async def test_a_plugin_that_says_nothing_is_waited_for_and_then_no_longer() -> None:
    seen: list[Any] = []
    async with waiting_node() as node, open_channel(options(node, ALICE, seen)) as alice:
        await alice.connect([PROTOCOL])
        node.deliver(ALICE, plaintext("0"))
        node.deliver(ALICE, plaintext("1"))
        await trio.sleep(DispatchingChannel.dispatch_timeout - 1)
        assert len(seen) == 1
        await trio.sleep(2)
        assert len(seen) == 2
        assert [dispatch.timed_out for dispatch in node.dispatches] == [True, False]
        await settle_message(alice, "0")
        assert [reply["message_id"] for reply in node.stray_replies] == ["0"]


async def test_a_second_answer_and_one_to_another_message_are_noted_and_settle_nothing() -> None:
    seen: list[Any] = []
    async with waiting_node() as node, open_channel(options(node, ALICE, seen)) as alice:
        await alice.connect([PROTOCOL])
        node.deliver(ALICE, plaintext("0"))
        node.deliver(ALICE, plaintext("1"))
        await settle_message(alice, "another")
        assert len(seen) == 1
        await settle_message(alice, "0")
        await settle_message(alice, "0")
        assert len(node.stray_replies) == 2


async def test_what_is_passed_on_goes_to_the_next_plugin_and_then_back_to_the_sender() -> None:
    first_seen: list[Any] = []
    second_seen: list[Any] = []
    bob_seen: list[Any] = []
    async with (
        waiting_node() as node,
        open_channel(options(node, ALICE, first_seen)) as first,
        open_channel(options(node, ALICE, second_seen)) as second,
        open_channel(options(node, BOB, bob_seen)) as bob,
    ):
        await first.connect([PROTOCOL])
        await second.connect([PROTOCOL, PING])
        await bob.connect([PROTOCOL])
        assert (await bob.send_msg("message", plaintext("m"))).ok
        await quiet()
        assert (len(first_seen), len(second_seen)) == (1, 0)
        await settle_message(first, "m", "pass")
        assert len(second_seen) == 1
        await settle_message(second, "m", "pass")
        (report,) = bob_seen
        assert report["type"] == "https://didcomm.org/report-problem/2.0/problem-report"
        assert report["pthid"] == "m"


async def test_a_trust_ping_that_nobody_takes_is_answered_by_the_node() -> None:
    bob_seen: list[Any] = []
    async with (
        waiting_node() as node,
        open_channel(options(node, ALICE, [])) as alice,
        open_channel(options(node, BOB, bob_seen)) as bob,
    ):
        await alice.connect([PING])
        await bob.connect([PING])
        await bob.send_msg("message", plaintext("m", f"{PING}/ping"))
        await quiet()
        await settle_message(alice, "m", "pass")
        (response,) = bob_seen
        assert (response["type"], response["thid"]) == (f"{PING}/ping-response", "m")


async def test_a_plugin_gets_the_protocols_that_it_is_bound_to_alone() -> None:
    seen: list[Any] = []
    async with (
        waiting_node() as node,
        open_channel(options(node, ALICE, seen)) as alice,
        open_channel(options(node, BOB, [])) as bob,
    ):
        await alice.connect([PROTOCOL])
        await bob.connect(["*"])
        assert (await bob.send_msg("message", plaintext("m1", "https://example.org/other/1.0/m"))).status == "error"
        assert (await alice.send_msg("message", plaintext("m2", "https://example.org/other/1.0/m", BOB))).ok
        await quiet()
        assert seen == []
        assert [dispatch.did for dispatch in node.dispatches] == [BOB]


async def test_what_is_pending_ends_with_its_join() -> None:
    seen: list[Any] = []
    async with waiting_node() as node, open_channel(options(node, ALICE, seen)) as alice:
        await alice.connect([PROTOCOL])
        node.deliver(ALICE, plaintext("old"))
        await quiet()
        node.drop()
        await node.wait_joined(ALICE, 2)
        node.deliver(ALICE, plaintext("new"))
        await quiet()
        assert [message["id"] for message in seen] == ["old", "new"]
        await settle_message(alice, "old")
        assert [reply["message_id"] for reply in node.stray_replies] == ["old"]
        first, second = node.dispatches
        assert first.join_ref != second.join_ref
        assert first.settled_at is None
