"""Reconnector: the one owner of reconnection; it feeds the link's state machine and carries out what it commands.

Every step from event to commands is taken between two checkpoints, so the machine in the record is never half way.
After a restart it compares the machine with what Connection and Router hold and goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..errors import ConnectFailed
from ..otp import ActorRef
from ..phoenix import TopicStatus
from .events import AttemptFailed, GaveUp
from .link_state import (
    AbandonJoin,
    AnnounceDisconnect,
    AnnounceReconnect,
    Command,
    DropLink,
    FinishConnect,
    GiveUp,
    JoinTopic,
    LinkStatus,
    OpenLink,
    ReportFailure,
)
from .messages import (
    JoinAcknowledged,
    JoinFailed,
    LinkDown,
    LinkFailed,
    LinkUp,
    Notify,
    Resynchronize,
    ServeRequests,
    TopicEnded,
)
from .prompt import PromptActor

if TYPE_CHECKING:
    from .record import Record

__all__ = ("Reconnector",)


class Reconnector(PromptActor):
    """The actor that decides when to dial and to join.

    Args:
        record: the channel's record.
        connection: dials and drops.
        router: joins and leaves.
        inbox: tells the user.
        end_channel: begins the end of the whole tree, without waiting for it.
    """

    helpers = False

    def __init__(
        self,
        record: Record,
        connection: ActorRef,
        router: ActorRef,
        inbox: ActorRef,
        end_channel: Callable[[], None],
    ) -> None:
        self._end_channel = end_channel
        self._record = record
        self._connection = connection
        self._router = router
        self._inbox = inbox

    async def init(self) -> None:
        """Learn how things stand, and set the clock for what is due."""
        self._resynchronize()
        self._serve_requests()
        self._set_alarm()
        self.attend()

    async def handle_cast(self, message: object) -> None:
        """Hand one event to the machine."""
        machine = self._record.machine
        now = trio.current_time()
        match message:
            case LinkUp(link=link):
                self._do(machine.link_opened(link, now))
            case LinkFailed(link=link, error=error):
                self._do(machine.link_failed(link, error, now))
            case LinkDown(link=link, error=error):
                self._do(machine.link_lost(link, error, now))
            case JoinAcknowledged(link=link):
                self._do(machine.topic_joined(link, now))
            case JoinFailed(link=link, error=error):
                self._do(machine.topic_refused(link, error, now))
            case TopicEnded(link=link, error=error):
                self._do(machine.topic_lost(link, error, now))
            case Resynchronize():
                self._resynchronize()
            case ServeRequests():
                pass  # whoever waits is served below, after every message
            case _:
                await super().handle_cast(message)
        self._serve_requests()
        self._set_alarm()

    async def handle_timeout(self) -> None:
        """A join was not answered, or a wait is over."""
        self._resynchronize()  # the answer may have come and be in the mailbox behind this
        self._do(self._record.machine.timer_fired(trio.current_time()))
        self._serve_requests()
        self._set_alarm()

    def _set_alarm(self) -> None:
        due = self._record.machine.deadline
        deadline = math.inf if due is None else due
        if deadline != self.deadline:  # setting it wakes the task, which may not be the one that runs this
            self.deadline = deadline

    def _resynchronize(self) -> None:
        record = self._record
        link = 0 if record.link is None else record.link.number
        number, error = record.last_end or (0, None)
        ended = error if number == record.machine.link else None
        joined = record.topic.status is TopicStatus.JOINED and record.topic_link == link
        self._do(
            record.machine.resynchronize(
                open_link=link, dialling=record.dialling, joined=joined, now=trio.current_time(), ended=ended
            )
        )

    # --- callers of connect -------------------------------------------------------------------------------------------

    def _serve_requests(self) -> None:
        record = self._record
        machine = record.machine
        if machine.status in (LinkStatus.LEAVING, LinkStatus.CLOSED):
            return  # those who came meanwhile are served once the old socket is gone
        if not record.connect_requests:
            self._do(machine.connect_withdrawn())
            return
        for request in list(record.connect_requests):
            if request.accepted or request.done.is_set():
                continue
            error = machine.refuse_protocols(request.protocols)
            if error is not None:
                record.connect_requests.remove(request)
                request.finish(error)
                continue
            request.accepted = True
            self._do(machine.connect_requested(request.protocols, persist=request.persist))
        if not any(request.accepted for request in record.connect_requests):
            self._do(machine.connect_withdrawn())

    def _finish_requests(self, error: Exception | None) -> None:
        record = self._record
        accepted = [request for request in record.connect_requests if request.accepted]
        record.connect_requests = [request for request in record.connect_requests if not request.accepted]
        for number, request in enumerate(accepted):
            request.finish(error if error is None or number == 0 else _copy(error))

    # --- commands -----------------------------------------------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        if not commands:
            return
        record = self._record
        now = trio.current_time()
        for command in commands:
            match command:
                case OpenLink(link=link):
                    record.dialling = link  # from now on, and not from when Connection comes to it
                    if not self._connection.cast_nowait(command):
                        record.dialling = 0
                        error = ConnectFailed(record.options.public_url, "the connection actor is being restarted")
                        self._do(record.machine.link_failed(link, error, now))
                case DropLink(link=link, error=dropped):
                    if not self._connection.cast_nowait(command):
                        self._do(record.machine.link_lost(link, dropped, now))
                case JoinTopic() | AbandonJoin():
                    self._router.cast_nowait(command)
                case AnnounceDisconnect(error=error):
                    record.counters.drops += 1
                    if not record.closing:  # the end of the channel is no drop that a reconnect could follow
                        self._inbox.cast_nowait(Notify(error))
                case AnnounceReconnect():
                    self._inbox.cast_nowait(Notify(None))
                case FinishConnect(error=outcome):
                    self._finish_requests(outcome)
                case ReportFailure(attempt=attempt, error=error, retry_in=retry_in):
                    record.counters.attempts_failed += 1
                    record.emit(
                        AttemptFailed(at=now, topic=record.topic.topic, attempt=attempt, error=error, retry_in=retry_in)
                    )
                case GiveUp(error=rejected):
                    record.emit(GaveUp(at=now, topic=record.topic.topic, error=rejected))
                    record.failure = rejected
                    record.closing = True
                    self._end_channel()


def _copy(error: Exception) -> Exception:
    """A second caller gets an exception of its own: raising one object in two tasks would mix their tracebacks."""
    clone = type(error).__new__(type(error))
    clone.args = error.args
    clone.__dict__.update(error.__dict__)
    clone.__cause__ = error.__cause__
    return clone
