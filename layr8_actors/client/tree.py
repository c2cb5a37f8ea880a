"""The client's supervision tree: the channel, the dispatcher, a durable client's workers, and how the whole of it ends.

one_for_one, since neither holds what the other needs: that is in the record, or in the channel's own. The dispatcher is
restarted when it crashes. The channel is a tree that has restarted its own actors until it gave up, so its end is the
client's, with the channel's own error, and whoever is above decides. The order is that of the way inwards, so that the
ordered stop first ends the handlers, while the channel still stands to tell the node of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import trio

from ..channel import Callbacks, Channel
from ..channel.channel import run_channel
from ..channel.events import ChannelEvent, LinkLost
from ..channel.options import AtOnceCallbacks
from ..errors import JoinRejected, Layr8Error, RestartLimitExceeded
from ..otp import ActorRef, AutoShutdown, ChildSpec, ChildType, Restart, Supervisor
from ..otp.incarnation import Incarnation, incarnation_of
from ..telemetry import Event
from .dispatch import LAST_WORDS, Dispatcher
from .further import FurtherDids, topic_of
from .reception import Reception
from .record import Record

if TYPE_CHECKING:
    from .client import Client
    from .config import ClientConfig
    from .durability import Durability
    from .handlers import Handlers
    from .registration import Functions

__all__ = ("Tree",)


class Tree:
    """One run of a client: its record, its supervisor, and its channel.

    Args:
        config: the client's.
        handlers: its handlers.
        functions: the user's other functions.
        protocols: to bind.
        durability: of a durable client, for the records of its DIDs.
        former: the run before, whose further DIDs this one brings back; ``None`` for a run that begins without any.
    """

    def __init__(
        self,
        config: ClientConfig,
        handlers: Handlers,
        functions: Functions,
        protocols: tuple[str, ...],
        durability: Callable[..., Durability] | None,
        former: Tree | None,
    ) -> None:
        options = config.channel_options(Callbacks(), config.on_event)
        self.read_ahead_bytes = options.inbox_bytes_bound
        self.record = record = Record(config, handlers, self.read_ahead_bytes)
        self.durability = durability
        if durability is not None:
            record.durability = durability(record)
        self.further = FurtherDids(self)
        if former is not None:
            self.further.bring_back(former.further)
        self._reception = reception = Reception(record, functions.on_delegation)
        callbacks = AtOnceCallbacks(
            on_message=reception.take,
            on_disconnect=functions.on_disconnect,
            on_reconnect=functions.on_reconnect,
            on_push=reception.on_push,
            on_join=reception.on_join,
            take_at_once=reception.take_at_once,
        )
        self._options = config.channel_options(callbacks, self._on_event)
        self._topic = topic_of(self._options.agent_did)
        self.protocols = protocols
        self._persist = False
        self.failure: Layr8Error | None = None
        self.over = trio.Event()
        self.supervisor = Supervisor(
            [
                ChildSpec(
                    id="channel",
                    start=self._run_channel,
                    restart=Restart.TEMPORARY,
                    type=ChildType.SUPERVISOR,
                    significant=True,
                ),
                Dispatcher.child_spec(ActorRef("dispatcher"), record, shutdown=config.shutdown_grace + LAST_WORDS),
                *([] if record.durability is None else record.durability.children()),
                *self.further.children(),
            ],
            auto_shutdown=AutoShutdown.ANY_SIGNIFICANT,
            max_restarts=options.max_restarts,
            max_seconds=options.max_seconds,
            name=f"client {config.agent_did or 'without a DID yet'}",
            on_event=config.on_event,
        )

    def _on_event(self, event: Event) -> None:
        """Let the DID that an event is about note it, and all of them the loss of their socket; then the user."""
        if isinstance(event, ChannelEvent):
            if isinstance(event, LinkLost) or event.topic == self._topic:
                self._reception.note(event)
            self.further.note(event)
        self.record.emit(event)

    async def _run_channel(self, *, task_status: trio.TaskStatus[Channel]) -> None:
        try:
            protocols = self.protocols if self._persist else None
            await run_channel(self._options, protocols, task_status=_Captured(self.record, task_status))
        except (JoinRejected, RestartLimitExceeded) as error:
            self.failure = error
            raise

    def run(self, client: Client, persist: bool, task_status: trio.TaskStatus[Client]) -> Coroutine[Any, Any, None]:
        """Run the tree until it is asked to end, its channel ends, or it is cancelled; then release all who wait.

        Args:
            client: what to report as started.
            persist: whether to connect at once, and to retry at the backoff; else only when connect is called.
            task_status: of the task that this runs in. A plain function takes it, because a coroutine that held it
                would keep Trio's nursery of the start alive for as long as the client.

        Raises:
            JoinRejected: the node refused for good.
            RestartLimitExceeded: actors of the channel, or the dispatcher, crashed too often.
        """
        self._persist = persist
        return self._run(self.supervisor.run(task_status=_Started(client, task_status)))

    async def _run(self, running: Coroutine[Any, Any, None]) -> None:
        try:
            await running
        except RestartLimitExceeded as error:
            if self.failure is None:
                self.failure = error
        finally:
            self.record.requests.end("the client ended before the response came", self.failure)
            self.further.end(self.failure)
            self.record.entered.set()
            self.over.set()
        if self.failure is not None:
            raise self.failure

    def channel(self) -> Channel:
        """Return the channel.

        Raises:
            NotConnected: it does not run yet.
        """
        channel = self.record.connected()
        assert isinstance(channel, Channel)
        return channel

    def request_stop(self) -> None:
        """Begin the ordered end; :attr:`over` tells when it is done."""
        self.supervisor.request_stop()


class _Captured:
    """Passes a channel's start on, and keeps the channel."""

    def __init__(self, record: Record, task_status: trio.TaskStatus[Channel]) -> None:
        self._record = record
        self._task_status = task_status
        self.incarnation: Incarnation | None = incarnation_of(task_status)

    def started(self, value: Any = None) -> None:
        """Keep the channel, and report it."""
        self._record.channel = value
        self._task_status.started(value)


class _Started:
    """Reports the client and not its supervisor as what has started."""

    def __init__(self, client: Client, task_status: trio.TaskStatus[Client]) -> None:
        self._report: Callable[[], None] | None = functools.partial(task_status.started, client)
        self.incarnation: Incarnation | None = incarnation_of(task_status)

    def started(self, value: object = None) -> None:
        """Report the client, once."""
        report, self._report = self._report, None
        if report is not None:
            report()
