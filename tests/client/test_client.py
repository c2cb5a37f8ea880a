"""The client's life: entering, leaving, handlers registered before, and what its block raises."""

from __future__ import annotations

import pytest
import trio

from layr8_actors import (
    PASS,
    AlreadyConnected,
    ChannelClosed,
    Client,
    ConnectFailed,
    InvalidOption,
    JoinRejected,
    Message,
    NotConnected,
    RestartLimitExceeded,
    ServerReject,
)
from layr8_actors.errors import ChildStartError
from layr8_actors.otp import Restart, Strategy, Supervisor
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.client.agents import (
    ALICE,
    BOB,
    PROTOCOL,
    REQUEST,
    RESPONSE,
    agent,
    config,
    echo_agent,
    plaintext,
    request_to,
    settle,
    settled_once,
    strict_node,
    tasks,
)


async def test_two_agents_exchange_a_request_and_its_response() -> None:
    async with strict_node() as node, echo_agent(node), agent(node) as alice:
        response = await alice.request(request_to(BOB, {"n": 1}))

        assert (response.type, response.body, response.from_, response.to) == (RESPONSE, {"n": 1}, BOB, (ALICE,))
        await settle()
        assert settled_once(node)
        assert len(node.dispatches) == 2


async def test_leaving_the_block_leaves_no_task_and_no_socket() -> None:
    async with CloudNode(memory=True) as node:
        before = tasks()
        async with agent(node) as alice:
            assert alice.did == ALICE
            assert node.dids == (ALICE,)
        await node.wait_for(lambda: not node.connections)
        assert tasks() == before
        with pytest.raises(ChannelClosed):
            await alice.send(request_to(ALICE))


async def test_a_client_whose_connect_fails_leaves_nothing_and_may_be_entered_again() -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", count=1)
        before = tasks()
        alice = agent(node)
        with pytest.raises(JoinRejected, match="protocols_already_bound"):
            async with alice:
                pytest.fail("it is not connected")
        await node.wait_for(lambda: not node.connections)
        assert tasks() == before
        async with alice:
            assert node.dids == (ALICE,)


async def test_an_error_of_the_block_comes_out_as_it_is_and_the_client_is_closed() -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(ZeroDivisionError):
            async with agent(node):
                _ = 1 / 0
        await node.wait_for(lambda: not node.connections)


async def test_a_client_that_does_not_run_says_so() -> None:
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        for call in (alice.send, alice.request):
            with pytest.raises(NotConnected):
                await call(request_to())
        with pytest.raises(NotConnected):
            await alice.connect()
        assert alice.did == ALICE
        assert alice.capabilities == ()
        await alice.close()


async def test_one_client_runs_once_at_a_time() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        with pytest.raises(AlreadyConnected):
            await alice.__aenter__()
        async with trio.open_nursery() as nursery:
            with pytest.raises(AlreadyConnected):
                await alice.start_link(nursery)


async def test_handlers_are_registered_before_the_first_run_only() -> None:
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: None)
        async with alice:
            with pytest.raises(AlreadyConnected):
                alice.handle(RESPONSE)(lambda message: None)
            with pytest.raises(AlreadyConnected):
                alice.handle_all(lambda message: None)
            with pytest.raises(AlreadyConnected):
                alice.on_reconnect(lambda: None)


def test_duplicates_and_nonsense_are_refused_by_name(client: Client) -> None:
    client.handle(REQUEST)(lambda message: None)
    client.handle_all(lambda message: None)
    client.on_disconnect(lambda error: None)
    with pytest.raises(InvalidOption, match="has one already"):
        client.handle(REQUEST)(lambda message: None)
    with pytest.raises(InvalidOption, match="has one already"):
        client.handle_all(lambda message: None)
    with pytest.raises(InvalidOption, match="on_disconnect"):
        client.on_disconnect(lambda error: None)
    for type in ("", "no-protocol", "https://x.org/with space/y", None):
        with pytest.raises(InvalidOption, match="type"):
            client.handle(type)(lambda message: None)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="function"):
        client.handle(RESPONSE)("no function")  # type: ignore[type-var]
    with pytest.raises(InvalidOption, match="on_reconnect"):
        client.on_reconnect("no function")  # type: ignore[type-var]
    with pytest.raises(InvalidOption, match="timeout"):
        client.handle(RESPONSE, timeout=0)(lambda message: None)


