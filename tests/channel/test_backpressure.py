"""A slow user and a slow node: where reading stops and goes on, what is counted, and that nothing hangs meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layr8_actors.channel import Callbacks, Channel, ChannelOptions, ChannelStatistics, LinkStatus, open_channel
from layr8_actors.channel.events import MessageDropped, ReadingPaused, ReadingResumed
from layr8_actors.errors import ChannelClosed, InvalidOption, ReplyTimeout
from layr8_actors.phoenix import Frame
from layr8_actors.testing import CloudNode

PROTOCOLS = ["https://didcomm.org/basicmessage/2.0"]
TOPIC = "plugins:did:web:node.test:alice"
ALICE = "did:web:node.test:alice"
KIB = 1024


def waits(statistics: ChannelStatistics) -> tuple[int, int]:
    return statistics.frames_waiting, statistics.messages_waiting


class User:
    """An on_message that takes a message for each :meth:`take`, and no other."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.leave = trio.Semaphore(0)

    async def on_message(self, payload: Any) -> None:
        self.taken.append(int(payload["plaintext"]["id"]))
        await self.leave.acquire()

    async def take(self, count: int) -> None:
        for _ in range(count):
            self.leave.release()
        await wait_all_tasks_blocked()

    def callbacks(self) -> Callbacks:
        return Callbacks(self.on_message)


@pytest.fixture
def user() -> User:
    return User()


def bounded_by_bytes(node: Any, **changes: Any) -> ChannelOptions:
    options: ChannelOptions = node.options(max_message_size=64 * KIB, inbox_bytes=64 * KIB, **changes)
    return options


async def say(node: Any, numbers: range, size: int) -> None:
    """One read for each message."""
    for number in numbers:
        node.socket.message(number, body="x" * size)
        await wait_all_tasks_blocked()


# --- where reading stops and goes on ----------------------------------------------------------------------------------


async def test_reading_stops_at_inbox_capacity_messages_and_goes_on_at_half_of_them(node: Any, user: User) -> None:
    async with open_channel(node.options(callbacks=user.callbacks(), inbox_capacity=8)) as channel:
        await channel.connect(PROTOCOLS)
        await say(node, range(8), 0)  # the first is in the user's hands
        assert not channel.statistics().reading_paused
        await say(node, range(8, 9), 0)
        assert channel.statistics().reading_paused
        assert waits(channel.statistics()) == (8, 8)
        await say(node, range(9, 20), 0)
        assert waits(channel.statistics()) == (8, 8), "it was read in spite of a full inbox"
        await user.take(3)
        assert waits(channel.statistics()) == (5, 5), "reading went on above half of the bound"
        await user.take(1)
        assert waits(channel.statistics()) == (15, 15), "reading did not go on at half of the bound"
        await user.take(16)
        assert user.taken == list(range(20))
        assert waits(channel.statistics()) == (0, 0)
        assert channel.statistics().bytes_waiting == 0


