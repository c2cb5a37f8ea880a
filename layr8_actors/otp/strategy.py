"""Which children share a fate, with each other and with their supervisor (OTP: strategy and auto_shutdown)."""

from __future__ import annotations

from enum import Enum

__all__ = ("AutoShutdown", "Strategy")


class Strategy(Enum):
    """Who else is restarted when a child is (OTP: the same names)."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody."""

    ONE_FOR_ALL = "one_for_all"
    """All children."""

    REST_FOR_ONE = "rest_for_one"
    """The children that start after it."""


class AutoShutdown(Enum):
    """Whether a supervisor ends when significant children have ended by themselves (OTP: the same names)."""

    NEVER = "never"
    """It does not."""

    ANY_SIGNIFICANT = "any_significant"
    """When the first of them ends for good."""

    ALL_SIGNIFICANT = "all_significant"
    """When the last of them has ended; one that waits for its restart has not."""
