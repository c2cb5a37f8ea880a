"""One run of chaos: a node, a network that fails before it, agents that talk, and what must hold all the same."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import sys
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import trio

from layr8_actors import Backoff, open_channel
from layr8_actors.errors import Layr8Error
from layr8_actors.testing import CloudNode, FaultProxy
from tests.chaos.agent import PROTOCOLS, Agent, Tempo
from tests.chaos.ledger import Ledger
from tests.chaos.watched import stamped_channel
from tests.chaos.weather import Weather

__all__ = ("REAL", "VIRTUAL", "ChaosFailed", "Heap", "World", "open_descriptors")

VIRTUAL = Tempo(
    heartbeat=30.0, reply=15.0, dial=10.0, backoff=Backoff(initial=1.0, maximum=30.0), idle=60.0, longest=40.0,
    pause=12.0, pace=3.0, calm=600.0,
)  # fmt: skip
"""The package's own deadlines; minutes of it take a second."""

REAL = Tempo(
    heartbeat=1.0, reply=2.0, dial=1.0, backoff=Backoff(initial=0.1, maximum=1.0), idle=2.5, longest=1.5,
    pause=0.4, pace=0.05, calm=30.0,
)  # fmt: skip
"""Deadlines short enough for a minute to hold some hundred faults."""

AGENTS = 4
PORTS = range(20_000, 32_000)  # below those that Linux gives to whoever dials
EVENTS_KEPT = 400


class ChaosFailed(AssertionError):
    """Something did not hold; the text has the seed, what was violated, and the events that led there."""