@pytest.fixture
def client() -> Client:
    return agent(CloudNode(memory=True))


def test_a_handler_stays_the_function_it_was(client: Client) -> None:
    def handler(message: Message) -> None:
        pass

    assert client.handle(REQUEST)(handler) is handler
    assert client.handle_all(handler) is handler


def test_protocols_are_those_of_the_handlers_the_configured_and_problem_reports_sorted_without_doubles() -> None:
    client = agent(CloudNode(memory=True), protocols=["https://z.org/last/1.0", PROTOCOL])
    client.handle(f"{PROTOCOL}/request")(lambda message: None)
    client.handle(f"{PROTOCOL}/other")(lambda message: None)
    client.handle("https://a.org/first/2.0/x")(lambda message: None)
    client.handle_all(lambda message: None)

    assert client.protocols == (
        "*",
        "https://a.org/first/2.0",
        "https://didcomm.org/report-problem/2.0",
        PROTOCOL,
        "https://z.org/last/1.0",
    )


async def test_the_join_binds_the_protocols() -> None:
    async with strict_node() as node, echo_agent(node, protocols=()) as bob:
        (join,) = node.frames(BOB, event="phx_join")
        assert join.payload["payload_types"] == ["https://didcomm.org/report-problem/2.0", PROTOCOL]
        assert list(bob.protocols) == join.payload["payload_types"]


async def test_a_message_that_the_node_refuses_is_a_server_reject_and_no_event() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node, agent(node, events=events) as alice:
        with pytest.raises(ServerReject, match="no plugin is connected") as caught:
            await alice.send(request_to("did:web:node.test:nobody", id="m1"))
        assert caught.value.message_id == "m1"
        assert not [event for event in events if event.layer == "client"]


async def test_what_is_sent_carries_the_clients_did_unless_told_otherwise_and_is_returned_as_it_went_out() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        sent = await alice.send(request_to(ALICE, {"a": 1}))
        other = await alice.send(request_to(ALICE, from_=f"{ALICE}#other"))
        first, second = node.frames(ALICE, event="message")
        assert first.payload == sent.to_plaintext()
        assert first.payload["from"] == ALICE
        assert second.payload["from"] == other.from_ == f"{ALICE}#other"


async def test_what_is_no_message_is_refused_before_anything_is_sent() -> None:
    async with CloudNode(memory=True) as node, agent(node) as alice:
        for call in (alice.send, alice.request):
            with pytest.raises(InvalidOption, match="message"):
                await call({"type": REQUEST})  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="timeout"):
            await alice.request(request_to(ALICE), timeout=-1)
        assert node.frames(ALICE, event="message") == []


# --- in a nursery, under a supervisor --------------------------------------------------------------------------------


async def test_start_link_runs_in_a_nursery_connects_by_itself_and_ends_with_it() -> None:
    async with strict_node() as node:
        async with trio.open_nursery() as nursery:
            bob = await echo_agent(node).start_link(nursery)
            await bob.connect()
            async with agent(node) as alice:
                assert (await alice.request(request_to(BOB, "hi"))).body == "hi"
            nursery.cancel_scope.cancel()
        await node.wait_for(lambda: not node.connections)


async def test_a_client_that_is_just_starting_says_that_it_is_not_connected() -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        alice = agent(node)
        nursery.start_soon(alice.start_link, nursery)
        errors: list[str] = []
        while True:
            try:
                assert alice.channel.assigned_did == ALICE
                break
            except NotConnected as error:
                errors.append(str(error))
                assert alice.did == ALICE
                assert alice.capabilities == ()
            await trio.lowlevel.checkpoint()
        assert any("does not run" in error for error in errors)
        assert any("not up yet" in error for error in errors)
        await alice.connect()
        await alice.close()


