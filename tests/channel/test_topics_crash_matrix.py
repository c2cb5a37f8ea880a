"""Every actor crashed while there are many topics: whose callers fail, who is joined again, that nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Channel, JoinedTopic, LinkStatus, events, open_channel
from layr8_actors.errors import ChannelClosed, Disconnected, Layr8Error, NotConnected, RestartLimitExceeded
from layr8_actors.otp import Supervisor
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.channel.conftest import poison_router
from tests.channel.topics_on_a_node import ALICE, CAROL, DAVE, PROTOCOLS, Agent, join, options, plaintext, until

GHOST = "e.connect.plugin.failed: protocols_already_bound"
TOPICS_ACTORS = ["inbox", "router", "rejoiner"]
CHANNELS_ACTORS = ["inbox", "router", "connection", "heartbeat", "reconnector"]
ALL = [("topic", actor) for actor in TOPICS_ACTORS] + [("channel", actor) for actor in CHANNELS_ACTORS]


@pytest.fixture(params=[None, RuntimeError("injected")], ids=["killed", "raised"])
def crash(request: pytest.FixtureRequest) -> Exception | None:
    return request.param  # type: ignore[no-any-return]


async def crash_and_settle(supervisor: Supervisor, actor: str, error: Exception | None) -> None:
    def incarnation() -> int:
        return next(child.incarnation for child in supervisor.which_children() if child.id == actor)

    before = incarnation()
    supervisor.exit_child(actor, error)
    await trio.testing.wait_all_tasks_blocked(0.001)
    assert incarnation() == before + 1, f"{actor} was not restarted"
    assert sum(child.restarts for child in supervisor.which_children()) == 1, "a sibling was restarted too"


async def prove_that_it_works(node: CloudNode, channel: Channel, handle: JoinedTopic, agent: Agent) -> None:
    assert (await channel.send_msg("message", plaintext("proof 1", CAROL))).ok
    assert (await handle.send_msg("message", plaintext("proof 2", CAROL, CAROL))).ok
    await until(lambda: agent.ids[-2:] == ["proof 1", "proof 2"], 1)
    for who in (channel, handle):
        await until(lambda who=who: who.statistics().frames_waiting == who.statistics().bytes_waiting == 0, 1)  # type: ignore[misc]
        assert who.statistics().replies_waiting == 0


@pytest.mark.parametrize(("owner", "actor"), ALL)
async def test_an_actor_crashed_while_all_are_joined_costs_its_own_topic_what_the_failure_table_says(
    owner: str, actor: str, crash: Exception | None
) -> None:
    agents = {did: Agent() for did in (ALICE, CAROL, DAVE)}
    outcomes: dict[str, object] = {}
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, callbacks=agents[ALICE].callbacks())) as channel:
            await channel.connect(PROTOCOLS)
            handles = {did: await join(channel, did, agents[did]) for did in (CAROL, DAVE)}
            supervisor = channel.supervisor if owner == "channel" else handles[CAROL].supervisor
            node.delay_replies(2.0)

            async def send(did: str, sender: Any) -> None:
                try:
                    outcomes[did] = (await sender.send_msg("message", plaintext("sent", "did:web:nobody"))).status
                except Layr8Error as error:
                    outcomes[did] = error

            async with trio.open_nursery() as nursery:
                for did, sender in ((ALICE, channel), *handles.items()):
                    nursery.start_soon(send, did, sender)
                await trio.sleep(1)
                for number in range(30):
                    node.deliver((ALICE, CAROL, DAVE)[number % 3], plaintext(number, "x"))
                    if number == 15 and actor != "connection":
                        await crash_and_settle(supervisor, actor, crash)
                await until(lambda: sum(len(agent.ids) for agent in agents.values()) == 30)
                if actor == "connection":
                    await crash_and_settle(supervisor, actor, crash)
            for number, agent in enumerate(agents.values()):
                assert agent.ids == [str(message) for message in range(number, 30, 3)], "lost, doubled or reordered"
            failed = {did for did, outcome in outcomes.items() if isinstance(outcome, Disconnected) and outcome.written}
            match owner, actor:
                case "channel", "connection":
                    assert failed == {ALICE, CAROL, DAVE}
                case "channel", "router":
                    assert failed == {ALICE}
                case "topic", "router":
                    assert failed == {CAROL}
                case _:
                    assert failed == set()
            assert {outcome for did, outcome in outcomes.items() if did not in failed} <= {"error"}
            node.behave()
            if actor == "connection":
                for did, agent in agents.items():
                    await node.wait_joined(did, 2)
                    await until(lambda agent=agent: agent.order == ["disconnect", "reconnect"])  # type: ignore[misc]
            else:
                assert [agent.order for agent in agents.values()] == [[], [], []]
                assert [node.joins(did) for did in agents] == [1, 1, 1], "the joins were not kept"
            await prove_that_it_works(node, channel, handles[CAROL], agents[CAROL])


@pytest.mark.parametrize("actor", TOPICS_ACTORS)
async def test_an_actor_crashed_while_a_topic_is_being_joined_leaves_the_join_to_its_answer(
    actor: str, crash: Exception | None
) -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.go_silent()
        handles: list[JoinedTopic] = []

        async def joining() -> None:
            handles.append(await join(channel, CAROL, agent))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(joining)
            await node.wait_joined(CAROL)
            (topic,) = channel.supervisor.whereis("topics").which_children()
            await crash_and_settle(topic.handle, actor, crash)
            node.resume()
        assert (node.joins(CAROL), agent.order) == (1, [])
        await prove_that_it_works(node, channel, handles[0], agent)


@pytest.mark.parametrize(("owner", "actor"), ALL)
async def test_an_actor_crashed_while_the_link_is_lost_keeps_no_topic_from_coming_back(
    owner: str, actor: str, crash: Exception | None
) -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        node.drop()
        await until(lambda: channel.state.status is handle.state.status is LinkStatus.WAITING)
        await crash_and_settle(channel.supervisor if owner == "channel" else handle.supervisor, actor, crash)
        assert handle.state.status is LinkStatus.WAITING
        await node.wait_joined(CAROL, 2)
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        await prove_that_it_works(node, channel, handle, agent)
        assert (node.joins(ALICE), node.joins(CAROL)) == (2, 2)


@pytest.mark.parametrize("actor", TOPICS_ACTORS)
async def test_an_actor_crashed_while_a_refused_topic_waits_keeps_the_date_of_the_next_attempt(
    actor: str, crash: Exception | None
) -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        node.refuse_joins(GHOST, did=CAROL, count=1)
        node.drop()
        await until(lambda: handle.state.retry_in)
        due = trio.current_time() + (handle.state.retry_in or 0)
        await crash_and_settle(handle.supervisor, actor, crash)
        await node.wait_joined(CAROL, 2)
        assert trio.current_time() == pytest.approx(due, abs=0.1)
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        await prove_that_it_works(node, channel, handle, agent)


async def test_the_rejoiner_restarted_on_a_renewed_socket_joins_what_its_last_incarnation_was_told_of() -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        handle.supervisor.exit_child("rejoiner", RuntimeError("first"))
        await trio.testing.wait_all_tasks_blocked(0.001)
        handle.supervisor.exit_child("rejoiner", RuntimeError("second, so that it is away for a second"))
        node.drop()
        await node.wait_joined(CAROL, 2)
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        await prove_that_it_works(node, channel, handle, agent)


async def test_a_topic_whose_actors_crash_too_often_ends_alone_and_is_left() -> None:
    agent, other = Agent(), Agent()
    async with CloudNode(memory=True) as node:
        limits: dict[str, Any] = {"callbacks": Agent().callbacks(), "max_restarts": 1, "max_seconds": 60.0}
        async with open_channel(options(node, **limits)) as channel:
            await channel.connect(PROTOCOLS)
            handle, healthy = await join(channel, CAROL, agent), await join(channel, DAVE, other)
            node.drop_replies(did=CAROL)
            errors: list[Exception] = []

            async def send() -> None:
                with pytest.raises(ChannelClosed) as caught:
                    await handle.send_msg("message", plaintext(1, ALICE))
                errors.append(caught.value)

            async with trio.open_nursery() as nursery:
                handle.supervisor.exit_child("inbox", RuntimeError("injected"))
                await trio.sleep(1)
                nursery.start_soon(send)
                await trio.sleep(1)
                handle.supervisor.exit_child("router", RuntimeError("injected"))
            await node.wait_for(lambda: CAROL not in node.dids)
            await until(lambda: handle.state.status is LinkStatus.CLOSED)
            assert isinstance(handle.state.last_error, RestartLimitExceeded)
            with pytest.raises(ChannelClosed) as late:
                await handle.send_msg("message", {})
            assert isinstance(late.value.__cause__, RestartLimitExceeded)
            assert len(errors) == 1
            assert (agent.order, other.order, channel.state.joined) == ([], [], True)
            assert (await healthy.send_msg("message", plaintext(1, ALICE))).ok
            node.behave()
            await prove_that_it_works(node, channel, await join(channel, CAROL, agent), agent)


async def test_the_supervisor_of_the_topics_killed_by_hand_ends_them_all_and_new_ones_may_be_joined() -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handles = [await join(channel, did, Agent()) for did in (CAROL, DAVE)]
        channel.supervisor.exit_child("topics", RuntimeError("by hand"))
        await node.wait_for(lambda: node.dids == (ALICE,))
        for handle in handles:
            with pytest.raises(ChannelClosed, match="has ended; join it again"):
                await handle.send_msg("message", {})
            await handle.leave()
        await until(lambda: channel.supervisor.which_children()[-1].restarts == 1)
        await prove_that_it_works(node, channel, await join(channel, CAROL, agent), agent)


@pytest.mark.parametrize("turns", range(12))
async def test_a_join_that_meets_the_end_of_the_topics_supervisor_fails_and_may_be_called_again(turns: int) -> None:
    outcomes: list[object] = []
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, DAVE)

        async def joining() -> None:
            try:
                outcomes.append(await join(channel, CAROL))
            except (ChannelClosed, NotConnected) as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(joining)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            channel.supervisor.exit_child("topics", None)
        assert len(outcomes) == 1
        await until(lambda: channel.supervisor.which_children()[-1].restarts == 1)
        if not isinstance(outcomes[0], JoinedTopic) or not outcomes[0].state.joined:
            await join(channel, CAROL)
        await node.wait_joined(CAROL)
        assert node.dids == (ALICE, CAROL)


async def test_a_frame_that_crashes_the_router_of_a_topic_is_refused_there_and_the_rest_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison_router(monkeypatch, "1")
    agent, other = Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        await join(channel, DAVE, other)
        for number in range(4):
            node.deliver(CAROL, plaintext(number, CAROL))
            node.deliver(DAVE, plaintext(f"d{number}", DAVE))
        await trio.sleep(10)
        assert (agent.ids, other.ids) == (["0", "2", "3"], ["d0", "d1", "d2", "d3"])
        assert (handle.statistics().frames_refused, channel.statistics().frames_refused) == (1, 0)
        assert (channel.statistics().frames_waiting, handle.statistics().frames_waiting) == (0, 0)


async def test_frames_that_the_channels_router_has_handed_over_when_it_crashes_come_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashes = poison_router(monkeypatch, "poison")
    agent, seen = Agent(), list[Event]()
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        for number in range(3):
            node.deliver(CAROL, plaintext(number, CAROL))
        node.deliver(ALICE, plaintext("poison", ALICE))
        for number in range(3, 6):
            node.deliver(CAROL, plaintext(number, CAROL))
        await trio.sleep(10)
        assert len(crashes) == 2
        assert agent.ids == [str(number) for number in range(6)]
        assert (channel.statistics().frames_waiting, handle.statistics().frames_waiting) == (0, 0)
        assert [event.topic for event in seen if isinstance(event, events.FrameRefused)] == [f"plugins:{ALICE}"]