class Heap:
    """What the process holds, at moments when all is calm."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.resident: list[int] = []

    def sample(self) -> None:
        """Collect garbage and look."""
        gc.collect()
        self.blocks.append(sys.getallocatedblocks())
        statm = Path("/proc/self/statm")
        self.resident.append(int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0)


def open_descriptors() -> int:
    """Of this process; 0 where the system does not show them."""
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


class World:
    """One run.

    Args:
        seed: of all that is drawn.
        memory: over memory streams, else over TCP.
        tempo: its deadlines.
        heap: is sampled whenever all is calm.
    """

    def __init__(self, seed: int, *, memory: bool, tempo: Tempo, heap: Heap | None = None) -> None:
        self.seed = seed
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.restarts = 0
        self.links = 0
        self.rounds = 0
        self.tasks_left = 0
        self.clock = 0.0
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._fingerprint = hashlib.sha256()
        self._memory = memory
        self._tempo = tempo
        self._heap = heap

    @property
    def fingerprint(self) -> str:
        """Of all events, with their times: the same for a run that is the same."""
        return self._fingerprint.hexdigest()[:16]

    def log(self, text: str) -> None:
        """Write down what happened."""
        line = f"{trio.current_time():10.3f} {text}"
        self.events.append(line)
        self._fingerprint.update(line.encode())

    async def run(self, seconds: float, round_of: float) -> None:
        """Blow for so long, in rounds, and close the books after each.

        Args:
            seconds: of the run's clock, the calms between the rounds not counted.
            round_of: seconds of one round.

        Raises:
            ChaosFailed: something did not hold.
        """
        before = trio.lowlevel.current_statistics().tasks_living
        began = trio.current_time()
        try:
            async with self._agents() as (node, proxy, agents):
                weather = Weather(str(self.seed), self._tempo, node, proxy, agents, self.log)
                end = trio.current_time() + seconds
                while self.rounds == 0 or trio.current_time() < end:
                    self.rounds += 1
                    await self._round(weather, agents, node, round_of)
                    self.faults = weather.done
                    if self._heap is not None:
                        self._heap.sample()
            self._count(agents)
            self.tasks_left = trio.lowlevel.current_statistics().tasks_living - before
            sockets = len(node.connections) + len(proxy.connections)
            books = self.ledger.handed_over + self.ledger.cut_off + self.ledger.ignored
            if books != self.ledger.pushes:
                self.ledger.violations.append(f"{self.ledger.pushes} messages were pushed, {books} are accounted for")
            if self.tasks_left or sockets:
                self.ledger.violations.append(f"at the end {self.tasks_left} tasks and {sockets} sockets were left")
        except ChaosFailed:
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self.ledger.violations.append(f"{type(error).__name__} came out: {error}\n{trace}")
            raise self._failed() from error
        finally:
            self.clock = trio.current_time() - began
        if self.ledger.violations:
            raise self._failed()

    @contextlib.asynccontextmanager
    async def _agents(self) -> AsyncIterator[tuple[CloudNode, FaultProxy, list[Agent]]]:
        tempo = self._tempo
        async with contextlib.AsyncExitStack() as stack:
            node = await self._start_node(stack)
            proxy = await stack.enter_async_context(FaultProxy.around(node, seed=self.seed))
            agents = [Agent(number, str(self.seed), tempo, proxy, self.ledger, self.log) for number in range(AGENTS)]
            for agent in agents:
                agent.channel = await stack.enter_async_context(open_channel(agent.options))
                await agent.channel.connect(PROTOCOLS)
            yield node, proxy, agents

    async def _start_node(self, stack: contextlib.AsyncExitStack) -> CloudNode:
        """A node; over TCP on a port that no other program is given while the node is away."""
        random = Random()
        channels = {"plugins:": stamped_channel(self.ledger)}
        idle = self._tempo.idle
        while True:
            node = CloudNode(
                memory=self._memory,
                port=0 if self._memory else random.choice(PORTS),
                seed=self.seed,
                channels=channels,
                idle_timeout=idle,
                close_timeout=min(5.0, idle),
                frames_kept=10,
            )
            try:
                return await stack.enter_async_context(node)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise

    async def _round(self, weather: Weather, agents: list[Agent], node: CloudNode, seconds: float) -> None:
        over = trio.Event()
        async with trio.open_nursery() as talking:
            for agent in agents:
                others = [other for other in agents if other is not agent]
                talking.start_soon(agent.talk, others, over)
            talking.start_soon(self._watch, over, talking.cancel_scope)
            await weather.blow(seconds)
            with trio.move_on_after(self._tempo.calm) as scope:
                for agent in agents:
                    await self._well_again(agent)
                over.set()
                while self.ledger.open:
                    await trio.sleep(self._tempo.pace)
            if scope.cancelled_caught:
                waiting = [f"{agent.name} {agent.channel.state}" for agent in agents]
                self.ledger.violations.append(f"{self._tempo.calm:g} s of calm were not enough: {waiting}")
                talking.cancel_scope.cancel()
        if self.ledger.violations:
            raise self._failed()
        await self._settle(agents)

    async def _watch(self, over: trio.Event, scope: trio.CancelScope) -> None:
        while not over.is_set():
            self.ledger.violations.extend(
                f"send {wire_id} hangs" for wire_id in self.ledger.hanging(trio.current_time())
            )
            if self.ledger.violations:
                scope.cancel()
            with trio.move_on_after(self._tempo.heartbeat / 4):
                await over.wait()

    async def _well_again(self, agent: Agent) -> None:
        """Wait until an agent is joined and answered."""
        while True:
            await agent.channel.connect(PROTOCOLS)
            try:
                if (await agent.channel.send_msg("dispatch_reply", {})).ok:
                    return
            except Layr8Error:
                await trio.sleep(self._tempo.pace)  # what went wrong before the calm is only noticed now

    async def _settle(self, agents: list[Agent]) -> None:
        def living() -> dict[str, int]:
            sockets = {agent.did: agent.connector.socket for agent in agents}
            return {did: socket for did, socket in sockets.items() if socket is not None}

        with trio.move_on_after(self._tempo.calm):
            while self.ledger.unsettled(living()):
                await trio.sleep(self._tempo.pace)
        ignored = {agent.did: agent.channel.statistics().frames_ignored for agent in agents}
        self.ledger.settle(living(), ignored)
        if self.ledger.violations:
            raise self._failed()

    def _count(self, agents: list[Agent]) -> None:
        for agent in agents:
            self.recoveries += agent.recoveries.times
            self.restarts += agent.restarts
            self.links += agent.channel.statistics().links_opened

    def _failed(self) -> ChaosFailed:
        mode = "virtual" if self._memory else "tcp"
        lines = [f"chaos ({mode}) failed; seed {self.seed}"]
        lines += [f"  VIOLATED: {text}" for text in self.ledger.violations[:20]]
        lines += [f"  the last {len(self.events)} events:", *(f"    {line[:300]}" for line in self.events)]
        return ChaosFailed("\n".join(lines))
