"""A client over a durable store: what comes is stored and then acknowledged, what goes is stored and then sent.

The dispatcher stores a message where it would call its handler, so the node is told ``handled`` when the message is
safe, and never before. A worker calls the handler, another one sends; both are children of the client's tree.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import msgspec
import trio

from ..errors import (
    ChannelClosed,
    Disconnected,
    HandlerTimeout,
    InvalidOption,
    LocalProtocolError,
    MessageNotStored,
    NotConnected,
    ReplyTimeout,
    ServerReject,
    StoreFailed,
)
from ..otp import ChildSpec
from ..otp.exit_reason import sole_exception
from .dispatch import LAST_WORDS, call
from .durable.queue import Claimed, DurableQueue, QueueOptions
from .durable.worker import GIVE_BACK_TIMEOUT, RejectMessage, SnoozeMessage, run_worker
from .handlers import Handler, Pass
from .message import Message, parse_message
from .problem_report import describe_failure, is_problem_report, problem_report

if TYPE_CHECKING:
    from .record import Record

__all__ = ("Durability", "DurableStore", "durability_of")

LINK_IS_DOWN: Final = (NotConnected, Disconnected, ReplyTimeout, ChannelClosed)

INBOX_OF: Final = "inbox of "
OUTBOX_OF: Final = "outbox of "

PASSED_TOO_LATE: Final = (
    "the handler passed, but the message was stored and accepted before it ran, so no other plugin can have it any more"
)

SNOOZE: Final = 1.0
"""Seconds before the next attempt where it was the link, or the store; as long as the first pause between dials."""


@runtime_checkable
class DurableStore(Protocol):
    """What a client needs of a store: :class:`SqliteStore`, :class:`RedisStore`, :class:`MemoryStore`, or yours."""

    @property
    def inbox(self) -> DurableQueue:
        """Of what came for the client's own DID and is to be handled."""
        ...

    @property
    def outbox(self) -> DurableQueue:
        """Of what is to be sent from it."""
        ...

    def queue(self, name: str, options: QueueOptions | None = None) -> DurableQueue:
        """Return the queue of that name: a further DID has two of its own.

        Args:
            name: which one.
            options: how it treats its messages.
        """
        ...

    async def live(self) -> dict[str, int]:
        """Return how many messages are still to be acknowledged, by the queue's name; only of queues that have any."""
        ...


def durability_of(store: object) -> Callable[..., Durability]:
    """Check a store, and return what makes the durable half of a DID's run from its record.

    Args:
        store: the user's.

    Raises:
        InvalidOption: it is none.
    """
    if not (
        isinstance(store, DurableStore)
        and isinstance(store.inbox, DurableQueue)
        and isinstance(store.outbox, DurableQueue)
    ):
        raise InvalidOption("durable", store, "a SqliteStore, a RedisStore, or what has the queues that they have")
    return functools.partial(Durability, store)


