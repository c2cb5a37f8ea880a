"""One agent of chaos: a channel, lanes that send numbered messages, and callbacks that are slow and raise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

import trio

from layr8_actors import Backoff, Callbacks, Channel, ChannelClosed, ChannelOptions, Disconnected, NotConnected
from layr8_actors.channel.events import LinkLost, TopicJoined, TopicLost
from layr8_actors.cli.demo_report import Recoveries
from layr8_actors.errors import ReplyTimeout, TopicDown
from layr8_actors.otp.events import ChildRestarted
from layr8_actors.telemetry import Event
from layr8_actors.testing import FaultProxy
from tests.chaos.ledger import Ledger, Outcome, Stamp
from tests.chaos.watched import WatchedConnector

__all__ = ("PROTOCOLS", "Agent", "CallbackRaised", "Tempo")

PROTOCOLS = ["https://layr8.example/protocols/chaos/1.0"]
LANES = 3
SLACK = 1.0
"""Seconds beyond its own deadlines after which a caller counts as hung; on real time the machine may be busy."""


class CallbackRaised(Exception):
    """What a callback of an agent raises."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tempo:
    """The deadlines of a run: the package's own in virtual time, short ones on real time.

    Args:
        heartbeat: the interval, in seconds.
        reply: reply_timeout.
        dial: connect_timeout and join_timeout.
        backoff: between attempts.
        idle: after which the node ends a silent socket.
        longest: that a fault lasts.
        pause: the longest between two faults.
        pace: the longest between two messages of a lane.
        calm: seconds within which all must be well again when the faults end.
    """

    heartbeat: float
    reply: float
    dial: float
    backoff: Backoff
    idle: float
    longest: float
    pause: float
    pace: float
    calm: float


class Agent:
    """An agent that talks to others through the proxy.

    Args:
        number: of the agent, from 0.
        seed: of the run.
        tempo: of the run.
        proxy: what it dials.
        ledger: what it writes down.
        log: is told what happens.
    """

    def __init__(
        self, number: int, seed: str, tempo: Tempo, proxy: FaultProxy, ledger: Ledger, log: Callable[[str], None]
    ) -> None:
        self.name = f"a{number}"
        self.did = f"did:web:node.test:{self.name}"
        self.connector = WatchedConnector(proxy.connector, ledger, self.did)
        self.recoveries = Recoveries()
        self.restarts = 0
        self.raising = 0.0  # the share of its callbacks that raise
        self.slow = 0.0  # seconds that its on_message takes
        self.channel: Channel
        self._tempo = tempo
        self._ledger = ledger
        self._log = log
        self._seed = seed
        self._random = Random(f"{seed}/{self.name}")
        self._calling: dict[trio.CancelScope, None] = {}
        self._join = ""
        self.options = ChannelOptions(
            ws_url=proxy.url,
            api_key="chaos-key",
            agent_did=self.did,
            callbacks=Callbacks(self._on_message, self._on_disconnect, self._on_reconnect),
            heartbeat_interval=tempo.heartbeat,
            connect_timeout=tempo.dial,
            join_timeout=tempo.dial,
            reply_timeout=tempo.reply,
            backoff=tempo.backoff,
            inbox_capacity=16,
            outbox_capacity=8,
            max_restarts=10_000,  # the budget is another test's: here every crash has to be survived
            max_seconds=1_000_000.0,
            transport=self.connector,
            on_event=self._on_event,
        )

    # --- sending ------------------------------------------------------------------------------------------------------

    async def talk(self, others: list[Agent], over: trio.Event) -> None:
        """Send numbered messages to the others until ``over``, in several lanes."""
        async with trio.open_nursery() as lanes:
            for lane in range(LANES):
                lanes.start_soon(self._lane, lane, others, over)

    async def _lane(self, lane: int, others: list[Agent], over: trio.Event) -> None:
        random = Random(f"{self._seed}/{self.name}/{lane}")
        number = self._ledger.began
        while not over.is_set():
            number += 1
            patience = random.uniform(0.0, self._tempo.reply / 4) if random.random() < 0.1 else self._tempo.reply * 2
            size = random.choice((10, 100, 100, 1000, 20_000))
            await self._send(f"{self.name}-{lane}-{number}", random.choice(others).did, size, patience)
            pace = self._tempo.pace * (1 if self.channel.state.joined else 5)
            with trio.move_on_after(random.uniform(0.0, pace)):
                await over.wait()

    async def _send(self, wire_id: str, to: str, size: int, patience: float) -> None:
        plaintext = {"id": wire_id, "type": PROTOCOLS[0], "from": self.did, "to": [to], "body": {"text": "x" * size}}
        outcome = Outcome.CANCELLED
        self._ledger.send_began(wire_id, trio.current_time() + self._tempo.reply + SLACK)
        with trio.move_on_after(patience) as scope:
            self._calling[scope] = None
            try:
                reply = await self.channel.send_msg("message", plaintext)
                outcome = Outcome.ANSWERED if reply.ok else Outcome.REFUSED
            except NotConnected:
                outcome = Outcome.UNWRITTEN
            except (Disconnected, ReplyTimeout) as error:
                outcome = Outcome.WRITTEN if error.written else Outcome.UNWRITTEN
            except ChannelClosed:
                outcome = Outcome.WRITTEN  # only where the whole run is being cancelled
            finally:
                self._calling.pop(scope, None)
        self._ledger.send_ended(wire_id, outcome, trio.current_time())

    def cancel_callers(self, count: int) -> int:
        """Cancel some of those who wait in send_msg; returns how many there were."""
        scopes = list(self._calling)[:count]
        for scope in scopes:
            scope.cancel()
        return len(scopes)

    # --- callbacks ----------------------------------------------------------------------------------------------------

    async def _on_message(self, payload: Any) -> None:
        socket, join, number = payload["context"]["stamp"]
        self._ledger.handed(self.did, Stamp(socket, join, number))
        if self.slow:
            await trio.sleep(self.slow)
        self._maybe_raise()

    def _on_disconnect(self, error: Exception) -> None:
        self._ledger.disconnected(self.did)
        self._maybe_raise()

    async def _on_reconnect(self) -> None:
        self._ledger.reconnected(self.did)
        await trio.lowlevel.checkpoint()
        self._maybe_raise()

    def _maybe_raise(self) -> None:
        if self._random.random() < self.raising:
            raise CallbackRaised("as chaos asked it to")

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case LinkLost():
                self.recoveries.lost(event.at)
            case TopicLost(error=error):
                self.recoveries.lost(event.at)
                if isinstance(error, TopicDown) and "in a row" in str(error):
                    self._ledger.gave_up(self.did, self._join)
            case TopicJoined(join_ref=join_ref):
                self.recoveries.joined(event.at)
                self._ledger.joined(self.did, join_ref)
                self._join = join_ref
            case ChildRestarted():
                self.restarts += 1
            case _:
                pass  # logged, and not counted
        self._log(f"{self.name} {event.describe()}")
