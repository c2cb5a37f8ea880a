"""What networks do at night, on demand: the methods with which a test makes a :class:`FaultProxy` fail.

All of them act at once and never checkpoint. What a dead accept queue does is in :class:`FaultProxy` itself.
"""

from __future__ import annotations

from collections import Counter

from ..errors import InvalidOption, NotConnected
from .fault_connection import DIRECTIONS, Direction, End, ProxiedConnection
from .fault_flow import Conditions

__all__ = ("NetworkFaults",)


class NetworkFaults:
    """The failing half of :class:`FaultProxy`, which is the only subclass.

    Where a method takes ``connection``, ``None`` means all that live and, for what lasts, all to come; where it takes
    ``direction``, ``None`` means both. A fault that happens once and finds no live connection raises
    :class:`~layr8_actors.errors.NotConnected`, so that no test passes because nothing happened.
    """

    def __init__(self) -> None:
        self._conditions: dict[Direction, Conditions] = {direction: Conditions() for direction in DIRECTIONS}
        self._faults: Counter[str] = Counter()
        self._live: dict[ProxiedConnection, None] = {}

    @property
    def connections(self) -> tuple[ProxiedConnection, ...]:
        """The live connections, in the order in which they came."""
        return tuple(connection for connection in self._live if connection.live)

    def _targets(self, connection: ProxiedConnection | None) -> tuple[ProxiedConnection, ...]:
        targets = self.connections if connection is None else (connection,)
        if not targets or not all(target.live for target in targets):
            raise NotConnected("no live connection goes through this proxy" if connection is None else f"{connection}")
        return targets

    def _change(
        self, fault: str, direction: Direction | None, connection: ProxiedConnection | None, **changes: float | bool
    ) -> None:
        directions = DIRECTIONS if direction is None else (direction,)
        for one in directions:
            if one not in DIRECTIONS:
                raise InvalidOption("direction", one, "'to_node' | 'to_client', or None for both")
        targets = self.connections if connection is None else self._targets(connection)
        for one in directions:
            for target in targets:
                target.change(one, **changes)
            if connection is None:
                for name, value in changes.items():
                    setattr(self._conditions[one], name, value)
        self._faults[fault] += 1

    # --- what lasts, until heal ---------------------------------------------------------------------------------------

    def delay(
        self,
        seconds: float,
        *,
        jitter: float = 0.0,
        direction: Direction | None = None,
        connection: ProxiedConnection | None = None,
    ) -> None:
        """Let everything arrive later, in order; what is on its way as well.

        Args:
            seconds: the latency.
            jitter: further seconds, up to so many, drawn for each piece that is read.
            direction: whose bytes.
            connection: which one.

        Raises:
            InvalidOption: a negative time, or no direction.
            NotConnected: the connection has ended.
        """
        for name, value in (("seconds", seconds), ("jitter", jitter)):
            if not value >= 0:
                raise InvalidOption(name, value, "seconds, at least 0")
        self._change("delay", direction, connection, latency=seconds, jitter=jitter)

    def throttle(
        self,
        bytes_per_second: float,
        *,
        direction: Direction | None = None,
        connection: ProxiedConnection | None = None,
    ) -> None:
        """Be a narrow line: so many bytes a second arrive, up to 64 KiB are on their way, then the sender waits.

        Args:
            bytes_per_second: more than 0; ``math.inf`` for no limit. For none at all there is :meth:`stall`.
            direction: whose bytes.
            connection: which one.

        Raises:
            InvalidOption: not a positive rate, or no direction.
            NotConnected: the connection has ended.
        """
        if not bytes_per_second > 0:
            raise InvalidOption("bytes_per_second", bytes_per_second, "more than 0")
        self._change("throttle", direction, connection, rate=bytes_per_second)

    def read_slowly(
        self,
        bytes_per_second: float,
        *,
        direction: Direction | None = None,
        connection: ProxiedConnection | None = None,
    ) -> None:
        """Be a slow reader: take so many bytes a second from the sender, whose own buffers fill, and who then waits.

        Args:
            bytes_per_second: at least 0; 0 reads nothing, ``math.inf`` whatever comes.
            direction: of the bytes that are read slowly.
            connection: which one.

        Raises:
            InvalidOption: a negative rate, or no direction.
            NotConnected: the connection has ended.
        """
        if not bytes_per_second >= 0:
            raise InvalidOption("bytes_per_second", bytes_per_second, "at least 0")
        self._change("read_slowly", direction, connection, read_rate=bytes_per_second)

    def stall(self, *, direction: Direction | None = None, connection: ProxiedConnection | None = None) -> None:
        """Hold everything back, ends of connections too, until :meth:`release` or :meth:`heal`; nothing is lost.

        Raises:
            InvalidOption: no direction.
            NotConnected: the connection has ended.
        """
        self._change("stall", direction, connection, stalled=True)

    def release(self, *, direction: Direction | None = None, connection: ProxiedConnection | None = None) -> None:
        """End :meth:`stall`: what was held back arrives at once.

        Raises:
            InvalidOption: no direction.
            NotConnected: the connection has ended.
        """
        self._change("release", direction, connection, stalled=False)

    def silence(self, direction: Direction, *, connection: ProxiedConnection | None = None) -> None:
        """Throw away everything that goes one way, ends of connections too; the other way works.

        A direction of which bytes were thrown away stays silent on that connection: a TCP stream has no holes.

        Args:
            direction: the one that is silent; call it twice for both.
            connection: which one.

        Raises:
            InvalidOption: no direction.
            NotConnected: the connection has ended.
        """
        self._change("silence", direction, connection, silent=True)

    def heal(self, connection: ProxiedConnection | None = None) -> None:
        """End everything that lasts, but for what :meth:`silence` and :meth:`half_open` have broken for good.

        Raises:
            NotConnected: the connection has ended.
        """
        for target in self.connections if connection is None else self._targets(connection):
            target.heal()
        if connection is None:
            for direction in DIRECTIONS:
                self._conditions[direction] = Conditions()

    # --- what happens once --------------------------------------------------------------------------------------------

    def drop(self, connection: ProxiedConnection | None = None) -> None:
        """Cut the connection with FIN to both ends; what is on its way is lost.

        Raises:
            NotConnected: there is no such connection.
        """
        for target in self._targets(connection):
            target.cut()
        self._faults["drop"] += 1

    def reset(self, connection: ProxiedConnection | None = None) -> None:
        """Cut the connection with RST to both ends: each loses what it had not read.

        Raises:
            NotConnected: there is no such connection.
        """
        for target in self._targets(connection):
            target.reset()
        self._faults["reset"] += 1

    def half_open(self, gone: End, connection: ProxiedConnection | None = None) -> None:
        """Let one end go away while the other one is not told: what it sends is thrown away, and nothing comes.

        Args:
            gone: whose side ends, with RST.
            connection: which one.

        Raises:
            InvalidOption: there is no such end.
            NotConnected: there is no such connection.
        """
        if gone not in ("client", "node"):
            raise InvalidOption("gone", gone, "'client' | 'node'")
        for target in self._targets(connection):
            target.half_open(gone)
        self._faults["half_open"] += 1

    def truncate(
        self,
        direction: Direction,
        *,
        after: int | None = None,
        reset: bool = False,
        connection: ProxiedConnection | None = None,
    ) -> None:
        """Cut the connection within a frame, when the next bytes pass.

        Args:
            direction: whose frame.
            after: bytes that still pass; ``None`` draws it from the seed, within the next piece of more than one byte.
            reset: with RST, else with FIN.
            connection: which one.

        Raises:
            InvalidOption: no direction, or fewer than 0 bytes.
            NotConnected: there is no such connection.
        """
        if direction not in DIRECTIONS:
            raise InvalidOption("direction", direction, "'to_node' | 'to_client'")
        if after is not None and not after >= 0:
            raise InvalidOption("after", after, "at least 0, or None")
        for target in self._targets(connection):
            target.truncate(direction, after, reset=reset)

    def _truncated(self) -> None:
        self._faults["truncate"] += 1
