"""One actor alone is asked to stop, by hand or because its start took too long: that is not the end of the channel."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from layr8_actors.channel import Callbacks, open_channel
from layr8_actors.channel.router import Router
from layr8_actors.errors import ChannelClosed, Disconnected
from layr8_actors.otp import Continue
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


async def test_a_caller_who_waits_while_the_router_is_stopped_by_hand_is_told_of_the_end_at_once(node: Any) -> None:
    outcomes: list[tuple[type[Exception], float]] = []

    async def send() -> None:
        try:
            await channel.send_msg("message", {})
        except ChannelClosed as error:
            outcomes.append((type(error), trio.current_time() - start))

    async with open_channel(node.options()) as channel:
        await channel.connect(PROTOCOLS)
        await channel.supervisor.terminate_child("router")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await settle()
            start = trio.current_time()
            await channel.close()
        assert outcomes == [(ChannelClosed, pytest.approx(0, abs=0.1))]


async def test_a_restart_that_took_longer_than_its_start_timeout_is_not_the_end_of_the_channel(
    node: Any, calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is given up, and then the router is ready after all; the channel called itself closed for ever after.

    A blocked loop does this too, if it blocks between the spawning of the router's task and its first step.
    """
    good = Router.init

    async def slow(self: Router) -> Continue | None:
        monkeypatch.setattr(Router, "init", good)
        with trio.CancelScope(shield=True):
            await trio.sleep(31)
        return await good(self)

    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        monkeypatch.setattr(Router, "init", slow)
        channel.supervisor.exit_child("router", RuntimeError("injected"))
        await trio.sleep(40)
        assert len(node.seen(ChildStartFailed)) == 1
        node.socket.drop()
        await settle()
        await channel.connect(PROTOCOLS)
        await settle()
        assert calls.order == ["disconnect", "reconnect"]
        assert (await channel.send_msg("message", {})).ok


@pytest.mark.parametrize("actor", ["inbox", "router"])
async def test_what_was_read_while_one_is_stopped_by_hand_waits_counted_and_is_delivered_once_it_runs(
    node: Any, calls: Any, actor: str
) -> None:
    """It was dropped without a word, and what the mailbox held then stayed counted until reading stopped for ever."""

    async def slow_to_end(payload: Any) -> None:
        calls.on_message(payload)
        if len(calls.messages) == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # messages come meanwhile, into the mailbox of an actor that is being stopped

    async def stop() -> None:
        await channel.supervisor.terminate_child(actor)

    async with open_channel(node.options(callbacks=Callbacks(slow_to_end), inbox_capacity=4)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.message(0)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            await settle()
            for number in (1, 2):
                node.socket.message(number)
                await settle()
        for number in range(3, 9):
            node.socket.message(number)
            await settle()
        await trio.sleep(10)
        statistics = channel.statistics()
        assert statistics.frames_waiting in (4, 8)  # reading stops at the inbox's bound, and the node waits
        assert statistics.reading_paused
        await channel.supervisor.restart_child(actor)
        await trio.sleep(300)
        assert calls.ids == list(range(9))
        statistics = channel.statistics()
        assert (statistics.frames_waiting, statistics.bytes_waiting, statistics.reading_paused) == (0, 0, False)