async def test_reading_stops_at_inbox_bytes_and_goes_on_at_half_of_them(node: Any, user: User) -> None:
    async with open_channel(bounded_by_bytes(node, callbacks=user.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        await say(node, range(4), 16 * KIB)  # three wait
        assert not channel.statistics().reading_paused
        await say(node, range(4, 5), 16 * KIB)
        paused = channel.statistics()
        assert (paused.reading_paused, paused.reading_pauses, waits(paused)) == (True, 1, (4, 4))
        size = paused.bytes_waiting
        assert 64 * KIB <= size < 65 * KIB
        await say(node, range(5, 8), 16 * KIB)
        assert channel.statistics().bytes_waiting == size, "it was read in spite of a full inbox"
        await user.take(2)
        assert channel.statistics().reading_paused, "reading went on above half of the bound"
        await user.take(1)
        assert waits(channel.statistics()) == (4, 4), "reading did not go on below half of the bound"
        await user.take(5)
        assert user.taken == list(range(8))
        assert (channel.statistics().bytes_waiting, channel.statistics().reading_paused) == (0, False)
        (first, *_), (resumed, *_) = node.seen(ReadingPaused), node.seen(ReadingResumed)
        assert (first.waiting, first.bytes_waiting) == (4, size)
        assert resumed.seconds >= 0


@pytest.mark.parametrize("how", ["on_message", "messages"])
async def test_a_message_larger_than_half_of_the_bound_or_the_whole_of_it_does_not_stop_the_channel(
    node: Any, user: User, how: str
) -> None:
    callbacks = user.callbacks() if how == "on_message" else Callbacks()
    async with open_channel(bounded_by_bytes(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        if how == "messages":
            messages = channel.messages()
        for size in (40 * KIB, 60 * KIB):
            await say(node, range(10), size)
            got = []
            for _ in range(10):
                if how == "messages":
                    got.append(int((await anext(messages))["plaintext"]["id"]))
                else:
                    await user.take(1)
            assert (user.taken[-10:] if how == "on_message" else got) == list(range(10))
            assert channel.statistics().bytes_waiting == 0
        assert channel.statistics().reading_pauses >= 2
        assert (channel.statistics().drops, node.dials) == (0, 1)


async def test_an_iterator_that_is_slow_stops_the_reading_at_inbox_bytes(node: Any) -> None:
    async with open_channel(bounded_by_bytes(node)) as channel:
        await channel.connect(PROTOCOLS)
        messages = channel.messages()
        await say(node, range(12), 16 * KIB)
        assert channel.statistics().reading_paused
        assert waits(channel.statistics()) == (4, 4)
        assert [int((await anext(messages))["plaintext"]["id"]) for _ in range(12)] == list(range(12))
        assert channel.statistics().bytes_waiting == 0


async def test_what_is_no_message_is_not_counted_once_it_is_dealt_with(node: Any, calls: Any) -> None:
    async with open_channel(node.options(callbacks=calls.callbacks())) as channel:
        await channel.connect(PROTOCOLS)
        node.socket.say("no frame", Frame("77", None, TOPIC, "message", {}), Frame("1", None, TOPIC, "other", {}))
        assert (await channel.send_msg("message", {})).ok
        await trio.sleep(40)  # and a heartbeat
        statistics = channel.statistics()
        assert (statistics.frames_refused, statistics.frames_ignored) == (1, 2)
        assert (*waits(statistics), statistics.bytes_waiting) == (0, 0, 0)


async def test_where_nobody_reads_the_oldest_go_by_bytes_too_and_the_end_of_the_socket_is_noticed(node: Any) -> None:
    async with open_channel(bounded_by_bytes(node)) as channel:
        await channel.connect(PROTOCOLS)
        await say(node, range(20), 16 * KIB)
        statistics = channel.statistics()
        assert not statistics.reading_paused
        assert statistics.bytes_waiting <= 64 * KIB
        assert statistics.messages_dropped == 20 - statistics.messages_waiting == 17
        assert node.seen(MessageDropped)
        node.socket.drop(1012)
        await wait_all_tasks_blocked()
        assert not channel.state.joined, "the end of the socket was not noticed"
        await trio.sleep(5)
        assert channel.state.joined
        assert int((await anext(channel.messages()))["plaintext"]["id"]) == 17


async def test_where_nobody_reads_a_full_inbox_by_count_does_not_hide_the_end_of_the_socket(node: Any) -> None:
    async with open_channel(node.options(inbox_capacity=4)) as channel:
        await channel.connect(PROTOCOLS)
        await say(node, range(20), 0)
        assert waits(channel.statistics()) == (4, 4)
        assert not channel.statistics().reading_paused
        node.socket.drop()
        await wait_all_tasks_blocked()
        assert channel.state.status is LinkStatus.WAITING


@pytest.mark.parametrize("value", [0, 8 * KIB * KIB - 1, 1.5, True])
def test_inbox_bytes_below_one_message_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="inbox_bytes"):
        ChannelOptions(ws_url="ws://node.test/socket", api_key="k", inbox_bytes=value)


def test_inbox_bytes_is_twice_the_largest_message_unless_it_is_set() -> None:
    def bound(**changes: Any) -> int:
        return ChannelOptions(ws_url="ws://node.test/socket", api_key="k", **changes).inbox_bytes_bound

    assert bound() == 16 * KIB * KIB
    assert bound(max_message_size=100) == 200
    assert bound(max_message_size=100, inbox_bytes=100) == 100


# --- while reading is paused ------------------------------------------------------------------------------------------


async def fill(node: Any, channel: Channel, how: str) -> None:
    """Have reading paused by count, or by bytes, with more to be read behind it."""
    await say(node, range(12), 0 if how == "count" else 16 * KIB)
    assert channel.statistics().reading_paused


def small(node: Any, user: User, how: str, **changes: Any) -> ChannelOptions:
    return bounded_by_bytes(node, callbacks=user.callbacks(), inbox_capacity=4 if how == "count" else 1024, **changes)


@pytest.mark.parametrize("how", ["count", "bytes"])
async def test_a_pause_of_any_length_is_survived_by_the_link_and_heartbeats_go_on(
    node: Any, user: User, how: str
) -> None:
    async with open_channel(small(node, user, how)) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, how)
        await trio.sleep(3600)
        assert (channel.statistics().reading_paused, channel.statistics().drops, node.dials) == (True, 0, 1)
        assert sum(frame.event == "heartbeat" for frame in node.socket.frames) >= 119
        await user.take(12)
        await trio.sleep(100)
        assert user.taken == list(range(12))
        assert (await channel.send_msg("message", {})).ok
        assert (channel.statistics().drops, channel.statistics().bytes_waiting) == (0, 0)


@pytest.mark.parametrize("how", ["count", "bytes"])
@pytest.mark.parametrize("actor", ["inbox", "router", "connection", "heartbeat", "reconnector"])
async def test_a_crash_while_reading_is_paused_keeps_the_accounts_right(
    node: Any, user: User, how: str, actor: str
) -> None:
    async with open_channel(small(node, user, how)) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, how)
        before = channel.statistics()
        channel.supervisor.exit_child(actor, RuntimeError("injected"))
        await wait_all_tasks_blocked()
        after = channel.statistics()
        handed_over = actor == "inbox"  # the message in hand is interrupted, and the next one is in hand
        assert after.frames_waiting == before.frames_waiting - handed_over
        assert after.reading_paused == (actor != "connection")
        await trio.sleep(10)
        await user.take(20)
        await trio.sleep(10)
        # What is still unread in a socket goes with the socket; what was read does not.
        assert user.taken == list(range(5 if actor == "connection" else 12))
        statistics = channel.statistics()
        assert (*waits(statistics), statistics.bytes_waiting, statistics.reading_paused) == (0, 0, 0, False)
        assert channel.state.joined


async def test_a_rejoin_with_a_full_inbox_of_bytes_behind_it_is_answered(node: Any, user: User) -> None:
    async with open_channel(small(node, user, "bytes")) as channel:
        await channel.connect(PROTOCOLS)
        node.hold_joins = True
        for number in range(8):  # in one read, twice the bound
            node.socket.message(number, body="x" * 16 * KIB)
        await wait_all_tasks_blocked()
        assert channel.statistics().reading_paused
        channel.supervisor.exit_child("connection", RuntimeError("injected"))
        await trio.sleep(5)
        node.release_joins()
        await trio.sleep(1)
        assert channel.state.joined
        assert channel.statistics().reading_paused  # from the answer on
        await say(node, range(8, 12), 0)
        assert waits(channel.statistics()) == (7, 7)
        await user.take(20)
        assert user.taken == list(range(12))
        assert channel.statistics().bytes_waiting == 0


async def test_on_message_gets_its_reply_from_behind_a_full_inbox_of_bytes(node: Any) -> None:
    replies: list[bool] = []
    channels: list[Channel] = []

    async def on_message(payload: Any) -> None:
        replies.append((await channels[0].send_msg("message", {})).ok)

    async with open_channel(bounded_by_bytes(node, callbacks=Callbacks(on_message))) as channel:
        channels.append(channel)
        await channel.connect(PROTOCOLS)
        start = trio.current_time()
        for number in range(7):  # in one read, below twice the bound
            node.socket.message(number, body="x" * 16 * KIB)
        await wait_all_tasks_blocked()
        assert replies == [True] * 7
        assert trio.current_time() == start


async def test_a_node_that_closes_while_reading_is_paused_is_noticed_when_reading_goes_on(
    node: Any, user: User
) -> None:
    async with open_channel(small(node, user, "count")) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, "count")
        first = node.socket
        first.drop(1012)
        await user.take(12)
        assert user.taken == list(range(12)), "what had arrived before the end was lost"
        assert not channel.state.joined
        await trio.sleep(5)
        assert (channel.state.joined, node.dials, channel.statistics().frames_waiting) == (True, 2, 0)


