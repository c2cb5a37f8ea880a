"""What goes wrong in chaos, drawn from a seed: one thing after another, many of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Literal

import trio

from layr8_actors.errors import ActorNotRunning, NotConnected
from layr8_actors.testing import CloudNode, FaultProxy
from tests.chaos.agent import Agent, Tempo

__all__ = ("Weather",)

ACTORS = ("inbox", "router", "connection", "heartbeat", "reconnector")
DIRECTIONS: tuple[Literal["to_node", "to_client"], ...] = ("to_node", "to_client")
NODE_FAULTS = (
    "refuse_upgrades",
    "ignore_upgrades",
    "refuse_joins",
    "ignore_joins",
    "delay_joins",
    "drop_replies",
    "delay_replies",
    "repeat_replies",
    "ignore_heartbeats",
)


class Weather:
    """Faults of actors, callers, callbacks, connections and the node.

    Args:
        seed: of all that is drawn.
        tempo: how long things last.
        node: the node.
        proxy: the network before it.
        agents: whose actors, callers and callbacks are hit.
        log: is told what is done.
    """

    def __init__(
        self,
        seed: str,
        tempo: Tempo,
        node: CloudNode,
        proxy: FaultProxy,
        agents: list[Agent],
        log: Callable[[str], None],
    ) -> None:
        self.done: Counter[str] = Counter()
        self._random = Random(f"{seed}/weather")
        self._tempo = tempo
        self._node = node
        self._proxy = proxy
        self._agents = agents
        self._log = log
        self._kinds: list[Callable[[trio.Nursery], Any]] = [
            *(self._kill,) * 5,
            *(self._cut,) * 3,
            *(self._hold,) * 3,
            *(self._cancel,) * 2,
            self._slow_line,
            self._half_open,
            self._silence,
            self._dead_queue,
            self._restart,
            self._close,
            *(self._topic,) * 2,
            self._node_fault,
            *(self._flood,) * 3,
            self._raise,
            self._slow_user,
        ]

    async def blow(self, seconds: float) -> None:
        """Let things go wrong for so long; what lasts has ended when it returns."""
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            while trio.current_time() < end:
                await trio.sleep(self._random.uniform(0.0, self._tempo.pause))
                await self._random.choice(self._kinds)(nursery)
            nursery.cancel_scope.cancel()
        await self._calm()

    async def _calm(self) -> None:
        self._proxy.heal()
        self._proxy.answer_dials()
        for connection in self._proxy.connections:
            if connection.broken:  # a kernel would give it up, after minutes in which the node keeps the DID bound
                self._proxy.reset(connection)
        self._node.behave()
        self._node.resume()
        for channel in [channel for socket in self._node.connections for channel in socket.channels.values()]:
            channel.muted = False
        await self._node.start()
        for agent in self._agents:
            agent.raising = agent.slow = 0.0
        self._log("-- calm")

    def _note(self, kind: str, detail: object = "") -> None:
        self.done[kind] += 1
        self._log(f"-- {kind} {detail}")

    def _later(self, nursery: trio.Nursery, undo: Callable[[], object]) -> float:
        """Undo something after a while of its own."""
        seconds = self._random.uniform(0.0, self._tempo.longest)

        async def wait() -> None:
            await trio.sleep(seconds)
            undo()

        nursery.start_soon(wait)
        return round(seconds, 3)

    def _agent(self) -> Agent:
        return self._random.choice(self._agents)

    def _connection(self) -> Any:
        connections = self._proxy.connections
        return self._random.choice(connections) if connections else None

    # --- the program --------------------------------------------------------------------------------------------------

    async def _kill(self, nursery: trio.Nursery) -> None:
        agent, actor = self._agent(), self._random.choice(ACTORS)
        error = self._random.choice((None, RuntimeError("chaos")))
        try:
            agent.channel.supervisor.exit_child(actor, error)
        except ActorNotRunning:
            return  # it waits for its restart
        self._note("kill an actor", f"{agent.name} {actor}{'' if error is None else ' by an error'}")

    async def _cancel(self, nursery: trio.Nursery) -> None:
        agent = self._agent()
        self._note("cancel callers", f"{agent.name} {agent.cancel_callers(2)}")

    async def _raise(self, nursery: trio.Nursery) -> None:
        agent = self._agent()
        agent.raising = 0.5
        seconds = self._later(nursery, lambda: setattr(agent, "raising", 0.0))
        self._note("raise in callbacks", f"{agent.name} {seconds} s")

    async def _slow_user(self, nursery: trio.Nursery) -> None:
        agent = self._agent()
        agent.slow = self._random.uniform(0.0, self._tempo.reply / 10)
        seconds = self._later(nursery, lambda: setattr(agent, "slow", 0.0))
        self._note("slow on_message", f"{agent.name} {seconds} s")

    # --- the network --------------------------------------------------------------------------------------------------

    async def _cut(self, nursery: trio.Nursery) -> None:
        connection = self._connection()
        if connection is None:
            return
        how = self._random.choice(("drop", "reset", "truncate", "truncate"))
        if how == "truncate":
            direction, reset = self._random.choice(DIRECTIONS), self._random.random() < 0.3
            self._proxy.truncate(direction, reset=reset, connection=connection)
            self._note("truncate", f"{connection.number} {direction}{' with RST' if reset else ''}")
        else:
            getattr(self._proxy, how)(connection)
            self._note(how, connection.number)

    async def _hold(self, nursery: trio.Nursery) -> None:
        connection = self._connection() if self._random.random() < 0.7 else None
        direction = self._random.choice((None, *DIRECTIONS))
        self._proxy.stall(direction=direction, connection=connection)
        seconds = self._later(nursery, lambda: self._heal(connection))
        self._note("stall", f"{'all' if connection is None else connection.number} {direction or 'both'} {seconds} s")

    def _heal(self, connection: Any) -> None:
        if connection is None or connection.live:
            self._proxy.heal(connection)
            self._log(f"-- heal {'all' if connection is None else connection.number}")

    async def _slow_line(self, nursery: trio.Nursery) -> None:
        connection = self._connection()
        kind = self._random.choice(("delay", "throttle", "slow reader"))
        match kind:
            case "delay":
                latency = self._random.uniform(0.0, self._tempo.reply / 5)
                self._proxy.delay(latency, jitter=latency, connection=connection)
            case "throttle":
                self._proxy.throttle(self._random.uniform(500, 50_000), connection=connection)
            case _:
                rate = self._random.choice((0.0, 500.0, 50_000.0))
                self._proxy.read_slowly(rate, direction=self._random.choice(DIRECTIONS), connection=connection)
        seconds = self._later(nursery, lambda: self._heal(connection))
        self._note(kind, f"{'all' if connection is None else connection.number} {seconds} s")

    async def _half_open(self, nursery: trio.Nursery) -> None:
        connection = self._connection()
        if connection is not None:
            gone: Literal["client", "node"] = self._random.choice(("client", "node"))
            self._proxy.half_open(gone, connection)
            self._note("half-open", f"{connection.number}, the {gone} is gone")

    async def _silence(self, nursery: trio.Nursery) -> None:
        connection = self._connection()
        if connection is not None:
            direction = self._random.choice(DIRECTIONS)
            self._proxy.silence(direction, connection=connection)
            self._note("silence", f"{connection.number} {direction}")

    async def _dead_queue(self, nursery: trio.Nursery) -> None:
        accepted = self._random.random() < 0.5
        await self._proxy.ignore_dials(accepted=accepted)
        seconds = self._later(nursery, self._proxy.answer_dials)
        self._note("dead accept queue", f"{'accepting' if accepted else 'not accepting'} {seconds} s")

    # --- the node -----------------------------------------------------------------------------------------------------

    async def _restart(self, nursery: trio.Nursery) -> None:
        abrupt, seconds = self._random.random() < 0.5, self._random.uniform(0.0, self._tempo.longest)
        self._note("restart the node", f"{'abruptly' if abrupt else 'in order'}, away {seconds:.3f} s")
        async with self._node.down(abrupt=abrupt):
            await trio.sleep(seconds)
        self._log("-- the node is back")

    async def _close(self, nursery: trio.Nursery) -> None:
        code = self._random.choice((1000, 1001, 1002, 1011, 1012))
        with_did = self._agent().did if self._random.random() < 0.7 else None
        if with_did is None or with_did in self._node.dids:
            self._node.close(code, did=with_did)
            self._note("close by the node", f"{code} {with_did or 'all'}")

    async def _topic(self, nursery: trio.Nursery) -> None:
        did = self._agent().did
        if did in self._node.dids:
            how = self._random.choice(("crash_topic", "close_topic", "forget_topic", "mute"))
            getattr(self._node, how)(did)
            self._note(how, did)

    async def _node_fault(self, nursery: trio.Nursery) -> None:
        node, few = self._node, self._random.randint(1, 4)
        kind = self._random.choice(NODE_FAULTS)
        match kind:
            case "refuse_upgrades" | "ignore_upgrades" | "ignore_joins" | "drop_replies":
                getattr(node, kind)(count=few)
            case "refuse_joins":
                node.refuse_joins("e.connect.plugin.failed: protocols_already_bound", count=few)
            case "delay_joins" | "delay_replies":
                getattr(node, kind)(self._random.uniform(0.0, self._tempo.dial * 1.5), count=few)
            case "repeat_replies":
                node.repeat_replies(3, count=few)
            case _:
                node.ignore_heartbeats()
                self._later(nursery, lambda: node.ignore_heartbeats(False))
        self._note(kind, few)

    async def _flood(self, nursery: trio.Nursery) -> None:
        did, count = self._agent().did, self._random.randint(10, 300)
        size = self._random.choice((0, 100, 3000))
        if did in self._node.dids:
            nursery.start_soon(self._flood_one, did, count, size)
            self._note("flood", f"{did} {count} of {size} B")

    async def _flood_one(self, did: str, count: int, size: int) -> None:
        try:
            await self._node.flood(did, count, lambda number: {"id": f"flood-{number}", "body": "x" * size})
        except NotConnected:
            return  # it has gone between the drawing and the first message
