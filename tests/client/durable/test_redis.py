"""What is Redis' own: a server that dies, is full, refuses or forgets; its password; workers on several machines."""

from __future__ import annotations

import functools
import gc
import traceback
from collections.abc import Iterator
from typing import Any

import coredis
import pytest
import trio
from coredis.response.types import StreamPending

from layr8_actors import Client, Message
from layr8_actors.client import DidHandlers
from layr8_actors.client.durable import (
    Claimed,
    DurabilityWeak,
    QueueOptions,
    QueueStatistics,
    RedisQueue,
    RedisStore,
    StoreUnavailable,
    run_worker,
)
from layr8_actors.errors import (
    InvalidOption,
    StoreClosed,
    StoreFailed,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
    StoreVersion,
)
from layr8_actors.telemetry import Event
from tests.client.agents import ALICE, BOB, REQUEST, RESPONSE, agent, config, request_to, strict_node
from tests.client.durable.queues import RedisKind
from tests.client.durable.redis_server import REDIS_SERVER, RedisServer

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(
        REDIS_SERVER is None, reason="no redis-server on PATH (Debian and Ubuntu: apt-get install redis-server)"
    ),
    # coredis 6.9.0 leaves three buffers of a connection that it could not establish to the garbage collector.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def little_for_the_garbage_collector_to_look_at() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def buffers_are_collected_here_and_not_in_another_test() -> Iterator[None]:
    yield
    gc.collect()


CAROL = "did:web:node.test:carol"
PASSWORD = "correct-horse-battery"


@pytest.fixture
def kind(redis_server: RedisServer) -> RedisKind:
    return RedisKind(redis_server.url)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that a test may break."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


async def configure(server: RedisServer, **settings: str) -> None:
    if not settings:
        return
    async with coredis.Redis.from_url(server.url) as client:
        await client.config_set({name.replace("_", "-"): value for name, value in settings.items()})


# --- a server that fails ----------------------------------------------------------------------------------------------


async def test_what_was_put_outlives_a_killed_server_that_syncs_always_and_the_store_goes_on(server: RedisServer):
    events: list[Event] = []
    async with RedisStore(server.url, on_event=events.append) as store:
        for number in range(50):
            assert await store.inbox.put(f"{number}", b"x")
        (claimed, *_) = await store.inbox.claim(10)
        server.kill()
        with pytest.raises(StoreUnreachable) as raised:
            await store.inbox.put("while it is away", b"x")
        assert not raised.value.permanent
        server.start()
        assert await store.inbox.acknowledge(claimed)
        assert await store.inbox.statistics() == QueueStatistics(ready=40, claimed=9, remembered=1)
        assert await store.inbox.put("again", b"x")
    assert events == []


async def test_a_worker_goes_on_after_its_server_was_away(server: RedisServer):
    events: list[Event] = []
    handled: list[str] = []
    done = trio.Event()

    async def handler(claimed: Claimed) -> None:
        handled.append(claimed.id)
        if claimed.id == "after":
            done.set()

    async with RedisStore(server.url, on_event=events.append) as store, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run_worker, store.inbox, handler, on_event=events.append))
        await store.inbox.put("before", b"")
        while not handled:
            await trio.sleep(0.01)
        server.kill()
        while not any(isinstance(event, StoreUnavailable) for event in events):
            await trio.sleep(0.01)
        server.start()
        assert await store.inbox.put("after", b"")
        with trio.fail_after(30):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert handled == ["before", "after"]


async def test_a_server_that_is_not_there_is_said_at_the_start(tmp_path: Any):
    with pytest.raises(StoreUnreachable, match="no answer"):
        async with RedisStore(f"unix://{tmp_path}/none.sock"):
            pass


async def test_a_server_whose_memory_is_used_up_takes_nothing_and_says_so(server: RedisServer):
    async with RedisStore(server.url) as store:
        await store.inbox.put("a", b"x")
        await configure(server, maxmemory="1mb")
        with pytest.raises(StoreFull, match="maxmemory") as raised:
            await store.inbox.put("b", bytes(100_000))
        assert not raised.value.permanent
        await configure(server, maxmemory="0")
        assert await store.inbox.put("b", bytes(100_000))
        assert await store.inbox.statistics() == QueueStatistics(ready=2)


async def test_a_replica_is_refused_as_one_that_cannot_be_written(server: RedisServer):
    async with RedisStore(server.url) as store:
        async with coredis.Redis.from_url(server.url) as client:
            await client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreReadOnly, match="primary"):
            await store.inbox.put("a", b"x")


