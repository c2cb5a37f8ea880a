"""The demo: two agents talk through a node over a real socket while everything that can fail does, one after another.

Each fault is followed until it is healed and numbers flow again in both directions; a deadline over all of it says
which one was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import trio

from ..channel import open_channel
from ..errors import Layr8Error
from ..testing import CloudNode, PluginChannel
from .demo_agent import BACKOFF, HEARTBEAT_INTERVAL, PROTOCOL, Agent, Marks
from .demo_report import Report
from .demo_screen import Screen
from .job import FAILED, OK
from .ledger import Ledger

__all__ = ("DEADLINE", "Fault", "Pulse", "play_demo")

DEADLINE = 17.0
"""Seconds: the demo promises 20, and leaves some to start Python and to close the channels."""

SETTLE = 3.0  # seconds at the end for what is still on its way
CONFIRMED_BETWEEN = 5  # numbers of each agent that must be confirmed after a fault before the next one
PAUSE = 0.25  # seconds between two faults, so that people can follow
NODE_DOWN = 0.5  # seconds that the node is away when it restarts

DID = {"alice": "did:web:node.test:alice", "bob": "did:web:node.test:bob"}


class Pulse:
    """Wakes whoever waits for a condition, whenever something changed."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def changed(self) -> None:
        """Look again."""
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition()`` is true. Checkpoints."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Args:
        title: what, for people.
        agents: whom it hits.
        strike: makes it happen.
        healed: compares where an agent stood before and stands now.
        keeps_socket: whether the agents must be on the same socket afterwards.
    """

    title: str
    agents: tuple[Agent, ...]
    strike: Callable[[], Awaitable[None]]
    healed: Callable[[Marks, Marks], bool]
    keeps_socket: bool


def _reconnected(before: Marks, now: Marks) -> bool:
    return now.joined and now.joins > before.joins and now.reconnects > before.reconnects


def _at_once(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def strike() -> None:
        await trio.lowlevel.checkpoint()
        act()

    return strike


def _crash(agent: Agent, actor: str) -> Fault:
    def restarted(before: Marks, now: Marks) -> bool:
        return now.restarts.get(actor, 0) > before.restarts.get(actor, 0)

    if actor == "connection":
        return Fault(
            f"{agent.name}'s connection crashes: restarted, a new socket is dialled",
            (agent,),
            _at_once(lambda: agent.crash(actor)),
            lambda before, now: restarted(before, now) and _reconnected(before, now),
            keeps_socket=False,
        )
    return Fault(
        f"{agent.name}'s {actor} crashes: restarted alone, the socket is kept",
        (agent,),
        _at_once(lambda: agent.crash(actor)),
        restarted,
        keeps_socket=True,
    )


def plan(node: CloudNode, alice: Agent, bob: Agent) -> list[Fault]:
    """Return the faults in order, spread over both agents so that neither spends its restart budget.

    Args:
        node: which both are joined to.
        alice: the one.
        bob: the other.
    """

    async def restart_node() -> None:
        async with node.down():
            await trio.sleep(NODE_DOWN)

    def raise_in_callback() -> None:
        bob.raise_next = True

    def drop(title: str, agent: Agent, act: Callable[[], None], *, keeps_socket: bool = False) -> Fault:
        return Fault(title, (agent,), _at_once(act), _reconnected, keeps_socket)

    return [
        drop("the node kills alice's socket", alice, lambda: node.drop(alice.did, reset=True)),
        _crash(bob, "inbox"),
        _crash(alice, "router"),
        _crash(bob, "heartbeat"),
        _crash(alice, "reconnector"),
        _crash(bob, "connection"),
        drop(
            "alice's topic crashes on the node: joined again on the same socket",
            alice,
            lambda: node.crash_topic(alice.did),
            keeps_socket=True,
        ),
        Fault(
            "bob's on_message raises: reported, the next message is delivered",
            (bob,),
            _at_once(raise_in_callback),
            lambda before, now: now.callbacks_failed > before.callbacks_failed,
            keeps_socket=True,
        ),
        drop("the node closes bob's socket with 1000", bob, lambda: node.close(1000, did=bob.did)),
        drop("alice's socket goes silent: the heartbeat notices", alice, lambda: node.go_silent(alice.did)),
        Fault(f"the node restarts, and is away for {NODE_DOWN:g} s", (alice, bob), restart_node, _reconnected, False),
    ]


async def play_demo(screen: Screen, *, deadline: float = DEADLINE) -> int:
    """Play the demo.

    Args:
        screen: where to show it.
        deadline: seconds after which it is given up.

    Returns:
        The exit status: 0 only if the table at the end is right.

    Checkpoints; cancelled, it closes both channels and the node.
    """
    began = trio.current_time()
    scope = trio.CancelScope(deadline=began + deadline)
    ledger = Ledger(tuple(DID))
    pulse = Pulse()
    complaints: list[str] = []

    class BookkeepingChannel(PluginChannel):
        """Writes down what the node pushes, which the application cannot know."""

        def push(self, event: str, payload: Any) -> bool:
            pushed = super().push(event, payload)
            if pushed and event == "message":
                ledger.pushed(payload["plaintext"]["id"], self.socket.number)
            return pushed

    screen.say(
        f"two agents on an embedded node; backoff {BACKOFF.initial:g} s to {BACKOFF.maximum:g} s (default 1 s to "
        f"30 s), heartbeat every {HEARTBEAT_INTERVAL:g} s (default 30 s), all else as by default"
    )
    async with CloudNode(channels={"plugins:": BookkeepingChannel}) as node, AsyncExitStack() as stack:
        alice, bob = (
            Agent(name, DID[name], DID[peer], node.url, ledger, screen, pulse.changed)
            for name, peer in (("alice", "bob"), ("bob", "alice"))
        )
        agents = (alice, bob)
        for agent in agents:
            agent.channel = await stack.enter_async_context(open_channel(agent.options))
        screen.show([(agent.name, agent.channel) for agent in agents if agent.channel is not None])
        faults = plan(node, alice, bob)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(screen.animate)
                with scope:
                    await _play(screen, agents, faults, pulse, ledger, node, complaints)
                nursery.cancel_scope.cancel(reason="the story is told")
        except* Layr8Error as group:
            complaints += [f"{type(error).__name__}: {error}" for error in _leaves(group)]
        if scope.cancelled_caught:
            complaints.append(f"not done within {deadline:g} s")
        living = {socket.number for socket in node.connections}
        report = Report(
            agents=[alice.report("bob", living), bob.report("alice", living)],
            faults=len(faults),
            complaints=complaints,
            seconds=trio.current_time() - began,
        )
        problems = report.problems()
        screen.finish(report, problems)
    return FAILED if problems else OK


def _leaves(group: BaseExceptionGroup[Layr8Error]) -> Iterator[Layr8Error]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _play(
    screen: Screen,
    agents: tuple[Agent, Agent],
    faults: list[Fault],
    pulse: Pulse,
    ledger: Ledger,
    node: CloudNode,
    complaints: list[str],
) -> None:
    for agent in agents:
        assert agent.channel is not None
        await agent.channel.connect([PROTOCOL])
    async with trio.open_nursery() as nursery:
        for agent in agents:
            nursery.start_soon(agent.run)
        for number, fault in enumerate(faults, 1):
            await _numbers_flow(agents, pulse)
            await trio.sleep(PAUSE)
            screen.say(f"{number}. {fault.title}")
            # Taken back when it is healed; if the deadline comes first, it stands in the report.
            pending = f"fault {number} ({fault.title}) was not healed"
            complaints.append(pending)
            await _suffer(fault, pulse, complaints)
            complaints.remove(pending)
        await _numbers_flow(agents, pulse)
        screen.say("no more faults; the agents finish what they began")
        for agent in agents:
            agent.finish()
        await pulse.wait_for(lambda: all(agent.confirmed_all for agent in agents))
        nursery.cancel_scope.cancel(reason="everything is confirmed")

    def settled() -> bool:
        living = {socket.number for socket in node.connections}
        return not ledger.missing(living) and all(agent.settled() for agent in agents)

    with trio.move_on_after(SETTLE):  # what has not arrived by then is lost, and the table says so
        await pulse.wait_for(settled)


async def _suffer(fault: Fault, pulse: Pulse, complaints: list[str]) -> None:
    before = [agent.marks() for agent in fault.agents]
    await fault.strike()
    await pulse.wait_for(
        lambda: all(fault.healed(then, agent.marks()) for then, agent in zip(before, fault.agents, strict=True))
    )
    for then, agent in zip(before, fault.agents, strict=True):
        if fault.keeps_socket and agent.marks().link != then.link:
            complaints.append(f"{fault.title}: {agent.name} was on socket {then.link}, now on {agent.marks().link}")


async def _numbers_flow(agents: tuple[Agent, Agent], pulse: Pulse) -> None:
    before = [agent.marks().confirmed for agent in agents]
    await pulse.wait_for(
        lambda: all(
            agent.marks().confirmed >= confirmed + CONFIRMED_BETWEEN
            for agent, confirmed in zip(agents, before, strict=True)
        )
    )
