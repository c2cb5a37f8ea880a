"""A flood on one channel, and what else goes on in the same process."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel import Callbacks, Channel, open_channel
from layr8_actors.channel.inbox import MESSAGES_PER_CHECKPOINT
from layr8_actors.otp.events import ChildExited
from layr8_actors.telemetry import Event
from tests.channel.conftest import PROTOCOLS, ScriptedNode

FLOOD = 4096  # as much as a transport hands over at once


async def routed_meanwhile(count: int, size: int) -> int:
    """How many messages of a flood on one channel, read at once, are dealt with while another does a round trip."""
    handled = 0

    def on_message(payload: Any) -> None:
        nonlocal handled
        handled += 1

    flooding, calm = ScriptedNode(), ScriptedNode()
    async with (
        open_channel(flooding.options(callbacks=Callbacks(on_message))) as loud,
        open_channel(calm.options()) as quiet,
    ):
        await loud.connect(PROTOCOLS)
        await quiet.connect(PROTOCOLS)
        await wait_all_tasks_blocked()
        for number in range(count):
            flooding.socket.message(number, body="x" * size)
        while not (before := loud.statistics().messages_received):
            await trio.lowlevel.checkpoint()
        assert (await quiet.send_msg("message", {})).ok
        after = loud.statistics().messages_received
        assert after < count  # the flood went on all the time
        await trio.sleep(5)
        assert handled == count
        return after - before


async def test_a_flood_on_one_channel_holds_up_anothers_round_trip_for_a_few_turns_only() -> None:
    # A round trip takes some two passes of the scheduler here, and as many turns of 32 are 64; twice that is allowed.
    assert await routed_meanwhile(FLOOD, 0) <= 128


async def test_a_flood_of_large_messages_does_so_by_their_size() -> None:
    assert await routed_meanwhile(256, 16 * 1024) <= 4 * 2


async def test_a_sync_callback_under_a_flood_is_called_a_turns_worth_more_once_its_inbox_is_to_end() -> None:
    handled = 0
    at_the_end: list[int] = []
    channels: list[Channel] = []
    node = ScriptedNode()

    def on_message(payload: Any) -> None:
        nonlocal handled
        handled += 1
        if handled == 5:
            channels[0].supervisor.exit_child("inbox", RuntimeError("injected"))

    def on_event(event: Event) -> None:
        if isinstance(event, ChildExited):
            at_the_end.append(handled)

    async with open_channel(node.options(callbacks=Callbacks(on_message), on_event=on_event)) as channel:
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        for number in range(FLOOD):
            node.socket.message(number)
        await trio.sleep(5)
        assert 5 <= at_the_end[0] <= 5 + MESSAGES_PER_CHECKPOINT
        assert handled == FLOOD  # by the next incarnation
