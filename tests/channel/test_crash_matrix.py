"""Every actor crashed in every state of the link: nobody hangs, nothing inbound is lost or doubled, sockets are kept.

The expectations are the rows of the failure table in supervisor.md.
"""

from __future__ import annotations

import logging
import operator
from typing import Any

import pytest
import trio

from layr8_actors.channel import Channel, LinkStatus, open_channel, router
from layr8_actors.errors import Disconnected
from layr8_actors.otp.events import ChildExited
from layr8_actors.phoenix import Frame
from tests.channel.conftest import poison_router

ACTORS = ["inbox", "router", "connection", "heartbeat", "reconnector"]
CRASHES = [None, RuntimeError("injected")]
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


@pytest.fixture(params=ACTORS)
def actor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CRASHES, ids=["killed", "raised"])
def crash(request: pytest.FixtureRequest) -> Exception | None:
    return request.param  # type: ignore[no-any-return]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


def incarnation(channel: Channel, actor: str) -> int:
    return next(child.incarnation for child in channel.supervisor.which_children() if child.id == actor)


async def crash_and_settle(channel: Channel, actor: str, error: Exception | None) -> None:
    before = incarnation(channel, actor)
    channel.supervisor.exit_child(actor, error)
    await settle()
    assert incarnation(channel, actor) == before + 1, f"{actor} was not restarted"
    assert sum(child.restarts for child in channel.supervisor.which_children()) == 1, "a sibling was restarted too"


async def prove_that_it_works(channel: Channel, node: Any, calls: Any, first: int) -> None:
    """Send and receive on the channel as it is now."""
    reply = await channel.send_msg("message", {"n": first})
    assert reply.ok
    node.socket.message(first)
    await settle()
    assert calls.ids[-1] == first
    assert (channel.state.status, node.open_sockets, node.most_at_once) == (LinkStatus.JOINED, 1, 1)


async def test_an_actor_crashed_while_idle_is_back_for_the_first_connect(
    node: Any, calls: Any, actor: str, crash: Exception | None
) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await crash_and_settle(channel, actor, crash)
        assert (channel.state.status, node.dials) == (LinkStatus.IDLE, 0)
        await channel.connect(PROTOCOLS)
        await prove_that_it_works(channel, node, calls, 1)
    assert calls.order == []


async def test_an_actor_crashed_while_connecting_leaves_connect_with_an_outcome(
    node: Any, calls: Any, actor: str, crash: Exception | None
) -> None:
    node.dial_gate = trio.Event()
    outcomes: list[Any] = []

    async def connect(channel: Channel) -> None:
        try:
            await channel.connect(PROTOCOLS)
            outcomes.append("connected")
        except Exception as error:
            outcomes.append(error)

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, channel)
            await settle()
            assert channel.state.status is LinkStatus.CONNECTING
            await crash_and_settle(channel, actor, crash)
            node.dial_gate.set()
        if actor == "connection":  # the dial died with it, and a first connect is not retried
            assert type(outcomes[0]).__name__ == "ConnectFailed"
            assert (channel.state.status, node.open_sockets) == (LinkStatus.IDLE, 0)
            await channel.connect(PROTOCOLS)
        else:
            assert outcomes == ["connected"]
            assert node.dials == 1
        await prove_that_it_works(channel, node, calls, 1)
    assert calls.order == []


async def test_an_actor_crashed_while_joining_leaves_connect_with_an_outcome(
    node: Any, calls: Any, actor: str, crash: Exception | None
) -> None:
    node.hold_joins = True
    outcomes: list[Any] = []

    async def connect(channel: Channel) -> None:
        try:
            await channel.connect(PROTOCOLS)
            outcomes.append("connected")
        except Exception as error:
            outcomes.append(error)

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, channel)
            await settle()
            assert channel.state.status is LinkStatus.JOINING
            await crash_and_settle(channel, actor, crash)
            node.release_joins()
        if actor == "connection":
            assert type(outcomes[0]).__name__ == "ConnectFailed"
            assert (channel.state.status, node.open_sockets) == (LinkStatus.IDLE, 0)
            await channel.connect(PROTOCOLS)
        else:
            assert outcomes == ["connected"]
            assert (node.dials, node.joins) == (1, 1)
        await prove_that_it_works(channel, node, calls, 1)
    assert calls.order == []