async def test_a_node_that_closes_while_reading_is_paused_is_noticed_by_the_next_heartbeat(
    node: Any, user: User
) -> None:
    async with open_channel(small(node, user, "count")) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, "count")
        node.socket.drop(1012)
        await trio.sleep(40)
        assert (channel.state.joined, node.dials, channel.statistics().drops) == (True, 2, 1)
        assert channel.statistics().frames_waiting == 4
        await user.take(5)
        assert (channel.statistics().frames_waiting, channel.statistics().bytes_waiting) == (0, 0)


async def test_close_while_reading_is_paused_and_the_socket_is_blocked_ends_by_its_deadline(
    node: Any, user: User
) -> None:
    async with open_channel(small(node, user, "bytes", close_timeout=5.0)) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, "bytes")
        node.socket.stop_reading()
        await channel.send_fire_and_forget("message", {})
        start = trio.current_time()
        await channel.close()
        assert trio.current_time() - start <= 5
        statistics = channel.statistics()
        assert (statistics.reading_paused, node.open_sockets) == (False, 0)
        assert statistics.frames_waiting == statistics.messages_waiting == 4
        assert statistics.bytes_waiting > 64 * KIB


async def test_a_send_behind_a_blocked_socket_ends_by_reply_timeout_while_reading_is_paused_and_costs_no_link(
    node: Any, user: User
) -> None:
    async with open_channel(small(node, user, "count", reply_timeout=2.0)) as channel:
        await channel.connect(PROTOCOLS)
        await fill(node, channel, "count")
        node.socket.stop_reading()
        for _ in range(5):
            start = trio.current_time()
            with pytest.raises(ReplyTimeout):
                await channel.send_msg("message", {})
            assert trio.current_time() - start == pytest.approx(2)
        node.socket.writable.set()
        await user.take(12)
        assert (await channel.send_msg("message", {})).ok
        assert (node.dials, node.joins) == (1, 1)


