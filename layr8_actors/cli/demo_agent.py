"""One of the demo's two agents: a channel, lanes that send numbered messages, and receipts for those that come in."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import trio

from ..channel import Callbacks, Channel, ChannelOptions
from ..channel.events import LinkLost, TopicJoined, TopicLost
from ..errors import Disconnected, NotConnected, ReplyTimeout
from ..otp import Backoff
from ..otp.events import ChildRestarted
from ..telemetry import Event
from .demo_report import AgentReport, Recoveries
from .demo_screen import Screen
from .event_text import event_text
from .ledger import Ledger

__all__ = ("BACKOFF", "HEARTBEAT_INTERVAL", "Agent", "Marks")

PROTOCOL = "https://layr8.example/protocols/demo/1.0"
NUMBERED = f"{PROTOCOL}/numbered"
RECEIPT = f"{PROTOCOL}/receipt"

BACKOFF = Backoff(initial=0.2, maximum=1.0)
HEARTBEAT_INTERVAL = 1.0

LANES = 4  # numbers that an agent has under way at a time
PACE = 0.02  # seconds between two numbers of a lane, so that the demo does not occupy a whole core
RECEIPT_TIMEOUT = 1.0  # seconds after which a number without a receipt is sent again
RETRY_AFTER = 0.1  # seconds after which a send that failed is tried again
RECEIPTS_QUEUED = 256  # more than the lanes can have under way; a receipt without room is as good as lost


class CallbackRaised(Exception):
    """What the demo's on_message raises when it is told to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """Where an agent stands, to compare with where it stood before a fault.

    Args:
        joined: whether the channel is joined now.
        link: the number of its socket, or ``None``.
        joins: joins acknowledged so far.
        reconnects: calls of on_reconnect so far.
        callbacks_failed: callbacks that raised so far.
        confirmed: its numbers for which a receipt came, so far.
        restarts: of its actors so far, by id.
    """

    joined: bool
    link: int | None
    joins: int
    reconnects: int
    callbacks_failed: int
    confirmed: int
    restarts: Mapping[str, int]


class Agent:
    """An agent that talks to one peer.

    Args:
        name: for people, and part of the ids of its messages.
        did: its own.
        peer_did: the peer's.
        url: the node's.
        ledger: what it writes down.
        screen: is told what happens.
        changed: called after everything that may change what somebody waits for.
    """

    def __init__(
        self, name: str, did: str, peer_did: str, url: str, ledger: Ledger, screen: Screen, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.did = did
        self.raise_next = False
        self.options = ChannelOptions(
            ws_url=url,
            api_key="demo-key",
            agent_did=did,
            callbacks=Callbacks(self._on_message, self._on_disconnect, self._on_reconnect),
            backoff=BACKOFF,
            heartbeat_interval=HEARTBEAT_INTERVAL,
            on_event=self._on_event,
        )
        self.channel: Channel | None = None
        self._peer_did = peer_did
        self._ledger = ledger
        self._screen = screen
        self._changed = changed
        self._recoveries = Recoveries()
        self._restarts: Counter[str] = Counter()
        self._disconnects = 0
        self._reconnects = 0
        self._joins = 0
        self._confirmed = 0
        self._finishing = False
        self._receipt_of: dict[int, trio.Event] = {}
        self._receipts_due, self._receipts = trio.open_memory_channel[int](RECEIPTS_QUEUED)

    def marks(self) -> Marks:
        """Where the agent stands now."""
        channel = self._running()
        statistics = channel.statistics()
        return Marks(
            joined=channel.state.joined and not self._recoveries.down,
            link=statistics.link,
            joins=self._joins,
            reconnects=self._reconnects,
            callbacks_failed=statistics.callbacks_failed,
            confirmed=self._confirmed,
            restarts=dict(self._restarts),
        )

    def crash(self, actor: str) -> None:
        """Make one of the channel's actors crash at its next checkpoint.

        Args:
            actor: its id.
        """
        self._running().supervisor.exit_child(actor, RuntimeError("injected by the demo"))

    def finish(self) -> None:
        """Begin with no further number; :meth:`run` returns when those under way are confirmed."""
        self._finishing = True

    def report(self, recipient: str, living: Collection[int]) -> AgentReport:
        """What it went through.

        Args:
            recipient: the peer's name.
            living: numbers of the sockets that are open at the end.
        """
        statistics = self._running().statistics()
        return AgentReport(
            name=self.name,
            account=self._ledger.account(self.name, recipient, living),
            restarts=dict(self._restarts),
            drops=statistics.drops,
            disconnects=self._disconnects,
            reconnects=self._reconnects,
            recoveries=tuple(self._recoveries.times),
            callbacks_failed=statistics.callbacks_failed,
        )

    def settled(self) -> bool:
        """True when every loss of the connection was told to the callbacks, and made good."""
        drops = self._running().statistics().drops
        return not self._recoveries.down and drops == self._disconnects == self._reconnects

    def _running(self) -> Channel:
        assert self.channel is not None
        return self.channel

    # --- sending ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send numbers until :meth:`finish`, and receipts until it is cancelled."""
        async with trio.open_nursery() as receipts:
            receipts.start_soon(self._send_receipts)
            async with trio.open_nursery() as lanes:
                for _ in range(LANES):
                    lanes.start_soon(self._lane)
            self._changed()
            await trio.sleep_forever()  # the peer may still need our receipts

    @property
    def confirmed_all(self) -> bool:
        """True when no number is under way."""
        return self._finishing and not self._receipt_of

    async def _lane(self) -> None:
        while not self._finishing:
            number = self._ledger.begin(self.name)
            receipt = self._receipt_of[number] = trio.Event()
            attempt = 0
            while not receipt.is_set():
                attempt += 1
                sent = await self._send_number(number, attempt)
                with trio.move_on_after(RECEIPT_TIMEOUT if sent else RETRY_AFTER):
                    await receipt.wait()
            del self._receipt_of[number]
            self._confirmed += 1
            self._changed()
            await trio.sleep(PACE)

    async def _send_number(self, number: int, attempt: int) -> bool:
        wire_id = self._ledger.attempt(self.name, number, attempt)
        try:
            reply = await self._running().send_msg("message", self._plaintext(wire_id, NUMBERED, number))
        except (NotConnected, Disconnected, ReplyTimeout):
            # The channel repeats nothing by itself: only its user knows that a number may safely be sent again.
            self._ledger.failed(wire_id)
            return False
        self._ledger.replied(wire_id, ok=reply.ok)
        return reply.ok

    async def _send_receipts(self) -> None:
        async for number in self._receipts:
            wire_id = self._ledger.receipt(self.name)
            try:
                await self._running().send_fire_and_forget("message", self._plaintext(wire_id, RECEIPT, number))
            except (NotConnected, Disconnected, ReplyTimeout):
                continue  # the peer sends the number again, and gets another receipt

    def _plaintext(self, wire_id: str, message_type: str, number: int) -> dict[str, Any]:
        return {
            "id": wire_id,
            "type": message_type,
            "from": self.did,
            "to": [self._peer_did],
            "body": {"number": number},
        }

    # --- the callbacks ------------------------------------------------------------------------------------------------

    def _on_message(self, payload: Any) -> None:
        plaintext = payload["plaintext"]
        number = plaintext["body"]["number"]
        self._ledger.handed(plaintext["id"], self.name)
        if plaintext["type"] == RECEIPT:
            receipt = self._receipt_of.get(number)
            if receipt is not None:
                receipt.set()
        else:
            try:
                self._receipts_due.send_nowait(number)
            except trio.WouldBlock:
                self._screen.event(self.name, "has no room for a receipt; the peer will ask for it again")
        self._changed()
        if self.raise_next:
            self.raise_next = False
            raise CallbackRaised("as the demo asked it to")

    def _on_disconnect(self, error: Exception) -> None:
        self._disconnects += 1
        self._screen.event(self.name, f"on_disconnect({type(error).__name__})")
        self._changed()

    async def _on_reconnect(self) -> None:
        self._reconnects += 1
        self._screen.event(self.name, "on_reconnect()")
        self._changed()

    def _on_event(self, event: Event) -> None:
        match event:
            case LinkLost() | TopicLost():
                self._recoveries.lost(event.at)
            case TopicJoined():
                self._joins += 1
                self._recoveries.joined(event.at)
            case ChildRestarted(id=actor):
                self._restarts[actor] += 1
            case _:
                pass  # shown, but not counted
        text = event_text(event)
        if text is not None:
            self._screen.event(self.name, text)
        self._changed()
