"""What is SQLite's own: the file, its errors, several processes on it, one write for many, and the wall clock."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from layr8_actors.client.durable import QueueOptions, QueueStatistics, SqliteStore
from layr8_actors.client.durable.sqlite_file import SCHEMA_VERSION, StoreFile, store_failed
from layr8_actors.errors import (
    InvalidOption,
    StoreClosed,
    StoreCorrupt,
    StoreFailed,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreVersion,
)
from tests.client.durable.queues import EPOCH, Clock

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


def quick(path: Path, **options: Any) -> SqliteStore:
    return SqliteStore(path, **{"power_safe": False} | options)


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_what_was_put_is_there_after_the_store_was_closed_and_opened(path: Path):
    async with SqliteStore(path) as store:
        await store.inbox.put("a", b"in", key="k")
        await store.outbox.put("a", b"out")
        (claimed,) = await store.outbox.claim(1)
        await store.outbox.acknowledge(claimed)
    async with SqliteStore(path) as store:
        (claimed,) = await store.inbox.claim(1)
        assert (claimed.body, claimed.key) == (b"in", "k")
        assert await store.outbox.statistics() == QueueStatistics(remembered=1)


async def test_the_file_and_what_lies_beside_it_are_for_its_owner_alone_whatever_the_umask(path: Path):
    umask = os.umask(0)
    try:
        async with SqliteStore(path) as store:
            await store.inbox.put("a", b"")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("agent.db", "agent.db-wal", "agent.db-shm", "agent.db-lock"), 0o600)


async def test_it_is_in_wal_mode_and_synced_in_full_for_what_was_put_but_not_for_a_lease(path: Path):
    async with SqliteStore(path) as store:
        assert await store.submit(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await store.submit(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
        level = await store.submit(lambda c: c.execute("PRAGMA synchronous").fetchone(), durable=False)
        assert level == (1,)
    async with quick(path) as store:
        assert await store.submit(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (1,)


async def test_the_body_of_what_was_acknowledged_is_not_kept(path: Path):
    async with quick(path) as store:
        await store.inbox.put("a", b"private")
        (claimed,) = await store.inbox.claim(1)
        await store.inbox.acknowledge(claimed)
        assert await store.submit(lambda c: c.execute("SELECT body FROM messages").fetchall()) == [(b"",)]


async def test_remembered_ids_do_not_pile_up(path: Path):
    clock = Clock()
    async with quick(path, inbox=QueueOptions(retention=10), clock=clock) as store:
        for number in range(100):
            await store.inbox.put(f"{number}", b"")
            (claimed,) = await store.inbox.claim(1)
            await store.inbox.acknowledge(claimed)
            clock.now += 1
        assert await store.submit(lambda c: c.execute("SELECT count(*) FROM messages").fetchone()) <= (11,)


async def test_a_file_of_a_newer_version_is_refused_by_name_and_left_as_it_is(path: Path):
    async with quick(path):
        pass
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreVersion, match=rf"agent\.db: .*schema {SCHEMA_VERSION + 1}.*upgrade"):
        async with quick(path):
            pass
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    connection.close()


async def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(path: Path):
    execute(path, "CREATE TABLE theirs (x)")
    before = read(path)
    with pytest.raises(StoreCorrupt, match="no store of layr8_actors"):
        async with quick(path):
            pass
    assert read(path) == before


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + bytes(5000)])
async def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes):
    write(path, content)
    with pytest.raises(StoreCorrupt, match="move it away") as raised:
        async with quick(path):
            pass
    assert raised.value.permanent


async def test_damage_within_the_file_is_told_by_the_call_that_meets_it(path: Path):
    async with quick(path) as store:
        for number in range(200):
            await store.inbox.put(f"{number}", bytes(500))
    content = bytearray(read(path))
    content[4096 * 3 :] = b"\xa5" * len(content[4096 * 3 :])
    write(path, bytes(content))
    with pytest.raises(StoreCorrupt):
        async with quick(path) as store:
            await store.inbox.claim(200)


@pytest.mark.parametrize("wrong", ["", 7, None])
def test_a_path_that_is_none_is_refused(wrong: Any):
    with pytest.raises(InvalidOption):
        SqliteStore(wrong)


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(StoreFailed, match="No such file or directory"):
        async with quick(tmp_path / "none" / "agent.db"):
            pass


async def test_a_name_that_sqlite_would_take_for_memory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    async with quick(Path(":memory:")) as store:
        await store.inbox.put("a", b"")
    assert (tmp_path / ":memory:").exists()


async def test_outside_its_block_a_store_says_so(path: Path):
    store = quick(path)
    with pytest.raises(StoreClosed):
        await store.inbox.put("a", b"")
    async with store:
        with pytest.raises(StoreFailed, match="open already"):
            async with store:
                pass
        await store.inbox.put("a", b"")
    with pytest.raises(StoreClosed):
        await store.inbox.put("a", b"")
    async with store:
        assert len(await store.inbox.claim(1)) == 1


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_to_everybody_in_that_commit_and_passes_by_itself(path: Path):
    async with quick(path) as store:
        await store.inbox.put("first", b"")

        def limit(pages: int) -> Callable[[sqlite3.Connection], Any]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        (pages,) = await store.submit(lambda c: c.execute("PRAGMA page_count").fetchone())
        await store.submit(limit(pages))
        errors: list[StoreFull] = []

        async def put(number: int) -> None:
            with pytest.raises(StoreFull, match="free some") as raised:
                await store.inbox.put(f"{number}", bytes(20_000))
            errors.append(raised.value)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(put, number)
        assert [error.permanent for error in errors] == [False] * 5
        await store.submit(limit(1_000_000))
        assert await store.inbox.put("0", bytes(20_000))
        assert await store.inbox.statistics() == QueueStatistics(ready=2)


async def test_one_job_that_fails_does_not_undo_the_others_of_its_commit(path: Path):
    async with quick(path) as store:
        outcomes: dict[str, object] = {}

        async def put(id: str) -> None:
            outcomes[id] = await store.inbox.put(id, b"")

        async def fail() -> None:
            def work(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM messages")
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await store.submit(work)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "a")
            nursery.start_soon(fail)
            nursery.start_soon(put, "b")
        assert outcomes == {"a": True, "b": True}
        assert await store.inbox.statistics() == QueueStatistics(ready=2)


async def test_a_lock_that_another_process_keeps_is_told_after_the_busy_timeout(path: Path):
    other = StoreFile(path, 1)
    async with quick(path, busy_timeout=0.05) as store:
        await trio.to_thread.run_sync(other.open)
        with other.alone(), pytest.raises(StoreLocked, match=r"0\.05 s") as raised:
            await store.inbox.put("a", b"")
        assert not raised.value.permanent
        assert await store.inbox.put("a", b"")
        other.close()


async def test_a_program_that_does_not_know_our_lock_is_waited_for_and_told_by_sqlite(path: Path):
    async with quick(path, busy_timeout=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked):
            await store.inbox.put("a", b"")
        other.execute("COMMIT")
        other.close()
        assert await store.inbox.put("a", b"")


async def test_a_file_that_may_not_be_written_is_told(path: Path):
    async with quick(path) as store:
        await store.submit(lambda c: c.execute("PRAGMA query_only = 1"))
        with pytest.raises(StoreReadOnly, match="cannot be written") as raised:
            await store.inbox.put("a", b"")
        assert raised.value.permanent


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), StoreFull),
        (PermissionError(13, "Permission denied"), StoreReadOnly),
        (OSError(30, "Read-only file system"), StoreReadOnly),
        (OSError(5, "Input/output error"), StoreFailed),
        (sqlite3.OperationalError("disk I/O error"), StoreFailed),
    ],
)
def test_errors_of_the_file_system_have_types(error: Exception, expected: type[StoreFailed]):
    failed = store_failed("/x", error)
    assert type(failed) is expected
    assert "/x: " in str(failed)


# --- one write for many -----------------------------------------------------------------------------------------------


async def test_puts_that_wait_at_the_same_time_are_one_transaction(path: Path):
    async with quick(path) as store:
        commits = 0

        def count(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        await store.submit(lambda connection: connection.set_trace_callback(count))
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(store.inbox.put, f"{number}", b"")
        await store.submit(lambda connection: connection.set_trace_callback(None))
        # The transaction that turned the count on, the first put alone, and all others behind it.
        assert commits == 3
        assert await store.inbox.statistics() == QueueStatistics(ready=100)


async def test_no_call_but_a_count_reads_the_whole_table(path: Path):
    async with quick(path, inbox=QueueOptions(max_attempts=2)) as store:
        statements: list[str] = []
        await store.submit(lambda connection: connection.set_trace_callback(statements.append))
        for id in ("a", "b", "k1", "k2"):
            await store.inbox.put(id, b"", key="k" if len(id) > 1 else None)
        a, b, k1 = await store.inbox.claim(5)
        await store.inbox.extend(a)
        await store.inbox.acknowledge(a)
        await store.inbox.acknowledge(k1)
        await store.inbox.release(b, delay=10)
        (k2,) = await store.inbox.claim(5)
        await store.inbox.bury(k2, "no")
        await store.inbox.dead_letters()
        await store.inbox.retry_dead("k2")
        await store.inbox.discard_dead("k2")
        await store.submit(lambda connection: connection.set_trace_callback(None))
        traced = {text for text in statements if text.startswith(("SELECT", "UPDATE", "DELETE"))}
        assert len(traced) > 20

        def plans(connection: sqlite3.Connection) -> list[str]:
            return [f"{row[3]}: {text}" for text in traced for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]

        assert [plan for plan in await store.submit(plans) if plan.startswith("SCAN")] == []


async def test_only_one_thread_at_a_time_has_the_connection_and_none_is_left(path: Path):
    async with quick(path) as store:
        inside = 0

        def work(_: sqlite3.Connection) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            time.sleep(0.0005)
            inside -= 1

        async def submit() -> None:
            for _ in range(5):
                await store.submit(work)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(submit)


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_a_call_cancelled_before_its_turn_is_not_done(path: Path):
    async with quick(path) as store:
        gate = threading.Event()
        done: list[str] = []

        async def put(id: str) -> None:
            await store.inbox.put(id, b"")
            done.append(id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.submit, lambda _: gate.wait(10))
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(put, "cancelled")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            gate.set()
        assert done == []
        assert await store.inbox.statistics() == QueueStatistics()


async def test_a_call_cancelled_while_it_is_done_returns_what_it_did(path: Path):
    async with quick(path) as store:
        await store.inbox.put("a", b"")
        gate, entered, go_on = threading.Event(), threading.Event(), threading.Event()
        found: list[str] = []

        def hold_up(_: sqlite3.Connection) -> None:
            entered.set()
            go_on.wait(10)

        async def claim() -> None:
            found.extend(claimed.id for claimed in await store.inbox.claim(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.submit, lambda _: gate.wait(10))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(store.submit, hold_up)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    # In one commit with the job before it, which holds it up in the thread.
                    inner.start_soon(claim)
                    await trio.testing.wait_all_tasks_blocked()
                    gate.set()
                    await trio.to_thread.run_sync(entered.wait, 10)
                    scope.cancel()
                    go_on.set()
        assert found == ["a"]
        assert (await store.inbox.statistics()).claimed == 1


@pytest.mark.parametrize("steps", range(0, 30, 2))
async def test_cancelled_at_any_step_each_call_was_done_as_a_whole_or_not_at_all(path: Path, steps: int):
    """What the callers were told is what the file says, whoever of them led the commit."""
    async with quick(path) as store:
        told: dict[str, list[str]] = {"put": [], "claimed": [], "acknowledged": []}

        async def agent(name: str) -> None:
            for number in range(3):
                if await store.inbox.put(f"{name}{number}", b""):
                    told["put"].append(f"{name}{number}")
                for claimed in await store.inbox.claim(1):
                    told["claimed"].append(claimed.id)
                    if await store.inbox.acknowledge(claimed):
                        told["acknowledged"].append(claimed.id)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(agent, name)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        statistics = await store.inbox.statistics()
        assert statistics.live + statistics.remembered == len(told["put"])
        assert statistics.claimed + statistics.remembered == len(told["claimed"])
        assert statistics.remembered == len(told["acknowledged"])


async def test_a_store_whose_block_is_cancelled_lets_its_commit_end_and_closes_the_file(path: Path):
    started = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        started.set()
        time.sleep(0.05)
        connection.execute("INSERT INTO messages (queue, id, body, state, put_at) VALUES ('inbox', 'a', x'', 0, 0)")

    with trio.CancelScope() as scope:
        async with quick(path) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store.submit, slow)
            await trio.to_thread.run_sync(started.wait, 10)
            scope.cancel()
    assert not path.with_name("agent.db-wal").exists()
    async with quick(path) as store:
        assert await store.inbox.statistics() == QueueStatistics(ready=1)


# --- several processes ------------------------------------------------------------------------------------------------

CONSUMER = """
import sys, trio
from layr8_actors.client.durable import SqliteStore

