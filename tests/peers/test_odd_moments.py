"""Odd moments: callbacks, key providers and clocks that do at the worst time what the peers' bugs suggest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layr8_actors import (
    AlreadyConnected,
    Callbacks,
    Channel,
    ChannelClosed,
    ConnectFailed,
    InvalidOption,
    JoinRejected,
    LinkStatus,
    NotConnected,
    ReplyTimeout,
    open_channel,
)
from layr8_actors.channel.events import AttemptFailed, CallbackFailed, CallbacksSkipped, LinkLost, LinkOpened, TopicLost
from layr8_actors.telemetry import Event
from layr8_actors.testing import CloudNode
from tests.peers.agents import ALICE, EXACT, KEY, PROTOCOLS, Calls, Sender, of, options, plaintext, settle, tasks

# --- the key provider -------------------------------------------------------------------------------------------------


async def hang() -> str:
    await trio.sleep_forever()
    return KEY


async def raise_error() -> str:
    raise RuntimeError(f"the vault said {KEY}")


async def raise_group() -> str:
    raise ExceptionGroup(f"the vault said {KEY}", [OSError()])


async def return_nothing() -> str:
    return ""


async def return_bytes() -> Any:
    return KEY.encode()


@pytest.mark.parametrize(
    ("bad", "seconds"),
    [(hang, 10), (raise_error, 0), (raise_group, 0), (return_nothing, 0), (return_bytes, 0)],
)
async def test_a_key_provider_that_fails_or_hangs_during_redials_costs_those_attempts_and_shows_no_key(
    bad: Callable[[], Awaitable[str]], seconds: float, calls: Calls
) -> None:
    events: list[Event] = []
    provider: list[Callable[[], Awaitable[str]]] = []
    asked: list[float] = []

    async def good() -> str:
        return KEY

    async def api_key() -> str:
        asked.append(trio.current_time())
        return await provider[-1]()

    provider.append(good)
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True, api_keys=[KEY]) as node:
        given = options(node, events, api_key=api_key, backoff=EXACT, callbacks=callbacks)
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            provider.append(bad)
            start = trio.current_time()
            node.drop()
            await trio.sleep(3.5 + 2 * seconds)
            provider.append(good)
            await node.wait_joined(ALICE, 2, timeout=60)
            await settle()
            assert asked[1] - start == 1
            assert asked[2] - start == 3 + seconds
            failures = of(events, AttemptFailed)
            assert {type(failure.error) for failure in failures} <= {ConnectFailed, InvalidOption}
            assert len(failures) >= 2
            assert KEY not in "".join(str(event) for event in events)
            assert (node.statistics().upgrades, calls.order) == (2, ["disconnect", "reconnect"])
            assert all(child.restarts == 0 for child in channel.supervisor.which_children())


async def test_close_does_not_wait_for_a_key_provider_that_hangs() -> None:
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, options(node, api_key=hang))
        outcomes: list[Exception] = []

        async def connect() -> None:
            try:
                await channel.connect(PROTOCOLS)
            except ChannelClosed as error:
                outcomes.append(error)

        nursery.start_soon(connect)
        await settle()
        assert channel.state.status is LinkStatus.CONNECTING
        await channel.close()
        await settle()
        assert (trio.current_time(), len(outcomes), node.requests) == (0, 1, ())


@pytest.mark.parametrize("what", ["close", "connect", "send"])
async def test_a_key_provider_that_calls_its_own_channel_hangs_nobody(what: str) -> None:
    """close ends the provider too; connect would wait for the dial that waits for it, until connect_timeout."""
    raised: list[Exception] = []

    async def api_key() -> str:
        if what == "close":
            await channel.close()
        elif what == "connect":
            await channel.connect(PROTOCOLS)
        else:
            await channel.send_fire_and_forget("message", plaintext())
        return KEY

    async with CloudNode(memory=True) as node, open_channel(options(node, api_key=api_key)) as channel:
        with trio.fail_after(60):
            try:
                await channel.connect(PROTOCOLS)
            except (ChannelClosed, ConnectFailed) as error:
                raised.append(error)
        assert [type(error) for error in raised] == [ChannelClosed if what == "close" else ConnectFailed]
        assert trio.current_time() == (10 if what == "connect" else 0)


# --- connect, twice ---------------------------------------------------------------------------------------------------


async def test_two_connects_at_once_are_one_dial_and_one_with_other_protocols_is_refused_alone() -> None:
    outcomes: dict[str, Any] = {}

    async def connect(name: str, protocols: list[str]) -> None:
        try:
            await channel.connect(protocols)
            outcomes[name] = None
        except AlreadyConnected as error:
            outcomes[name] = error

    async with CloudNode(memory=True) as node, open_channel(options(node)) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, "one", PROTOCOLS)
            await settle()
            nursery.start_soon(connect, "other", ["https://didcomm.org/other/1.0"])
            nursery.start_soon(connect, "same", [*PROTOCOLS, *PROTOCOLS])
        assert (outcomes["one"], outcomes["same"]) == (None, None)
        assert isinstance(outcomes["other"], AlreadyConnected)
        assert (node.statistics().upgrades, node.joins(ALICE)) == (1, 1)


@pytest.mark.parametrize("refusal", ["e.join.plugin.parent.not-found", "join crashed"])
async def test_a_connect_that_waits_for_a_rejoin_gets_its_outcome_also_where_the_channel_gives_up(refusal: str) -> None:
    """A refusal for good ends both; one that passes is waited for."""
    waiting: list[Any] = []

    async def connect() -> None:
        try:
            await channel.connect(PROTOCOLS)
            waiting.append(None)
        except ChannelClosed as error:
            waiting.append(error.__cause__)

    gave_up = False
    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        try:
            async with open_channel(options(node, backoff=EXACT)) as channel:
                await channel.connect(PROTOCOLS)
                node.refuse_joins(refusal, count=3)
                node.drop()
                await settle()
                nursery.start_soon(connect)
                nursery.start_soon(connect)
                await trio.sleep(100)
        except JoinRejected:
            gave_up = True
        await settle()
        assert gave_up is (refusal != "join crashed")
        assert [type(outcome) for outcome in waiting] == [JoinRejected if gave_up else type(None)] * 2


# --- close at odd moments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.5, 1.0, 1.5, 3.0, 3.5])
async def test_a_close_at_any_moment_of_a_rejoin_leaves_the_did_free_and_nothing_behind(moment: float) -> None:
    """The redial takes half a second, the node takes two for the join; close falls before, into and behind each."""
    async with CloudNode(memory=True) as node:
        before = tasks()
        async with open_channel(options(node, backoff=EXACT)) as channel:
            await channel.connect(PROTOCOLS)
            node.delay_upgrades(0.5)
            node.delay_joins(2)
            node.drop()
            await trio.sleep(moment)
            start = trio.current_time()
            await channel.close()
            assert trio.current_time() - start <= 5
        await trio.sleep(60)
        assert (node.statistics().sockets, node.dids) == (0, ())
        assert tasks() == before


@pytest.mark.parametrize("kind", [LinkOpened, LinkLost, TopicLost, AttemptFailed])
async def test_a_close_begun_by_the_event_hook_itself_ends_the_channel_in_order(kind: type[Event]) -> None:
    def hook(event: Event) -> None:
        if isinstance(event, kind) and not (isinstance(event, LinkOpened) and event.link == 1):
            nursery.start_soon(channel.close)

    async with CloudNode(memory=True) as node, trio.open_nursery() as nursery:
        channel = await Channel.start_link(nursery, options(node, on_event=hook, backoff=EXACT))
        await channel.connect(PROTOCOLS)
        if kind is TopicLost:
            node.crash_topic()
        else:
            if kind is AttemptFailed:
                node.refuse_upgrades(503)
            node.drop()
        with trio.fail_after(30):
            await channel._record.over.wait()
        await trio.sleep(60)
        assert (node.statistics().sockets, channel.state.status) == (0, LinkStatus.CLOSED)


# --- callbacks at odd moments -----------------------------------------------------------------------------------------


async def test_callbacks_may_use_their_channel_whatever_state_it_is_in(calls: Calls) -> None:
    """on_disconnect waits for the rejoin by connect; on_reconnect sends and waits; neither holds up the other."""
    order: list[str] = []

    async def on_disconnect(error: Exception) -> None:
        with pytest.raises(NotConnected):
            await channel.send_msg("message", plaintext())
        await channel.connect(PROTOCOLS)
        order.append("connected in on_disconnect")

    async def on_reconnect() -> None:
        assert (await channel.send_msg("message", plaintext())).ok
        order.append("sent in on_reconnect")

    events: list[Event] = []
    async with CloudNode(memory=True) as node:
        given = options(node, events, callbacks=Callbacks(None, on_disconnect, on_reconnect))
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            for _ in range(3):
                node.drop()
                await trio.sleep(40)
        assert order == ["connected in on_disconnect", "sent in on_reconnect"] * 3
        assert of(events, CallbackFailed) == []


async def test_an_on_disconnect_that_never_ends_holds_up_its_own_lane_alone(calls: Calls) -> None:
    hung = 0

    async def on_disconnect(error: Exception) -> None:
        nonlocal hung
        hung += 1
        await trio.sleep_forever()

    async with CloudNode(memory=True) as node:
        given = options(node, callbacks=Callbacks(calls.on_message, on_disconnect, calls.on_reconnect))
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            for number in range(1, 6):
                node.drop()
                await node.wait_joined(ALICE, number + 1)
                node.deliver(ALICE, plaintext(number))
                await trio.sleep(31)
            assert (await channel.send_msg("message", plaintext(6))).ok
            await settle()
            assert (hung, calls.ids, calls.order) == (1, ["1", "2", "3", "4", "5", "6"], [])
            start = trio.current_time()
        assert trio.current_time() - start < 5


async def test_calls_that_wait_for_a_callback_that_hangs_are_bounded_and_still_take_turns(calls: Calls) -> None:
    """A night of flapping behind one on_disconnect that hangs: two more calls waited for it with each drop."""
    events: list[Event] = []
    hangs = trio.Event()

    async def on_disconnect(error: Exception) -> None:
        calls.on_disconnect(error)
        await hangs.wait()

    async with CloudNode(memory=True) as node:
        given = options(node, events, callbacks=Callbacks(None, on_disconnect, calls.on_reconnect))
        async with open_channel(given) as channel:
            await channel.connect(PROTOCOLS)
            for number in range(1, 101):
                node.drop()
                await node.wait_joined(ALICE, number + 1)
                await trio.sleep(31)
            node.drop()
            await settle()
            # One call hangs, 200 came behind it, and the last state is among those that are kept.
            assert (len(calls.order), len(channel._record.notices)) == (1, 64)
            assert (channel.statistics().callbacks_skipped, of(events, CallbacksSkipped)[-1].count) == (136, 136)
            hangs.set()
            await settle()
            assert calls.order == ["disconnect", "reconnect"] * 32 + ["disconnect"]
            assert channel.state.last_error is calls.disconnects[-1]


# --- the clock --------------------------------------------------------------------------------------------------------


def block_the_loop(seconds: float) -> None:
    """What a callback that computes, a debugger or a suspended machine does: time goes by and nothing runs."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


