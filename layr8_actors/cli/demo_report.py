"""What the demo found, what is wrong with it, and the table that shows it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

from .ledger import Account

__all__ = ("ACTORS", "FOOTER", "AgentReport", "Recoveries", "Report")

ACTORS = ("inbox", "router", "connection", "heartbeat", "reconnector")
"""One of each kind is crashed."""

ENOUGH_NUMBERS = 50
"""Messages in each direction below which the table would show little."""

FOOTER = (
    "the agents repeat a number until its receipt comes, because a send is at most once: lost = never received, or "
    "pushed by the node and not handed over although its socket lived or a later one came; doubled = one push handed "
    "over twice; cut off = the unread end of a socket that died, sent again"
)


class Recoveries:
    """Measures from the loss of a join to the next one; one channel's."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._joined = False
        self._lost_at: float | None = None

    @property
    def down(self) -> bool:
        """True between a loss and the join that follows it."""
        return self._lost_at is not None

    def lost(self, at: float) -> None:
        """The link or the topic was lost; the failure of an attempt that follows is part of the same loss."""
        if self._joined and self._lost_at is None:
            self._lost_at = at

    def joined(self, at: float) -> None:
        """The node acknowledged a join."""
        self._joined = True
        if self._lost_at is not None:
            self.times.append(at - self._lost_at)
            self._lost_at = None


@dataclasses.dataclass(frozen=True, slots=True)
class AgentReport:
    """What one agent's channel went through.

    Args:
        name: the agent's.
        account: of the messages that it sent.
        restarts: of its actors, by id.
        drops: joined links and topics that were lost, as the channel counts them.
        disconnects: calls of on_disconnect.
        reconnects: calls of on_reconnect.
        recoveries: seconds from each loss to the next join.
        callbacks_failed: callbacks that raised.
    """

    name: str
    account: Account
    restarts: Mapping[str, int]
    drops: int
    disconnects: int
    reconnects: int
    recoveries: tuple[float, ...]
    callbacks_failed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The end of the demo.

    Args:
        agents: what each went through.
        faults: how many were planned.
        complaints: what the story itself found wrong, such as a fault that was not healed.
        seconds: how long it took.
    """

    agents: Sequence[AgentReport]
    faults: int
    complaints: Sequence[str]
    seconds: float

    def restarts(self, actor: str) -> int:
        """How often actors of that kind were restarted, over all agents."""
        return sum(agent.restarts.get(actor, 0) for agent in self.agents)

    @property
    def recoveries(self) -> list[float]:
        """Seconds from each loss to the next join, over all agents."""
        return [seconds for agent in self.agents for seconds in agent.recoveries]

    def problems(self) -> list[str]:
        """Everything because of which the demo fails; empty for a table that is right."""
        found = list(self.complaints)
        for agent in self.agents:
            found += [f"{agent.name}: {problem}" for problem in _problems_of(agent)]
        found += [f"no {actor} was restarted" for actor in ACTORS if not self.restarts(actor)]
        if not any(agent.callbacks_failed for agent in self.agents):
            found.append("no callback raised")
        if not self.recoveries:
            found.append("no connection was lost")
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a heading, then a label and one value for each agent and for both together."""
        accounts = [agent.account for agent in self.agents]
        accounts.append(sum(accounts, Account()))
        rows: list[tuple[str, ...]] = [("messages", *(f"from {agent.name}" for agent in self.agents), "total")]
        for label, field in _MESSAGE_ROWS:
            rows.append((label, *(str(getattr(account, field)) for account in accounts)))
        for actor in ACTORS:
            counts = [agent.restarts.get(actor, 0) for agent in self.agents]
            rows.append((f"restarts of {actor}", *map(str, counts), str(sum(counts))))
        for label, values in (
            ("connections lost", [agent.drops for agent in self.agents]),
            ("on_disconnect calls", [agent.disconnects for agent in self.agents]),
            ("on_reconnect calls", [agent.reconnects for agent in self.agents]),
            ("callbacks that raised", [agent.callbacks_failed for agent in self.agents]),
        ):
            rows.append((label, *map(str, values), str(sum(values))))
        times = [*(agent.recoveries for agent in self.agents), self.recoveries]
        rows.append(("median s to recover", *(_seconds(each, statistics.median) for each in times)))
        rows.append(("max s to recover", *(_seconds(each, max) for each in times)))
        return rows


_MESSAGE_ROWS = (
    ("numbered", "numbered"),
    ("sent", "sent"),
    ("answered", "answered"),
    ("refused, recipient away", "refused"),
    ("failed, typed error", "failed"),
    ("left waiting", "unanswered"),
    ("received once", "received_once"),
    ("repeats recognised", "repeats"),
    ("cut off with a socket", "cut_off"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("out of order", "disordered"),
)


def _seconds(times: Sequence[float], pick: Callable[[Sequence[float]], float]) -> str:
    return f"{pick(times):.2f}" if times else "-"


def _problems_of(agent: AgentReport) -> list[str]:
    account = agent.account
    found = []
    if account.numbered < ENOUGH_NUMBERS:
        found.append(f"only {account.numbered} messages, {ENOUGH_NUMBERS} are needed")
    if account.received_once != account.numbered:
        found.append(f"{account.numbered} messages, but {account.received_once} received once")
    if account.sent != account.answered + account.refused + account.failed:
        found.append(f"{account.sent} sends, but {account.unanswered} callers wait still")
    for label, count in (("lost", account.lost), ("doubled", account.doubled), ("out of order", account.disordered)):
        if count:
            found.append(f"{count} messages {label}")
    if not agent.drops == agent.disconnects == agent.reconnects == len(agent.recoveries):
        found.append(
            f"{agent.drops} connections lost, but on_disconnect was called {agent.disconnects} times, on_reconnect "
            f"{agent.reconnects} times, and it was joined again {len(agent.recoveries)} times"
        )
    return found
