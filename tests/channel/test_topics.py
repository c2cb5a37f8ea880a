"""Many DIDs on one socket: each its own callbacks, sends and state, joined and left alone (issue 6, part 7)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, Channel, JoinedTopic, LinkStatus, events, open_channel
from layr8_actors.errors import (
    AlreadyConnected,
    ChannelClosed,
    ConnectFailed,
    Disconnected,
    InvalidOption,
    JoinRejected,
    JoinTimeout,
    Layr8Error,
    NotConnected,
    TopicDown,
)
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.channel.topics_on_a_node import (
    ALICE,
    CAROL,
    DAVE,
    ERIN,
    PROTOCOLS,
    Agent,
    join,
    options,
    plaintext,
    until,
)

GHOST = "e.connect.plugin.failed: protocols_already_bound"
FOR_GOOD = "e.join.plugin.parent.not-found: it is gone"


# --- joining ----------------------------------------------------------------------------------------------------------


async def test_a_second_join_goes_over_the_same_socket_behind_the_first_and_both_dids_are_bound() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await channel.join(CAROL, ["https://didcomm.org/trust-ping/2.0"], did_spec={"label": "Carol"})
        assert len(node.connections) == 1
        assert node.dids == (ALICE, CAROL)
        first, second = node.frames(event="phx_join")
        assert (first.topic, second.topic) == (f"plugins:{ALICE}", f"plugins:{CAROL}")
        assert second.join_ref == second.ref != first.ref
        assert second.payload["payload_types"] == ["https://didcomm.org/trust-ping/2.0"]
        assert second.payload["did_spec"]["label"] == "Carol"
        assert "label" not in first.payload["did_spec"]
        assert (handle.assigned_did, handle.state.status) == (CAROL, LinkStatus.JOINED)
        assert "reply_protocol/1" in handle.capabilities
        assert repr(handle) == f"<JoinedTopic 'plugins:{CAROL}' joined>"


async def test_a_channel_without_further_topics_has_no_child_and_no_task_for_them() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        before = [child.id for child in channel.supervisor.which_children()]
        assert "topics" not in before
        with pytest.raises(InvalidOption):
            await channel.join("", PROTOCOLS)
        assert [child.id for child in channel.supervisor.which_children()] == before
        await join(channel, CAROL)
        assert [child.id for child in channel.supervisor.which_children()] == [*before, "topics"]


async def test_a_join_before_connect_or_after_close_is_refused_and_sends_nothing() -> None:
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node)) as channel:
            with pytest.raises(NotConnected, match="connect"):
                await join(channel, CAROL)
            node.refuse_joins(GHOST, count=1)
            with pytest.raises(JoinRejected):
                await channel.connect(PROTOCOLS)
            with pytest.raises(NotConnected, match="connect"):
                await join(channel, CAROL)
            await channel.connect(PROTOCOLS)
        with pytest.raises(ChannelClosed):
            await join(channel, CAROL)
        assert node.frames(CAROL) == []


async def test_the_channels_own_did_and_one_that_is_joined_already_are_refused() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        for did in (ALICE, CAROL):
            with pytest.raises(AlreadyConnected, match="joined on this channel already"):
                await join(channel, did)
        assert [frame.topic for frame in node.frames(event="phx_join")] == [f"plugins:{ALICE}", f"plugins:{CAROL}"]
        assert (await handle.send_msg("message", plaintext(1, ALICE))).ok


async def test_the_did_that_a_blank_channel_was_assigned_is_its_own_too() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node, "")) as channel:
        await channel.connect(PROTOCOLS)
        with pytest.raises(AlreadyConnected):
            await join(channel, channel.assigned_did)
        agent = Agent()
        await join(channel, CAROL, agent)
        node.deliver(CAROL, plaintext(1, CAROL))
        await until(lambda: agent.ids == ["1"])


async def test_a_wrong_argument_is_refused_before_anything_is_sent() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        wrong: list[tuple[Any, Any, dict[str, Any]]] = [
            ("", PROTOCOLS, {}),
            ("carol", PROTOCOLS, {}),
            (CAROL, [], {}),
            (CAROL, "https://didcomm.org/basicmessage/2.0", {}),
            (CAROL, PROTOCOLS, {"did_spec": {"mode": "Maybe"}}),
            (CAROL, PROTOCOLS, {"callbacks": print}),
        ]
        for did, protocols, more in wrong:
            with pytest.raises(InvalidOption):
                await channel.join(did, protocols, **more)
        assert len(node.frames(event="phx_join")) == 1


async def test_a_borrowed_did_without_a_name_is_given_one() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await channel.join("", PROTOCOLS, did_spec={"parentDid": CAROL})
        assert handle.assigned_did.startswith(f"{CAROL}:")
        assert node.frames(handle.assigned_did, event="phx_join")[0].payload["delegation_refresh"] is True


async def test_a_hundred_topics_fit_on_a_socket_and_the_next_is_refused_without_asking_the_node() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handles: list[JoinedTopic] = []

        async def join_one(number: int) -> None:
            handles.append(await join(channel, f"did:web:node.test:agent-{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(99):
                nursery.start_soon(join_one, number)
        assert (len(handles), len(node.dids), len(node.connections)) == (99, 100, 1)
        with pytest.raises(JoinRejected, match="too many channels joined") as caught:
            await join(channel, CAROL)
        assert not caught.value.permanent
        assert node.frames(CAROL) == []
        await handles[7].leave()
        await join(channel, CAROL)


async def test_a_node_that_allows_fewer_topics_says_so() -> None:
    async with CloudNode(memory=True, max_channels=2) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, CAROL)
        with pytest.raises(JoinRejected, match="too many channels joined"):
            await join(channel, DAVE)
        assert node.dids == (ALICE, CAROL)


@pytest.mark.parametrize(
    ("misbehave", "error"),
    [
        (lambda node: node.refuse_joins(GHOST, did=CAROL), JoinRejected),
        (lambda node: node.refuse_joins(FOR_GOOD, did=CAROL), JoinRejected),
        (lambda node: node.ignore_joins(did=CAROL), JoinTimeout),
        (lambda node: node.answer_joins({"status": "ok", "response": []}, did=CAROL), Layr8Error),
    ],
    ids=["refused for now", "refused for good", "unanswered", "nonsense"],
)
async def test_a_join_that_fails_is_told_once_and_leaves_nothing_behind(misbehave: Any, error: type[Exception]) -> None:
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, DAVE)
        await trio.sleep(5)  # until the link idles, and its transport needs no task
        tasks = trio.lowlevel.current_statistics().tasks_living
        misbehave(node)
        agent = Agent()
        with pytest.raises(error):
            await join(channel, CAROL, agent)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        joins = len(node.frames(CAROL, event="phx_join"))
        await trio.sleep(100)
        assert joins == len(node.frames(CAROL, event="phx_join")) == 1
        assert node.dids == (ALICE, DAVE)
        assert (agent.order, channel.statistics().links_opened) == ([], 1)
        (failed,) = [event for event in seen if isinstance(event, events.AttemptFailed)]
        assert (failed.topic, failed.retry_in) == (f"plugins:{CAROL}", None)
        node.behave()
        handle = await join(channel, CAROL, agent)
        assert (await handle.send_msg("message", plaintext(1, ALICE, CAROL))).ok


async def test_a_join_whose_link_is_lost_before_the_answer_fails_and_is_not_repeated() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.ignore_joins(did=CAROL)
        errors: list[Exception] = []

        async def joining() -> None:
            try:
                await join(channel, CAROL)
            except Layr8Error as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(joining)
            await trio.sleep(1)
            node.drop()
            await until(lambda: errors, 0.5)
        assert type(errors[0]) is ConnectFailed
        await node.wait_joined(ALICE, 2)
        await trio.sleep(20)
        assert CAROL not in node.dids


async def test_a_join_while_the_link_is_renewed_waits_for_it() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.drop()
        await until(lambda: channel.state.status is LinkStatus.WAITING)
        before = trio.current_time()
        handle = await join(channel, CAROL)
        assert trio.current_time() - before == pytest.approx(1.0, abs=0.1)
        assert handle.state.joined
        assert [frame.topic for frame in node.frames(event="phx_join")][1:] == [f"plugins:{ALICE}", f"plugins:{CAROL}"]


async def test_a_join_that_persists_returns_at_once_and_is_tried_again_by_the_backoff() -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        node.refuse_joins(GHOST, did=CAROL, count=2)
        before = trio.current_time()
        handle = await channel.join(CAROL, PROTOCOLS, callbacks=agent.callbacks(), persist=True)
        assert trio.current_time() == before
        with pytest.raises(NotConnected):
            await handle.send_msg("message", {})
        with pytest.raises(AlreadyConnected):
            await join(channel, CAROL)
        await node.wait_joined(CAROL)
        await until(lambda: handle.state.joined)
        assert trio.current_time() - before == pytest.approx(1.0 + 2.0, abs=0.1)
        assert (await handle.send_msg("message", plaintext(1, ALICE))).ok
        assert agent.order == []  # as of any first join
        node.drop()
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        await handle.leave()
        assert node.dids == (ALICE,)


async def test_a_join_that_persists_gives_up_as_a_rejoin_does_and_is_left_before_it_has_joined() -> None:
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        node.refuse_joins(FOR_GOOD)
        before = trio.current_time()
        carol = await channel.join(CAROL, PROTOCOLS, persist=True)
        dave = await channel.join(DAVE, PROTOCOLS, persist=True)
        await trio.sleep(45)
        await dave.leave()
        await until(lambda: carol.state.status is LinkStatus.CLOSED)
        assert trio.current_time() - before == pytest.approx(60.0, abs=0.2)
        assert isinstance(carol.state.last_error, JoinRejected)
        assert [event.topic for event in seen if isinstance(event, events.GaveUp)] == [f"plugins:{CAROL}"]
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok


@pytest.mark.parametrize("others", [(), (DAVE,)], ids=["the first one", "a later one"])
async def test_a_join_that_is_cancelled_at_any_moment_leaves_nothing_behind(others: tuple[str, ...]) -> None:
    finished = False
    turns = 0
    while not finished:
        async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            for did in others:
                await join(channel, did)
            await trio.sleep(5)  # until the link idles, and its transport needs no task
            tasks = trio.lowlevel.current_statistics().tasks_living
            handles: list[JoinedTopic] = []

            async def joining(channel: Channel = channel, handles: list[JoinedTopic] = handles) -> None:
                handles.append(await join(channel, CAROL))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(joining)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            if handles:
                finished = True
                break
            supervisor = "topics" in [child.id for child in channel.supervisor.which_children()]
            tasks += supervisor and not others
            while trio.lowlevel.current_statistics().tasks_living != tasks or node.dids != (ALICE, *others):
                await trio.sleep(0.01)
            assert (await (await join(channel, CAROL)).send_msg("message", plaintext(1, ALICE))).ok
        turns += 1
    assert turns > 10


# --- sending and receiving --------------------------------------------------------------------------------------------


async def test_each_did_gets_its_own_messages_pushes_and_joins_and_nobody_elses() -> None:
    alice, carol, dave = Agent(), Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=alice.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        first, second = await join(channel, CAROL, carol), await join(channel, DAVE, dave)
        for number in range(30):
            node.deliver((ALICE, CAROL, DAVE)[number % 3], plaintext(number, "x"))
        node.push(CAROL, "delegated_credentials", {"revision": 1})
        await until(lambda: len(dave.ids) == 10 and carol.pushes)
        assert alice.ids == [str(number) for number in range(0, 30, 3)]
        assert carol.ids == [str(number) for number in range(1, 30, 3)]
        assert dave.ids == [str(number) for number in range(2, 30, 3)]
        assert (alice.pushes, carol.pushes, dave.pushes) == ([], [("delegated_credentials", {"revision": 1})], [])
        assert [joined["did"] for agent in (alice, carol, dave) for joined in agent.joins] == [ALICE, CAROL, DAVE]
        refs = [frame.ref for frame in node.frames(event="phx_join")]
        assert [channel.message_join_ref, first.message_join_ref, second.message_join_ref] == refs
        for who in (channel, first, second):
            statistics = who.statistics()
            assert (statistics.messages_received, statistics.messages_delivered) in ((10, 10), (10, 11), (11, 11))
            assert (statistics.frames_waiting, statistics.bytes_waiting) == (0, 0)


async def test_what_a_handle_sends_carries_its_own_topic_and_join_ref_and_one_counter_serves_all() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        for number in range(3):
            assert (await handle.send_msg("message", plaintext(number, ALICE, CAROL))).ok
            assert (await channel.send_msg("message", plaintext(number, CAROL))).ok
        await handle.send_fire_and_forget("dispatch_reply", {"message_id": "1", "status": "handled"})
        await handle.send_ack(["a", "b"])
        await node.wait_for(lambda: node.frames(CAROL, event="ack"))
        joined = node.frames(CAROL, event="phx_join")[0].ref
        sent = [frame for frame in node.frames(CAROL) if frame.event != "phx_join"]
        assert [frame.event for frame in sent] == ["message"] * 3 + ["dispatch_reply", "ack"]
        assert {(frame.topic, frame.join_ref) for frame in sent} == {(f"plugins:{CAROL}", joined)}
        assert {frame.join_ref for frame in node.frames(ALICE)} == {node.frames(ALICE)[0].ref}
        refs = [int(str(frame.ref)) for frame in node.frames()]
        assert len(set(refs)) == len(refs)


@pytest.mark.parametrize("transport", ["websockets", "trio-websocket"])
async def test_four_dids_on_two_real_sockets_write_to_each_other_before_and_after_a_drop(transport: str) -> None:
    agents = {did: Agent() for did in (ALICE, CAROL, DAVE, ERIN)}
    async with CloudNode() as node:
        first = options(node, ALICE, callbacks=agents[ALICE].callbacks(), transport=transport)
        second = options(node, DAVE, callbacks=agents[DAVE].callbacks(), transport=transport)
        async with open_channel(first) as one, open_channel(second) as other:
            await one.connect(PROTOCOLS)
            await other.connect(PROTOCOLS)
            senders: dict[str, Any] = {ALICE: one, DAVE: other}
            senders[CAROL] = await join(one, CAROL, agents[CAROL])
            senders[ERIN] = await join(other, ERIN, agents[ERIN])
            for round_ in range(1, 3):
                for did, sender in senders.items():
                    for to in senders:
                        assert (await sender.send_msg("message", plaintext(did, to, did))).ok
                expected = sorted([*senders] * round_)
                await until(lambda ids=expected: all(sorted(agent.ids) == ids for agent in agents.values()))  # type: ignore[misc]
                assert len(node.connections) == 2
                node.drop(CAROL)
                for did in (ALICE, CAROL):
                    await node.wait_joined(did, round_ + 1)
                await until(lambda: one.state.joined and senders[CAROL].state.joined)
            assert node.joins(ERIN) == node.joins(DAVE) == 1


async def test_a_refusal_that_repeats_the_key_shows_it_nowhere() -> None:
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        node.refuse_joins("no right for good-key", did=CAROL)
        with pytest.raises(JoinRejected) as caught:
            await join(channel, CAROL)
        shown = [str(caught.value), caught.value.reason, *(event.describe() for event in seen)]
        assert "no right for" in caught.value.reason
        assert [text for text in shown if "good-key" in text] == []


async def test_replies_of_many_topics_in_any_order_find_their_callers() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handles = [await join(channel, did) for did in (CAROL, DAVE, ERIN)]
        node.delay_replies(3.0, did=CAROL)
        node.delay_replies(1.0, did=ERIN)
        order: list[str] = []

        async def send(handle: JoinedTopic) -> None:
            reply = await handle.send_msg("message", plaintext(1, ALICE))
            assert reply.ok
            order.append(handle.assigned_did)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(send, handle)
        assert order == [DAVE, ERIN, CAROL]


async def test_the_errors_of_a_handles_sends_are_those_of_the_channel() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        with pytest.raises(InvalidOption):
            await handle.send_msg("", {})
        with pytest.raises(Layr8Error, match="reserved"):
            await handle.send_msg("phx_leave", {})
        with pytest.raises(InvalidOption):
            await handle.send_ack("one")
        with pytest.raises(Disconnected) as caught:
            await handle.send_fire_and_forget("message", {}, join_ref="0")
        assert not caught.value.written
        own = node.frames(CAROL, event="phx_join")[0].ref
        await handle.send_fire_and_forget("ack", {"ids": []}, join_ref=str(own))
        assert not (await handle.send_msg("message", plaintext(1, "did:web:nobody"))).ok
        node.drop_replies(did=CAROL)
        with pytest.raises(Layr8Error, match="no reply within 15 s"):
            await handle.send_msg("message", plaintext(1, ALICE))
        assert handle.statistics().reply_timeouts == 1
        assert channel.statistics().reply_timeouts == 0


async def test_messages_of_a_handle_can_be_iterated_over() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        for number in range(3):
            node.deliver(CAROL, plaintext(number, CAROL))
        stream = handle.messages()
        assert [(await anext(stream))["plaintext"]["id"] for _ in range(3)] == ["0", "1", "2"]
        node.deliver(CAROL, plaintext("last", CAROL))
        await until(lambda: handle.statistics().messages_waiting == 1)
        await handle.leave()
        assert [payload["plaintext"]["id"] async for payload in stream] == ["last"]
        await until(lambda: channel.statistics().frames_waiting == 0, 1)


async def test_frames_of_a_topic_that_nobody_joined_or_that_was_left_are_ignored_and_counted() -> None:
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        agent = Agent()
        handle = await join(channel, CAROL, agent)
        node.send_foreign(ALICE, "message", {"plaintext": {"id": "foreign"}})
        await until(lambda: channel.statistics().frames_ignored == 1)
        node.send_stale(CAROL, "message", {"plaintext": {"id": "stale"}})
        await until(lambda: handle.statistics().frames_ignored == 1)
        await handle.leave()
        node.send_foreign(ALICE, "message", {"plaintext": {"id": "late"}}, topic=f"plugins:{CAROL}")
        await until(lambda: channel.statistics().frames_ignored >= 2)
        await trio.sleep(1)
        assert agent.ids == []
        await until(lambda: channel.statistics().frames_waiting == 0, 1)
        ignored = [event for event in seen if isinstance(event, events.FrameIgnored)]
        assert {event.topic: event.why for event in ignored if event.topic.endswith("carol")} == {
            f"plugins:{CAROL}": "stale join_ref"
        }


# --- the link is lost -------------------------------------------------------------------------------------------------


async def test_after_a_drop_every_topic_is_joined_again_once_with_one_callback_each() -> None:
    agents = {did: Agent() for did in (ALICE, CAROL, DAVE, ERIN)}
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node, callbacks=agents[ALICE].callbacks())) as channel:
            await channel.connect(PROTOCOLS)
            handles = {did: await join(channel, did, agents[did]) for did in (CAROL, DAVE, ERIN)}
            for round_ in range(2, 4):
                node.drop()
                for did in agents:
                    await node.wait_joined(did, round_)
                await until(lambda: all(agent.order[-1:] == ["reconnect"] for agent in agents.values()), 1)
                await until(lambda count=round_: all(len(agent.order) == 2 * count - 2 for agent in agents.values()), 1)  # type: ignore[misc]
                await trio.sleep(40)
            # The channel's own join goes first on each socket.
            topics = [received.frame.topic for received in node.received(event="phx_join")]
            assert [topics[at] for at in (0, 4, 8)] == [f"plugins:{ALICE}"] * 3
            assert sorted(topics) == sorted(f"plugins:{did}" for did in agents for _ in range(3))
            for did, handle in handles.items():
                assert (await handle.send_msg("message", plaintext(did, ALICE, did))).ok
                assert handle.statistics().rejoins == handle.statistics().drops == 2
                assert agents[did].order == ["disconnect", "reconnect"] * 2
            assert channel.statistics().links_opened == 3


async def test_a_drop_fails_the_callers_of_every_topic_at_once_and_each_knows_what_was_written() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handles = [await join(channel, did) for did in (CAROL, DAVE)]
        node.drop_replies()
        errors: list[Disconnected] = []
        at: list[float] = []

        async def send(sender: Any) -> None:
            with pytest.raises(Disconnected) as caught:
                await sender.send_msg("message", plaintext(1, ALICE))
            errors.append(caught.value)
            at.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for sender in (channel, *handles, *handles):
                nursery.start_soon(send, sender)
            await trio.sleep(1)
            node.drop()
        assert [error.written for error in errors] == [True] * 5
        assert max(at) == pytest.approx(1.0, abs=0.1)
        for sender in handles:
            with pytest.raises(NotConnected):
                await sender.send_msg("message", {})
            assert sender.statistics().replies_waiting == 0
            assert sender.state.retry_in is None
            assert sender.state.status is LinkStatus.WAITING


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0])
async def test_a_hundred_topics_are_joined_again_without_one_that_times_out_however_slow_the_node_is(
    seconds: float,
) -> None:
    seen: list[Event] = []
    dids = [f"did:web:node.test:agent-{number}" for number in range(99)]
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        handles = [await join(channel, did) for did in dids]
        await trio.sleep(60)
        node.delay_joins(seconds)
        node.drop()
        await trio.sleep(1 + 100 * seconds + 0.5)
        assert all(handle.state.joined for handle in handles)
        assert [event for event in seen if isinstance(event, events.AttemptFailed)] == []
        assert [node.joins(did) for did in dids] == [2] * 99
        assert channel.statistics().links_opened == 2


async def test_heartbeats_are_sent_once_a_link_however_many_topics_there_are() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        for did in (CAROL, DAVE, ERIN):
            await join(channel, did)
        await trio.sleep(301)
        assert len(node.frames(event="heartbeat")) == 10


# --- one topic alone --------------------------------------------------------------------------------------------------


async def test_one_refused_rejoin_does_not_stop_the_others_and_is_retried_by_the_backoff() -> None:
    agents = {did: Agent() for did in (CAROL, DAVE, ERIN)}
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        handles = {did: await join(channel, did, agent) for did, agent in agents.items()}
        node.refuse_joins(GHOST, did=DAVE, count=3)
        node.drop()
        await node.wait_joined(CAROL, 2)
        await node.wait_joined(ERIN, 2)
        await until(lambda: handles[DAVE].state.status is LinkStatus.WAITING and handles[DAVE].state.last_error)
        assert handles[CAROL].state.joined
        assert isinstance(handles[DAVE].state.last_error, JoinRejected)
        with pytest.raises(NotConnected):
            await handles[DAVE].send_msg("message", {})
        assert (await handles[ERIN].send_msg("message", plaintext(1, CAROL))).ok
        began = trio.current_time()
        await node.wait_joined(DAVE, 2)
        await until(lambda: agents[DAVE].order == ["disconnect", "reconnect"], 1)
        # The failures before count on: a drop, then three refusals.
        assert trio.current_time() - began == pytest.approx(2 + 4 + 8, abs=0.2)
        failed = [event for event in seen if isinstance(event, events.AttemptFailed)]
        assert [(event.topic, event.retry_in) for event in failed] == [
            (f"plugins:{DAVE}", delay) for delay in (2.0, 4.0, 8.0)
        ]
        assert [agents[did].order for did in (CAROL, ERIN)] == [["disconnect", "reconnect"]] * 2
        assert channel.statistics().links_opened == 2


async def test_a_refused_rejoin_of_the_channels_own_did_does_not_stop_the_further_topics() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        agent = Agent()
        handle = await join(channel, CAROL, agent)
        node.refuse_joins(GHOST, did=ALICE, count=2)
        node.drop()
        await node.wait_joined(CAROL, 2)
        await until(lambda: channel.state.status is LinkStatus.WAITING, 0.1)
        await until(lambda: handle.state.joined, 0.1)
        assert (await handle.send_msg("message", plaintext(1, CAROL))).ok
        await until(lambda: agent.ids == ["1"])
        await node.wait_joined(ALICE, 2)
        assert node.joins(CAROL) == 2


async def test_a_rejoin_refused_for_good_is_tried_three_times_30_s_apart_and_then_ends_that_handle_alone() -> None:
    agent, other = Agent(), Agent()
    seen: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        handle, healthy = await join(channel, CAROL, agent), await join(channel, DAVE, other)
        node.refuse_joins(FOR_GOOD, did=CAROL)
        node.drop()
        await node.wait_joined(ALICE, 2)
        began = trio.current_time()
        await until(lambda: handle.state.status is LinkStatus.CLOSED)
        assert trio.current_time() - began == pytest.approx(60.0, abs=0.2)
        assert len(node.frames(CAROL, event="phx_join")) == 1 + 3
        error = handle.state.last_error
        assert isinstance(error, JoinRejected)
        assert error.permanent
        with pytest.raises(ChannelClosed) as caught:
            await handle.send_msg("message", {})
        assert caught.value.__cause__ is error
        (gave_up,) = [event for event in seen if isinstance(event, events.GaveUp)]
        assert gave_up.topic == f"plugins:{CAROL}"
        await handle.leave()
        assert (await healthy.send_msg("message", plaintext(1, ALICE))).ok
        assert (await channel.send_msg("message", plaintext(1, DAVE))).ok
        assert other.order == ["disconnect", "reconnect"]
        assert agent.order == ["disconnect"]
        node.behave()
        await join(channel, CAROL)


@pytest.mark.parametrize("end", ["crash_topic", "close_topic", "forget_topic"])
async def test_a_topic_that_the_node_ends_fails_its_own_callers_and_is_joined_again_alone(end: str) -> None:
    agent, other = Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle, healthy = await join(channel, CAROL, agent), await join(channel, DAVE, other)
        node.drop_replies(event="message")
        outcomes: list[object] = []

        async def send(sender: JoinedTopic) -> None:
            try:
                outcomes.append((sender.assigned_did, (await sender.send_msg("message", plaintext(1, ALICE))).status))
            except Disconnected as error:
                outcomes.append((sender.assigned_did, error.written))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, handle)
            await trio.sleep(1)
            getattr(node, end)(CAROL)
            if end == "forget_topic":  # found out by the next push
                nursery.start_soon(handle.send_fire_and_forget, "message", {})
            await until(lambda: outcomes == [(CAROL, True)], 1)
            node.behave()
            nursery.start_soon(send, healthy)
        assert outcomes == [(CAROL, True), (DAVE, "ok")]
        await node.wait_joined(CAROL, 2)
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        assert isinstance(agent.disconnects[0], TopicDown)
        assert (other.order, node.joins(DAVE), node.joins(ALICE), len(node.connections)) == ([], 1, 1, 1)
        assert (await handle.send_msg("message", plaintext(1, ALICE))).ok


async def test_what_was_queued_under_a_join_that_ended_is_not_written_under_the_next_one() -> None:
    seen: list[Event] = []
    async with CloudNode(memory=True, capacity=1024) as node, open_channel(options(node, events=seen)) as channel:
        await channel.connect(PROTOCOLS)
        handle, other = await join(channel, CAROL), await join(channel, DAVE)
        node.stop_reading()
        await channel.send_fire_and_forget("message", {"text": "x" * 100_000})
        await trio.sleep(0.1)
        await handle.send_fire_and_forget("message", plaintext("stale", ALICE))
        await other.send_fire_and_forget("message", plaintext("kept", ALICE))
        node.crash_topic(CAROL)
        await until(lambda: handle.state.status is LinkStatus.WAITING, 0.5)
        await trio.sleep(3)
        node.resume()
        await node.wait_joined(CAROL, 2)
        await until(lambda: handle.state.joined)
        assert (await handle.send_msg("message", plaintext("fresh", ALICE))).ok
        assert [frame.payload["id"] for frame in node.frames(CAROL, event="message")] == ["fresh"]
        assert [frame.payload["id"] for frame in node.frames(DAVE, event="message")] == ["kept"]
        assert channel.statistics().sends_discarded == 1


async def test_a_hung_topic_is_noticed_by_three_replies_that_do_not_come_and_joined_again_alone() -> None:
    agent, other = Agent(), Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL, agent)
        await join(channel, DAVE, other)
        node.mute(CAROL)
        for _ in range(3):
            with pytest.raises(Layr8Error, match="no reply"):
                await handle.send_msg("message", plaintext(1, ALICE))
        await node.wait_joined(CAROL, 2)
        await until(lambda: agent.order == ["disconnect", "reconnect"])
        assert [frame.event for frame in node.frames(CAROL)][-2:] == ["phx_leave", "phx_join"]
        assert (other.order, node.joins(DAVE)) == ([], 1)


async def test_a_rejoin_that_is_not_answered_is_left_and_tried_again() -> None:
    agent = Agent()
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        await join(channel, CAROL, agent)
        node.ignore_joins(did=CAROL, count=1)
        node.drop()
        await node.wait_joined(CAROL, 3)
        assert [frame.event for frame in node.frames(CAROL)] == ["phx_join", "phx_join", "phx_leave", "phx_join"]
        await until(lambda: agent.order == ["disconnect", "reconnect"])


# --- leaving and closing ----------------------------------------------------------------------------------------------


async def test_leave_writes_what_is_queued_leaves_with_the_join_ref_and_keeps_the_socket() -> None:
    agent = Agent()
    async with CloudNode(memory=True, phoenix="1.8.11") as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle, other = await join(channel, CAROL, agent), await join(channel, DAVE)
        for number in range(5):
            await handle.send_fire_and_forget("message", plaintext(number, ALICE))
        await handle.leave()
        await node.wait_for(lambda: CAROL not in node.dids)
        *_, last = node.frames(CAROL)
        assert [frame.event for frame in node.frames(CAROL)] == ["phx_join", *["message"] * 5, "phx_leave"]
        assert last.join_ref == node.frames(CAROL)[0].ref
        assert (node.dids, len(node.connections), channel.state.joined) == ((ALICE, DAVE), 1, True)
        assert (handle.state.status, agent.order) == (LinkStatus.CLOSED, [])
        for send in (handle.send_msg, handle.send_fire_and_forget):
            with pytest.raises(ChannelClosed, match="has ended; join it again"):
                await send("message", {})
        await handle.leave()
        assert len(node.frames(CAROL, event="phx_leave")) == 1
        assert (await other.send_msg("message", plaintext(1, ALICE))).ok


async def test_two_leaves_at_once_and_one_that_is_cancelled_leave_once() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.leave)
            nursery.start_soon(handle.leave)
            with trio.move_on_after(0):
                await handle.leave()
        await node.wait_for(lambda: CAROL not in node.dids)
        assert len(node.frames(CAROL, event="phx_leave")) == 1


async def test_a_did_that_was_left_may_be_joined_again_at_once() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(5):
            agent = Agent()
            handle = await join(channel, CAROL, agent)
            node.deliver(CAROL, plaintext(number, CAROL))
            await until(lambda agent=agent, number=number: agent.ids == [str(number)])  # type: ignore[misc]
            if number % 2:
                await handle.leave()
            else:
                with trio.move_on_after(0):
                    await handle.leave()  # it goes on by itself, and the next join waits for that
        assert node.joins(CAROL) == 5


async def test_whoever_waits_for_a_reply_when_its_topic_is_left_gets_channel_closed() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle, other = await join(channel, CAROL), await join(channel, DAVE)
        node.delay_replies(2.0)
        outcomes: dict[str, object] = {}

        async def send(sender: JoinedTopic) -> None:
            try:
                outcomes[sender.assigned_did] = (await sender.send_msg("message", plaintext(1, ALICE))).status
            except ChannelClosed as error:
                outcomes[sender.assigned_did] = type(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, handle)
            nursery.start_soon(send, other)
            await trio.sleep(1)
            await handle.leave()
        assert outcomes == {CAROL: ChannelClosed, DAVE: "ok"}


async def test_leave_from_within_a_callback_of_its_own_ends_that_callback_and_the_topic() -> None:
    handles: list[JoinedTopic] = []
    after: list[str] = []

    async def on_message(payload: Any) -> None:
        await handles[0].leave()
        after.append("never")

    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handles.append(await channel.join(CAROL, PROTOCOLS, callbacks=Callbacks(on_message)))
        node.deliver(CAROL, plaintext(1, CAROL))
        await node.wait_for(lambda: CAROL not in node.dids)
        await until(lambda: handles[0].state.status is LinkStatus.CLOSED)
        assert after == []
        assert (await channel.send_msg("message", plaintext(1, ALICE))).ok


async def test_callbacks_of_any_did_may_join_and_leave_others() -> None:
    joined: list[JoinedTopic] = []

    async with CloudNode(memory=True) as node:

        async def on_message(payload: Any) -> None:
            if joined:
                await joined[0].leave()
            else:
                joined.append(await join(channel, DAVE))

        async with open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            await channel.join(CAROL, PROTOCOLS, callbacks=Callbacks(on_message))
            node.deliver(CAROL, plaintext(1, CAROL))
            await node.wait_joined(DAVE)
            node.deliver(CAROL, plaintext(2, CAROL))
            await node.wait_for(lambda: DAVE not in node.dids)


async def test_leave_while_the_link_is_lost_ends_at_once_and_the_did_is_not_joined_again() -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        node.drop()
        await until(lambda: channel.state.status is LinkStatus.WAITING)
        before = trio.current_time()
        await handle.leave()
        assert trio.current_time() == before
        await node.wait_joined(ALICE, 2)
        await trio.sleep(10)
        assert node.joins(CAROL) == 1


async def test_leave_of_a_peer_that_stopped_reading_ends_by_close_timeout() -> None:
    async with CloudNode(memory=True, capacity=1024) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        handle = await join(channel, CAROL)
        node.stop_reading()
        await handle.send_fire_and_forget("message", {"text": "x" * 100_000})
        before = trio.current_time()
        await handle.leave()
        assert trio.current_time() - before <= 5.1


@pytest.mark.parametrize("phoenix", ["1.7.24", "1.8.11", "1.8.12"])
async def test_close_leaves_the_last_one_joined_first_the_channels_own_did_last_and_then_closes_the_socket(
    phoenix: str,
) -> None:
    async with CloudNode(memory=True, phoenix=phoenix) as node:
        async with open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            handles = [await join(channel, did) for did in (CAROL, DAVE, ERIN)]
            for handle in handles:
                await handle.send_fire_and_forget("message", plaintext("last words", ALICE))
            before = trio.current_time()
            await channel.close()
            assert trio.current_time() - before <= 5
        order = [frame.topic for frame in node.frames(event="phx_leave")]
        assert order == [f"plugins:{did}" for did in (ERIN, DAVE, CAROL, ALICE)]
        events_seen = [frame.event for frame in node.frames()]
        assert events_seen[-4:] == ["phx_leave"] * 4
        assert events_seen.count("message") == 3
        assert node.connections == ()
        for handle in handles:
            assert handle.state.status is LinkStatus.CLOSED
            with pytest.raises(ChannelClosed, match="the channel is closed"):
                await handle.send_msg("message", {})
            await handle.leave()


async def test_close_of_a_peer_that_stopped_reading_ends_by_its_deadline_however_many_topics_there_are() -> None:
    async with CloudNode(memory=True, capacity=1024) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(20):
            await join(channel, f"did:web:node.test:agent-{number}")
        node.stop_reading()
        await channel.send_fire_and_forget("message", {"text": "x" * 100_000})
        before = trio.current_time()
        await channel.close()
        assert trio.current_time() - before <= 5.1


async def test_no_callback_of_any_topic_runs_after_close_and_none_is_told_of_a_disconnect() -> None:
    agents = [Agent() for _ in range(3)]
    async with CloudNode(memory=True) as node:
        async with open_channel(options(node)) as channel:
            await channel.connect(PROTOCOLS)
            for number, agent in enumerate(agents):
                agent.gate = trio.Event()
                await join(channel, f"did:web:node.test:agent-{number}", agent)
                for message in range(3):
                    node.deliver(f"did:web:node.test:agent-{number}", plaintext(message, "x"))
            await trio.sleep(1)
        for agent in agents:
            agent.gate.set()
        await trio.sleep(10)
        assert [(agent.ids, agent.order) for agent in agents] == [([], [])] * 3


async def test_a_callback_that_cleans_up_when_its_channel_is_closed_delays_the_leaves_by_that_much() -> None:
    cleaned: list[float] = []

    async def on_message(payload: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            cleaned.append(trio.current_time())

    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await channel.connect(PROTOCOLS)
        for did in (CAROL, DAVE, ERIN):
            await channel.join(did, PROTOCOLS, callbacks=Callbacks(on_message))
            node.deliver(did, plaintext(1, did))
        await trio.sleep(1)
        await channel.close()
        # All of them clean up at once.
        assert cleaned == [3.0, 3.0, 3.0]
        assert [received.at for received in node.received(event="phx_leave")] == [3.0] * 4


async def test_a_channel_that_is_cancelled_leaves_no_task_and_no_topic() -> None:
    async with CloudNode(memory=True) as node:
        await trio.sleep(5)  # until the link idles, and its transport needs no task
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(50):
            async with open_channel(options(node)) as channel:
                await channel.connect(PROTOCOLS)
                for did in (CAROL, DAVE, ERIN):
                    await join(channel, did)
                await trio.sleep_forever()
        await node.wait_for(lambda: not node.dids)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        assert [frame.topic for frame in node.frames(event="phx_leave")] == [
            f"plugins:{did}" for did in (ERIN, DAVE, CAROL, ALICE)
        ]