async def test_a_server_that_forgot_everything_is_used_as_a_new_one(server: RedisServer):
    async with RedisStore(server.url) as store:
        await store.inbox.put("a", b"x")
        (claimed,) = await store.inbox.claim(1)
        async with coredis.Redis.from_url(server.url) as client:
            await client.flushall()
            await client.script_flush()
        assert not await store.inbox.acknowledge(claimed)
        assert not await store.inbox.extend(claimed)
        assert await store.inbox.claim(1) == []
        assert await store.inbox.put("a", b"x")
        assert len(await store.inbox.claim(1)) == 1


async def test_an_older_server_is_refused_by_its_version(kind: RedisKind, monkeypatch: pytest.MonkeyPatch):
    async def info(self: Any, *_: Any) -> dict[str, Any]:
        return {"redis_version": "6.2.14"}

    monkeypatch.setattr(coredis.Redis, "info", info)
    with pytest.raises(StoreVersion, match=r"Redis 6\.2\.14, 7\.0 is needed"):
        async with kind.store():
            pass


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"appendonly": "no"}, ["appendonly is off"]),
        ({"appendfsync": "everysec"}, ["appendfsync is everysec"]),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, ["allkeys-lru"]),
        ({"maxmemory": "100mb", "maxmemory_policy": "noeviction"}, []),
        ({}, []),
    ],
)
async def test_a_server_that_may_lose_what_was_put_is_reported(
    server: RedisServer, settings: dict[str, str], expected: list[str]
):
    await configure(server, **settings)
    events: list[Event] = []
    async with RedisStore(server.url, namespace="agent", on_event=events.append):
        pass
    assert len(events) == len(expected)
    for event, text in zip(events, expected, strict=True):
        assert isinstance(event, DurabilityWeak)
        assert text in event.detail
        assert event.queue == "agent"


# --- the password -----------------------------------------------------------------------------------------------------


async def test_the_password_is_in_no_error_no_repr_and_no_traceback(
    server: RedisServer, caplog: pytest.LogCaptureFixture
):
    await configure(server, requirepass=PASSWORD)
    wrong = server.url.replace("unix://", f"unix://:{PASSWORD}-not@")
    with pytest.raises(StoreFailed, match="refuses the user or password") as refused:
        async with RedisStore(wrong):
            pass
    assert refused.value.permanent
    assert type(refused.value) is StoreFailed
    with pytest.raises(StoreFailed, match="refuses the user or password"):
        async with RedisStore(server.url):
            pass
    right = server.url.replace("unix://", f"unix://:{PASSWORD}@")
    store = RedisStore(right)
    async with store:
        await store.inbox.put("a", b"x")
        server.kill()
        with pytest.raises(StoreUnreachable) as away:
            await store.inbox.put("b", b"x")
    shown = [repr(store), str(away.value), away.value.where, refused.value.where, caplog.text]
    for raised in (refused, away):
        shown += traceback.format_exception(raised.value)
    assert PASSWORD not in "\n".join(shown)


@pytest.mark.parametrize("url", ["", "http://host", "redis://", "redis://host:port", 7, "host:6379"])
def test_what_is_no_url_of_a_redis_is_refused_and_not_shown(url: Any):
    with pytest.raises(InvalidOption) as refused:
        RedisStore(url)
    assert "host:6379" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a{b", "a}b"])
def test_a_name_that_would_choose_another_slot_is_refused(name: str):
    with pytest.raises(InvalidOption):
        RedisStore("redis://host", namespace=name)
    with pytest.raises(InvalidOption):
        RedisStore("redis://host").queue(name)


# --- machines ---------------------------------------------------------------------------------------------------------


async def test_stores_on_several_machines_share_one_queue_and_one_order_within_a_key(kind: RedisKind):
    async with kind.store() as one, kind.store() as other:
        await one.inbox.put("k1", b"", key="k")
        await other.inbox.put("k2", b"", key="k")
        assert not await other.inbox.put("k1", b"", key="k")
        (k1,) = await other.inbox.claim(9)
        assert k1.id == "k1"
        assert await one.inbox.claim(9) == []
        assert await other.inbox.acknowledge(k1)
        (k2,) = await one.inbox.claim(9)
        assert k2.id == "k2"


async def test_what_another_machine_puts_wakes_whoever_waits_at_once(kind: RedisKind):
    patient = RedisStore(kind.url, namespace=kind.namespace, poll_interval=60, command_timeout=120)
    async with patient as one, kind.store() as other:
        assert await one.inbox.claim(1) == []
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.inbox.wait_for_work)
                await trio.sleep(0.05)
                await other.inbox.put("a", b"")


