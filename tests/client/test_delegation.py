"""Borrowed identities: what a node says of the delegated credentials, kept apart by whether and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import Client, Delegation, DelegationStatus, JoinRejected
from layr8_actors.client.delegation import parse_delegation
from layr8_actors.client.events import DelegationChanged, DelegationIgnored, FunctionFailed
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode, JoinReply, PluginChannel
from tests.client.agents import BOB, REQUEST, agent, of, plaintext, request_to, settle

PARENT = "did:web:node.test:parent"
CHILD = f"{PARENT}:child"


def credential(name: str) -> dict[str, Any]:
    return {"id": name, "parent_capability": f"parent of {name}", "credential_jwt": f"jwt of {name}"}


def reading(status: str = "complete", *names: str, revision: Any = 1) -> dict[str, Any]:
    return {"status": status, "credentials": [credential(name) for name in names], "revision": revision}


class LendingChannel(PluginChannel):
    """A node that says ``says`` of the delegated credentials; nothing where that is ``...``."""

    says: Any = ...

    async def join(self, payload: Any) -> JoinReply:
        reply = await super().join(payload)
        if reply.status == "ok" and type(self).says is not ...:
            reply.response["delegated_credentials"] = type(self).says
        return reply


def lending_node(says: Any = ...) -> CloudNode:
    channel = type("Lending", (LendingChannel,), {"says": says})
    return CloudNode(memory=True, channels={"plugins:": channel})


def set_saying(node: CloudNode, says: Any) -> None:
    channel: Any = node.channel_type("plugins:x")
    channel.says = says


def child(node: CloudNode, events: list[Event] | None = None, **changes: Any) -> Client:
    return agent(node, CHILD, events, **{"parent_did": PARENT, **changes})


def ids(client: Client) -> list[str] | None:
    return None if client.delegation is None else [entry["id"] for entry in client.delegation.credentials]


def test_a_reading_is_of_exactly_that_shape() -> None:
    assert parse_delegation(reading("complete", "a", revision=3)) == Delegation(
        DelegationStatus.COMPLETE, 3, (credential("a"),)
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "complete",
        {},
        {"credentials": []},
        {"status": "complete"},
        {"status": "complete", "credentials": None},
        {"status": "whole", "credentials": []},
        {"status": ["complete"], "credentials": []},
        {"status": "complete", "credentials": [7]},
        {"status": "complete", "credentials": [{"id": "a"}]},
    ],
)
def test_nothing_but_a_well_formed_reading_is_a_reading(value: Any) -> None:
    assert parse_delegation(value) is None


def test_the_readings_are_kept_apart() -> None:
    readings = [parse_delegation(value) for value in (..., reading(), reading("partial"), reading("unread"))]

    assert len({value and value.status for value in readings}) == 4
    assert readings[0] is None
    assert readings[1] is not None
    assert readings[1].credentials == ()


@pytest.mark.parametrize("revision", [True, 1.0, "1", None])
def test_a_revision_that_is_no_whole_number_is_unknown(revision: Any) -> None:
    parsed = parse_delegation(reading(revision=revision))

    assert parsed is not None
    assert parsed.revision is None


def test_a_reading_shows_no_credential_in_its_text() -> None:
    assert "jwt of a" not in repr(parse_delegation(reading("complete", "a")))


@pytest.mark.parametrize("says", [..., None, reading("complete"), reading("partial", "a"), reading("unread")])
async def test_the_join_says_what_is_delegated(says: Any) -> None:
    async with lending_node(says) as node, child(node) as client:
        assert client.delegation == parse_delegation(says), "it is known when connect returns"


async def test_a_function_that_takes_its_time_does_not_hold_up_connect() -> None:
    async with lending_node(reading("complete", "a")) as node:
        client = child(node)
        client.on_delegation(lambda delegation: trio.sleep_forever())  # noqa: ASYNC105 - the client awaits it
        begun = trio.current_time()
        async with client:
            assert ids(client) == ["a"]
            assert trio.current_time() - begun < 1


async def test_the_join_asks_for_refreshes_with_a_parent_alone_and_names_it() -> None:
    async with lending_node() as node, child(node), agent(node):
        joins = {frame.topic: frame.payload for frame in node.frames(event="phx_join")}
        borrowed = joins[f"plugins:{CHILD}"]
        assert borrowed["delegation_refresh"] is True
        assert borrowed["did_spec"]["parentDid"] == PARENT
        assert borrowed["did_spec"]["childNameSource"] == "client"
        assert borrowed["did_spec"]["storage"] == "ephemeral"
        own = joins["plugins:did:web:node.test:alice"]
        assert "delegation_refresh" not in own
        assert not {"parentDid", "childNameSource"} & own["did_spec"].keys()


async def test_a_child_that_nobody_named_keeps_its_name_over_rejoins() -> None:
    async with lending_node() as node, agent(node, did="", parent_did=PARENT) as client:
        node.drop()
        await node.wait_joined(client.did, 2)
        topics = {frame.topic for frame in node.frames(event="phx_join")}
        assert topics == {f"plugins:{client.did}"}
        assert client.did.startswith(f"{PARENT}:")


async def test_without_a_parent_nothing_is_read_and_nothing_is_applied() -> None:
    events: list[Event] = []
    async with lending_node(reading("complete", "a")) as node, agent(node, events=events) as client:
        node.push(client.did, "delegated_credentials", reading("complete", "b", revision=2))
        await settle()
        assert client.delegation is None
        assert [event.why for event in of(events, DelegationIgnored)] == ["no parent was named"]


async def test_a_push_replaces_the_whole_set_and_the_function_gets_it() -> None:
    events: list[Event] = []
    got: list[Any] = []
    async with lending_node(reading("complete", "a", "b")) as node:
        client = child(node, events)
        client.on_delegation(got.append)
        async with client:
            await settle()
            assert ids(client) == ["a", "b"]
            node.push(CHILD, "delegated_credentials", reading("partial", "c", revision=2))
            await settle()
            assert ids(client) == ["c"]
            node.push(CHILD, "delegated_credentials", reading("complete", revision=5))
            await settle()
            assert ids(client) == [], "a complete reading without any is applied"
            assert [entry.revision for entry in got] == [1, 2, 5]
            changes = [(event.status, event.revision, event.credentials) for event in of(events, DelegationChanged)]
            assert changes == [("complete", 1, 2), ("partial", 2, 1), ("complete", 5, 0)]


@pytest.mark.parametrize(
    "push",
    [
        reading("complete", "x", revision=3),
        reading("complete", "x", revision=2),
        reading("complete", "x", revision=True),
        reading("complete", "x", revision=4.0),
        reading("complete", "x", revision="4"),
        reading("complete", "x", revision=None),
        reading("unread", revision=4),
        {"status": "complete", "revision": 4},
        None,
        [],
    ],
)
async def test_a_push_that_breaks_a_rule_changes_nothing_and_is_reported(push: Any) -> None:
    events: list[Event] = []
    async with lending_node(reading("complete", "a", revision=3)) as node, child(node, events) as client:
        node.push(CHILD, "delegated_credentials", push)
        await settle()
        assert ids(client) == ["a"]
        assert len(of(events, DelegationIgnored)) == 1
        node.push(CHILD, "delegated_credentials", reading("complete", "b", revision=4))
        await settle()
        assert ids(client) == ["b"]


async def test_a_push_onto_no_reading_is_not_applied() -> None:
    async with lending_node() as node, child(node) as client:
        node.push(CHILD, "delegated_credentials", reading("complete", "a"))
        await settle()
        assert client.delegation is None


async def test_an_unread_join_is_mended_by_a_push() -> None:
    async with lending_node(reading("unread", revision=None)) as node, child(node) as client:
        node.push(CHILD, "delegated_credentials", reading("complete", "a"))
        await settle()
        assert ids(client) == ["a"]


async def test_a_rejoin_replaces_or_clears_and_starts_the_revision_again() -> None:
    async with lending_node(reading("complete", "a", revision=3)) as node, child(node) as client:
        set_saying(node, reading("complete", "b", revision=1))
        node.drop()
        await node.wait_joined(CHILD, 2)
        await settle()
        assert ids(client) == ["b"]
        node.push(CHILD, "delegated_credentials", reading("complete", "c", revision=2))
        await settle()
        assert ids(client) == ["c"]
        set_saying(node, ...)
        node.drop()
        await node.wait_joined(CHILD, 3)
        await settle()
        assert client.delegation is None


async def test_a_join_that_fails_discards_what_was_held() -> None:
    async with lending_node(reading("complete", "a")) as node, child(node) as client:
        node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", count=1)
        node.drop()
        await trio.sleep(0.5)
        assert ids(client) == ["a"], "until then it is the last that is known"
        await trio.sleep(1)
        assert client.delegation is None
        await node.wait_joined(CHILD, 2)
        await settle()
        assert ids(client) == ["a"]


async def test_a_function_that_raises_is_reported_and_what_follows_is_applied() -> None:
    events: list[Event] = []
    async with lending_node(reading("complete", "a")) as node:
        client = child(node, events)

        @client.on_delegation
        async def fail(delegation: Delegation | None) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError("no")

        async with client:
            node.push(CHILD, "delegated_credentials", reading("complete", "b", revision=2))
            await settle()
            assert ids(client) == ["b"]
            assert [event.function for event in of(events, FunctionFailed)] == ["on_delegation"] * 2


async def test_pushes_are_applied_in_order_with_messages_and_a_reader_has_one_whole_set() -> None:
    seen: list[list[str] | None] = []
    async with lending_node(reading("complete", "0")) as node:
        client = child(node)

        @client.handle(REQUEST)
        async def look(message: Any) -> None:
            held = client.delegation
            await trio.sleep(1)  # a push comes meanwhile
            assert held is not None
            seen.append([entry["id"] for entry in held.credentials])

        async with client:
            node.deliver(CHILD, plaintext("m1", thid="t"))
            await settle()
            node.push(CHILD, "delegated_credentials", reading("complete", "1", "2", revision=2))
            node.deliver(CHILD, plaintext("m2", thid="t"))
            await trio.sleep(5)
            assert seen == [["0"], ["1", "2"]]


async def test_other_pushes_are_none_of_the_clients() -> None:
    async with lending_node(reading("complete", "a")) as node, child(node) as client:
        node.push(CHILD, "something_else", reading("complete", "b", revision=2))
        await settle()
        assert ids(client) == ["a"]


# --- further DIDs -----------------------------------------------------------------------------------------------------

OTHER = f"{PARENT}:other"


async def test_what_befalls_a_further_did_while_it_joins_takes_nothing_from_the_client() -> None:
    async with lending_node(reading("complete", "a")) as node, child(node) as client:
        await settle()
        assert ids(client) == ["a"]
        node.refuse_joins("e.join.plugin.parent.not-found", did=OTHER, count=1)
        with pytest.raises(JoinRejected):
            await client.join_did(OTHER, parent_did=PARENT)
        assert ids(client) == ["a"]


async def test_a_request_of_the_client_waits_on_while_the_topic_of_a_further_did_comes_and_goes() -> None:
    node = lending_node()
    quiet = agent(node, BOB)
    quiet.handle(REQUEST)(lambda message: None)
    async with node, quiet, child(node) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, request_to(BOB))
        await settle()
        for crash in (False, True):
            other = await client.join_did(OTHER, parent_did=PARENT)
            if crash:
                node.crash_topic(OTHER)
                await settle()
            await other.leave()
            await settle()
            assert client.statistics().requests_waiting == 1
        nursery.cancel_scope.cancel()


async def test_a_further_did_may_be_borrowed_too_and_its_reading_is_its_own() -> None:
    async with lending_node(reading("complete", "a")) as node, child(node) as client:
        other = await client.join_did(OTHER, parent_did=PARENT)
        await settle()
        node.push(OTHER, "delegated_credentials", reading("complete", "b", revision=9))
        await settle()
        assert ids(client) == ["a"]
        assert other.delegation is not None
        assert (other.delegation.revision, [entry["id"] for entry in other.delegation.credentials]) == (9, ["b"])
