"""A string that must not be seen: it has a value, but no way of showing it by accident."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NoReturn

from ..errors import InvalidOption

__all__ = ("Secret",)


class Secret:
    """An API key on its way to the wire, shown as ``***`` wherever it is printed.

    ``repr``, ``str``, formatting, dataclass reprs, and tools that print a traceback with its locals all show ``***``;
    pickling is refused, because a pickle is plain text. No attribute is the text either, for tools that print those: it
    is in a closure. Two secrets are equal when their values are, compared in
    constant time. It is deliberately no ``str``: joined, encoded or logged by mistake, it fails instead of leaking.

    Args:
        value: the text to guard.

    Raises:
        InvalidOption: ``value`` is not a ``str``.
    """

    __slots__ = ("_read",)

    _read: Callable[[], str]

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            error = InvalidOption("secret", value, "a str")
            del value  # bytes may be a key all the same, and a traceback shows locals
            raise error
        object.__setattr__(self, "_read", lambda: value)

    def reveal(self) -> str:
        """The guarded text; call it where the text is used, and keep the result in no variable that outlives that."""
        return self._read()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __bool__(self) -> bool:
        return bool(self._read())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # surrogatepass: an odd key must compare unequal, not raise.
        mine, theirs = (secret._read().encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._read()))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        # dataclasses.asdict deep-copies what it finds; an immutable value is its own copy.
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")
