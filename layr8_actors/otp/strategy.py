"""Which children share a fate (OTP: supervisor strategies)."""

from __future__ import annotations

from enum import Enum

__all__ = ("Strategy",)


class Strategy(Enum):
    """Who else is restarted when a child is (OTP: the same names)."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody."""

    ONE_FOR_ALL = "one_for_all"
    """All children."""

    REST_FOR_ONE = "rest_for_one"
    """The children that start after it."""
