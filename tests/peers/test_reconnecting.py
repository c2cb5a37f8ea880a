"""Bugs of the peers after the first join: each test stages the row of its number and asserts the opposite.

Rows 4, 6, 7, 9, 21 and 24.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import trio

from layr8_actors import Callbacks, Channel, ConnectFailed, JoinRejected, LinkStatus, NotConnected, open_channel
from layr8_actors.channel.events import AttemptFailed, GaveUp, TopicJoined
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, EXACT, PROTOCOLS, Calls, has_seen_joins, of, options, plaintext, settle, tasks

# --- 4: the topic ends, the socket lives ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["crash_topic", "close_topic"])
async def test_peer_bug_04_a_topic_that_the_node_ends_is_joined_again_on_the_same_socket(
    end: str, calls: Calls
) -> None:
    """Sends work again a second later, though heartbeats were answered all along; the peer never rejoined."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        getattr(node, end)(ALICE)
        await settle()
        with pytest.raises(NotConnected):
            await channel.send_msg("message", plaintext())
        await node.wait_joined(ALICE, 2)
        await settle()
        assert 0.5 <= trio.current_time() - start <= 1
        assert (await channel.send_msg("message", plaintext())).ok
        assert node.statistics().upgrades == 1
        assert calls.order == ["disconnect", "reconnect"]


@pytest.mark.parametrize("end", ["crash_topic", "close_topic"])
async def test_peer_bug_04_a_socket_that_drops_after_its_topic_ended_is_no_second_disconnect(
    end: str, calls: Calls
) -> None:
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        getattr(node, end)(ALICE)
        await settle()
        node.drop()
        await settle()
        assert calls.order == ["disconnect"]
        await node.wait_joined(ALICE, 2)
        await settle()
        assert (calls.order, node.statistics().upgrades) == (["disconnect", "reconnect"], 2)


# --- 6, 7: one owner of reconnection ----------------------------------------------------------------------------------


