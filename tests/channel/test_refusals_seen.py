"""Refusals as their operator sees them: in the state at each moment, in events, and in the supervisors above."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors import ConnectFailed, JoinRejected, LinkStatus, RestartLimitExceeded, open_channel
from layr8_actors.channel import Channel
from layr8_actors.channel.events import AttemptFailed, GaveUp, TopicJoined
from layr8_actors.errors import TransportClosed
from layr8_actors.otp import ChildSpec, Supervisor
from layr8_actors.otp.events import ChildRestarted, LimitReached
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.channel.refusals import ALICE, PROTOCOLS, Exact, settle


@pytest.fixture
def exact() -> Exact:
    return Exact()


# --- what is seen of it -----------------------------------------------------------------------------------------------


def seen(channel: Channel) -> tuple[str, int, str, float | None]:
    state = channel.state
    retry_in = None if state.retry_in is None else round(state.retry_in, 3)
    return state.status.value, state.attempt, type(state.last_error).__name__, retry_in


async def test_the_state_tells_at_each_moment_what_goes_on_what_went_wrong_and_when_the_next_attempt_is_due(
    exact: Exact,
) -> None:
    async with CloudNode(memory=True) as node:
        with pytest.raises(JoinRejected):
            async with open_channel(exact.options(node)) as channel:
                assert seen(channel) == ("idle", 0, "NoneType", None)
                node.delay_upgrades(2, count=1)
                node.delay_joins(3, count=1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(channel.connect, PROTOCOLS)
                    await trio.sleep(1)
                    assert seen(channel) == ("connecting", 0, "NoneType", None)
                    await trio.sleep(2)
                    assert seen(channel) == ("joining", 0, "NoneType", None)
                assert seen(channel) == ("joined", 0, "NoneType", None)

                start = trio.current_time()
                at = lambda seconds: trio.sleep_until(start + seconds)  # noqa: E731
                node.refuse_upgrades(503, count=1)
                node.delay_upgrades(1, count=1)
                node.refuse_joins("join crashed", count=1)
                node.ignore_joins(count=1)
                node.refuse_joins("e.join.plugin.parent.not-found")
                node.drop()
                await settle()
                assert seen(channel) == ("waiting", 1, "TransportClosed", 1)
                await at(0.75)
                assert seen(channel) == ("waiting", 1, "TransportClosed", 0.25)
                await at(1.5)  # the redial at 1 met a 503
                assert seen(channel) == ("waiting", 2, "ConnectFailed", 1.5)
                await at(3.5)  # the one at 3 takes a second
                assert seen(channel) == ("connecting", 2, "ConnectFailed", None)
                await at(4.5)  # and its join was refused
                assert seen(channel) == ("waiting", 3, "JoinRejected", 3.5)
                await at(17.5)  # the join at 8 has not been answered
                assert seen(channel) == ("joining", 3, "JoinRejected", None)
                await at(18.5)
                assert seen(channel) == ("waiting", 4, "JoinTimeout", 7.5)
                await at(27)  # the join at 26 was refused for good
                assert seen(channel) == ("waiting", 5, "JoinRejected", 29)
                await at(57)
                assert seen(channel) == ("waiting", 6, "JoinRejected", 29)
                await trio.sleep_forever()
        assert trio.current_time() - start == pytest.approx(86)
        assert seen(channel) == ("closed", 6, "JoinRejected", None)
        assert [failure.attempt for failure in exact.of(AttemptFailed)] == [2, 3, 4, 5, 6, 7]


async def test_every_failed_attempt_is_in_the_state_when_its_event_is_emitted(exact: Exact) -> None:
    """So a hook that logs both never contradicts itself."""
    pictures: list[tuple[AttemptFailed, Any]] = []

    def hook(event: Event) -> None:
        if isinstance(event, AttemptFailed):
            pictures.append((event, channel.state))

    async with CloudNode(memory=True) as node:
        async with open_channel(exact.options(node, on_event=hook)) as channel:
            node.refuse_upgrades(503, count=1)
            with pytest.raises(ConnectFailed):
                await channel.connect(PROTOCOLS)
            await channel.connect(PROTOCOLS)
            node.refuse_upgrades(404, count=2)
            node.refuse_joins("join crashed", count=2)
            node.refuse_joins("e.join.plugin.parent.not-found", count=1)
            node.drop()
            await node.wait_joined(ALICE, 2)
            assert channel.statistics().attempts_failed == len(pictures) == 6
        for event, state in pictures:
            assert state.last_error is event.error
            assert state.retry_in == event.retry_in
        assert [event.attempt for event, _ in pictures] == [1, 2, 3, 4, 5, 6]
        assert [state.attempt for _, state in pictures][1:] == [2, 3, 4, 5, 6]
        # The first connect is nobody's to retry: its caller is told.
        assert pictures[0][1].status in (LinkStatus.IDLE, LinkStatus.LEAVING)


async def test_a_lost_link_is_in_the_state_too_and_stays_its_last_error_once_joined_again(exact: Exact) -> None:
    async with CloudNode(memory=True) as node, open_channel(exact.options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.close(1012)
        await node.wait_joined(ALICE, 2)
        await settle()
        state = channel.state
        assert (state.status, state.attempt, state.retry_in) == (LinkStatus.JOINED, 1, None)
        assert isinstance(state.last_error, TransportClosed)
        assert state.last_error.code == 1012
        await trio.sleep(31)
        assert channel.state.attempt == 0


# --- who decides ------------------------------------------------------------------------------------------------------


async def test_a_refusal_for_good_climbs_two_levels_as_far_as_each_budget_reaches(exact: Exact) -> None:
    """One restart in an hour at each level: four channels of three joins each, a minute apiece, then the program ends.

    The service beside the channel lives through the channel's restarts, and restarts with the subtree.
    """
    services = 0

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal services
        services += 1
        task_status.started()
        await trio.sleep_forever()

    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.join.plugin.parent.not-found")
        alice = Channel.child_spec(exact.options(node), id="alice", protocols=PROTOCOLS)
        hook = exact.events.append
        inner = Supervisor(
            [ChildSpec("service", service), alice], name="inner", max_restarts=1, max_seconds=3600, on_event=hook
        )
        outer = Supervisor([inner.child_spec("inner")], name="outer", max_restarts=1, max_seconds=3600, on_event=hook)
        with pytest.RaisesGroup(RestartLimitExceeded) as caught:
            async with trio.open_nursery() as nursery:
                await nursery.start(outer.run)
        assert trio.current_time() == pytest.approx(240)
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=1)
        assert (node.statistics().upgrades, len(node.frames(event="phx_join")), services) == (4, 12, 2)
        assert (len(exact.of(AttemptFailed)), len(exact.of(GaveUp)), exact.of(TopicJoined)) == (12, 4, [])
        restarted = [(event.path, event.id) for event in exact.of(ChildRestarted)]
        assert [id for _, id in restarted] == ["alice", "inner", "alice"]
        assert [event.id for event in exact.of(LimitReached)] == ["alice", "alice", "inner"]
        chain: list[BaseException] = [caught.value.exceptions[0]]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        assert [type(error) for error in chain] == [RestartLimitExceeded, RestartLimitExceeded, JoinRejected]
        assert [error.supervisor for error in chain if isinstance(error, RestartLimitExceeded)] == [
            "outer",
            "outer/inner",
        ]


async def test_a_node_that_mends_its_refusal_in_time_costs_no_restart_at_any_level(exact: Exact) -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.join.plugin.parent.not-found", count=2)
        alice = Channel.child_spec(exact.options(node), id="alice", protocols=PROTOCOLS)
        async with Supervisor([alice], name="app", max_restarts=0, on_event=exact.events.append) as supervisor:
            channel: Any = supervisor.whereis("alice")
            await channel.connect(PROTOCOLS)
            assert trio.current_time() == pytest.approx(60)
            assert supervisor.whereis("alice") is channel
            assert exact.of(GaveUp, ChildRestarted) == []


async def test_a_refusal_for_now_never_reaches_the_supervisor(exact: Exact) -> None:
    async with CloudNode(memory=True) as node:
        node.refuse_joins("e.connect.plugin.failed: protocols_already_bound")
        alice = Channel.child_spec(exact.options(node), id="alice", protocols=PROTOCOLS)
        async with Supervisor([alice], name="app", max_restarts=0, on_event=exact.events.append) as supervisor:
            await trio.sleep(3600)
            channel: Any = supervisor.whereis("alice")
            assert channel.state.attempt > 100
            node.behave()
            await channel.connect(PROTOCOLS)
            assert channel.state.joined
