"""Ids of messages: UUIDs of version 4 (RFC 9562, section 5.4), without the objects, which take three times as long."""

from __future__ import annotations

import os
from typing import Final

__all__ = ("new_id",)

AT_A_TIME: Final = 64
"""Ids that one call for randomness is for; ours."""

_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

# Made many at a time, since each call for randomness is one of the system; pop and append are safe in any thread.
_ids: Final[list[str]] = []
if hasattr(os, "register_at_fork"):  # where a process can fork, two must not give the same ones away
    os.register_at_fork(after_in_child=_ids.clear)


def new_id() -> str:
    """Return an id that nobody has given away."""
    try:
        return _ids.pop()
    except IndexError:
        return _make_ids()


def _make_ids() -> str:
    # UUIDs of version 4 (RFC 9562, section 5.4) without the objects, which take three times as long.
    digits = os.urandom(16 * AT_A_TIME).hex()
    for start in range(0, len(digits), 32):
        one = digits[start : start + 32]
        variant = _VARIANTS[one[16]]
        _ids.append(f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{variant}{one[17:20]}-{one[20:]}")
    return new_id()
