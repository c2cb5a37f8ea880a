"""One connection through a :class:`FaultProxy`: two streams, and a flow in each direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

import trio

from .fault_flow import Conditions, Flow
from .memory_stream import MemoryStream
from .web_socket import close_stream, reset_stream

__all__ = ("DIRECTIONS", "Direction", "End", "ProxiedConnection")

Direction = Literal["to_node", "to_client"]
"""Which way bytes go: from the client to the node, or back."""

End = Literal["client", "node"]
"""Who is at an end of a connection."""

DIRECTIONS: tuple[Direction, ...] = ("to_node", "to_client")


class ProxiedConnection:
    """One connection through the proxy; give it to the proxy's methods to mean this one alone.

    Args:
        number: of the connection, from 1, in the order in which the proxy took them.
        client: the stream to the client.
        node: the stream to the node.
        conditions: those of each direction at the start.
        seed: of the proxy.
        on_truncated: is called when a truncation has cut the connection.
        on_over: is called with the connection when both its streams are closed.
    """

    def __init__(
        self,
        number: int,
        client: trio.abc.Stream,
        node: trio.abc.Stream,
        conditions: Mapping[Direction, Conditions],
        seed: int,
        on_truncated: Callable[[], None],
        on_over: Callable[[ProxiedConnection], None],
    ) -> None:
        self.number = number
        self._streams: dict[End, trio.abc.Stream] = {"client": client, "node": node}
        self._on_truncated = on_truncated
        self._on_over = on_over
        self._reset_at_cut = False
        self._nursery: trio.Nursery | None = None
        self._over = False
        self._flows: dict[Direction, Flow] = {
            direction: Flow(
                dataclasses.replace(conditions[direction]), Random(f"{seed}/{number}/{direction}"), self._truncated
            )
            for direction in DIRECTIONS
        }

    def __repr__(self) -> str:
        return f"<ProxiedConnection {self.number} to_node={self.bytes_to_node} to_client={self.bytes_to_client}>"

    @property
    def live(self) -> bool:
        """True until both directions have ended, or the connection was cut."""
        return not self._over

    @property
    def broken(self) -> bool:
        """True where a direction has lost bytes for good; a kernel gives such a connection up after minutes of that."""
        return any(flow.holed for flow in self._flows.values())

    @property
    def bytes_to_node(self) -> int:
        """Bytes handed to the node."""
        return self._flows["to_node"].passed

    @property
    def bytes_to_client(self) -> int:
        """Bytes handed to the client."""
        return self._flows["to_client"].passed

    @property
    def bytes_from_client(self) -> int:
        """Bytes taken from the client, thrown away or not."""
        return self._flows["to_node"].read

    @property
    def bytes_from_node(self) -> int:
        """Bytes taken from the node, thrown away or not."""
        return self._flows["to_client"].read

    def conditions(self, direction: Direction) -> Conditions:
        """A copy of the conditions of one direction."""
        return dataclasses.replace(self._flows[direction].conditions)

    # --- its life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pump until both directions have ended; closes both streams, also when cancelled."""
        client, node = self._streams["client"], self._streams["node"]
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._over:
                    return  # it was cut before it first ran
                for direction in DIRECTIONS:
                    flow = self._flows[direction]
                    source, sink = (client, node) if direction == "to_node" else (node, client)
                    nursery.start_soon(flow.take_from, source)
                    nursery.start_soon(flow.hand_to, sink, self.reset, self._gone_of(direction))
        finally:
            self._over = True
            self._nursery = None
            for stream in (client, node):
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
            self._on_over(self)

    def _gone_of(self, direction: Direction) -> Callable[[], None]:
        flow = self._flows[direction]
        back = self._flows["to_client" if direction == "to_node" else "to_node"]

        def gone() -> None:
            if back.muffled:
                flow.muffle()  # the receiver's reset does not get through, so the sender goes on
            else:
                self.reset()

        return gone

    # --- faults -------------------------------------------------------------------------------------------------------

    def change(self, direction: Direction, **changes: float | bool) -> None:
        """Change some conditions of one direction; see :class:`Conditions`."""
        flow = self._flows[direction]
        flow.change(dataclasses.replace(flow.conditions, **changes))  # type: ignore[arg-type]

    def heal(self) -> None:
        """End all conditions in both directions; a direction of which something was thrown away stays silent."""
        for flow in self._flows.values():
            flow.change(Conditions())

    def truncate(self, direction: Direction, after: int | None, *, reset: bool) -> None:
        """Let some more bytes of a direction pass, then cut the connection; see :meth:`FaultProxy.truncate`."""
        self._reset_at_cut = reset
        self._flows[direction].truncate(after)

    def _truncated(self) -> None:
        self._on_truncated()
        self.cut(reset=self._reset_at_cut)

    def half_open(self, gone: End) -> None:
        """One end is gone, and the other one is not told."""
        for flow in self._flows.values():
            flow.muffle()
        self._flows["to_node" if gone == "client" else "to_client"].leave()
        self._tear(self._streams[gone], reset=True)

    def reset(self) -> None:
        """Cut both ends with RST."""
        self.cut(reset=True)

    def cut(self, *, reset: bool = False) -> None:
        """Cut both ends at once, with FIN or with RST; what is on its way is lost. Never checkpoints; idempotent."""
        self._over = True
        for stream in self._streams.values():
            self._tear(stream, reset=reset)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason="the proxy cut the connection")

    def _tear(self, stream: trio.abc.Stream, *, reset: bool) -> None:
        if isinstance(stream, (trio.SocketStream, trio.SSLStream, MemoryStream)):
            reset_stream(stream) if reset else close_stream(stream)
        elif self._nursery is not None:
            self._nursery.start_soon(trio.aclose_forcefully, stream)  # such a stream knows no other abrupt end
