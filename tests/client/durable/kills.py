"""A durable handler that is killed with SIGKILL at random points, again and again, and the ledger of it.

``python -m tests.client.durable.kills --kills 200 --seed 1`` kills 200 times. There are three processes. This one
plays the node: it hands messages to the agent until each one is acknowledged, again after each death, and keeps the
books. The second one has imported everything and forks the agents, because an import takes longer than a life. The
third one is the agent: it puts into its inbox what comes, acknowledges it then, and handles it in a worker. The
handler's effect is a line in a file. The agent dies in one of two ways:

- from outside, after a random time;
- by its own hand, at a random call or return of a function of ``client/durable``, of Trio or of this module, in the
  task or in the thread: before a put is committed and after it, before the effect and after it, within an
  acknowledgement.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import coredis  # noqa: F401 - here, because each agent would import it anew
import trio

from layr8_actors.client.durable import Claimed, QueueOptions, RedisStore, SqliteStore, run_worker
from tests.client.durable.redis_server import RedisServer

ROOT = Path(__file__).parent.parent.parent.parent
LEASE = 0.25
CONCURRENCY = 4
PER_LIFE = 12
"""Messages that the node hands out in each life."""

MOST_CALLS = 15_000
"""Calls and returns after which it dies by its own hand at the latest; most of a life's work is in the first half."""


# --- the agent --------------------------------------------------------------------------------------------------------


def open_store(where: str) -> AbstractAsyncContextManager[SqliteStore | RedisStore]:
    # No death is one of its last attempts.
    options = QueueOptions(lease=LEASE, max_attempts=100_000)
    if "://" in where:
        return RedisStore(where, namespace="kills", inbox=options, poll_interval=0.05, on_event=lambda _: None)
    return SqliteStore(where, power_safe=False, inbox=options, poll_interval=0.05, on_event=lambda _: None)


def key_of(id: str) -> str | None:
    """Every other message has a key."""
    return f"thread-{int(id) % 5}" if int(id) % 2 else None


