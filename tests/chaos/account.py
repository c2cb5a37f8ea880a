"""What a run of chaos adds up to, and the table that shows it."""

from __future__ import annotations

import dataclasses
import statistics
from array import array
from collections import Counter
from collections.abc import Sequence

from tests.chaos.ledger import Outcome
from tests.chaos.world import Heap, World

__all__ = ("Account", "table")

WARM_UP = 4
"""The first of the samples are not looked at: one in so many, while caches and the ledger's own memory fill."""

MOST_GROWTH = 8.0
"""MiB of resident memory by which a process may grow after its warm-up; what leaks per message grows without end."""

MOST_BLOCKS = 20_000
"""Blocks of memory, likewise; about one for each object. One that leaks with each message would pass it in a minute."""


@dataclasses.dataclass
class Account:
    """The sum over one or several runs, as plain data, so that it can come from another process.

    Args:
        mode: ``virtual`` or ``tcp``.
        runs: how many.
        wall: seconds on the wall.
        clock: seconds of the runs' own clocks.
        rounds: how often the books were closed.
        sends: calls of send_msg.
        outcomes: what became of them.
        pushed: messages that the node pushed into live joins.
        handed: messages that applications got, each once and in order.
        cut_off: messages that died with their socket, unread.
        ignored: messages under a join that the channel had given up.
        faults: what went wrong, by kind.
        restarts: of actors.
        links: sockets that were opened.
        recoveries: seconds from each loss of a join to the next one; packed, or they would look like a leak.
        tasks: that were left.
        descriptors: that were left.
        blocks: samples of allocated blocks.
        resident: samples of resident bytes.
        failure: what did not hold, in words.
    """

    mode: str
    runs: int = 0
    wall: float = 0.0
    clock: float = 0.0
    rounds: int = 0
    sends: int = 0
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
    pushed: int = 0
    handed: int = 0
    cut_off: int = 0
    ignored: int = 0
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    restarts: int = 0
    links: int = 0
    recoveries: array[float] = dataclasses.field(default_factory=lambda: array("d"))
    tasks: int = 0
    descriptors: int = 0
    blocks: list[int] = dataclasses.field(default_factory=list)
    resident: list[int] = dataclasses.field(default_factory=list)
    failure: str = ""

    def add(self, world: World, clock: float) -> None:
        """Add a run that has ended; ``clock`` is what it lasted, in seconds of its own clock."""
        ledger = world.ledger
        self.runs += 1
        self.clock += clock
        self.rounds += world.rounds
        self.sends += ledger.began
        self.outcomes = dict(
            Counter(self.outcomes) + Counter({outcome.value: count for outcome, count in ledger.outcomes.items()})
        )
        self.pushed += ledger.pushes
        self.handed += ledger.handed_over
        self.cut_off += ledger.cut_off
        self.ignored += ledger.ignored
        self.faults = dict(Counter(self.faults) + world.faults)
        self.restarts += world.restarts
        self.links += world.links
        self.recoveries.extend(world.recoveries)
        self.tasks += world.tasks_left

    def judge(self, heap: Heap) -> None:
        """Note what the process holds, and whether it has grown beyond the bounds or left descriptors."""
        self.blocks, self.resident = heap.blocks, heap.resident
        if self.failure:
            return
        if self.descriptors:
            self.failure = f"{self.descriptors} file descriptors were left"
        elif self.growth() > MOST_GROWTH or self.more_blocks() > MOST_BLOCKS:
            self.failure = (
                f"memory grew by {self.growth():.1f} MiB and {self.more_blocks()} blocks after the warm-up; "
                f"the last samples of blocks: {list(self.blocks)[-20:]}"
            )

    def growth(self) -> float:
        """MiB of resident memory from the end of the warm-up to the end."""
        return _risen(self.resident) / 2**20

    def more_blocks(self) -> int:
        """Allocated blocks, likewise."""
        return int(_risen(self.blocks))

    def recovery(self, share: float) -> float:
        """A percentile of the recoveries; 0 where there was none."""
        times = sorted(self.recoveries)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def _risen(samples: Sequence[int]) -> float:
    """How far the median of the last quarter lies above that of the first quarter after the warm-up."""
    warm = samples[len(samples) // WARM_UP :]
    quarter = max(1, len(warm) // 4)
    return statistics.median(warm[-quarter:]) - statistics.median(warm[:quarter]) if warm else 0.0


def table(accounts: Sequence[Account]) -> str:
    """The ledger, a column for each mode."""

    def row(name: str, cells: Sequence[object]) -> str:
        return f"  {name:34}" + "".join(f"{cell!s:>16}" for cell in cells)

    lines = [row("", [account.mode for account in accounts])]
    lines.append(row("runs / books closed", [f"{account.runs} / {account.rounds}" for account in accounts]))
    lines.append(row("wall / own clock, min", [f"{a.wall / 60:.1f} / {a.clock / 60:.1f}" for a in accounts]))
    lines.append(row("faults", [sum(account.faults.values()) for account in accounts]))
    lines.append(row("actor restarts", [account.restarts for account in accounts]))
    lines.append(row("sockets opened", [account.links for account in accounts]))
    lines.append(row("send_msg", [account.sends for account in accounts]))
    lines += [row(f"  {o.value}", [account.outcomes.get(o.value, 0) for account in accounts]) for o in Outcome]
    lines.append(row("  unaccounted", [account.sends - sum(account.outcomes.values()) for account in accounts]))
    lines.append(row("pushed by the node", [account.pushed for account in accounts]))
    lines.append(row("  handed over, once and in order", [account.handed for account in accounts]))
    lines.append(row("  cut off with a dead socket", [account.cut_off for account in accounts]))
    lines.append(row("  under a join given up", [account.ignored for account in accounts]))
    lost = [account.pushed - account.handed - account.cut_off - account.ignored for account in accounts]
    lines.append(row("  lost, doubled or disordered", lost))
    lines.append(row("recoveries", [len(account.recoveries) for account in accounts]))
    lines.append(row("  p50 / p99, s", [f"{a.recovery(0.5):.2f} / {a.recovery(0.99):.1f}" for a in accounts]))
    lines.append(row("left: tasks / descriptors", [f"{a.tasks} / {a.descriptors}" for a in accounts]))
    lines.append(row("grown after warm-up: MiB / blocks", [f"{a.growth():.1f} / {a.more_blocks()}" for a in accounts]))
    kinds = sorted({kind for account in accounts for kind in account.faults})
    lines.append("  faults by kind:")
    lines += [row(f"  {kind}", [account.faults.get(kind, 0) for account in accounts]) for kind in kinds]
    return "\n".join(lines)
