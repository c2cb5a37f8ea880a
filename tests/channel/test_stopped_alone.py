"""One actor alone is asked to stop, by hand or because its start took too long: that is not the end of the channel."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layr8_actors.channel import open_channel
from layr8_actors.errors import Disconnected
from layr8_actors.otp.events import ChildStartFailed

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


@pytest.mark.parametrize("actor", ["inbox", "router", "connection", "heartbeat", "reconnector"])
async def test_an_actor_that_is_stopped_and_started_by_hand_is_not_the_end_of_the_channel(
    node: Any, calls: Any, actor: str
) -> None:
    outcomes: list[Any] = []

    async def send() -> None:
        try:
            outcomes.append(await channel.send_msg("message", {}))
        except Disconnected as error:
            outcomes.append(error)

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.mute = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await settle()
            await channel.supervisor.terminate_child(actor)
            if actor != "connection":
                node.socket.reply(node.socket.pushes[0])
            await channel.supervisor.restart_child(actor)
        node.mute = False
        await trio.sleep(5)
        assert channel.state.joined
        assert (await channel.send_msg("message", {})).ok
        node.socket.message(1)
        await settle()
        assert calls.ids == [1]
        assert isinstance(outcomes[0], Disconnected) == (actor in ("router", "connection"))
        assert calls.order == (["disconnect", "reconnect"] if actor == "connection" else [])
    assert node.open_sockets == 0


class BlockedBeforeItRuns(trio.abc.Instrument):
    """Lets time go by between the spawning of the router's task and its first step, as a blocked loop does."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.armed = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.armed = self.armed or task.name.endswith("/router")

    def after_io_wait(self, timeout: float) -> None:
        if self.armed:
            self.armed = False
            self.clock.jump(31)


async def test_a_restart_that_was_held_up_beyond_its_start_timeout_is_not_the_end_of_the_channel(
    node: Any, calls: Any
) -> None:
    """The start is given up before the router had its first step; the channel called itself closed for ever after."""
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        blocked = BlockedBeforeItRuns(clock)
        trio.lowlevel.add_instrument(blocked)
        channel.supervisor.exit_child("router", RuntimeError("injected"))
        await settle()
        trio.lowlevel.remove_instrument(blocked)
        await trio.sleep(5)
        assert len(node.seen(ChildStartFailed)) == 1
        assert (await channel.send_msg("message", {})).ok
        assert calls.order == []
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
