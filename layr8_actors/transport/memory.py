"""Transports without a socket: two ends in one process that pass messages, for tests of what uses a transport."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import trio

from ..errors import ConnectFailed, TransportClosed
from .endpoint import Endpoint

__all__ = ("MemoryConnector", "MemoryTransport", "memory_pair")

Point = Literal["receive", "send", "close"]

_NAME = "memory"


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    code: int
    reason: str = ""
    detail: str = ""


class MemoryTransport:
    """One end of a :func:`memory_pair`; see :class:`layr8_actors.transport.Transport` for the contract.

    It has no wire: a write is never cut in two, so a cancelled ``send`` leaves the link usable, with the messages
    before the cancellation delivered. Closing is polite: what was sent before it is delivered.
    """

    name = _NAME

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._peer: MemoryTransport | None = None
        self._inbox: list[str | bytes] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._end: _End | None = None
        self._hung: dict[Point, trio.Event] = {}
        self._failing: dict[Point, _End] = {}

    # --- hooks for tests ---------------------------------------------------------------------------------------------

    def hang(self, point: Point) -> None:
        """Let every call of ``point`` wait, from now until :meth:`release`, a close deadline, or an abort."""
        self._hung.setdefault(point, trio.Event())

    def release(self, point: Point) -> None:
        """Undo :meth:`hang`; nothing happens if it does not hang."""
        if point in self._hung:
            self._hung.pop(point).set()

    def fail(self, point: Point, code: int = 1006, reason: str = "", detail: str = "injected") -> None:
        """Break the link, on both sides, at the next call of ``point``, which raises ``TransportClosed``."""
        self._failing[point] = _End(code, reason, detail)

    # --- the port ----------------------------------------------------------------------------------------------------

    async def receive(self) -> list[str | bytes]:
        """See :meth:`layr8_actors.transport.Transport.receive`."""
        await trio.lowlevel.checkpoint()
        await self._pass("receive")
        while not self._inbox:
            if self._end is not None:
                raise self._closed()
            await self._changed.park()
        batch, self._inbox = self._inbox, []
        self._other._changed.unpark_all()
        return batch

    async def send(self, batch: Sequence[str | bytes]) -> None:
        """See :meth:`layr8_actors.transport.Transport.send`; waits while the peer has ``capacity`` unread messages."""
        await trio.lowlevel.checkpoint()
        await self._pass("send")
        for message in batch:
            while self._end is None and len(self._other._inbox) >= self._capacity:
                await self._changed.park()
            if self._end is not None:
                raise self._closed()
            self._other._inbox.append(message)
            self._other._changed.unpark_all()

    def send_nowait(self, message: str | bytes) -> bool:
        """See :meth:`layr8_actors.transport.Transport.send_nowait`; whatever :meth:`send` would wait for, or raise."""
        if (
            self._end is not None
            or "send" in self._hung
            or "send" in self._failing
            or len(self._other._inbox) >= self._capacity
        ):
            raise trio.WouldBlock
        self._other._inbox.append(message)
        self._other._changed.unpark_all()
        return True

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float) -> None:
        """See :meth:`layr8_actors.transport.Transport.close`; waits only while :meth:`hang` says so."""
        try:
            with trio.move_on_after(timeout) as scope:
                await trio.lowlevel.checkpoint()
                await self._wait_at("close")
            injected = self._failing.pop("close", None)
            if injected is not None:
                self._finish(injected, injected)
            elif not scope.cancelled_caught:
                self._finish(_End(code, reason, "closed by this side"), _End(code, reason))
        finally:
            self.abort()

    def abort(self) -> None:
        """See :meth:`layr8_actors.transport.Transport.abort`."""
        self._finish(_End(1006, "", "dropped by this side"), _End(1006, "", "the connection was lost"))

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _other(self) -> MemoryTransport:
        assert self._peer is not None
        return self._peer

    def _finish(self, mine: _End, theirs: _End) -> None:
        for transport, end in ((self, mine), (self._other, theirs)):
            transport._end = transport._end or end
            transport._changed.unpark_all()
            for point in tuple(transport._hung):
                transport.release(point)

    async def _wait_at(self, point: Point) -> None:
        if self._end is None and point in self._hung:
            await self._hung[point].wait()

    async def _pass(self, point: Point) -> None:
        await self._wait_at(point)
        injected = self._failing.pop(point, None)
        if injected is not None:
            self._finish(injected, injected)
        if self._end is not None and (point == "send" or injected is not None):
            raise self._closed()

    def _closed(self) -> TransportClosed:
        end = self._end or _End(1006)
        return TransportClosed(end.code, end.reason, detail=end.detail)


def memory_pair(*, capacity: int = 1024) -> tuple[MemoryTransport, MemoryTransport]:
    """Two transports joined to each other.

    Args:
        capacity: messages that one side may have unread before the other side's ``send`` waits.

    Returns:
        The two ends; it does not matter which is which.
    """
    left, right = MemoryTransport(capacity), MemoryTransport(capacity)
    left._peer, right._peer = right, left
    return left, right


class MemoryConnector:
    """A connector whose dials are answered by the test.

    Args:
        accept: gets the node's end of a new :func:`memory_pair` and the endpoint dialled, for each dial. Let it raise
            ``ConnectFailed`` to refuse, or wait to hang; the dial opens when it returns.
        capacity: as for :func:`memory_pair`.
    """

    name = _NAME

    def __init__(
        self, accept: Callable[[MemoryTransport, Endpoint], Awaitable[object]], *, capacity: int = 1024
    ) -> None:
        self._accept = accept
        self._capacity = capacity

    async def open(self, nursery: trio.Nursery, endpoint: Endpoint) -> MemoryTransport:
        """See :meth:`layr8_actors.transport.Connector.open`; a small task in ``nursery`` drops the link with it."""
        ours, theirs = memory_pair(capacity=self._capacity)
        opened = False
        try:
            with trio.move_on_after(endpoint.open_timeout):
                await trio.lowlevel.checkpoint()
                await self._accept(theirs, endpoint)
                opened = True
        finally:
            if not opened:
                ours.abort()
        if not opened:
            raise ConnectFailed(endpoint.public_url, f"timed out after {endpoint.open_timeout:g} s")
        nursery.start_soon(_drop_with_nursery, ours)
        return ours


async def _drop_with_nursery(transport: MemoryTransport) -> None:
    try:
        while transport._end is None:
            await transport._changed.park()
    finally:
        transport.abort()