async def test_peer_bug_06_a_socket_that_dies_while_a_rejoin_is_awaited_does_not_multiply_the_dials(
    calls: Calls,
) -> None:
    """Forty seconds in which each socket dies 0.1 s after its join was sent: 5 dials, where the peer had 174 to 270."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node:
        before = tasks()
        async with open_channel(options(node, callbacks=callbacks, backoff=EXACT)) as channel:
            await channel.connect(PROTOCOLS)
            await settle()
            joined = tasks()
            node.ignore_joins()
            start = trio.current_time()
            node.drop()
            with trio.move_on_after(40):
                for joins in range(2, 1000):
                    await node.wait_for(functools.partial(has_seen_joins, node, joins))
                    assert len(node.connections) == 1
                    await trio.sleep(0.1)
                    node.drop()
            dials = [round(request.at - start, 3) for request in node.requests][1:]
            assert dials == [1.0, 3.1, 7.2, 15.3, 31.4]
            assert calls.order == ["disconnect"]
            assert tasks() <= joined
        await settle()
        assert tasks() == before
        await trio.sleep(120)
        assert node.statistics().upgrades == 6
        assert calls.order == ["disconnect"]


async def test_peer_bug_07_one_lost_rejoin_ends_in_one_socket_one_reconnect_and_each_message_once(calls: Calls) -> None:
    """The answer to the rejoin is lost, though the node has joined; then the node is well."""
    callbacks = Callbacks(calls.on_message, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True, exclusive=True) as node:
        async with open_channel(options(node, callbacks=callbacks)) as channel:
            await channel.connect(PROTOCOLS)
            node.ignore_joins(count=1)
            node.drop()
            await settle()
            await node.wait_joined(ALICE, 2)  # the join whose answer is lost
            await trio.sleep(9.9)
            assert node.dids == (ALICE,)
            await trio.sleep(0.2)
            assert node.dids == ()  # it was left, so that nothing is delivered to a join that nobody knows of
            await channel.connect(PROTOCOLS)
            await trio.sleep(60)
            assert (len(node.connections), node.statistics().topics) == (1, 1)
            assert calls.order == ["disconnect", "reconnect"]
            node.deliver(ALICE, plaintext(7))
            await settle()
            assert calls.ids == ["7"]
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=1)
        assert node.dids == ()
        # The DID is free: the next start is not refused with protocols_already_bound.
        async with open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            assert channel.state.joined


# --- 9, 24: refused for good ------------------------------------------------------------------------------------------


async def test_peer_bug_09_a_rejoin_refused_for_good_ends_the_channel_and_leaks_nothing(calls: Calls) -> None:
    """Three refusals on one socket, each of them visible, and then JoinRejected; there is never a second socket."""
    events: list[Event] = []
    most_sockets = 0
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node:
        before = tasks()

        async def watch() -> None:
            nonlocal most_sockets
            while True:
                most_sockets = max(most_sockets, node.statistics().sockets)
                await trio.sleep(0.25)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with pytest.raises(JoinRejected) as caught:
                async with open_channel(options(node, events, callbacks=callbacks, backoff=EXACT)) as channel:
                    await channel.connect(PROTOCOLS)
                    start = trio.current_time()
                    node.refuse_joins("e.join.plugin.child.not-beneath-parent")
                    node.drop()
                    await trio.sleep_forever()
            assert trio.current_time() - start == pytest.approx(61)
            nursery.cancel_scope.cancel()
        assert caught.value.permanent
        assert [round(failure.at - start, 3) for failure in of(events, AttemptFailed)] == [1, 31, 61]
        assert len(of(events, GaveUp)) == 1
        await settle()
        assert (most_sockets, node.statistics().sockets, tasks()) == (1, 0, before)
        await trio.sleep(300)
        assert (node.statistics().upgrades, len(node.frames(event="phx_join"))) == (2, 4)
        assert calls.order == ["disconnect"]


@pytest.mark.parametrize("status", [401, 403])
async def test_peer_bug_24_a_revoked_key_is_reported_at_each_attempt_and_ends_the_channel(status: int) -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected) as caught:
            async with open_channel(options(node, events, backoff=EXACT)) as channel:
                await channel.connect(PROTOCOLS)
                node.refuse_upgrades(status)
                node.drop()
                await trio.sleep(2)
                assert isinstance(channel.state.last_error, ConnectFailed)
                assert channel.state.last_error.status == status
                await trio.sleep(600)
        assert isinstance(caught.value.__cause__, ConnectFailed)
        assert caught.value.__cause__.status == status
        assert [failure.error.status for failure in of(events, AttemptFailed)] == [status] * 3
        assert [failure.retry_in for failure in of(events, AttemptFailed)][:2] == [30, 30]
        assert channel.state.status is LinkStatus.CLOSED
        await trio.sleep(600)
        assert [request.status for request in node.requests] == [101, status, status, status]


# --- 21: the herd -----------------------------------------------------------------------------------------------------


async def test_peer_bug_21_two_hundred_clients_of_a_restarted_node_come_back_spread_out() -> None:
    """One restart: the peers' redials fell within 0.2 s; ours are spread over the half second that jitter has at first.

    Uniform over ten tenths, a tenth holds 20 of 200 on average; 60 in one, or none, happens less than once in 10**8.
    """
    agents = [f"did:web:node.test:agent{number}" for number in range(200)]
    joined: dict[str, int] = {}

    def note(event: Event) -> None:
        if isinstance(event, TopicJoined):
            joined[event.assigned_did] = joined.get(event.assigned_did, 0) + 1

    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        for agent in agents:
            channel = await Channel.start_link(nursery, options(node, agent_did=agent, on_event=note))
            nursery.start_soon(channel.connect, PROTOCOLS)
        await node.wait_for(lambda: node.statistics().topics == 200, timeout=1)
        await settle()
        start = trio.current_time()
        await node.stop()
        await node.start()
        await node.wait_for(lambda: node.statistics().topics == 200, timeout=10)
        await settle()
        redials = [request.at - start for request in node.requests][200:]
        assert len(redials) == 200
        assert min(redials) >= 0.5
        assert max(redials) <= 1.0 + 1e-6
        tenths = [sum(0.5 + 0.05 * part <= at < 0.55 + 0.05 * part for at in redials) for part in range(10)]
        assert max(tenths) < 60
        assert min(tenths) > 0
        assert joined == dict.fromkeys(agents, 2)
        nursery.cancel_scope.cancel()


async def test_peer_bug_21_a_herd_that_finds_the_node_away_spreads_ever_further(scripted: Any) -> None:
    """At the cap, too: the fiftieth dials of 50 clients are spread over more than 15 s, and no two clients agree."""
    times: dict[str, list[float]] = {}
    real_open = scripted.open

    async def open(nursery: trio.Nursery, endpoint: Any) -> Any:
        times.setdefault(endpoint.url, []).append(trio.current_time())
        return await real_open(nursery, endpoint)

    scripted.open = open
    async with trio.open_nursery() as nursery:
        for number in range(50):
            given = scripted.options(ws_url=f"ws://node{number}.test/socket")
            channel = await Channel.start_link(nursery, given)
            await channel.connect(PROTOCOLS)
        scripted.dial_error = ConnectFailed("ws://node.test/socket", "connection refused")
        for socket in scripted.sockets:
            socket.drop(1012)
        await trio.sleep(1500)
        fiftieth = [dials[50] for dials in times.values()]
        assert max(fiftieth) - min(fiftieth) > 15
        assert len(set(fiftieth)) == 50
        assert all(max(b - a for a, b in itertools.pairwise(dials)) <= 30.001 for dials in times.values())
        nursery.cancel_scope.cancel()
