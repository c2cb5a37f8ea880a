"""Inbound messages as an async iterator, for those who would rather pull than be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from .record import Record

__all__ = ("MessageStream",)


class MessageStream:
    """The async iterator that :meth:`Channel.messages` returns."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> Any:
        """Return the next payload. Checkpoints; a cancelled call has taken no message."""
        record = self._record
        await trio.lowlevel.checkpoint()
        while not record.backlog.messages:
            if record.over.is_set():
                if record.failure is not None:
                    raise record.closed_error()
                raise StopAsyncIteration
            await record.news()
        record.counters.messages_delivered += 1
        return record.backlog.take()
