"""The one hook through which events leave the package, and the default that logs them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .event import Event

__all__ = ("Hook", "emit", "log_event")

Hook = Callable[[Event], None]
"""A plain function that is called with each event, in order, from the task that caused it: be quick, never await."""


def log_event(event: Event) -> None:
    """Log ``event`` through stdlib logging, with the exception it carries; the default hook.

    Args:
        event: goes to the logger ``layr8_actors.<layer>`` with the event itself as ``extra["event"]``.
    """
    logger = logging.getLogger(f"layr8_actors.{event.layer}")
    if logger.isEnabledFor(event.level):
        error = getattr(event, "error", None)
        exc_info = error if isinstance(error, BaseException) and event.level >= logging.ERROR else None
        logger.log(event.level, "%s", event.describe(), exc_info=exc_info, extra={"event": event})


def emit(hook: Hook, event: Event) -> None:
    """Hand ``event`` to ``hook``; a hook that raises is logged and changes nothing else (suture, OTP report handlers).

    Args:
        hook: the user's function.
        event: what happened.
    """
    try:
        hook(event)
    except Exception:
        logging.getLogger("layr8_actors.telemetry").exception("the event hook raised on %s", type(event).__name__)
