"""A channel in somebody else's tree, and the tree inside a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from layr8_actors.channel import Channel, open_channel
from layr8_actors.errors import ChannelClosed, ConnectFailed, InvalidOption, JoinRejected, RestartLimitExceeded
from layr8_actors.otp import ChildSpec, ChildType, Restart, Strategy, Supervisor, format_tree
from layr8_actors.phoenix import Frame

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        yield supervisor
        await supervisor.stop()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def test_the_tree_has_five_children_in_the_order_in_which_they_start(node: Any) -> None:
    async with open_channel(node.options()) as channel:
        assert [child.id for child in channel.supervisor.which_children()] == [
            "inbox",
            "router",
            "connection",
            "heartbeat",
            "reconnector",
        ]


async def test_start_link_returns_a_running_channel_that_has_not_dialled(node: Any) -> None:
    async with trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, node.options())
        assert node.dials == 0
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", {})).ok
        await channel.close()
    assert node.open_sockets == 0


async def test_a_channel_as_a_child_is_found_by_its_id_and_connects_by_itself(node: Any) -> None:
    spec = Channel.child_spec(node.options(), id="alice", protocols=PROTOCOLS)
    assert (spec.id, spec.type, spec.restart) == ("alice", ChildType.SUPERVISOR, Restart.PERMANENT)
    async with running(Supervisor([spec], name="app", on_event=node.events.append)) as supervisor:
        channel = supervisor.whereis("alice")
        assert isinstance(channel, Channel)
        await channel.connect(PROTOCOLS)
        assert (await channel.send_msg("message", {})).ok
        assert node.dials == 1
    assert (node.open_sockets, node.socket.frames[-1].event) == (0, "phx_leave")


async def test_a_child_whose_node_is_away_at_the_start_does_not_hold_up_the_tree(node: Any) -> None:
    node.dial_error = ConnectFailed("ws://node.test/plugin_socket/websocket", "connection refused")
    sibling = trio.Event()

    async def other(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        sibling.set()
        await trio.sleep_forever()

    specs = [Channel.child_spec(node.options(), protocols=PROTOCOLS), ChildSpec("other", other)]
    async with running(Supervisor(specs, on_event=node.events.append)) as supervisor:
        assert sibling.is_set()
        await trio.sleep(20)
        node.dial_error = None
        channel = supervisor.whereis("channel")
        await channel.connect(PROTOCOLS)
        assert channel.state.joined


async def test_a_channel_that_gave_up_is_restarted_by_its_parent_as_a_new_one_that_joins_again(node: Any) -> None:
    spec = Channel.child_spec(node.options(), protocols=PROTOCOLS)
    async with running(Supervisor([spec], on_event=node.events.append)) as supervisor:
        first = supervisor.whereis("channel")
        await first.connect(PROTOCOLS)
        for actor in ("router", "inbox", "heartbeat", "reconnector"):
            first.supervisor.exit_child(actor, RuntimeError("injected"))
            await settle()
        second = supervisor.whereis("channel")
        assert second is not first
        await second.connect(PROTOCOLS)
        assert (await second.send_msg("message", {})).ok
        assert node.open_sockets == 1
        with pytest.raises(ChannelClosed):
            await first.send_msg("message", {})


async def test_a_permanent_refusal_climbs_two_levels_with_its_cause(node: Any) -> None:
    node.join_refusal = "e.join.plugin.parent.not-found"
    spec = Channel.child_spec(node.options(), protocols=PROTOCOLS)
    inner = Supervisor([spec], name="inner", max_restarts=0, on_event=node.events.append)
    outer = Supervisor(
        [inner.child_spec("inner")],
        name="outer",
        max_restarts=0,
        strategy=Strategy.ONE_FOR_ALL,
        on_event=node.events.append,
    )
    with pytest.RaisesGroup(RestartLimitExceeded) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(outer.run)
    error: BaseException | None = caught.value.exceptions[0]
    chain = []
    while error is not None:
        chain.append(type(error))
        error = error.__cause__
    assert chain[:3] == [RestartLimitExceeded, RestartLimitExceeded, JoinRejected]
    assert node.open_sockets == 0


async def test_the_drawing_of_a_parents_tree_goes_down_into_its_channels(node: Any) -> None:
    specs = [Channel.child_spec(node.options(), id="alice", protocols=PROTOCOLS)]
    async with Supervisor(specs, name="app", on_event=node.events.append) as supervisor:
        drawing = format_tree(supervisor)
        assert [line.split()[1] for line in drawing.splitlines() if "alice" in line] == ["alice"]
        for actor in ("inbox", "router", "connection", "heartbeat", "reconnector"):
            assert actor in drawing


async def test_bad_arguments_of_child_spec_are_refused_when_it_is_made(node: Any) -> None:
    with pytest.raises(InvalidOption, match="protocols"):
        Channel.child_spec(node.options(), protocols=[])


async def test_two_channels_in_one_program_never_meet(node: Any, calls: Any) -> None:
    other = type(node)()
    async with (
        open_channel(node.options(callbacks=calls.callbacks())) as one,
        open_channel(other.options()) as two,
    ):
        await one.connect(PROTOCOLS)
        await two.connect(PROTOCOLS)
        two.supervisor.exit_child("router", RuntimeError("injected"))
        other.socket.drop()
        await settle()
        assert one.state.joined
        assert not two.state.joined
        assert calls.order == []
        node.socket.say(Frame("1", None, TOPIC, "message", {"plaintext": {"id": "1"}}))
        await settle()
        assert calls.ids == [1]
        assert two.statistics().messages_received == 0
