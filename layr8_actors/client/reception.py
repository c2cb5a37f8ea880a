"""What the channel calls: each message is read, answers a request, or waits for its handler; joins and pushes likewise.

All of it runs in the channel's one lane, in order. While it waits, the channel's inbox fills, and then the socket is
left to TCP's backpressure.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from ..channel.events import AttemptFailed, LinkLost, TopicLost
from ..errors import JoinRejected, MalformedMessage, RemoteProtocolError
from .delegation import Delegation, applied, parse_delegation
from .events import (
    DelegationChanged,
    DelegationIgnored,
    FunctionFailed,
    MessageMalformed,
    MessageUnhandled,
    ProblemReported,
)
from .inbound import Inbound, Status, settlement
from .message import parse_message
from .problem_report import CANNOT_PROCESS, is_problem_report, read_problem_report
from .record import worth_reporting

if TYPE_CHECKING:
    from ..telemetry import Event
    from .message import Message
    from .record import Record

__all__ = ("Reception",)

REPLY_PROTOCOL: Final = "reply_protocol/1"
DELEGATED_CREDENTIALS: Final = "delegated_credentials"


class Reception:
    """The client's end of the channel's callbacks.

    Args:
        record: the client's.
        on_delegation: the user's function, if there is one.
    """

    def __init__(self, record: Record, on_delegation: Callable[[Delegation | None], object] | None) -> None:
        self._record = record
        self._on_delegation = on_delegation

    async def on_message(self, payload: Any) -> None:
        """Take one message; return when the next one may come."""
        rest = self.take(payload)
        if rest is not None:
            await rest

    def take(self, payload: Any) -> Awaitable[None] | None:
        """Likewise, where most need no waiting: what this returns is to be awaited before the next one comes."""
        try:
            message = parse_message(payload.get("plaintext"), payload.get("context"))
        except MalformedMessage as error:
            return self._refuse(payload, error)
        return self._take(payload, message)

    def take_at_once(self, payload: Any) -> bool:
        """Take one message in the task that has read it, wholly or not at all.

        Args:
            payload: of the message.

        Returns:
            False where taking it would have to wait, or may have to.
        """
        record = self._record
        if record.threads.waiting + 1 >= record.config.max_queued or not record.connected().has_room:
            return False
        try:
            message = parse_message(payload.get("plaintext"), payload.get("context"))
        except MalformedMessage:
            return False
        rest = self._take(payload, message)
        assert rest is None  # there was room for all that it may have told or queued
        return True

    def _take(self, payload: Any, message: Message) -> Awaitable[None] | None:
        record = self._record
        record.counters.messages_received += 1
        join_ref = record.connected().message_join_ref
        exact = record.handlers.exact(message.type)
        handler = exact or record.handlers.find(message.type)
        if handler is not None and record.durability is not None:
            handler = record.durability.storing(message, payload)
        inbound = Inbound(message, join_ref, record.replies, handler)
        pending = record.requests.match(message, has_handler=exact is not None)
        if pending is not None:
            record.counters.responses += 1
            pending.finish(message)
            return self._settle(inbound, Status.HANDLED)
        if handler is None:
            return self._without_handler(inbound)
        if record.ending:
            return self._settle(inbound, Status.PASS)  # it came while the client ends: another plugin may have it
        if record.threads.waiting >= record.config.max_queued:
            inbound.size = len(msgspec.json.encode(payload))
        # First queued and then waited for room: whoever is cancelled there has lost nothing.
        record.put(inbound)
        return record.room() if record.full else None

    def _settle(self, inbound: Inbound, status: Status) -> Awaitable[None] | None:
        return None if self._record.settle_now(inbound, status) else self._record.settle(inbound, status)

    async def _refuse(self, payload: Any, error: MalformedMessage) -> None:
        record = self._record
        join_ref = record.connected().message_join_ref
        record.counters.messages_received += 1
        record.counters.messages_malformed += 1
        count = record.counters.messages_malformed
        if worth_reporting(count):
            at = trio.current_time()
            record.emit(MessageMalformed(at=at, did=record.did, error=error, count=count, payload=payload))
        plaintext = payload.get("plaintext")
        given = plaintext.get("id") if isinstance(plaintext, dict) else None
        message_id = given if isinstance(given, str) else ""
        if record.replies or message_id:
            event, told = settlement(message_id, record.replies, Status.ERROR, CANNOT_PROCESS, str(error))
            await record.tell(event, told, message_id, Status.ERROR, join_ref)

    def _without_handler(self, inbound: Inbound) -> Awaitable[None] | None:
        record = self._record
        message = inbound.message
        if is_problem_report(message):
            # Not passed on: the node would answer the report of a problem with another one.
            record.counters.problem_reports += 1
            error = read_problem_report(message)
            record.report(ProblemReported, inbound, thread=message.thid or message.pthid, error=error)
            return self._settle(inbound, Status.HANDLED)
        record.counters.messages_unhandled += 1
        if worth_reporting(record.counters.messages_unhandled):
            record.report(MessageUnhandled, inbound, count=record.counters.messages_unhandled)
        return self._settle(inbound, Status.PASS)

    # --- joins and delegations ----------------------------------------------------------------------------------------

    async def on_join(self, response: dict[str, Any]) -> None:
        """Note what the join in force is like, before anything that comes under it."""
        record = self._record
        record.replies = REPLY_PROTOCOL in response.get("capabilities", ())
        record.joined.set()
        if record.config.parent_did:
            await self._hold(parse_delegation(response.get(DELEGATED_CREDENTIALS)))
        record.entered.set()

    async def on_push(self, event: str, payload: Any) -> None:
        """Apply a push of delegated credentials; all other pushes are none of ours."""
        record = self._record
        if event != DELEGATED_CREDENTIALS:
            return
        outcome = applied(record.delegation, payload) if record.config.parent_did else "no parent was named"
        if isinstance(outcome, Delegation):
            await self._hold(outcome)
        else:
            record.emit(DelegationIgnored(at=trio.current_time(), did=record.did, why=outcome))

    async def _hold(self, reading: Delegation | None) -> None:
        record = self._record
        before, record.delegation = record.delegation, reading
        record.entered.set()  # before a function of the user, which may take its time
        if reading != before:
            record.emit(
                DelegationChanged(
                    at=trio.current_time(),
                    did=record.did,
                    status="absent" if reading is None else reading.status.value,
                    revision=None if reading is None else reading.revision,
                    credentials=0 if reading is None else len(reading.credentials),
                )
            )
            if self._on_delegation is not None:
                await self._call("on_delegation", self._on_delegation, reading)

    async def _call(self, name: str, function: Callable[..., object], *args: object) -> None:
        try:
            result = function(*args)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            record = self._record
            record.emit(FunctionFailed(at=trio.current_time(), did=record.did, function=name, error=error))

    # --- the link -----------------------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Act on what the channel reports, at the very moment."""
        record = self._record
        if isinstance(event, (LinkLost, TopicLost)):
            if record.joined.is_set():  # else somebody waits for this one already, since an earlier loss
                record.joined = trio.Event()
            record.requests.link_lost(f"the link was lost before the response came: {event.error}", event.error)
        elif isinstance(event, AttemptFailed) and isinstance(event.error, (JoinRejected, RemoteProtocolError)):
            record.delegation = None  # a join that failed has nothing delegated to it, and neither has an older one
