"""Checks of numbers and choices that every option of this folder goes through, so that all refuse in the same words."""

from __future__ import annotations

import math
from enum import Enum
from typing import TypeVar

from ..errors import InvalidOption

__all__ = ("checked_choice", "checked_count", "checked_flag", "checked_seconds", "checked_text")

E = TypeVar("E", bound=Enum)


def checked_seconds(option: str, value: object, *, allow_zero: bool = True, allow_infinity: bool = False) -> float:
    """Return ``value`` as a float number of seconds.

    Args:
        option: the option's name, for the message.
        value: what the caller gave.
        allow_zero: whether 0 is a sensible value.
        allow_infinity: whether ``math.inf`` is a sensible value.

    Raises:
        InvalidOption: it is no number, a bool, NaN, negative, or zero or infinite where that makes no sense.
    """
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (0 < value < math.inf or (value == 0 and allow_zero) or (value == math.inf and allow_infinity))
    ):
        return float(value)
    allowed = f"a number of seconds {'>= 0' if allow_zero else '> 0'}{' or math.inf' if allow_infinity else ''}"
    raise InvalidOption(option, value, allowed)


def checked_count(option: str, value: object, *, minimum: int = 0) -> int:
    """Return ``value`` as a whole number of at least ``minimum``.

    Args:
        option: the option's name, for the message.
        value: what the caller gave.
        minimum: the smallest value allowed.

    Raises:
        InvalidOption: it is no int, a bool, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InvalidOption(option, value, f"a whole number >= {minimum}")
    return value


def checked_choice(option: str, value: object, choices: type[E]) -> E:
    """Return ``value`` as a member of ``choices``.

    Args:
        option: the option's name, for the message.
        value: what the caller gave.
        choices: the enum it must belong to.

    Raises:
        InvalidOption: it does not belong to it.
    """
    if not isinstance(value, choices):
        allowed = ", ".join(f"{choices.__name__}.{choice.name}" for choice in choices)
        raise InvalidOption(option, value, allowed)
    return value


def checked_text(option: str, value: object) -> str:
    """Return ``value`` as a string that is not empty.

    Args:
        option: the option's name, for the message.
        value: what the caller gave.

    Raises:
        InvalidOption: it is no str, or empty.
    """
    if not isinstance(value, str) or not value:
        raise InvalidOption(option, value, "a str that is not empty")
    return value


def checked_flag(option: str, value: object) -> bool:
    """Return ``value`` as a bool.

    Args:
        option: the option's name, for the message.
        value: what the caller gave.

    Raises:
        InvalidOption: it is not True and not False.
    """
    if not isinstance(value, bool):
        raise InvalidOption(option, value, "True or False")
    return value
