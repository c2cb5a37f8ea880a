"""One direction of a connection through a :class:`FaultProxy`: what is read on one side, when it leaves on the other.

A reader takes bytes from the sender, a writer hands them on when they are due; what is between them is on its way. All
conditions are looked at anew whenever they change, so that a fault may come and go while bytes are on their way.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

import trio

__all__ = ("IN_FLIGHT", "Conditions", "Flow")

IN_FLIGHT: Final = 64 * 1024
"""Bytes of one direction that may be on their way; beyond it the sender is not read, as by a full TCP window."""

_READ_SIZE: Final = 16 * 1024
# How many seconds' worth of bytes pass at once under a rate: fine enough for deadlines of tenths of a second.
_QUANTUM: Final = 0.05


@dataclasses.dataclass(slots=True)
class Conditions:
    """What the network does to one direction.

    Args:
        latency: seconds that each byte is on its way.
        jitter: further seconds, up to so many, drawn for each read; the order is kept, as TCP keeps it.
        rate: bytes a second that leave; what has not left is on its way.
        read_rate: bytes a second that are taken from the sender; what is not taken fills the sender's buffers.
        stalled: nothing leaves, and all of it leaves later.
        silent: everything is thrown away, the end of the connection included.
    """

    latency: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    read_rate: float = math.inf
    stalled: bool = False
    silent: bool = False


class _Mark(enum.Enum):
    """What is on its way besides bytes."""

    FIN = enum.auto()
    RST = enum.auto()
    LEFT = enum.auto()  # the sender is gone, and nobody is told


@dataclasses.dataclass(slots=True)
class _InFlight:
    at: float
    draw: float  # of the jitter, 0 to 1
    data: bytes | _Mark


class Flow:
    """One direction.

    Args:
        conditions: those in force; changed by :meth:`change` only.
        random: of this direction alone, so that what another connection does changes nothing here.
        on_cut: is called when the bytes that :meth:`truncate` lets pass have left.
    """

    __slots__ = (
        "_changed",
        "_cut_after",
        "_cutting",
        "_free_at",
        "_in_flight",
        "_on_cut",
        "_random",
        "_sending",
        "_size",
        "_taken",
        "_taken_at",
        "conditions",
        "holed",
        "passed",
        "read",
    )

    def __init__(self, conditions: Conditions, random: Random, on_cut: Callable[[], None]) -> None:
        self.conditions = conditions
        self.read = 0  # bytes taken from the sender
        self.passed = 0  # bytes handed to the receiver
        self.holed = False  # something was thrown away
        self._random = random
        self._on_cut = on_cut
        self._in_flight: deque[_InFlight] = deque()
        self._size = 0
        self._free_at = -math.inf  # when a narrow line has room again
        self._taken_at = -math.inf  # when the last bytes were taken from the sender,
        self._taken = 0  # and how many
        self._cutting = False
        self._cut_after: int | None = None
        self._sending: trio.CancelScope | None = None
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def muffled(self) -> bool:
        """True while the receiver hears nothing, not even that the sender is gone."""
        return self.conditions.silent or self.holed

    # --- faults -------------------------------------------------------------------------------------------------------

    def change(self, conditions: Conditions) -> None:
        """Put other conditions in force, for what is on its way too.

        Args:
            conditions: the new ones. A stream with a hole in it is none, so a direction of which something was thrown
                away stays silent.
        """
        self.conditions = conditions
        self._changed.unpark_all()

    def truncate(self, after: int | None) -> None:
        """Let so many more bytes leave, then call ``on_cut``.

        Args:
            after: bytes; ``None`` draws a number that cuts the next read of more than one byte in two.
        """
        self._cutting = True
        self._cut_after = after
        self._changed.unpark_all()

    def leave(self) -> None:
        """The sender is gone; nothing more leaves, and the receiver is not told."""
        self._overtake(_Mark.LEFT)

    def muffle(self) -> None:
        """Throw everything away from now on, for good."""
        self.holed = True
        self._changed.unpark_all()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def take_from(self, source: trio.abc.ReceiveStream) -> None:
        """Read until the sender's end; what was read is on its way then. Cancellation leaves what was read on its way.

        Args:
            source: the sender's stream.
        """
        while True:
            while self._size >= IN_FLIGHT:
                await self._changed.park()
            await self._wait_for_reading()
            rate = self.conditions.read_rate
            limit = _READ_SIZE if math.isinf(rate) else max(1, int(rate * _QUANTUM))
            try:
                data = bytes(await source.receive_some(limit))
            except trio.BrokenResourceError:
                await self._wait_for_reading()
                self._overtake(_Mark.RST)
                return
            except trio.ClosedResourceError:
                return  # this end was closed by the proxy, which has said what comes of it
            await self._wait_for_reading()  # it may have been told to read nothing while it read
            if not data:
                self._put(_Mark.FIN)
                return
            self.read += len(data)
            self._put(data)
            self._taken_at, self._taken = trio.current_time(), len(data)

    async def _wait_for_reading(self) -> None:
        while True:
            rate = self.conditions.read_rate
            left = math.inf if rate == 0 else self._taken_at + self._taken / rate - trio.current_time()
            if left <= 0:
                return
            with trio.move_on_after(left):
                await self._changed.park()

    def _put(self, data: bytes | _Mark) -> None:
        self._in_flight.append(_InFlight(trio.current_time(), self._random.random(), data))
        self._size += 0 if isinstance(data, _Mark) else len(data)
        self._changed.unpark_all()

    def _overtake(self, mark: _Mark) -> None:
        """Forget what is on its way, as TCP does at a reset, and send a mark instead."""
        self._in_flight.clear()
        self._size = 0
        if self._sending is not None:
            self._sending.cancel(reason="the sender is gone")
        self._put(mark)

    # --- writing ------------------------------------------------------------------------------------------------------

    async def hand_to(
        self, sink: trio.abc.SendStream, on_reset: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        """Write what is due until the sender's end has been passed on, or swallowed.

        Args:
            sink: the receiver's stream.
            on_reset: is called when the sender's reset is due.
            on_gone: is called when the receiver is gone, and the sender may hear of it.
        """
        while True:
            entry = await self._next_due()
            data = entry.data
            if isinstance(data, _Mark):
                if data is _Mark.FIN and not self.muffled:
                    await _send_fin(sink)
                elif data is _Mark.RST and not self.muffled:
                    on_reset()
                return
            if self.muffled:
                self.holed = True
                self._pass(entry, len(data))
                continue
            size = self._piece(len(data))
            if size and not await self._send(sink, data[:size]):
                on_gone()
                continue
            if not self._in_flight or self._in_flight[0] is not entry:
                continue  # overtaken by a reset
            self._pass(entry, size)
            self.passed += size
            if self._cutting and self._cut_after == 0:
                self._on_cut()
                return

    async def _next_due(self) -> _InFlight:
        """Wait until the first entry may leave. Checkpoints only where it waits; a send checkpoints, too."""
        while True:
            conditions = self.conditions
            if not self._in_flight or (conditions.stalled and not self.muffled):
                await self._changed.park()
                continue
            entry = self._in_flight[0]
            due = entry.at + conditions.latency + conditions.jitter * entry.draw
            if not math.isinf(conditions.rate):
                due = max(due, self._free_at)
            left = due - trio.current_time()
            if left <= 0 or self.muffled or entry.data is _Mark.LEFT:
                return entry
            with trio.move_on_after(left):
                await self._changed.park()

    def _piece(self, size: int) -> int:
        """How many bytes of an entry leave at once."""
        rate = self.conditions.rate
        if self._cutting and self._cut_after is None and size > 1:
            self._cut_after = self._random.randint(1, size - 1)
        if not math.isinf(rate):
            size = min(size, max(1, int(rate * _QUANTUM)))
            self._free_at = max(self._free_at, trio.current_time()) + size / rate
        if self._cutting and self._cut_after is not None:
            size = min(size, self._cut_after)
            self._cut_after -= size
        return size

    def _pass(self, entry: _InFlight, size: int) -> None:
        """Take bytes of the first entry off the way."""
        assert isinstance(entry.data, bytes)
        self._size -= size
        entry.data = entry.data[size:]
        if not entry.data:
            self._in_flight.popleft()
        self._changed.unpark_all()

    async def _send(self, sink: trio.abc.SendStream, data: bytes) -> bool:
        """Write; False when the receiver is gone. A sender that is reset meanwhile ends the write."""
        try:
            with trio.CancelScope() as self._sending:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        finally:
            self._sending = None
        return True


async def _send_fin(sink: trio.abc.SendStream) -> None:
    try:
        if isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()
        else:
            await sink.aclose()  # a stream that has no half-close ends as a whole
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the receiver was gone first
