"""The shape that every event has; each layer declares its own events beside the code that emits them."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, ClassVar

__all__ = ("Event",)


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
        """One line for people."""
        rest = " ".join(f"{key}={value!r}" for key, value in self.fields().items() if key != "at")
        return f"{type(self).__name__} {rest}".rstrip()
