"""Where the ledger's entries of the wire come from: what the node pushes, and what a channel reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from layr8_actors.errors import TransportClosed
from layr8_actors.phoenix import Ref
from layr8_actors.testing import JoinReply, PluginChannel
from layr8_actors.transport import Connector, Endpoint, Transport
from tests.chaos.ledger import Ledger, Stamp

__all__ = ("WatchedConnector", "stamped_channel")

ABNORMAL = 1006


def stamped_channel(ledger: Ledger) -> type[PluginChannel]:
    """A plugin's topic whose node stamps each message that it pushes, and writes down what it gets and pushes."""

    class StampedChannel(PluginChannel):
        async def join(self, payload: Any) -> JoinReply:
            outcome = await super().join(payload)
            if outcome.status == "ok":
                outcome.response["socket"] = self.socket.number
            return outcome

        def handle_in(self, event: str, payload: Any, ref: Ref) -> None:
            if event == "message":
                ledger.node_got(payload["id"])
            super().handle_in(event, payload, ref)

        def deliver(self, plaintext: Any, context: Mapping[str, Any] | None = None) -> bool:
            assert self.did is not None
            socket = self.socket.number
            stamp = Stamp(socket, str(self.join_ref), ledger.next_number(self.did, socket))
            sent = super().deliver(plaintext, {"stamp": [stamp.socket, stamp.join, stamp.number]})
            if sent:
                ledger.pushed(self.did, stamp)
            return sent

    return StampedChannel


class WatchedConnector:
    """Opens transports of one channel and writes down what is read from them.

    Args:
        connector: opens them.
        ledger: where it is written down.
        did: whose channel it is.
    """

    name = "watched"

    def __init__(self, connector: Connector, ledger: Ledger, did: str) -> None:
        self._connector = connector
        self._ledger = ledger
        self._did = did
        self._last: WatchedTransport | None = None

    @property
    def socket(self) -> int | None:
        """The node's number of the socket in use, as far as the node has told it."""
        return None if self._last is None or self._last.over else self._last.socket

    async def open(self, nursery: trio.Nursery, endpoint: Endpoint) -> Transport:
        transport = await self._connector.open(nursery, endpoint)
        if self._last is not None:
            self._last.end(whole=False)  # of a connection actor that crashed, nobody read to the end
        self._last = WatchedTransport(transport, self._ledger, self._did)
        return self._last


class WatchedTransport:
    """One transport, and the entries of what is read from it."""

    name = "watched"

    def __init__(self, transport: Transport, ledger: Ledger, did: str) -> None:
        self._transport = transport
        self._ledger = ledger
        self._did = did
        self._ended_by_us = False
        self.socket: int | None = None
        self.over = False

    async def receive(self) -> list[str | bytes]:
        try:
            batch = await self._transport.receive()
        except TransportClosed as error:
            self.end(whole=error.code != ABNORMAL and not self._ended_by_us)
            raise
        for data in batch:
            self._read(json.loads(data))
        return batch

    def _read(self, frame: list[Any]) -> None:
        _, _, _, event, payload = frame
        if event == "phx_reply":
            response = payload["response"]
            if "socket" in response:
                self.socket = int(response["socket"])
        elif event == "message":
            socket, join, number = payload["context"]["stamp"]
            self.socket = socket  # also where the reply to the join never came
            self._ledger.read(self._did, Stamp(socket, join, number))

    def end(self, *, whole: bool) -> None:
        if not self.over:
            self.over = True
            if self.socket is not None:
                self._ledger.socket_ended(self._did, self.socket, whole=whole)

    async def send(self, batch: Sequence[str | bytes]) -> None:
        await self._transport.send(batch)

    def send_nowait(self, message: str | bytes) -> bool:
        return self._transport.send_nowait(message)

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        self._ended_by_us = True
        await self._transport.close(code, reason, timeout=timeout)

    def abort(self) -> None:
        self._ended_by_us = True
        self._transport.abort()
