"""Bugs of the peers in the first connect: each test stages the row of its number and asserts the opposite.

Rows 3, 5, 8, 10 and 23.
"""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import trio

from layr8_actors import (
    ChannelOptions,
    ConnectFailed,
    InvalidOption,
    JoinRejected,
    JoinTimeout,
    LinkStatus,
    RemoteProtocolError,
    open_channel,
)
from layr8_actors.channel.events import AttemptFailed
from layr8_actors.phoenix import Frame
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from layr8_actors.transport import TrioWebSocketConnector
from tests.peers.agents import ALICE, KEY, PROTOCOLS, TOPIC, of, options, plaintext, settle, tasks

# --- 3: the ghost of a refused connect --------------------------------------------------------------------------------


def refuse(node: CloudNode) -> None:
    node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", count=1)


def ignore(node: CloudNode) -> None:
    node.ignore_joins(count=1)


def answer_with_nonsense(node: CloudNode) -> None:
    node.answer_joins(None, count=1)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(refuse, JoinRejected), (ignore, JoinTimeout), (answer_with_nonsense, RemoteProtocolError)],
)
async def test_peer_bug_03_a_refused_connect_leaves_no_ghost_that_joins_later(
    refusal: Any, error: type[Exception]
) -> None:
    """Ten minutes after the refusal there was no other dial; the peer had joined again and again by then."""
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        await settle()
        before = tasks()
        refusal(node)
        with pytest.raises(error):
            await channel.connect(PROTOCOLS)
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=1)
        await settle()
        assert (channel.state.status, channel.statistics().link) == (LinkStatus.IDLE, None)
        assert tasks() == before
        node.drop()  # there is nothing left that could be dropped and then come back
        await trio.sleep(600)
        assert node.statistics().upgrades == 1
        assert len(node.frames(event="phx_join")) == 1
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", plaintext())).ok
        await channel.close()
        await node.wait_for(lambda: node.statistics().sockets == 0, timeout=1)
        await trio.sleep(60)
        assert node.statistics().upgrades == 2


# --- 5: a join that is cut off ----------------------------------------------------------------------------------------


def crash_the_join(node: CloudNode, join: Frame) -> None:
    node.send_frame(Frame(join.ref, join.ref, TOPIC, "phx_error", {"reason": "channel_crash"}))


def close_the_join(node: CloudNode, join: Frame) -> None:
    node.send_frame(Frame(join.ref, join.ref, TOPIC, "phx_close", {}))


def close_the_socket(node: CloudNode, join: Frame) -> None:
    node.close(1012)


def drop_the_socket(node: CloudNode, join: Frame) -> None:
    node.drop()


@pytest.mark.parametrize("cut", [crash_the_join, close_the_join, close_the_socket, drop_the_socket])
async def test_peer_bug_05_a_join_that_is_cut_off_fails_connect_at_once_and_nobody_joins_in_the_background(
    cut: Any,
) -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        node.ignore_joins()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def cut_the_join() -> None:
                await node.wait_for(lambda: node.frames(event="phx_join"))
                cut(node, node.frames(event="phx_join")[0])

            nursery.start_soon(cut_the_join)
            with pytest.raises(ConnectFailed):
                await channel.connect(PROTOCOLS)
        assert trio.current_time() == start
        await trio.sleep(100)
        assert (node.statistics().upgrades, len(node.frames(event="phx_join"))) == (1, 1)
        assert node.statistics().sockets == 0


# --- 8: the key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["node.test/{path}", "//node.test/{path}", "node.test:4000/{path}", "/{path}"])
def test_peer_bug_08_a_url_without_a_scheme_is_refused_by_name_and_shows_no_key(form: str) -> None:
    """The key is given twice, as the option and by mistake in the URL; neither is in text, repr, traceback or local."""
    with pytest.raises(InvalidOption) as caught:
        ChannelOptions(ws_url=form.format(path=f"plugin_socket/websocket?api_key={KEY}"), api_key=KEY)
    assert caught.value.option == "ws_url"
    inside = [frame for frame in traceback.walk_tb(caught.tb) if "layr8_actors" in frame[0].f_code.co_filename]
    shown = traceback.StackSummary.extract(iter(inside), capture_locals=True).format()
    assert len(inside) >= 2
    assert KEY not in "".join([str(caught.value), repr(caught.value), *shown])