async def main():
    async with SqliteStore(sys.argv[1], power_safe=False, busy_timeout=30) as store:
        for number in range(100):
            await store.inbox.put(f"{sys.argv[2]}-{number}", b"")
        empty = 0
        while empty < 5:
            messages = await store.inbox.claim(3)
            empty = 0 if messages else empty + 1
            for claimed in messages:
                assert await store.inbox.acknowledge(claimed)
                print(claimed.id)
            if not messages:
                await trio.sleep(0.01)

trio.run(main)
"""


def test_several_processes_on_one_file_claim_each_message_once(path: Path):
    processes = [
        subprocess.Popen([sys.executable, "-c", CONSUMER, str(path), name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    handled: list[str] = []
    for process in processes:
        output, _ = process.communicate(timeout=50)
        assert process.returncode == 0
        handled += output.split()
    assert sorted(handled) == sorted(f"{name}-{number}" for name in "ab" for number in range(100))


async def test_what_another_process_puts_is_found_within_the_poll_interval(path: Path):
    async with quick(path, poll_interval=0.05) as store, quick(path) as other:
        assert await store.inbox.claim(1) == []
        await other.inbox.put("a", b"")
        with trio.fail_after(10):
            await store.inbox.wait_for_work()
        assert len(await store.inbox.claim(1)) == 1


# --- the clock --------------------------------------------------------------------------------------------------------


async def test_where_the_clock_is_set_back_nothing_waits_longer_than_its_own_time_again(path: Path):
    clock = Clock()
    async with quick(path, inbox=QueueOptions(lease=30), clock=clock) as store:
        for id in ("leased", "delayed"):
            await store.inbox.put(id, b"")
        leased, delayed = await store.inbox.claim(2)
        await store.inbox.release(delayed, delay=100)
        clock.now = EPOCH - 86_400
        await store.inbox.put("new", b"")
        assert [claimed.id for claimed in await store.inbox.claim(9)] == ["new"]
        clock.now += 31
        assert [claimed.id for claimed in await store.inbox.claim(1)] == ["leased"]
        clock.now += 70
        assert "delayed" in [claimed.id for claimed in await store.inbox.claim(9)]
        assert not await store.inbox.acknowledge(leased)


async def test_a_clock_that_was_set_back_while_nobody_ran_is_noticed(path: Path):
    clock = Clock()
    async with quick(path, inbox=QueueOptions(lease=30), clock=clock) as store:
        await store.inbox.put("a", b"")
        await store.inbox.claim(1)
    clock.now = EPOCH - 86_400
    async with quick(path, inbox=QueueOptions(lease=30), clock=clock) as store:
        assert await store.inbox.claim(1) == []
        clock.now += 31
        assert len(await store.inbox.claim(1)) == 1


async def test_waiting_for_work_ends_when_the_next_delay_does(path: Path):
    async with quick(path, poll_interval=60) as store:
        await store.inbox.put("a", b"")
        (claimed,) = await store.inbox.claim(1)
        await store.inbox.release(claimed, delay=0.05)
        assert await store.inbox.claim(1) == []
        with trio.fail_after(30):
            await store.inbox.wait_for_work()
        await trio.sleep(0.05)
        assert len(await store.inbox.claim(1)) == 1
