"""Inbox: runs the user's functions, one message at a time and in order, and keeps what they raise to itself.

The other two callbacks have a lane of their own, so that an ``on_message`` that takes its time, or that waits for the
link to come back, does not hold them up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..otp import Actor, ExitReason
from .events import CallbackFailed, MessageDropped, MessageInterrupted
from .messages import MessagesArrived, Notify

if TYPE_CHECKING:
    from .record import Record

__all__ = ("Inbox",)

MESSAGES_PER_CHECKPOINT = 32
"""A sync on_message never yields by itself; 32 of them cost about as much as the one checkpoint that follows them."""


class Inbox(Actor):
    """The actor that stands between the channel and the user's code.

    Args:
        record: the channel's record.
    """

    waits = False  # but in terminate, and in tasks of their own

    def __init__(self, record: Record) -> None:
        self._record = record
        self._delivering = False
        self._announcing = False

    async def init(self) -> None:
        """Go on with what was waiting before a crash; it is first in line."""
        self._start_lanes()

    def _start_lanes(self) -> None:
        # A lane runs only while there is something in it: an idle channel shall not pay for tasks.
        record = self._record
        on_message = record.options.callbacks.on_message
        if record.backlog.messages and on_message is not None and not self._delivering:
            self._delivering = True
            self.start_soon(self._deliver, on_message)
        if record.notices and not self._announcing:
            self._announcing = True
            self.start_soon(self._announce)

    async def handle_cast(self, message: object) -> None:
        """Put messages and notices into their lanes."""
        record = self._record
        match message:
            case MessagesArrived(payloads=payloads, sizes=sizes):
                record.backlog.put(payloads, sizes)
                if not record.backlog.read_by_user:
                    self._drop_unread()
                record.wake_readers()
            case Notify(error=error):
                record.notices.append(error)
            case _:
                await super().handle_cast(message)
        self._start_lanes()

    async def terminate(self, reason: ExitReason) -> None:
        """Report the message that on_message was at work on; it may have taken effect, so it is not repeated."""
        record = self._record
        if record.in_hand is not None:
            (payload,) = record.in_hand
            record.in_hand = None
            record.counters.messages_interrupted += 1
            record.emit(MessageInterrupted(at=trio.current_time(), topic=record.topic.topic, payload=payload))

    def _drop_unread(self) -> None:
        record = self._record
        # Nobody reads and nobody ever has: an agent that only sends must not stall on what it does not want.
        dropped = record.backlog.drop_excess()
        if not dropped:
            return
        record.counters.messages_dropped += dropped
        count = record.counters.messages_dropped
        record.emit(MessageDropped(at=trio.current_time(), topic=record.topic.topic, count=count))

    async def _deliver(self, on_message: Callable[..., object]) -> None:
        record = self._record
        backlog = record.backlog
        since_checkpoint = 0
        while backlog.messages:
            since_checkpoint += 1
            if since_checkpoint >= MESSAGES_PER_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            payload = backlog.take()
            record.in_hand = (payload,)
            await self._call("on_message", on_message, payload)
            record.in_hand = None
            record.counters.messages_delivered += 1
        self._delivering = False

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
            record = self._record
            record.counters.callbacks_failed += 1
            record.emit(CallbackFailed(at=trio.current_time(), topic=record.topic.topic, callback=name, error=error))
