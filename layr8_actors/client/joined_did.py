"""One more DID on the socket of a client, as its user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..channel import LinkStatus
from ..channel.statistics import ChannelState
from .message import Message
from .sending import REQUEST_TIMEOUT, request_on, send_durably_on, send_on
from .statistics import ClientStatistics

if TYPE_CHECKING:
    from .delegation import Delegation
    from .did_run import DidRun, Membership
    from .record import Record

__all__ = ("JoinedDid",)


class JoinedDid:
    """A further DID of a client; made by :meth:`Client.join_did`.

    It lives until it is left, or the client's run ends that you began yourself. Where a supervisor runs the client,
    each restart joins it again, and this handle is of the new run then; what is called in between raises ChannelClosed
    or NotConnected, and :meth:`connect` waits. All methods may be called from any task of the same Trio run, also from
    within handlers.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def __repr__(self) -> str:
        return f"<JoinedDid {self.did!r} {self.state.status.value}>"

    async def connect(self) -> None:
        """Wait until the DID is joined: it is at first, and again after each reconnect and each restart of the client.

        Raises:
            ChannelClosed: it was left, the node refused it for good, or the run has ended and no next one begun.

        Checkpoints; cancelling it changes nothing.
        """
        await self._run.joined()

    async def send(self, message: Message) -> Message:
        """Send a message from this DID, as :meth:`Client.send` does.

        Args:
            message: to send.

        Returns:
            The message as it went out.

        Raises:
            Layr8Error: as there; ChannelClosed also where this DID alone has ended.
        """
        return await send_on(self._record, message)

    async def send_durably(self, message: Message) -> Message:
        """Store a message to be sent from this DID, as :meth:`Client.send_durably` does.

        It waits in a queue of this DID's own, and goes out when the DID is joined, also by a later run of the program.

        Args:
            message: to send.

        Returns:
            The message as it was stored.

        Raises:
            Layr8Error: as there.
        """
        return await send_durably_on(self._run.record, message)

    async def request(
        self, message: Message, *, timeout: float = REQUEST_TIMEOUT, survive_reconnect: bool = False
    ) -> Message:
        """Send a message from this DID and wait for its response, as :meth:`Client.request` does.

        Args:
            message: to send.
            timeout: seconds for sending and waiting together.
            survive_reconnect: wait on when the link drops.

        Returns:
            The response.

        Raises:
            Layr8Error: as there; ChannelClosed also where this DID alone has ended.
        """
        return await request_on(self._record, message, timeout, survive_reconnect)

    async def leave(self) -> None:
        """Cancel its handlers, tell the node of each message, and leave; the client and its other DIDs go on.

        Idempotent. Requests that wait get ChannelClosed. What is stored for the DID stays stored. The DID may be joined
        again afterwards. Checkpoints; a leave that is cancelled goes on by itself. Called from within one of its own
        handlers it ends that handler too.
        """
        await self._membership.leave()

    @property
    def _run(self) -> DidRun:
        return self._membership.run

    @property
    def _record(self) -> Record:
        self._run.check()
        return self._run.record

    @property
    def did(self) -> str:
        """The DID that the node bound at the last join."""
        return self._run.record.did

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the node advertised at the last join of this DID."""
        return () if self._run.topic is None else self._run.topic.capabilities

    @property
    def state(self) -> ChannelState:
        """Where its topic stands now; ``waiting`` where it waits for the client's first join after a restart."""
        run = self._run
        if run.topic is not None:
            return run.topic.state
        over = run.ended or run.failure is not None
        return ChannelState(LinkStatus.CLOSED if over else LinkStatus.WAITING, 0, run.failure, None)

    @property
    def delegation(self) -> Delegation | None:
        """The last reading of the credentials delegated to it; None where there is none."""
        return self._run.record.delegation

    def statistics(self) -> ClientStatistics:
        """Counts since it was joined, or since the client's last restart, and gauges of this moment; never blocks."""
        return self._run.record.statistics()