async def test_close_ends_a_started_client_and_is_idempotent() -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        alice = await agent(node).start_link(nursery)
        await alice.connect()
        await alice.close()
        await alice.close()
        await node.wait_for(lambda: not node.connections)


async def test_a_supervisor_restarts_a_client_with_the_same_handlers_and_the_same_handle() -> None:
    async with strict_node() as node:
        bob = echo_agent(node)
        tree = Supervisor([bob.child_spec(id="bob")], strategy=Strategy.ONE_FOR_ONE)
        async with tree, agent(node) as alice:
            await bob.connect()
            assert tree.whereis("bob") is bob
            assert (await alice.request(request_to(BOB, 1))).body == 1
            tree.exit_child("bob")
            await node.wait_joined(BOB, 2)
            await bob.connect()
            assert (await alice.request(request_to(BOB, 2))).body == 2
            await settle()
            assert settled_once(node)


async def test_a_client_is_the_child_of_one_supervisor_at_a_time() -> None:
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        async with Supervisor([alice.child_spec()]):
            with pytest.raises(ChildStartError) as caught:
                await Supervisor([alice.child_spec()]).run()
            assert isinstance(caught.value.__cause__, AlreadyConnected)
            await alice.connect()


async def test_a_node_that_refuses_for_good_ends_the_client_with_join_rejected_for_its_supervisor() -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.join.plugin.parent.not-found")
        supervisor = Supervisor([agent(node).child_spec()], max_restarts=0)
        with pytest.raises(RestartLimitExceeded) as caught:
            await supervisor.run()
        assert isinstance(caught.value.__cause__, JoinRejected)


async def test_a_node_that_refuses_for_good_ends_the_block_with_join_rejected() -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected, match="not-found"):
            async with agent(node):
                node.refuse_joins("e.join.plugin.parent.not-found")
                node.drop()
                await trio.sleep_forever()
        await node.wait_for(lambda: not node.connections)


async def test_join_rejected_goes_into_the_nursery_of_start_link() -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.join.plugin.parent.not-found")
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                await agent(node).start_link(nursery)
        assert caught.group_contains(JoinRejected)


async def test_a_transient_client_that_is_closed_is_not_restarted() -> None:
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        async with Supervisor([alice.child_spec(restart=Restart.TRANSIENT)]):
            await alice.connect()
            await alice.close()
            await trio.sleep(60)
            assert node.joins(ALICE) == 1


async def test_a_node_that_is_away_holds_up_no_tree_and_is_joined_once_it_comes() -> None:
    async with CloudNode(memory=True) as node:
        alice = agent(node)
        async with node.down():
            supervisor = Supervisor([alice.child_spec()])
            async with trio.open_nursery() as nursery:
                await nursery.start(supervisor.run)
                with trio.move_on_after(20) as waited:
                    await alice.connect()
                assert waited.cancelled_caught, "it waits through attempts that fail"
                assert isinstance(alice.state.last_error, ConnectFailed)
                await node.start()
                await alice.connect()
                assert node.dids == (ALICE,)
                await supervisor.stop()


async def test_pass_prints_as_itself() -> None:
    assert repr(PASS) == "PASS"
    assert "not running" in repr(Client(config(CloudNode(memory=True))))


async def test_the_did_of_what_is_sent_follows_the_node_when_it_assigns_another() -> None:
    """B15 of the peers: the old DID stayed in ``from``."""
    async with CloudNode(memory=True) as node, agent(node, did="") as alice:
        first = alice.did
        node.drop()
        await node.wait_for(lambda: node.dids and node.dids != (first,))
        await trio.sleep(1)
        assert alice.did == node.dids[0] != first
        sent = await alice.send(request_to(alice.did))
        assert sent.from_ == alice.did


async def test_messages_are_read_again_after_the_client_ran_once() -> None:
    async with strict_node() as node:
        seen: list[str] = []
        alice = agent(node)
        alice.handle(REQUEST)(lambda message: seen.append(message.id))
        for number in range(2):
            async with alice:
                node.deliver(ALICE, plaintext(number))
                await settle()
        assert seen == ["0", "1"]
