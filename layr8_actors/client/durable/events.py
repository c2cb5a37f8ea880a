"""What durable queues and their workers report: frozen events, without the bodies of messages."""

from __future__ import annotations

import dataclasses
import logging
from typing import ClassVar

from ...telemetry import Event

__all__ = (
    "DurabilityWeak",
    "DurableEvent",
    "HandlerFailed",
    "LeaseLost",
    "MessageDead",
    "MessageRedelivered",
    "StoreUnavailable",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DurableEvent(Event):
    """The root of these events.

    Args:
        queue: the name of the queue.
    """

    layer: ClassVar[str] = "durable"
    queue: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageRedelivered(DurableEvent):
    """A worker got a message that was claimed before: the handler may see it for the second time."""

    level: ClassVar[int] = logging.INFO
    id: str
    attempt: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed(DurableEvent):
    """A handler raised; the message is tried again in ``retry_in`` seconds, or never where that is None."""

    level: ClassVar[int] = logging.ERROR
    id: str
    attempt: int
    error: Exception
    retry_in: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MessageDead(DurableEvent):
    """A message is a dead letter now; ``reason`` is why its last attempt failed."""

    level: ClassVar[int] = logging.ERROR
    id: str
    attempts: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost(DurableEvent):
    """Somebody else has a message that a handler is at, or was at: it is, or will be, handled twice."""

    level: ClassVar[int] = logging.WARNING
    id: str
    attempt: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreUnavailable(DurableEvent):
    """The store failed in a way that may pass; the worker tries again in ``retry_in`` seconds."""

    level: ClassVar[int] = logging.WARNING
    error: Exception
    retry_in: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DurabilityWeak(DurableEvent):
    """What a ``put`` returned from may be lost in a power cut; ``detail`` says which setting of the server it is."""

    level: ClassVar[int] = logging.WARNING
    detail: str