async def test_waiting_for_longer_than_the_timeout_is_not_taken_for_a_dead_server(kind: RedisKind):
    async with RedisStore(kind.url, namespace=kind.namespace, poll_interval=60, command_timeout=1) as store:
        assert await store.inbox.claim(1) == []
        await store.inbox.wait_for_work()


async def test_a_claim_is_a_delivery_to_the_group_and_the_name_of_a_consumer_goes_with_it(kind: RedisKind):
    stream = f"{kind.namespace}:{{inbox}}:stream"
    async with coredis.Redis.from_url(kind.url) as client:
        async with kind.store(QueueOptions(lease=30)) as store:
            await store.inbox.put("a", b"")
            await store.inbox.put("b", b"")
            a, b = await store.inbox.claim(2)
            pending = await client.xpending(stream, "handlers")
            assert isinstance(pending, StreamPending)
            assert pending.pending == 2
            assert list(pending.consumers) == [store.consumer.encode()]
            await store.inbox.acknowledge(a)
        # It holds one message still, so its name has to stay.
        assert len(await client.xinfo_consumers(stream, "handlers")) == 1
        async with kind.store() as later:
            await kind.advance(31)
            (again,) = await later.inbox.claim(2)
            assert again.id == "b"
            assert not await later.inbox.acknowledge(b)
            await later.inbox.acknowledge(again)
            assert await client.xlen(stream) == 0
        assert [facts[b"name"] for facts in await client.xinfo_consumers(stream, "handlers")] == [
            store.consumer.encode()
        ]


async def test_a_dead_letter_is_an_entry_of_a_stream_that_other_tools_can_read(kind: RedisKind):
    async with kind.store() as store, coredis.Redis.from_url(kind.url) as client:
        await store.inbox.put("a", b"body", key="k")
        (claimed,) = await store.inbox.claim(1)
        await store.inbox.bury(claimed, "no such recipient")
        (entry,) = await client.xrange(f"{kind.namespace}:{{inbox}}:dead")
        fields = entry.field_values
        assert fields[b"id"] == b"a"
        assert fields[b"body"] == b"body"
        assert fields[b"reason"] == b"no such recipient"
        # Trimmed by such a tool, it cannot be retried, and is no error.
        await client.xtrim(f"{kind.namespace}:{{inbox}}:dead", coredis.PureToken.MAXLEN, 0)
        assert not await store.inbox.retry_dead("a")
        assert await store.inbox.discard_dead("a")


async def test_all_keys_of_a_queue_are_in_one_slot_of_a_cluster(kind: RedisKind):
    async with kind.store() as store, coredis.Redis.from_url(kind.url) as client:
        for id in ("a", "k1", "k2", "k3"):
            await store.inbox.put(id, b"", key="k" if len(id) > 1 else None)
        a, k1 = await store.inbox.claim(9)
        await store.inbox.acknowledge(a)
        await store.inbox.bury(k1, "no")
        (k2,) = await store.inbox.claim(9)
        await store.inbox.release(k2, delay=100)
        keys = [key async for key in client.scan_iter(match=f"{kind.namespace}:*")]
        assert len(keys) >= 10
        keys.remove(f"{kind.namespace}:queues".encode())  # the names of all queues, which only live() looks at
        assert all(b"{inbox}" in key for key in keys)


async def test_however_many_queues_wait_few_connections_do_and_each_queue_is_woken_by_a_put(kind: RedisKind):
    """coredis has 64 connections: were they all waiting, a put would wait for one of them, with 99 DIDs for minutes."""
    looked, woken = list[str](), list[str]()
    async with (
        RedisStore(kind.url, namespace=kind.namespace, poll_interval=60, command_timeout=120) as store,
        coredis.Redis.from_url(kind.url) as client,
        trio.open_nursery() as nursery,
    ):
        queues = [store.queue(f"inbox of {number}") for number in range(80)]

        async def wait(queue: RedisQueue) -> None:
            assert await queue.claim(1) == []
            looked.append(queue.name)
            while not await queue.claim(1):
                await queue.wait_for_work()
            woken.append(queue.name)

        for queue in queues:
            nursery.start_soon(wait, queue)
        with trio.fail_after(20):
            while len(looked) < len(queues):
                await trio.sleep(0.001)
            for queue in queues:
                assert await queue.put("a", b"")
                clients: Any = await client.info("clients")
                assert clients["blocked_clients"] <= 16
            while len(woken) < len(queues):
                await trio.sleep(0.001)