async def test_an_actor_crashed_while_joined_costs_what_the_failure_table_says(
    node: Any, calls: Any, actor: str, crash: Exception | None
) -> None:
    outcomes: list[Any] = []
    held: list[Frame] = []
    node.on_push = lambda socket, frame: held.append(frame)

    async def send(channel: Channel) -> None:
        try:
            outcomes.append(await channel.send_msg("message", {}))
        except Exception as error:
            outcomes.append(error)

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, channel)
            await settle()
            for number in range(10):
                node.socket.message(number)
            first = node.socket
            if actor != "connection":
                await crash_and_settle(channel, actor, crash)
                assert calls.ids == list(range(10)), "inbound was lost, doubled or reordered"
                first.reply(held[0])
            else:
                await settle()
                await crash_and_settle(channel, actor, crash)
                assert calls.ids == list(range(10))
        node.on_push = None
        if actor in ("connection", "router"):
            (error,) = outcomes
            assert isinstance(error, Disconnected)
            assert error.written
        else:
            assert outcomes[0].ok
        if actor == "connection":
            assert not first.open
            assert isinstance(calls.disconnects[0], Exception)
            await channel.connect(PROTOCOLS)
            await settle()
            assert calls.order == ["disconnect", "reconnect"]
            assert (node.dials, len(node.sockets)) == (2, 2)
        else:
            assert first.open, "the socket was not kept"
            assert (node.dials, node.joins, calls.order) == (1, 1, [])
        await prove_that_it_works(channel, node, calls, 99)


async def test_an_actor_crashed_while_waiting_keeps_the_date_of_the_next_attempt(
    node: Any, calls: Any, actor: str, crash: Exception | None
) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.drop()
        await settle()
        assert channel.state.status is LinkStatus.WAITING
        due = trio.current_time() + (channel.state.retry_in or 0.0)
        await crash_and_settle(channel, actor, crash)
        assert channel.state.status is LinkStatus.WAITING
        await channel.connect(PROTOCOLS)
        assert trio.current_time() == pytest.approx(due, abs=0.1)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        await prove_that_it_works(channel, node, calls, 1)


async def test_messages_read_before_an_inbox_crash_are_delivered_once_and_the_one_in_hand_is_reported(
    node: Any,
) -> None:
    taken: list[int] = []
    gate = trio.Event()

    async def on_message(payload: Any) -> None:
        taken.append(int(payload["plaintext"]["id"]))
        if taken == [0]:
            await gate.wait()

    from layr8_actors.channel import Callbacks
    from layr8_actors.channel.events import MessageInterrupted

    async with open_channel(node.options(callbacks=Callbacks(on_message))) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(5):
            node.socket.message(number)
        await settle()
        assert taken == [0]
        await crash_and_settle(channel, "inbox", None)
        assert taken == [0, 1, 2, 3, 4]
        (report,) = node.seen(MessageInterrupted)
        assert report.payload["plaintext"]["id"] == "0"
        assert channel.statistics().messages_interrupted == 1


