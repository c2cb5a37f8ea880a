"""A channel behind each fault of the network does what the failure table of supervisor.md says, over memory and TCP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from layr8_actors import (
    Backoff,
    Callbacks,
    Channel,
    ChannelOptions,
    ConnectFailed,
    Disconnected,
    LinkStatus,
    ReplyTimeout,
    open_channel,
)
from layr8_actors.channel.events import LinkLost, TopicJoined
from layr8_actors.testing import CloudNode, FaultProxy

ALICE = "did:web:node.test:alice"
PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
QUICK = Backoff(initial=0.5, maximum=5.0, factor=2, jitter=0.5, reset_after=30)
both = pytest.mark.parametrize("memory", [True, False], ids=["memory", "tcp"])


class Agent:
    """One channel behind the proxy, and what its callbacks and events were called with."""

    def __init__(self) -> None:
        self.node: CloudNode
        self.proxy: FaultProxy
        self.channel: Channel
        self.got: list[str] = []
        self.order: list[Any] = []
        self.events: list[Any] = []

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(
            lambda payload: self.got.append(payload["plaintext"]["id"]),
            self.order.append,
            lambda: self.order.append("reconnect"),
        )

    def plaintext(self, number: int) -> dict[str, Any]:
        return {"id": str(number), "to": [ALICE], "body": {}}

    async def until(self, condition: Callable[[], object], seconds: float = 300.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await trio.sleep(0.05)

    async def rejoined(self, times: int = 1) -> None:
        """Wait for the rejoin, and see that both callbacks came once for each, and that messages flow again."""
        await self.until(lambda: len(self.order) == 2 * times)
        assert [entry for entry in self.order if entry == "reconnect"] == ["reconnect"] * times
        assert self.order[1::2] == ["reconnect"] * times
        await self.channel.connect(PROTOCOLS)
        assert (await self.channel.send_msg("message", self.plaintext(1000 + times))).ok
        await self.until(lambda: self.got and self.got[-1] == str(1000 + times))
        joins = [event.rejoin for event in self.events if isinstance(event, TopicJoined)]
        assert joins == [False] + [True] * times
        assert sum(isinstance(event, LinkLost) for event in self.events) == times


@contextlib.asynccontextmanager
async def joined(memory: bool, **more: Any) -> AsyncIterator[Agent]:
    agent = Agent()
    async with CloudNode(memory=memory) as agent.node, FaultProxy.around(agent.node, seed=3) as agent.proxy:
        options = ChannelOptions(
            **{
                "ws_url": agent.proxy.url,
                "api_key": "key",
                "agent_did": ALICE,
                "transport": agent.proxy.connector,
                "callbacks": agent.callbacks,
                "backoff": QUICK,
                "on_event": agent.events.append,
                **more,
            }
        )
        async with open_channel(options) as agent.channel:
            await agent.channel.connect(PROTOCOLS)
            yield agent


# --- a network that is slow -------------------------------------------------------------------------------------------


@both
async def test_latency_and_jitter_cost_time_and_nothing_else(memory: bool) -> None:
    async with joined(memory) as agent:
        agent.proxy.delay(1.0, jitter=2.0)
        for number in range(20):
            assert (await agent.channel.send_msg("message", agent.plaintext(number))).ok
        await trio.sleep(600)
        assert agent.got == [str(number) for number in range(20)]
        assert agent.order == []
        round_trip = agent.channel.statistics().round_trip
        assert round_trip is not None
        assert 2.0 <= round_trip <= 6.1


@both
async def test_a_narrow_line_costs_time_and_nothing_else(memory: bool) -> None:
    async with joined(memory) as agent:
        agent.proxy.throttle(2000)
        await agent.node.flood(ALICE, 100)
        await agent.until(lambda: len(agent.got) == 100)
        assert agent.got == [str(number) for number in range(100)]
        assert agent.order == []
        assert trio.current_time() > 5


@both
async def test_a_stall_shorter_than_the_heartbeats_patience_is_not_a_loss(memory: bool) -> None:
    async with joined(memory) as agent:
        agent.proxy.stall()
        with pytest.raises(ReplyTimeout) as caught:
            await agent.channel.send_msg("message", agent.plaintext(1))
        assert caught.value.written
        agent.proxy.release()
        await agent.until(lambda: agent.got == ["1"])
        await trio.sleep(600)
        assert agent.order == []
        assert agent.channel.statistics().links_opened == 1


# --- rows 8 and 21: the link looks alive and is not -------------------------------------------------------------------


def stall(proxy: FaultProxy) -> None:
    proxy.stall(connection=proxy.connections[0])


def silence_to_node(proxy: FaultProxy) -> None:
    proxy.silence("to_node", connection=proxy.connections[0])


def silence_to_client(proxy: FaultProxy) -> None:
    proxy.silence("to_client", connection=proxy.connections[0])


def lose_the_node(proxy: FaultProxy) -> None:
    proxy.half_open("node")


def stop_reading(proxy: FaultProxy) -> None:
    proxy.read_slowly(0, direction="to_node", connection=proxy.connections[0])


DEAD = [stall, silence_to_node, silence_to_client, lose_the_node, stop_reading]


@both
@pytest.mark.parametrize("fault", DEAD)
async def test_a_link_that_died_without_a_word_is_dropped_by_its_heartbeat_and_dialled_anew(
    memory: bool, fault: Callable[[FaultProxy], None]
) -> None:
    async with joined(memory) as agent:
        await trio.sleep(100)
        fault(agent.proxy)
        began = trio.current_time()
        with pytest.raises((ReplyTimeout, Disconnected)) as caught:
            await agent.channel.send_msg("message", agent.plaintext(1))
        error: Any = caught.value
        assert error.written
        await agent.until(lambda: agent.order)
        assert "heartbeat" in str(agent.order[0])
        assert trio.current_time() - began <= 61  # an interval and a timeout
        await agent.rejoined()
        assert agent.got.count("1") <= 1


@both
async def test_a_reader_that_takes_nothing_makes_senders_wait_and_each_is_told_what_is_known(memory: bool) -> None:
    outcomes: list[bool] = []
    size, senders = 5_000_000, 10

    async with joined(memory, outbox_capacity=2) as agent:
        stop_reading(agent.proxy)

        async def send(number: int) -> None:
            try:
                await agent.channel.send_msg("message", {**agent.plaintext(number), "body": "x" * size})
            except (ReplyTimeout, Disconnected) as error:
                outcomes.append(error.written)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, 0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for number in range(1, senders):
                nursery.start_soon(send, number)
        assert len(outcomes) == senders
        assert True in outcomes  # one was under the pen,
        assert False in outcomes  # and those behind it never were
        await agent.rejoined()
        arrived = len(agent.node.frames(ALICE, event="message")) - 1
        assert arrived <= sum(outcomes)


# --- row 7: the link is lost ------------------------------------------------------------------------------------------


def truncate_reply(proxy: FaultProxy) -> None:
    proxy.truncate("to_client")


def truncate_reply_and_reset(proxy: FaultProxy) -> None:
    proxy.truncate("to_client", reset=True)


def truncate_request(proxy: FaultProxy) -> None:
    proxy.truncate("to_node")


@both
@pytest.mark.parametrize("fault", [truncate_reply, truncate_reply_and_reset, truncate_request])
async def test_a_frame_cut_in_two_is_a_lost_socket_and_half_a_frame_is_never_delivered(
    memory: bool, fault: Callable[[FaultProxy], None]
) -> None:
    async with joined(memory) as agent:
        fault(agent.proxy)
        with pytest.raises(Disconnected) as caught:
            await agent.channel.send_msg("message", agent.plaintext(1))
        assert caught.value.written
        await agent.rejoined()
        assert agent.channel.statistics().frames_refused == 0
        arrived = [frame.payload["id"] for frame in agent.node.frames(ALICE, event="message")]
        assert arrived == (["1001"] if fault is truncate_request else ["1", "1001"])
        assert agent.proxy.statistics().faults == {"truncate": 1}


@both
@pytest.mark.parametrize("how", ["reset", "drop"])
async def test_a_connection_cut_between_two_frames_is_dialled_anew_with_one_callback_each(
    memory: bool, how: str
) -> None:
    async with joined(memory) as agent:
        for turn in range(3):
            getattr(agent.proxy, how)()
            await agent.rejoined(turn + 1)
        assert agent.proxy.statistics().connections == 4


@both
async def test_a_node_that_was_not_told_refuses_the_rejoin_until_it_notices_and_then_takes_it(memory: bool) -> None:
    async with joined(memory) as agent:
        agent.proxy.half_open("client")
        began = trio.current_time()
        await agent.rejoined()
        assert trio.current_time() - began >= 55  # the node's own idle timeout had to end the old socket
        assert agent.node.statistics().refused_joins[f"plugins:{ALICE}"] > 3


# --- row 18: nobody answers the dial ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_dead_accept_queue_is_given_up_at_connect_timeout_and_dialled_until_it_answers(
    memory: bool, accepted: bool
) -> None:
    async with joined(memory, connect_timeout=3.0) as agent:
        await agent.proxy.ignore_dials(accepted=accepted)
        agent.proxy.reset()
        await trio.sleep(60)
        assert agent.channel.state.status in (LinkStatus.WAITING, LinkStatus.CONNECTING)
        assert agent.channel.statistics().attempts_failed > 3
        assert [type(entry).__name__ for entry in agent.order] == ["TransportClosed"]
        agent.proxy.answer_dials()
        await agent.rejoined()
        await agent.until(lambda: len(agent.node.connections) == 1)
        if memory:
            await agent.until(lambda: len(agent.proxy.connections) == 1)


@both
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_first_connect_to_a_dead_accept_queue_fails_in_time_and_leaves_nothing(
    memory: bool, accepted: bool
) -> None:
    async with CloudNode(memory=memory) as node, FaultProxy.around(node) as proxy:
        await proxy.ignore_dials(accepted=accepted)
        options = ChannelOptions(
            ws_url=proxy.url, api_key="key", agent_did=ALICE, transport=proxy.connector, on_event=lambda event: None
        )
        async with open_channel(options) as channel:
            tasks = trio.lowlevel.current_statistics().tasks_living
            began = trio.current_time()
            with pytest.raises(ConnectFailed):
                await channel.connect(PROTOCOLS)
            assert trio.current_time() - began == pytest.approx(options.connect_timeout, abs=0.1)
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            proxy.answer_dials()
            await channel.connect(PROTOCOLS)


# --- row 23: the end --------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("fault", DEAD)
async def test_close_over_a_dead_link_ends_within_its_deadline_and_leaves_no_socket(
    memory: bool, fault: Callable[[FaultProxy], None]
) -> None:
    async with joined(memory, close_timeout=2.0) as agent:
        tasks = trio.lowlevel.current_statistics().tasks_living
        fault(agent.proxy)
        began = trio.current_time()
        await agent.channel.close()
        assert trio.current_time() - began <= 2.1
        agent.proxy.heal()
        await agent.until(lambda: not agent.proxy.connections)
        await agent.until(lambda: not agent.node.connections)
        assert trio.lowlevel.current_statistics().tasks_living < tasks
        assert agent.order == []


@both
async def test_close_over_a_slow_line_still_says_goodbye(memory: bool) -> None:
    async with joined(memory) as agent:
        agent.proxy.delay(0.5)
        for number in range(3):
            await agent.channel.send_fire_and_forget("message", agent.plaintext(number))
        await agent.channel.close()
        assert [frame.payload["id"] for frame in agent.node.frames(event="message")] == ["0", "1", "2"]
        assert len(agent.node.frames(event="phx_leave")) == 1
