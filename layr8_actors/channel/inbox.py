"""Inbox: runs the user's functions, one message at a time and in order, and keeps what they raise to itself.

The other two callbacks have a lane of their own, so that an ``on_message`` that takes its time, or that waits for the
link to come back, does not hold them up.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from ..otp import ExitReason
from .events import CallbackFailed, CallbacksSkipped, MessageDropped, MessageInterrupted
from .messages import Joined, MessagesArrived, Notify, Push
from .options import AtOnceCallbacks
from .prompt import PromptActor

if TYPE_CHECKING:
    from .options import Callbacks
    from .record import Record

__all__ = ("Inbox",)

MESSAGES_PER_CHECKPOINT = 32
"""A sync on_message never yields by itself; 32 of them cost about as much as the one checkpoint that follows them.

It is also how many more it is handed once the channel is cancelled."""


MAX_NOTICES = 64
"""Calls of on_disconnect and on_reconnect that may wait for one that does not return. Ours: 32 drops' worth."""


class Inbox(PromptActor):
    """The actor that stands between the channel and the user's code.

    Args:
        record: the channel's record.
    """

    hibernate_after = 0.1  # ours: a wake-up is 8 us, which ten times a second is nothing, and for each message much

    def __init__(self, record: Record) -> None:
        self._record = record
        self._announcing = False
        self._context = contextvars.copy_context()
        self._taker: Callable[[Any], bool] | None = None

    async def init(self) -> None:
        """Go on with what was waiting before a crash; it is first in line."""
        self._record.lane_open = False  # a lane that was cancelled before its first step could not say so
        self._look_for_mail()
        callbacks = self._record.options.callbacks
        if isinstance(callbacks, AtOnceCallbacks) and callbacks.take_at_once is not None:
            self._taker = callbacks.take_at_once
            self._record.take_at_once = self.take_at_once
        self._start_lanes()
        self.attend()

    def _look_for_mail(self) -> None:
        if self._record.messages_mailed:
            self._record.messages_mailed = self.ref.statistics().depth > 0

    def _start_lanes(self) -> None:
        # A lane runs only while there is something in it: an idle channel shall not pay for tasks.
        record = self._record
        backlog = record.backlog
        if not record.lane_open and record.options.callbacks.on_message and (backlog.messages or backlog.joins):
            self._context.run(self.start_soon, self._deliver, record.options.callbacks)
            record.lane_open = True
        if record.notices and not self._announcing:
            self._announcing = True
            self._context.run(self.start_soon, self._announce)  # not in that of who sent us the notice

    async def handle_cast(self, message: object) -> None:
        """Put messages and notices into their lanes."""
        record = self._record
        match message:
            case MessagesArrived(payloads=payloads, sizes=sizes, joins=joins):
                record.backlog.put(payloads, sizes, joins)
                self._look_for_mail()
                if not record.backlog.read_by_user:
                    self._drop_unread()
                record.wake_readers()
            case Notify(error=error):
                record.notices.append(error)
                if len(record.notices) > MAX_NOTICES:
                    self._skip_notices()
            case _:
                await super().handle_cast(message)
        self._start_lanes()

    async def terminate(self, reason: ExitReason) -> None:
        """Report the message that on_message was at work on; it may have taken effect, so it is not repeated."""
        record = self._record
        record.take_at_once = None
        if record.in_hand is not None:
            (payload,) = record.in_hand
            record.in_hand = None
            record.counters.messages_interrupted += 1
            record.emit(MessageInterrupted(at=trio.current_time(), topic=record.topic.topic, payload=payload))

    def take_at_once(self) -> None:
        """Hand over what Router has just routed, in its caller's task, as far as that goes; the rest goes by the lane.

        What the function raises is kept to itself here too.
        """
        record, take = self._record, self._taker
        backlog = record.backlog
        assert take is not None
        if record.lane_open or record.messages_mailed or record.routed_joins or backlog.messages or backlog.joins:
            return  # they go behind what is there
        taken = 0
        for payload in record.routed:
            try:
                if type(payload) is Push or not take(payload):
                    break
            except Exception as error:
                self._failed("on_message", error)
            backlog.remove(1, record.routed_sizes[taken])
            taken += 1
        record.counters.messages_delivered += taken
        record.routed, record.routed_sizes = record.routed[taken:], record.routed_sizes[taken:]

    def _drop_unread(self) -> None:
        record = self._record
        # Nobody reads and nobody ever has: an agent that only sends must not stall on what it does not want.
        dropped = record.backlog.drop_excess()
        if not dropped:
            return
        record.counters.messages_dropped += dropped
        count = record.counters.messages_dropped
        record.emit(MessageDropped(at=trio.current_time(), topic=record.topic.topic, count=count))

    def _skip_notices(self) -> None:
        record = self._record
        # The two oldest are an up and a down, or the other way round: without both the calls still take turns.
        del record.notices[:2]
        record.counters.callbacks_skipped += 2
        count = record.counters.callbacks_skipped
        record.emit(CallbacksSkipped(at=trio.current_time(), topic=record.topic.topic, count=count))

    async def _deliver(self, callbacks: Callbacks) -> None:
        record = self._record
        backlog = record.backlog
        try:
            while True:
                await self._deliver_all(callbacks)
                await trio.lowlevel.checkpoint()
                if not (backlog.messages or backlog.joins):
                    break  # else it is a flood, and a task for each few messages would cost more than they do
        finally:
            record.lane_open = False

    async def _deliver_all(self, callbacks: Callbacks) -> None:
        record = self._record
        backlog = record.backlog
        on_message = callbacks.on_message
        assert on_message is not None
        counters = record.counters
        since_checkpoint = 0
        while backlog.messages or backlog.joins:
            since_checkpoint += 1
            if since_checkpoint >= MESSAGES_PER_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()
            if backlog.joins and (joined := backlog.next_join()) is not None:
                await self._enter(joined, callbacks)
                continue
            payload = backlog.take()
            if type(payload) is Push:
                assert callbacks.on_push is not None  # or Router would not have sent it
                record.in_hand = (payload.payload,)
                await self._call("on_push", callbacks.on_push, payload.event, payload.payload)
            else:
                record.in_hand = (payload,)
                try:  # as _call does, which would take as long as all the rest
                    result = on_message(payload)
                    if result is not None and inspect.isawaitable(result):
                        await result
                except Exception as error:
                    self._failed("on_message", error)
            record.in_hand = None
            counters.messages_delivered += 1

    async def _enter(self, joined: Joined, callbacks: Callbacks) -> None:
        self._record.message_join_ref = joined.join_ref
        if callbacks.on_join is not None:
            await self._call("on_join", callbacks.on_join, joined.response)

    async def _announce(self) -> None:
        record = self._record
        callbacks = record.options.callbacks
        while record.notices:
            error = record.notices.pop(0)
            if error is not None and callbacks.on_disconnect is not None:
                await self._call("on_disconnect", callbacks.on_disconnect, error)
            elif error is None and callbacks.on_reconnect is not None:
                await self._call("on_reconnect", callbacks.on_reconnect)
            await trio.lowlevel.checkpoint()
        self._announcing = False

    async def _call(self, name: str, callback: Callable[..., object], *args: object) -> None:
        try:
            result = callback(*args)
            if result is not None and inspect.isawaitable(result):
                await result
        except Exception as error:
            self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        record = self._record
        record.counters.callbacks_failed += 1
        record.emit(CallbackFailed(at=trio.current_time(), topic=record.topic.topic, callback=name, error=error))