class Durability:
    """The durable half of one DID in one run of a client.

    Each further DID has two queues of its own, which bear its name. So nobody else's handlers ever see what is in them,
    and while it is not joined nobody looks into them.

    Args:
        store: open for as long as the run.
        record: of the DID in this run.
        did: of a further DID; ``""`` for the client's own.
    """

    def __init__(self, store: DurableStore, record: Record, did: str = "") -> None:
        self._queues = store
        self._record = record
        self._did = did
        if did:
            self._inbox = store.queue(f"{INBOX_OF}{did}", store.inbox.options)
            self._outbox = store.queue(f"{OUTBOX_OF}{did}", store.outbox.options)
        else:
            self._inbox, self._outbox = store.inbox, store.outbox

    def children(self) -> list[ChildSpec]:
        """The workers, which stop before the dispatcher and the channel do."""
        config = self._record.config
        work = functools.partial(run_worker, on_event=config.on_event)
        # Of a further DID nothing is handled before it is joined: a join that fails has called none of its handlers.
        ready = self._entered if self._did else None
        handle = functools.partial(work, self._inbox, self._handle, concurrency=config.max_handlers, ready=ready)
        send = functools.partial(work, self._outbox, self._send, ready=self._joined)
        shutdown = config.shutdown_grace + GIVE_BACK_TIMEOUT + LAST_WORDS
        inbox, outbox = (f"{INBOX_OF}{self._did}", f"{OUTBOX_OF}{self._did}") if self._did else ("inbox", "outbox")
        return [ChildSpec(inbox, handle, shutdown=shutdown), ChildSpec(outbox, send, shutdown=shutdown)]

    async def waiting(self, joined: Collection[str]) -> dict[str, int]:
        """Return how many stored messages wait for a further DID to be joined, by DID; inbox and outbox together.

        Args:
            joined: DIDs whose messages are being seen to.

        Raises:
            StoreFailed: the store cannot tell now.
        """
        waiting: Counter[str] = Counter()
        for name, messages in (await self._queues.live()).items():
            for prefix in (INBOX_OF, OUTBOX_OF):
                did = name.removeprefix(prefix)
                if did != name and did not in joined:
                    waiting[did] += messages
        return dict(waiting)

    def storing(self, message: Message, payload: Any) -> Handler:
        """Return what the dispatcher shall do with a message instead of calling its handler.

        Args:
            message: the message.
            payload: all that came with it.
        """
        return Handler(functools.partial(self._store, payload), self._record.config.handler_timeout, False, stores=True)

    async def _store(self, payload: Any, message: Message) -> None:
        try:
            body = msgspec.json.encode({**payload, "did": self._record.config.agent_did})
            # Ids are their sender's: another one, by chance or by intent, may use the same.
            await self._inbox.put(f"{message.from_} {message.id}", body, key=message.thread)
        except StoreFailed as error:
            raise MessageNotStored("the agent cannot store messages now; send it again later") from error

    # --- the inbox's worker -------------------------------------------------------------------------------------------

    async def _handle(self, claimed: Claimed) -> None:
        record = self._record
        payload = msgspec.json.decode(claimed.body)
        did = payload.get("did")
        if did and did != record.config.agent_did:
            await self._set_aside(did, claimed)
            return
        message = parse_message(payload.get("plaintext"), payload.get("context"))
        handler = record.handlers.find(message.type)
        if handler is None:
            raise RejectMessage(f"there is no handler of {message.type} any more")
        try:
            answer: dict[str, Any] | Pass | None = None
            with trio.CancelScope(deadline=trio.current_time() + handler.timeout) as scope:
                answer = await call(handler, message, record.did)
            if scope.cancelled_caught:
                raise HandlerTimeout(message.type, handler.timeout)
            if isinstance(answer, Pass):
                # Were it simply done with, nobody would ever hear of it: the node would have told the sender.
                raise RejectMessage(PASSED_TOO_LATE)
            if answer is not None:
                await self._put(f"answer {claimed.id}", answer)
        except Exception as raised:
            error = sole_exception(raised)  # as the worker does
            last = claimed.attempt >= self._inbox.options.max_attempts
            if isinstance(error, RejectMessage) or (last and not isinstance(error, SnoozeMessage)):
                await self._report(claimed, message, error)
            raise

    async def _set_aside(self, did: str, claimed: Claimed) -> None:
        """Put a message where it waits for its DID: the client's own was another one when it came."""
        queue = self._queues.queue(f"{INBOX_OF}{did}", self._inbox.options)
        try:
            await queue.put(claimed.id, claimed.body, key=claimed.key)
        except StoreFailed as error:
            raise SnoozeMessage(SNOOZE, f"it is of {did}, and could not be set aside: {error}") from error

    async def _report(self, claimed: Claimed, message: Message, error: Exception) -> None:
        """Tell the sender that the message is given up, unless it is nobody or would report back."""
        if message.from_ and not is_problem_report(message):
            record = self._record
            report = problem_report(message, describe_failure(error, record.redact))
            await self._put(f"report {claimed.id}", report.replace(from_=record.did).to_plaintext())

    async def _put(self, id: str, plaintext: dict[str, Any]) -> None:
        """Store what answers a message, under an id that is the same at each attempt: it goes out once."""
        try:
            await self._outbox.put(id, msgspec.json.encode(plaintext), key=plaintext.get("thid"))
        except StoreFailed as error:
            raise SnoozeMessage(SNOOZE, f"its answer could not be stored: {error}") from error

    # --- the outbox's worker ------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Store a message to be sent.

        Raises:
            StoreFailed: it is not stored.
        """
        await self._outbox.put(message.id, msgspec.json.encode(message.to_plaintext()), key=message.thread)

    async def _joined(self) -> None:
        await self._record.joined.wait()

    async def _entered(self) -> None:
        await self._record.entered.wait()

    async def _send(self, claimed: Claimed) -> None:
        plaintext = msgspec.json.decode(claimed.body)
        try:
            channel = self._record.connected()
            plaintext["from"] = plaintext["from"] or channel.assigned_did
            reply = await channel.send_msg("message", plaintext)
        except LINK_IS_DOWN as error:
            raise SnoozeMessage(SNOOZE, f"the link is down: {error}") from error
        except LocalProtocolError as error:
            raise RejectMessage(str(error)) from error
        if not reply.ok:
            raise ServerReject(reply.reason, message_id=plaintext["id"])
