"""The client's tree: who is restarted, who ends the whole, what the operator sees, what a cancelled program leaves."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio

from layr8_actors import ChannelClosed, Client, ClientConfig, Disconnected, Message, RestartLimitExceeded
from layr8_actors.client.events import HandlerFailed, HandlerInterrupted
from layr8_actors.errors import ActorNotRunning, SupervisorNotRunning
from layr8_actors.otp import ChildType, format_tree
from layr8_actors.otp.events import ChildExited
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    EXACT,
    KEY,
    REQUEST,
    agent,
    echo_agent,
    of,
    plaintext,
    request_to,
    settle,
    statuses,
    strict_node,
    tasks,
)


async def test_the_tree_is_the_channel_and_the_dispatcher() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        children = alice.supervisor.which_children()
        assert [(child.id, child.type) for child in children] == [
            ("channel", ChildType.SUPERVISOR),
            ("dispatcher", ChildType.WORKER),
        ]
        shown = format_tree(alice.supervisor)
        for name in ("channel", "dispatcher", "connection", "router", "reconnector", "inbox", "heartbeat"):
            assert name in shown


async def test_a_dispatcher_that_keeps_crashing_ends_the_client_for_whoever_is_above() -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(RestartLimitExceeded, match="dispatcher"):
            async with agent(node) as alice:
                for _ in range(4):
                    alice.supervisor.exit_child("dispatcher", ValueError("staged"))
                    await settle()
                await trio.sleep_forever()
        await node.wait_for(lambda: not node.connections)


async def test_a_channel_that_gives_up_on_its_actors_ends_the_client_with_its_own_error() -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(RestartLimitExceeded, match="router"):
            async with agent(node) as alice:
                while True:
                    with contextlib.suppress(ActorNotRunning):
                        alice.channel.supervisor.exit_child("router", ValueError("staged"))
                    await trio.sleep(0.1)


async def test_a_give_up_comes_out_as_itself_while_the_block_waits_for_a_reply() -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        with pytest.raises(RestartLimitExceeded, match="heartbeat"):
            async with agent(node, channel={"reply_timeout": 100.0}) as alice:
                nursery.start_soon(crash_heartbeat, alice)
                node.mute()
                await alice.send(request_to(ALICE))
        nursery.cancel_scope.cancel()


async def test_a_block_that_fails_while_the_client_gives_up_shows_both() -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        with pytest.raises(BaseExceptionGroup, match="its block failed too") as caught:
            async with agent(node) as alice:
                nursery.start_soon(crash_heartbeat, alice)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ZeroDivisionError
        assert caught.group_contains(RestartLimitExceeded, depth=1)
        assert caught.group_contains(ZeroDivisionError)
        nursery.cancel_scope.cancel()


async def crash_heartbeat(client: Client) -> None:
    while True:
        with contextlib.suppress(ActorNotRunning, SupervisorNotRunning):
            client.channel.supervisor.exit_child("heartbeat", ValueError("staged"))
        await trio.sleep(0.1)


@pytest.mark.parametrize("actor", ["inbox", "router", "connection", "heartbeat", "reconnector"])
async def test_a_crash_of_an_actor_of_the_channel_costs_no_handler_and_no_later_message(actor: str) -> None:
    handled: list[str] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node)

        @alice.handle(REQUEST)
        async def handle(message: Message) -> None:
            await trio.sleep(1)
            handled.append(message.id)

        async with alice:
            node.deliver(ALICE, plaintext("before"))
            await settle()
            alice.channel.supervisor.exit_child(actor, ValueError("staged"))
            await trio.sleep(5)
            await node.wait_for(lambda: ALICE in node.dids)
            node.deliver(ALICE, plaintext("after"))
            await trio.sleep(5)
            assert handled == ["before", "after"]


async def test_cancelling_the_program_tells_the_node_of_what_was_at_work_and_leaves_nothing() -> None:
    events: list[Event] = []
    async with strict_node() as node:
        before = tasks()
        alice = agent(node, events=events)
        alice.handle(REQUEST)(lambda message: trio.Event().wait())
        async with trio.open_nursery() as nursery:
            await alice.start_link(nursery)
            await alice.connect()
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            nursery.cancel_scope.cancel()
        await node.wait_for(lambda: not node.connections)
        assert tasks() == before
        assert statuses(node) == {"m1": ["error"]}
        assert [event.message_id for event in of(events, HandlerInterrupted)] == ["m1"]


async def test_a_start_link_that_is_cancelled_at_any_step_leaves_nothing_and_may_be_called_again() -> None:
    async with strict_node() as node, trio.open_nursery() as nursery:
        client = agent(node)
        before = tasks()
        started: list[Client] = []

        async def start() -> None:
            started.append(await client.start_link(nursery))

        turns = 0
        while not started:
            async with trio.open_nursery() as calling:
                calling.start_soon(start)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                calling.cancel_scope.cancel()
            if not started:
                await settle()
                assert tasks() == before
            turns += 1
        assert turns > 2
        await client.connect()
        await client.close()
        await client.close()
        with pytest.raises(ChannelClosed):
            await client.send(request_to(BOB))


async def test_cancelling_connect_leaves_nothing() -> None:
    async with CloudNode(memory=True) as node:
        before = tasks()
        node.delay_joins(5)
        with trio.move_on_after(1):
            async with agent(node):
                pytest.fail("it is not joined yet")
        await trio.sleep(10)  # a node notices only when it has answered the join
        assert not node.connections
        assert tasks() == before


async def test_drops_and_rejoins_are_told_to_the_users_functions() -> None:
    calls: list[object] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        alice.on_disconnect(calls.append)

        @alice.on_reconnect
        async def reconnected() -> None:
            await trio.lowlevel.checkpoint()
            calls.append("reconnect")

        async with alice:
            node.drop()
            await node.wait_joined(ALICE, 2)
            await settle()
            (error, reconnect) = calls
            assert isinstance(error, Exception)
            assert reconnect == "reconnect"


async def test_a_function_that_raises_at_a_drop_costs_no_rejoin() -> None:
    """B17 of the peers: the client never came back."""
    async with strict_node() as node, echo_agent(node):
        alice = agent(node)

        @alice.on_disconnect
        def fail(error: Exception) -> None:
            raise ValueError("no")

        async with alice:
            node.drop(ALICE)
            await node.wait_joined(ALICE, 2)
            await settle()
            assert (await alice.request(request_to(BOB, 1))).body == 1


async def test_one_hook_hears_client_channel_and_supervisors() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node:
        alice = agent(node, events=events)

        @alice.handle(REQUEST)
        def fail(message: Message) -> None:
            raise ValueError(message.id)

        async with alice:
            node.deliver(ALICE, plaintext())
            await settle()
            alice.supervisor.exit_child("dispatcher", ValueError("staged"))
            await settle()
        assert {event.layer for event in events} == {"client", "channel", "otp"}
        assert len(of(events, HandlerFailed)) == 1
        paths = [event.path for event in of(events, ChildExited) if type(event) is ChildExited]
        assert paths == [f"client {ALICE}"]


async def test_a_hook_that_raises_changes_nothing() -> None:
    def hook(event: Event) -> None:
        raise ValueError("the hook's own")

    async with strict_node() as node, echo_agent(node, on_event=hook), agent(node, on_event=hook) as alice:
        node.drop(ALICE)
        await node.wait_joined(ALICE, 2)
        await settle()
        assert (await alice.request(request_to(BOB, 1))).body == 1


async def test_a_client_whose_user_set_nothing_logs_what_fails_and_never_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "layr8_actors")
    async with CloudNode(memory=True) as node:
        alice = Client(
            ClientConfig(
                node_url=node.url,
                api_key=KEY,
                agent_did=ALICE,
                transport=node.connector,
                channel={"backoff": EXACT},
            )
        )

        @alice.handle(REQUEST)
        def fail(message: Message) -> None:
            raise ValueError("told in the log")

        async with alice:
            node.deliver(ALICE, plaintext("m1"))
            await settle()
            node.drop()
            with pytest.raises(Disconnected):
                await alice.send(request_to(ALICE))
            await node.wait_joined(ALICE, 2)
    (record,) = [record for record in caplog.records if record.name == "layr8_actors.client"]
    assert record.levelno == logging.ERROR
    assert "m1" in record.getMessage()
    assert record.exc_info is not None
    assert "told in the log" in caplog.text
    assert KEY not in caplog.text


async def test_an_idle_client_costs_two_tasks_more_than_its_channel() -> None:
    from layr8_actors import open_channel
    from tests.peers.agents import PROTOCOLS, options

    async with CloudNode(memory=True) as node:
        before = tasks()
        async with open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            await trio.sleep(1)
            of_channel = tasks() - before
        await node.wait_for(lambda: not node.connections)
        async with agent(node):
            await trio.sleep(1)  # until its inbox hibernates
            assert tasks() - before == of_channel + 2
