"""A channel as a child of each kind of tree, by each restart type, and taken away at each moment of its connecting."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Channel, LinkStatus
from layr8_actors.otp import ChildSpec, DynamicSupervisor, Restart, Strategy, Supervisor

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


async def idle(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("restart", list(Restart))
@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("crash", ["first", "last", "channel itself"])
async def test_a_crash_beside_a_channel_costs_it_its_link_only_where_the_strategy_says_so(
    node: Any, strategy: Strategy, restart: Restart, crash: str
) -> None:
    """Restarted with a sibling it leaves and closes first, and joins again; a temporary one is gone then (OTP: T4)."""
    specs = [
        ChildSpec("first", idle),
        Channel.child_spec(node.options(), protocols=PROTOCOLS, restart=restart),
        ChildSpec("last", idle),
    ]
    before = tasks()
    async with Supervisor(specs, strategy=strategy, on_event=node.events.append) as supervisor:
        old = supervisor.whereis("channel")
        await old.connect(PROTOCOLS)
        hit = {
            "first": strategy is not Strategy.ONE_FOR_ONE,
            "last": strategy is Strategy.ONE_FOR_ALL,
            "channel itself": True,
        }[crash]
        supervisor.exit_child("channel" if crash == "channel itself" else crash, RuntimeError("injected"))
        await settle()
        if not hit:
            assert supervisor.whereis("channel") is old
            assert (old.state.status, node.dials) == (LinkStatus.JOINED, 1)
        elif restart is Restart.TEMPORARY:
            assert "channel" not in [child.id for child in supervisor.which_children()]
            assert (node.dials, node.open_sockets) == (1, 0)
        else:
            new = supervisor.whereis("channel")
            await new.connect(PROTOCOLS)
            assert new is not old
            assert (node.dials, node.open_sockets, node.most_at_once) == (2, 1, 1)
        if hit:
            assert old.state.status is LinkStatus.CLOSED
            assert node.sockets[0].frames[-1].event == "phx_leave"
            assert node.sockets[0].close_code == 1000
    await settle()
    assert (node.open_sockets, tasks()) == (0, before)


@pytest.mark.parametrize("how", ["terminate_child", "stop", "cancel"])
@pytest.mark.parametrize("moment", ["dialling", "joining", "joined", "waiting"])
async def test_a_channel_taken_from_a_pool_at_any_moment_of_its_connecting_leaves_nothing(
    node: Any, moment: str, how: str
) -> None:
    if moment == "dialling":
        node.dial_gate = trio.Event()
    node.hold_joins = moment == "joining"
    before = tasks()
    with trio.CancelScope() as scope:
        async with DynamicSupervisor(on_event=node.events.append) as pool:
            spec = Channel.child_spec(node.options(), protocols=PROTOCOLS)
            pid = await pool.start_child(spec)
            assert pid is not None
            await settle()
            if moment == "waiting":
                node.socket.drop()
                await settle()
            waiting: list[str] = []

            async def connect(channel: Channel) -> None:
                try:
                    await channel.connect(PROTOCOLS)
                except Exception as error:
                    waiting.append(type(error).__name__)

            async with trio.open_nursery() as nursery:
                if moment != "joined":
                    nursery.start_soon(connect, pid.handle)
                    await settle()
                match how:
                    case "terminate_child":
                        await pool.terminate_child(pid)
                    case "stop":
                        await pool.stop()
                    case _:
                        scope.cancel()
            assert waiting == ([] if moment == "joined" else ["ChannelClosed"])
    assert trio.current_time() < 6
    dials = node.dials
    await trio.sleep(100)
    assert (node.open_sockets, node.dialling, node.dials, tasks()) == (0, 0, dials, before)
    if moment in ("joining", "joined"):
        assert node.socket.frames[-1].event == "phx_leave"
