"""Which payloads may be written as JSON, so that the other side reads back what was meant.

The walk over all of a payload is the truth; the one over what the collector tracks spares most of it where an encoder
has already refused the rest.
"""

from __future__ import annotations

import enum
import gc
import math
import uuid
from typing import Any, Final

__all__ = ("TOO_DEEP", "tracked_within", "unwritable", "without_enums")

TOO_DEEP: Final = "nesting deeper than the limit, or a value that contains itself"


def tracked_within(limit: int, payload: Any) -> bool:
    """Tell whether what the collector tracks of a payload nests no deeper; False too where it holds enums.

    It costs next to nothing, because the leaves of a payload and the containers around them are seldom tracked.
    """
    level = [payload]
    while level:
        if limit <= 0:
            return False
        limit -= 1
        tracked: list[Any] = []
        for container in level:
            kind = type(container)
            if kind is dict:
                tracked += filter(gc.is_tracked, container.values())
            elif kind is list or kind is tuple:
                tracked += filter(gc.is_tracked, container)
            elif kind is not uuid.UUID:
                return False  # an enum, whose value may nest
        level = tracked
    return True


def unwritable(value: Any, room: int) -> str | None:
    """Say what in this value is no JSON, by type and never by value, or return None; ``room`` is the levels left."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None or kind is uuid.UUID:
        return None
    if isinstance(value, enum.Enum):
        return unwritable(value.value, room)
    if isinstance(value, float):
        return None if math.isfinite(value) else "a float that is not finite"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return f"a dict with a key of type {type(key).__name__}"
        children: Any = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    elif isinstance(value, (str, int)):
        return None  # A subclass, which msgspec refuses itself.
    else:
        return f"a value of type {kind.__name__}"
    if room == 0:
        return TOO_DEEP
    for child in children:
        # The commonest types are tested here once more, because a call for each leaf would cost more than the encoding.
        kind = type(child)
        if kind is str or kind is int or kind is bool or child is None:
            continue
        problem = unwritable(child, room - 1)
        if problem is not None:
            return problem
    return None


def without_enums(value: Any) -> Any:
    """Return what may be written with the value in place of each enum; msgspec knows enums of str and int only."""
    if isinstance(value, enum.Enum):
        return without_enums(value.value)
    if isinstance(value, dict):
        return {key: without_enums(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_enums(child) for child in value]
    return value