@pytest.mark.parametrize("seconds", [31, 61, 3600, 8 * 3600])
async def test_a_loop_that_was_held_up_does_not_take_its_own_absence_for_the_nodes(
    seconds: float, calls: Calls
) -> None:
    """A callback that blocks the loop just as a heartbeat was sent: its answer has come and could not be read."""
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True, idle_timeout=10**6) as node:
        async with open_channel(options(node, callbacks=callbacks)) as channel:
            await channel.connect(PROTOCOLS)
            await trio.sleep(29.9)
            node.go_silent()
            await trio.sleep(0.2)
            assert node.statistics().heartbeats == 1
            node.resume()  # the answer leaves the node
            block_the_loop(seconds)
            await trio.sleep(100)
            assert calls.order == []
            assert (node.statistics().upgrades, channel.state.joined) == (1, True)
            assert (await channel.send_msg("message", plaintext())).ok


async def test_a_dead_node_is_still_noticed_after_the_loop_was_held_up(calls: Calls) -> None:
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.go_silent()
        await trio.sleep(30.1)
        block_the_loop(3600)
        start = trio.current_time()
        await trio.sleep(61)
        assert calls.order[:1] == ["disconnect"]
        assert calls.times[0] - start <= 60


async def test_a_loop_that_is_late_at_every_deadline_still_finds_a_dead_node(calls: Calls) -> None:
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True) as node, open_channel(options(node, callbacks=callbacks)) as channel:
        await channel.connect(PROTOCOLS)
        node.go_silent()
        await trio.sleep(30.1)
        block_the_loop(3600)
        await trio.sleep(29.9)
        assert calls.order == []  # it was given its timeout again
        block_the_loop(3600)
        await settle()
        assert calls.order == ["disconnect"]  # and not once more


async def test_replies_that_were_missed_because_the_loop_was_held_up_are_no_sign_of_a_hung_topic(calls: Calls) -> None:
    callbacks = Callbacks(None, calls.on_disconnect, calls.on_reconnect)
    async with CloudNode(memory=True, idle_timeout=10**6) as node:
        async with open_channel(options(node, callbacks=callbacks)) as channel:
            await channel.connect(PROTOCOLS)
            node.go_silent()
            async with trio.open_nursery() as nursery:
                senders = [Sender(nursery, channel) for _ in range(5)]
                await settle()
                node.resume()
                block_the_loop(20)
            assert {type(sender.outcome) for sender in senders} <= {ReplyTimeout}
            await trio.sleep(10)
            assert (calls.order, node.joins(ALICE)) == ([], 1)
            assert (await channel.send_msg("message", plaintext())).ok