# --- over real sockets, whose buffers are the kernel's ----------------------------------------------------------------


def over_tcp(node: CloudNode, **changes: Any) -> ChannelOptions:
    return ChannelOptions(**{
        "ws_url": node.url, "api_key": "k", "agent_did": ALICE, "on_event": lambda event: None, **changes
    })  # fmt: skip


BIG = {"id": "1", "type": "t", "body": "x" * 1024 * KIB}


async def fill_kernel_buffers(channel: Channel) -> int:
    """Send into a peer that has stopped reading until there is no more room; return how many were taken."""
    for count in range(200):
        with trio.move_on_after(1) as scope:
            await channel.send_fire_and_forget("message", BIG)
        if scope.cancelled_caught:
            return count
    raise AssertionError("200 MiB went into a peer that does not read")


async def test_a_peer_that_stopped_reading_with_full_kernel_buffers_costs_reply_timeout_and_close_its_deadline() -> (
    None
):
    async with (
        CloudNode() as node,
        open_channel(over_tcp(node, outbox_capacity=4, reply_timeout=3.0, close_timeout=2.0)) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.stop_reading(ALICE)
        assert 4 < await fill_kernel_buffers(channel) < 60
        assert channel.statistics().outbox_waiting >= 4
        for send in (channel.send_msg, channel.send_fire_and_forget):
            start = trio.current_time()
            with pytest.raises(ReplyTimeout) as caught:
                await send("message", BIG)
            assert trio.current_time() - start == pytest.approx(3, abs=0.1)
            assert not caught.value.written
        start = trio.current_time()
        await channel.close()
        assert trio.current_time() - start == pytest.approx(2, abs=0.1)
        assert channel.state.status is LinkStatus.CLOSED
    with pytest.raises(ChannelClosed):
        await channel.send_msg("message", {})


async def test_a_heartbeat_that_cannot_be_written_to_a_peer_that_stopped_reading_drops_the_link() -> None:
    async with (
        CloudNode() as node,
        open_channel(over_tcp(node, outbox_capacity=4, heartbeat_interval=30.0)) as channel,
    ):
        await channel.connect(PROTOCOLS)
        node.stop_reading(ALICE)
        await fill_kernel_buffers(channel)
        await trio.sleep(61)
        assert channel.statistics().drops == 1


async def test_a_flood_while_the_user_stands_still_is_left_in_the_sockets_and_close_is_on_time() -> None:
    never = trio.Event()

    async def on_message(payload: Any) -> None:
        await never.wait()

    async with CloudNode() as node, trio.open_nursery() as nursery:
        options = over_tcp(
            node, callbacks=Callbacks(on_message), max_message_size=256 * KIB, inbox_bytes=1024 * KIB, close_timeout=2.0
        )
        async with open_channel(options) as channel:
            await channel.connect(PROTOCOLS)
            nursery.start_soon(node.flood, ALICE, 100_000, lambda number: {"id": str(number), "body": "x" * 16 * KIB})
            await trio.sleep(120)
            statistics = channel.statistics()
            assert (statistics.reading_paused, statistics.drops) == (True, 0)
            # The bound, and one read: what the adapter has read ahead.
            assert 1024 * KIB <= statistics.bytes_waiting < 2400 * KIB
            start = trio.current_time()
            await channel.close()
            assert trio.current_time() - start <= 2.1
        nursery.cancel_scope.cancel()