async def test_a_frame_that_crashes_the_router_is_tried_again_and_then_refused_while_the_rest_is_delivered(
    node: Any, calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = poison_router(monkeypatch, "1")
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        for number in range(4):
            node.socket.message(number)
        await trio.sleep(0.5)
        await settle()
        await trio.sleep(5)
        assert calls.ids == [0, 2, 3]
        assert len(crashes) == 2
        assert channel.statistics().frames_refused == 1
        assert (await channel.send_msg("message", {})).ok


@pytest.mark.parametrize("where", ["route_messages", "Router._hand_over"])
async def test_what_goes_wrong_in_the_task_that_reads_is_a_crash_of_the_router_and_loses_nothing(
    node: Any, calls: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    good = operator.attrgetter(where)(router)
    tasks: list[str] = []

    def planted_bug(*args: Any) -> Any:
        monkeypatch.setattr(f"layr8_actors.channel.router.{where}", good)
        tasks.append(trio.lowlevel.current_task().name)
        raise RuntimeError("planted")

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        monkeypatch.setattr(f"layr8_actors.channel.router.{where}", planted_bug)
        for number in range(4):
            node.socket.message(number)
        await settle()
        node.socket.message(4)
        await trio.sleep(5)
        assert "_run_link" in tasks[0]
        crashes = node.seen(ChildExited)
        assert [(crash.id, crash.doing) for crash in crashes] == [("router", "handle_cast FramesArrived")]
        assert str(crashes[0].reason.error) == "planted"
        assert calls.ids == [0, 1, 2, 3, 4]
        assert node.dials == 1
        assert channel.statistics().frames_waiting == 0


async def test_crashes_beyond_the_budget_end_the_channel_and_release_whoever_waits(node: Any, calls: Any) -> None:
    from layr8_actors.errors import ChannelClosed, RestartLimitExceeded

    node.mute = True
    outcomes: list[Exception] = []

    async def send(channel: Channel) -> None:
        try:
            await channel.send_msg("message", {})
        except Exception as error:
            outcomes.append(error)

    async def crash_often(channel: Channel) -> None:
        for _ in range(10):
            channel.supervisor.exit_child("heartbeat", RuntimeError("injected"))
            await trio.sleep(2)

    with pytest.RaisesGroup(pytest.RaisesExc(RestartLimitExceeded)) as caught:
        async with trio.open_nursery() as outer:
            options = node.options(callbacks=calls.callbacks(), max_seconds=60.0)
            channel = await Channel.start_link(outer, options)
            await channel.connect(PROTOCOLS)
            async with trio.open_nursery() as shielded:
                shielded.cancel_scope.shield = True
                shielded.start_soon(send, channel)
                await settle()
                shielded.start_soon(crash_often, channel)
                await channel._record.over.wait()
                shielded.cancel_scope.cancel()
    assert isinstance(caught.value.exceptions[0].__cause__, RuntimeError)
    assert [type(error) for error in outcomes] == [ChannelClosed]
    assert (node.open_sockets, channel.state.status) == (0, LinkStatus.CLOSED)
    assert calls.order == []
    with pytest.raises(ChannelClosed) as late:
        await channel.send_msg("message", {})
    assert isinstance(late.value.__cause__, RestartLimitExceeded)


@pytest.mark.parametrize("last", ACTORS)
async def test_whichever_actor_spends_the_budget_callers_get_channel_closed_and_no_callback_is_called(
    node: Any, calls: Any, last: str
) -> None:
    from layr8_actors.errors import ChannelClosed, RestartLimitExceeded

    node.mute = True
    outcomes: list[Exception] = []

    async def send(channel: Channel) -> None:
        with pytest.raises((ChannelClosed, Disconnected)) as caught:
            await channel.send_msg("message", {})
        outcomes.append(caught.value)

    others = [actor for actor in ACTORS if actor not in (last, "connection", "router")]
    with pytest.raises(RestartLimitExceeded):
        async with open_channel(node.options(callbacks=calls.callbacks(), max_restarts=2, max_seconds=10)) as channel:
            await channel.connect(PROTOCOLS)
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                nursery.start_soon(send, channel)
                await settle()
                for actor in [*others[:2], last]:
                    channel.supervisor.exit_child(actor, RuntimeError("injected"))
                    await settle()
            await trio.sleep_forever()
    assert [type(error) for error in outcomes] == [ChannelClosed]
    assert calls.order == []
    assert node.open_sockets == 0


async def test_a_healthy_session_logs_nothing_above_info(node: Any, caplog: pytest.LogCaptureFixture) -> None:
    from layr8_actors.telemetry import log_event

    caplog.set_level(logging.INFO)
    async with open_channel(node.options(on_event=log_event)) as channel:
        await channel.connect(PROTOCOLS)
        await channel.send_msg("message", {})
        await trio.sleep(100)
    assert caplog.records
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
