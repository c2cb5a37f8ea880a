"""The shape that every event has; each layer declares its own events beside the code that emits them."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, ClassVar

__all__ = ("Event",)

_MOST_SHOWN = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, as immutable data with live exceptions in it and never a secret.

    Args:
        at: when it happened, in seconds of the clock of the run (``trio.current_time()``).
    """

    level: ClassVar[int] = logging.INFO
    """The stdlib logging level that fits: a crash is an error, a clean end is debug."""

    layer: ClassVar[str] = "otp"
    """Which logger it belongs to: ``layr8_actors.<layer>``."""

    at: float

    def fields(self) -> dict[str, Any]:
        """All fields as a dict, for adapters that want key and value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def describe(self) -> str:
        """One line for people, without the fields that hold a user's data (``repr=False``), and with 1000 characters of
        any other at most: a node may have said it.
        """
        shown = [field.name for field in dataclasses.fields(self) if field.repr and field.name != "at"]
        rest = " ".join(f"{name}={_shown(getattr(self, name))}" for name in shown)
        return f"{type(self).__name__} {rest}".rstrip()


def _shown(value: object) -> str:
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}... ({len(shown)} characters)"