async def test_peer_bug_08_the_key_is_in_no_repr_and_in_header_mode_in_no_request_line() -> None:
    async with CloudNode(memory=True, api_keys=[KEY]) as node:
        given = options(node, auth="header", ws_url=f"{node.url}?api_key={KEY}")
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            assert KEY not in repr(given) + repr(channel) + repr(channel.state) + given.ws_url
            (request,) = node.requests
            assert dict(request.query) == {"vsn": "2.0.0"}
            assert request.headers["x-api-key"] == KEY


# --- 10: nonsense in answer to a join ---------------------------------------------------------------------------------

NONSENSE: list[Any] = [
    None,
    [],
    "ok",
    {"status": "ok", "response": None},
    {"status": "ok", "response": []},
    {"status": "ok", "response": {"did": {}}},
    {"status": "ok", "response": {"did": ALICE, "capabilities": None}},
    {"status": "ok", "response": {"did": ALICE, "capabilities": [1]}},
]


@pytest.mark.parametrize("payload", NONSENSE)
async def test_peer_bug_10_a_join_answered_with_nonsense_is_a_protocol_error_and_no_success(payload: Any) -> None:
    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        node.answer_joins(payload, count=1)
        with pytest.raises(RemoteProtocolError):
            await channel.connect(PROTOCOLS)
        assert channel.state.status is LinkStatus.IDLE
        await channel.connect(PROTOCOLS)
        assert (channel.assigned_did, channel.state.joined) == (ALICE, True)


async def test_peer_bug_10_nonsense_in_answer_to_a_rejoin_fails_that_attempt_only() -> None:
    events: list[Event] = []
    async with CloudNode(memory=True) as node, open_channel(options(node, events)) as channel:
        await channel.connect(PROTOCOLS)
        for payload in NONSENSE[:4]:
            node.answer_joins(payload, count=1)
        node.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        failures = of(events, AttemptFailed)
        assert [type(failure.error) for failure in failures] == [RemoteProtocolError] * 4
        assert (await channel.send_msg("message", plaintext())).ok
        assert all(child.restarts == 0 for child in channel.supervisor.which_children())


# --- 23: localhost ----------------------------------------------------------------------------------------------------


async def test_peer_bug_23_a_dial_of_localhost_that_hangs_stalls_nobody_and_ends_as_connect_failed() -> None:
    """Over TCP: the node accepts the connection and never answers; 99 ticks go by meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.1)
            ticks += 1

    async with CloudNode() as node:
        node.ignore_upgrades()
        url = node.url.replace("127.0.0.1", "agent.localhost")
        async with open_channel(options(node, ws_url=url, transport="auto")) as channel:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                with pytest.raises(ConnectFailed) as caught:
                    await channel.connect(PROTOCOLS)
                nursery.cancel_scope.cancel()
            assert trio.current_time() - start == pytest.approx(10)
            assert 98 <= ticks <= 100
            assert caught.value.status is None
            assert node.requests[0].host == f"agent.localhost:{node.port}"


@pytest.mark.parametrize(
    "raised",
    [
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError("timed out"),
        OSError("all attempts to connect failed"),
        ExceptionGroup("several addresses", [ConnectionRefusedError(), TimeoutError()]),
    ],
)
async def test_peer_bug_23_whatever_a_dial_raises_comes_out_as_connect_failed(raised: Exception) -> None:
    dialled: list[tuple[str, int]] = []

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        dialled.append((host, port))
        raise raised

    given = ChannelOptions(
        ws_url="ws://localhost:4000/plugin_socket/websocket",
        api_key=KEY,
        agent_did=ALICE,
        transport=TrioWebSocketConnector(open_stream=open_stream),
        on_event=lambda event: None,
    )
    async with open_channel(given) as channel:
        with pytest.raises(ConnectFailed) as caught:
            await channel.connect(PROTOCOLS)
        assert dialled == [("127.0.0.1", 4000)]
        assert caught.value.status is None
        assert not isinstance(caught.value, OSError)
        assert channel.state.status is LinkStatus.IDLE
