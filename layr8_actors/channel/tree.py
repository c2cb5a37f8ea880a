"""The channel's supervision tree: which children, in which order, by which strategy, and how the whole of it ends.

one_for_one, because no actor holds what another one needs: all of that is in the record. The order is that of the flow
inwards, so that the ordered stop goes outside in: first nobody dials any more, then the socket is left and closed,
then what was read is routed and the inbox ends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import trio

from ..errors import RestartLimitExceeded
from ..otp import ActorRef, ChildSpec, Strategy, Supervisor
from ..otp.events import LimitReached
from ..otp.incarnation import incarnation_of
from ..telemetry import Event
from ..transport import Connector, connector_named
from .connection import Connection
from .heartbeat import Heartbeat
from .inbox import Inbox
from .messages import ServeRequests
from .options import RESTART_BACKOFF, ChannelOptions
from .prompt import PromptRef
from .reconnector import Reconnector
from .record import ConnectRequest, Record
from .router import Router

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ("LastingRef", "Tree")

CALLBACK_GRACE = 5.0
"""Seconds that a callback has for its cleanup once it is cancelled: OTP's default shutdown."""


class Tree:
    """One channel's record, actors and supervisor.

    Args:
        options: as the user gave them.
    """

    __slots__ = ("_reconnector", "record", "router", "supervisor")

    def __init__(self, options: ChannelOptions) -> None:
        self.record = record = Record(options)
        # What waits in a kept mailbox is bounded by the reader, which stops long before so much is unhandled.
        capacity = 4 * record.backlog.read_ahead
        inbox = LastingRef("inbox", mailbox_capacity=capacity, keep_mailbox=True)
        router = LastingRef("router", mailbox_capacity=capacity, keep_mailbox=True)
        connection = PromptRef("connection")
        heartbeat = PromptRef("heartbeat", keep_mailbox=True)
        reconnector = PromptRef("reconnector", keep_mailbox=True)
        self._reconnector: ActorRef = reconnector
        named = options.transport
        connector: Connector = connector_named(named) if isinstance(named, str) else named
        specs: list[ChildSpec] = [
            Inbox.child_spec(inbox, record, shutdown=CALLBACK_GRACE),
            Router.child_spec(router, record, inbox, reconnector),
            Connection.child_spec(
                connection, record, connector, router, heartbeat, reconnector, shutdown=options.close_timeout
            ),
            Heartbeat.child_spec(heartbeat, record, connection),
            Reconnector.child_spec(reconnector, record, connection, router, inbox, self.request_stop),
        ]
        self.router = router
        self._supervise(specs, f"channel {options.agent_did or 'plugins:'}")

    def _supervise(self, specs: list[ChildSpec], name: str) -> None:
        options = self.record.options
        self.record.supervisor = self.supervisor = Supervisor(
            specs,
            strategy=Strategy.ONE_FOR_ONE,
            max_restarts=options.max_restarts,
            max_seconds=options.max_seconds,
            backoff=RESTART_BACKOFF,
            name=name,
            on_event=self._on_event,
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, LimitReached):
            self.record.closing = True  # whoever waits is told that the channel is over, not that a link was lost
        self.record.options.on_event(event)

    def run(
        self, handle: Channel, protocols: tuple[str, ...] | None, task_status: trio.TaskStatus[Channel]
    ) -> Coroutine[Any, Any, None]:
        """Run the tree until it is asked to end, gives up, or is cancelled; then release everybody who waits.

        Args:
            handle: what to report as started once all actors run; nothing is dialled before.
            protocols: what to connect with at once, retrying at the backoff; ``None`` to wait for connect.
            task_status: of the task that this runs in. A plain function takes it, because a coroutine that held it
                would keep Trio's nursery of the start alive for as long as the channel.

        Raises:
            RestartLimitExceeded: the actors crashed too often.
            JoinRejected: the node refused for good.

        Checkpoints. Cancellation stops the tree in order, within its graces, and then goes on upward.
        """
        if protocols is not None:
            self.request_connect(ConnectRequest(protocols, persist=True))
        return self._run(self.supervisor.run(task_status=_Started(handle, task_status)))

    async def _run(self, running: Coroutine[Any, Any, None]) -> None:
        record = self.record
        try:
            await running
        except RestartLimitExceeded as error:
            record.failure = error
        finally:
            record.end()
        if record.failure is not None:
            raise record.failure

    def request_stop(self) -> None:
        """Begin the ordered end; :attr:`Record.over` tells when it is done."""
        self.record.closing = True
        self.supervisor.request_stop()

    def request_connect(self, request: ConnectRequest) -> None:
        """Put a caller of connect into the list that Reconnector serves."""
        self.record.connect_requests.append(request)
        self._serve_requests()

    def withdraw_connect(self, request: ConnectRequest) -> None:
        """Take a caller who was cancelled out of the list; the attempt is called off if it was for nobody else."""
        if request in self.record.connect_requests:
            self.record.connect_requests.remove(request)
            self._serve_requests()

    def _serve_requests(self) -> None:
        # Requests are in the record, and Reconnector looks at them after each message: one that waits is nudge enough.
        # A thousand callers must not fill its mailbox, in which Router and Connection have to find room.
        if self._reconnector.statistics().depth == 0:
            self._reconnector.cast_nowait(ServeRequests())


class LastingRef(PromptRef):
    """A ref whose mailbox outlives a stop by hand too: what was read waits there, counted, until somebody starts it.

    Nobody ever waits for room in it, so there is nobody to release where no incarnation follows by itself.
    """

    __slots__ = ()

    def _forget(self) -> None:
        """Keep the mailbox."""


class _Started:
    """Reports the channel and not its supervisor as what has started."""

    def __init__(self, handle: Channel, task_status: trio.TaskStatus[Channel]) -> None:
        self._report: Callable[[], None] | None = functools.partial(task_status.started, handle)
        # Through it the channel's supervisor finds the one above it, if there is one.
        self.incarnation = incarnation_of(task_status)

    def started(self, value: object = None) -> None:
        """Report the channel, once."""
        report, self._report = self._report, None
        if report is not None:
            report()