# --- a whole client ---------------------------------------------------------------------------------------------------


async def test_a_client_with_a_further_did_over_a_server_that_is_killed_handles_and_answers_everything(
    server: RedisServer,
):
    gate, begun, got = trio.Event(), list[str](), list[tuple[str, str]]()

    async def answer(message: Message) -> Message:
        begun.append(message.id)
        await gate.wait()
        return message.reply(RESPONSE)

    carol = DidHandlers()
    carol.handle(REQUEST)(answer)
    bob_done = trio.Event()
    async with RedisStore(server.url, on_event=lambda _: None) as store, strict_node() as node:
        alice, bob = Client(config(node), durable=store), agent(node, BOB)
        alice.handle(REQUEST)(answer)

        @bob.handle(RESPONSE)
        def count(message: Message) -> None:
            got.append((message.from_, message.thid))
            if len(got) == 3:
                bob_done.set()

        async with bob, alice:
            await alice.join_did(CAROL, carol)
            for did in (ALICE, CAROL):
                await bob.send(request_to(did, id=f"to {did}"))
            await node.wait_for(lambda: [dispatch.status for dispatch in node.dispatches] == ["handled"] * 2)
            while len(begun) < 2:
                await trio.sleep(0.001)
            assert await store.live() == {"inbox": 1, f"inbox of {CAROL}": 1}
            server.kill()
            with pytest.raises(StoreUnreachable):
                while True:
                    await store.live()  # by now all connections are known to be dead
            server.start()
            gate.set()
            await bob.send(request_to(CAROL, id="later"))
            with trio.fail_after(20):
                await bob_done.wait()
                while await store.live():
                    await trio.sleep(0.001)
    assert sorted(set(got)) == [(ALICE, f"to {ALICE}"), (CAROL, "later"), (CAROL, f"to {CAROL}")]


# --- the block --------------------------------------------------------------------------------------------------------


async def test_what_the_block_raises_comes_out_as_itself(kind: RedisKind):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as raised:
        async with kind.store() as store:
            await store.inbox.put("a", b"")
            raise error
    assert raised.value is error


async def test_a_cancelled_block_ends_as_cancelled_and_leaves_no_task(kind: RedisKind):
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        async with kind.store() as store:
            await store.inbox.put("a", b"")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_worker_that_is_cancelled_together_with_its_store_gives_back_what_it_had(kind: RedisKind):
    events: list[Event] = []
    running = trio.Event()

    async def handler(_: Claimed) -> None:
        running.set()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with kind.store() as store, trio.open_nursery() as nursery:
            await store.inbox.put("a", b"")
            nursery.start_soon(functools.partial(run_worker, store.inbox, handler, on_event=events.append))
            await running.wait()
            scope.cancel()
    assert events == []
    async with kind.store() as store:
        (claimed,) = await store.inbox.claim(1)
        assert claimed.attempt == 1


async def test_a_cancelled_start_leaves_no_task(kind: RedisKind):
    before = trio.lowlevel.current_statistics().tasks_living
    for steps in range(12):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def start(scope: trio.CancelScope = scope) -> None:
                    async with kind.store():
                        scope.cancel()
                        await trio.sleep_forever()

                nursery.start_soon(start)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_outside_its_block_a_store_says_so(kind: RedisKind):
    store = kind.store()
    with pytest.raises(StoreClosed):
        await store.inbox.put("a", b"")
    async with store:
        with pytest.raises(StoreFailed, match="open already"):
            async with store:
                pass
        await store.inbox.put("a", b"")
    with pytest.raises(StoreClosed):
        await store.inbox.put("a", b"")


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_cancelled_at_any_step_no_message_is_lost_and_no_claim_is_in_nobodys_hands(kind: RedisKind, steps: int):
    async with kind.store() as store:
        told: dict[str, list[str]] = {"put": [], "claimed": []}

        async def agent(name: str) -> None:
            for number in range(3):
                if await store.inbox.put(f"{name}{number}", b""):
                    told["put"].append(f"{name}{number}")
                told["claimed"].extend(claimed.id for claimed in await store.inbox.claim(1))

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(agent, name)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        statistics = await store.inbox.statistics()
        assert statistics.claimed == len(told["claimed"])
        # A put that was cancelled may have been done: its caller puts the id again, and learns which.
        assert statistics.live >= len(told["put"])
        for name in "abc":
            for number in range(3):
                await store.inbox.put(f"{name}{number}", b"")
        assert (await store.inbox.statistics()).live == 9
