"""Every send ends by its deadline, whatever becomes of Router, which is the clock of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from layr8_actors.channel import open_channel
from layr8_actors.channel.router import Router
from layr8_actors.errors import Disconnected, Layr8Error, ReplyTimeout
from layr8_actors.otp import Continue

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.001)


class Sends:
    """Calls of send_msg with how, and how long after they began, they ended."""

    def __init__(self, channel: Any, nursery: trio.Nursery) -> None:
        self.channel = channel
        self.nursery = nursery
        self.ended: dict[int, tuple[str, float, bool | None]] = {}

    def start(self, number: int) -> None:
        self.nursery.start_soon(self._send, number)

    async def _send(self, number: int) -> None:
        began = trio.current_time()
        written: bool | None = None
        try:
            await self.channel.send_msg("message", {"n": number})
            how = "reply"
        except (Disconnected, ReplyTimeout) as error:
            how, written = type(error).__name__, error.written
        except Layr8Error as error:
            how = type(error).__name__
        self.ended[number] = (how, trio.current_time() - began, written)


@pytest.mark.parametrize("trouble", ["none", "crash", "crash twice", "init fails twice", "by hand", "by hand and back"])
@pytest.mark.parametrize("when", [0.0, 2.0, 4.999, 5.0])
@pytest.mark.parametrize("outbox", [1, 100])
async def test_every_send_ends_by_its_deadline(
    node: Any, monkeypatch: pytest.MonkeyPatch, trouble: str, when: float, outbox: int
) -> None:
    good = Router.init
    failures = 2 if trouble == "init fails twice" else 0

    async def init(self: Router) -> Continue | None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("injected")
        return await good(self)

    async with open_channel(node.options(reply_timeout=5, outbox_capacity=outbox)) as channel:
        await channel.connect(PROTOCOLS)
        node.mute = True
        monkeypatch.setattr(Router, "init", init)
        supervisor = channel.supervisor
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            sends = Sends(channel, nursery)
            if outbox == 1:
                node.socket.stop_reading()

            async def troubled() -> None:
                await trio.sleep(when)
                if trouble in ("crash", "crash twice", "init fails twice"):
                    supervisor.exit_child("router", RuntimeError("injected"))
                if trouble == "crash twice":
                    await trio.sleep(0.01)
                    supervisor.exit_child("router", RuntimeError("injected"))
                if trouble.startswith("by hand"):
                    await supervisor.terminate_child("router")
                if trouble == "by hand and back":
                    await trio.sleep(1)
                    await supervisor.restart_child("router")

            nursery.start_soon(troubled)
            for number in range(40):
                sends.start(number)
                await trio.sleep(0.25)
            await trio.sleep(6)
            assert len(sends.ended) == 40
            if trouble == "by hand":
                await supervisor.restart_child("router")
        for number, (how, after, _) in sends.ended.items():
            assert how in ("ReplyTimeout", "Disconnected", "NotConnected"), (number, how)
            assert after <= 5 + 1e-6, (number, how, after)
            if how == "ReplyTimeout":
                assert after == pytest.approx(5, abs=1e-6)
        if trouble == "none" and outbox == 100:
            assert {how for how, _, _ in list(sends.ended.values())[:3]} == {"ReplyTimeout"}
        record = channel._record
        assert not record.waiting
        claimed = {number for number, (_, _, written) in sends.ended.items() if written is False}
        for socket in node.sockets:
            socket.writable.set()
        await settle()
        assert not claimed & {frame.payload["n"] for socket in node.sockets for frame in socket.pushes}
        assert trio.current_time() - start < 60


async def test_timeouts_while_router_waits_for_its_restart_say_nothing_of_the_node(node: Any) -> None:
    async with open_channel(node.options(reply_timeout=0.1)) as channel:
        await channel.connect(PROTOCOLS)
        for _ in range(2):  # the first restart comes at once, the second waits for half a second at least
            channel.supervisor.exit_child("router", RuntimeError("injected"))
            await settle()
        assert not channel._record.reply_deadlines.watched
        async with trio.open_nursery() as nursery:
            sends = Sends(channel, nursery)
            for number in range(3):
                sends.start(number)
        assert [how for how, _, _ in sends.ended.values()] == ["ReplyTimeout"] * 3
        await trio.sleep(5)
        assert node.joins == 1, "the topic was given up, though the node had answered"
        assert channel.statistics().replies_unclaimed == 3
        assert channel.state.joined


async def test_a_send_that_found_no_room_is_not_counted_as_handed_to_the_outbox(node: Any) -> None:
    async with open_channel(node.options(reply_timeout=5, outbox_capacity=1)) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.stop_reading()
        async with trio.open_nursery() as nursery:
            sends = Sends(channel, nursery)
            for number in range(4):
                sends.start(number)
                await settle()
        assert channel.statistics().sent == 2  # one at the writer, one in the outbox


async def test_a_reply_in_the_instant_of_the_deadline_is_one_outcome(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options(reply_timeout=5)) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sends = Sends(channel, nursery)
            began = trio.current_time()
            sends.start(0)
            await trio.sleep_until(began + 5)
            node.socket.reply(node.socket.pushes[0])
        how, after, _ = sends.ended[0]
        assert how in ("reply", "ReplyTimeout")
        assert after == pytest.approx(5, abs=0.01)
        await settle()
        statistics = channel.statistics()
        assert statistics.replies + statistics.replies_unclaimed == 1
        assert statistics.replies_waiting == 0


async def test_the_queue_of_deadlines_is_bounded_behind_one_that_is_never_answered(node: Any) -> None:
    node.mute = True
    async with open_channel(node.options(reply_timeout=3600, heartbeat_interval=3000)) as channel:
        await channel.connect(PROTOCOLS)
        async with trio.open_nursery() as nursery:
            sends = Sends(channel, nursery)
            sends.start(-1)
            await settle()
            node.mute = False
            longest = 0
            for _ in range(5000):
                await channel.send_msg("message", {})
                longest = max(longest, len(channel._record.reply_deadlines._queue))
            assert longest < 1100
            with trio.CancelScope() as scope:
                scope.cancel()
                await channel.send_msg("message", {})
            nursery.cancel_scope.cancel()
        assert not channel._record.waiting