async def agent(where: str, effects: int, read_end: int, write_end: int, persist_first: bool) -> None:
    """Put what comes on the pipe and acknowledge it; handle it; end when the pipe does and all is handled.

    Without ``persist_first`` it is one that loses messages, for the test of this test.
    """

    async def handler(claimed: Claimed) -> None:
        await trio.lowlevel.checkpoint()
        os.write(effects, f"{claimed.id} {claimed.attempt}\n".encode())
        await trio.lowlevel.checkpoint()

    async with open_store(where) as store, trio.open_nursery() as nursery:
        # Its random order of tasks and its jitter are part of what is random.
        worker = functools.partial(run_worker, concurrency=CONCURRENCY, on_event=lambda _: None)
        nursery.start_soon(worker, store.inbox, handler)

        async def take(ids: list[str], key: str | None) -> None:
            for id in ids:
                if not persist_first:
                    os.write(write_end, f"{id}\n".encode())
                await store.inbox.put(id, id.encode(), key=key)
                os.write(write_end, f"{id}\n".encode())

        buffer = b""
        while True:
            await trio.lowlevel.wait_readable(read_end)
            received = os.read(read_end, 65536)
            if not received:
                break
            *lines, buffer = (buffer + received).split(b"\n")
            of_key: dict[str | None, list[str]] = {}
            for line in lines:
                of_key.setdefault(key_of(line.decode()), []).append(line.decode())
            async with trio.open_nursery() as takers:
                for key, ids in of_key.items():
                    takers.start_soon(take, ids, key)
        while (await store.inbox.statistics()).live:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def die_at(event: int, places: int) -> None:
    """Have this process kill itself at that many calls and returns from now, in whichever thread."""
    left = event

    def trace(frame: Any, kind: str, _: object) -> None:
        nonlocal left
        name = frame.f_code.co_filename
        if kind in ("call", "return", "c_call", "c_return") and ("client/durable" in name or "/trio/" in name):
            left -= 1
            if left <= 0:
                os.write(places, f"{Path(name).name}:{frame.f_code.co_name}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(trace)
    sys.setprofile(trace)


def fork_agents() -> None:
    """Fork an agent for each line on stdin, and answer how it ended."""
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                effects = os.open(life["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                read_end = os.open(life["down"], os.O_RDONLY)
                write_end = os.open(life["up"], os.O_WRONLY)
                os.write(write_end, b"ready\n")
                if life["die_at"]:
                    die_at(life["die_at"], os.open(life["places"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
                trio.run(agent, life["store"], effects, read_end, write_end, life["persist_first"])
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


# --- the node ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    """What became of all messages."""

    kills: int = 0
    lives: int = 0
    by_own_hand: int = 0
    places: int = 0
    acknowledged: int = 0
    seconds: float = 0.0
    lost: list[str] = dataclasses.field(default_factory=list[str])
    duplicates: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    out_of_order: list[str] = dataclasses.field(default_factory=list[str])
    failed: list[str] = dataclasses.field(default_factory=list[str])

    def __str__(self) -> str:
        lines = [
            f"killed {self.kills} times with SIGKILL, in {self.lives} lives",
            f"of these {self.by_own_hand} at a call or a return, in {self.places} different functions",
            f"{self.acknowledged} messages were acknowledged to the node in {self.seconds:.1f} s",
            f"lost: {len(self.lost)} {self.lost or ''}",
            f"out of order within their key: {len(self.out_of_order)} {self.out_of_order or ''}",
            f"ended otherwise than by a kill: {len(self.failed)} {self.failed or ''}",
            f"handled more than once: {len(self.duplicates)}",
            *(f"  {id}: {times} times" for id, times in sorted(self.duplicates.items(), key=lambda item: int(item[0]))),
        ]
        return "\n".join(lines)


class Node:
    """Hands out messages, kills agents, and keeps the books.

    Args:
        folder: where the effects and the pipes are.
        store: the path of a file, or the URL of a Redis.
        seed: of the times and points of death.
        persist_first: as in :func:`agent`.
    """

    def __init__(self, folder: Path, store: str, seed: int, persist_first: bool) -> None:
        self.report = Report()
        self._random = random.Random(seed)
        self._effects = folder / "effects"
        self._places = folder / "places"
        self._places.touch()
        self._down, self._up = folder / "down", folder / "up"
        self._store = store
        self._persist_first = persist_first
        self._ready = False
        self._next = 0
        self._unacknowledged: list[str] = []
        self._acknowledged: list[str] = []
        for pipe in (self._down, self._up):
            os.mkfifo(pipe)

    def run(self, kills: int) -> Report:
        """Kill so many times, then let the last agent finish."""
        started = time.monotonic()
        command = [sys.executable, "-c", "from tests.client.durable.kills import fork_agents; fork_agents()"]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as forks:
            while self.report.kills < kills:
                self._life(forks, last=False)
            while self._life(forks, last=True):
                pass
            assert forks.stdin is not None
            forks.stdin.close()
        self.report.seconds = time.monotonic() - started
        self._balance()
        return self.report

    def _life(self, forks: subprocess.Popen[str], *, last: bool) -> bool:
        """One agent from fork to death; True where it has to be followed by another."""
        assert forks.stdin is not None
        assert forks.stdout is not None
        self.report.lives += 1
        self._ready = False
        by_own_hand = not last and self._random.random() < 0.6
        life = {
            "store": self._store,
            "persist_first": self._persist_first,
            "effects": str(self._effects),
            "places": str(self._places),
            "down": str(self._down),
            "up": str(self._up),
            "die_at": int(self._random.triangular(1, MOST_CALLS, MOST_CALLS / 3)) if by_own_hand else 0,
        }
        print(json.dumps(life), file=forks.stdin)
        pid = int(forks.stdout.readline())
        deadline = time.monotonic() + (30 if last else 1 if by_own_hand else self._random.uniform(0, 0.12))
        if not last:
            for _ in range(PER_LIFE):
                self._unacknowledged.append(str(self._next))
                self._next += 1
        # Opening a pipe does not wait for the other end this way, and an agent that dies early leaves none behind.
        down, up = os.open(self._down, os.O_RDWR), os.open(self._up, os.O_RDWR | os.O_NONBLOCK)
        writer = os.open(self._down, os.O_WRONLY)
        os.write(writer, "".join(f"{id}\n" for id in self._unacknowledged).encode())
        ended = self._wait(forks, up, deadline, finish=(down, writer) if last else None)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            ended = int(forks.stdout.readline())
        self._take(up)
        for end in (up, *(() if last else (down, writer))):
            os.close(end)
        if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL and not last:
            self.report.kills += 1
            self.report.by_own_hand += by_own_hand and time.monotonic() < deadline
        elif ended != 0 or not last:
            self.report.failed.append(f"life {self.report.lives}: status {ended}")
        return last and bool(self._unacknowledged)

    def _wait(
        self, forks: subprocess.Popen[str], up: int, deadline: float, finish: tuple[int, int] | None
    ) -> int | None:
        """Take acknowledgements until the agent has ended, and return how, or None at the deadline."""
        assert forks.stdout is not None
        while (left := deadline - time.monotonic()) > 0:
            if finish is not None and self._ready and not self._unacknowledged:
                for end in finish:
                    os.close(end)  # all is acknowledged: what is left to the agent is to handle it
                finish = None
            ended = forks.stdout.fileno()
            ready, _, _ = select.select([ended, up], [], [], left)
            if up in ready:
                self._take(up)
            if ended in ready:
                return int(forks.stdout.readline())
        return None

    def _take(self, up: int) -> None:
        try:
            received = os.read(up, 1 << 20)
        except BlockingIOError:
            return
        # A line is one write of less than a page, so none is ever cut.
        for id in received.decode().split():
            self._ready = self._ready or id == "ready"
            if id in self._unacknowledged:
                self._unacknowledged.remove(id)
                self._acknowledged.append(id)

    def _balance(self) -> None:
        lines = self._effects.read_text().splitlines()
        handled = Counter(line.split()[0] for line in lines)
        report = self.report
        report.places = len(set(self._places.read_text().split()))
        report.acknowledged = len(self._acknowledged)
        report.lost = [id for id in self._acknowledged if not handled[id]]
        report.duplicates = {id: times for id, times in handled.items() if times > 1}
        latest: dict[str, int] = {}
        for id in (line.split()[0] for line in lines):
            key = key_of(id)
            if key is not None:
                if latest.get(key, -1) > int(id):
                    report.out_of_order.append(id)
                latest[key] = int(id)


def run(store: str, kills: int, seed: int, *, persist_first: bool = True) -> Report:
    """Kill an agent over ``store`` so many times: the URL of a Redis, or nothing for a SQLite file."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        return Node(Path(folder), store or f"{folder}/agent.db", seed, persist_first).run(kills)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.client.durable.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis", action="store_true", help="over a redis-server of its own instead of a SQLite file")
    arguments = parser.parse_args()
    server = RedisServer() if arguments.redis else None
    try:
        report = run(server.url if server else "", arguments.kills, arguments.seed)
    finally:
        if server is not None:
            server.close()
    print(report)
    sys.exit(bool(report.lost or report.out_of_order or report.failed))


if __name__ == "__main__":
    main()
