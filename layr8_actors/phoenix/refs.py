"""Refs: the numbers that tie a reply to its request."""

from __future__ import annotations

__all__ = ("Refs",)


class Refs:
    """Counts refs for one socket, as decimal strings from ``"1"``, like phoenix.js.

    One counter serves the joins, pushes, leaves and heartbeats of a socket, so that no ref is ever used twice on it.
    Strings, because Phoenix echoes integers as integers in text frames but as strings in binary ones.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        """Return the next ref; never fails, never checkpoints."""
        self._last = last = self._last + 1
        return str(last)
