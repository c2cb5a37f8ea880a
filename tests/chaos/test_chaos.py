"""A slice of chaos in every test run: a few seeds, the same each time, and bugs planted to see that it finds them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from layr8_actors.channel.inbox import Inbox
from layr8_actors.channel.messages import MessagesArrived
from layr8_actors.channel.reconnector import Reconnector
from tests.chaos.account import Account, table
from tests.chaos.replay import replay
from tests.chaos.world import REAL, ChaosFailed, Heap, World


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_fails_everything_is_accounted_for(seed: int) -> None:
    world = replay(seed, 120.0)
    assert world.ledger.handed_over > 20
    assert sum(world.faults.values()) > 10
    assert len(world.recoveries) > 0


def test_the_same_seed_is_the_same_run_and_another_one_is_not() -> None:
    runs = [replay(seed, 30.0) for seed in (7, 7, 8)]
    assert runs[0].fingerprint == runs[1].fingerprint != runs[2].fingerprint
    assert runs[0].ledger.outcomes == runs[1].ledger.outcomes


def test_a_slice_over_sockets_leaves_no_task_and_no_socket() -> None:
    # Every peer is in this one loop, so that virtual time will do; only the replay is not exact with real sockets.
    world = World(5, memory=False, tempo=REAL)
    trio.run(world.run, 2.0, 2.0, clock=MockClock(autojump_threshold=0))
    assert world.rounds > 0
    assert world.ledger.handed_over > 20
    assert world.tasks_left == 0


def test_a_channel_that_loses_a_message_is_found_with_the_seed_and_the_events_and_replays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle_cast = Inbox.handle_cast

    async def forgetful(inbox: Inbox, message: Any) -> None:
        if isinstance(message, MessagesArrived) and len(message.payloads) > 1:
            message = MessagesArrived(message.payloads[:-1], message.sizes[:-1])
        await handle_cast(inbox, message)

    monkeypatch.setattr(Inbox, "handle_cast", forgetful)
    texts = []
    for _ in range(2):
        with pytest.raises(ChaosFailed) as caught:
            replay(3, 120.0)
        texts.append(str(caught.value))
    assert "seed 3" in texts[0]
    assert re.search(r"VIOLATED: .* (lost or disordered|was not handed)", texts[0])
    assert "TopicJoined" in texts[0]
    assert texts[0] == texts[1]


def test_a_channel_that_does_not_come_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    handle_cast = Reconnector.handle_cast

    async def tired(reconnector: Reconnector, message: Any) -> None:
        if type(message).__name__ != "LinkDown" or trio.current_time() < 20:
            await handle_cast(reconnector, message)

    monkeypatch.setattr(Reconnector, "handle_cast", tired)
    with pytest.raises(ChaosFailed, match=r"calm were not enough|hang"):
        replay(4, 60.0)


def test_memory_that_grows_and_descriptors_that_are_left_are_found() -> None:
    heap = Heap()
    heap.blocks = [number * 10_000 for number in range(20)]
    heap.resident = [0] * 20
    grown, left, well = Account("tcp"), Account("tcp", descriptors=1), Account("tcp")
    grown.judge(heap)
    assert "memory grew" in grown.failure
    heap.blocks = [5000] * 20
    left.judge(heap)
    assert "1 file descriptors" in left.failure
    well.judge(heap)
    assert well.failure == ""
    assert "unaccounted" in table([grown, well])
