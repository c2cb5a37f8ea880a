"""Any Python value as a payload into the encoder, with and without orjson: the same text of JSON, or the same refusal.

The bytes are a program that builds the value: an opcode each, containers by nesting, so that what msgspec and orjson
disagree about is within a few bytes of each other.
"""

from __future__ import annotations

import enum
import math
import uuid
from typing import Any
from unittest import mock

from layr8_actors.errors import LocalProtocolError
from layr8_actors.phoenix import Frame, Serializer, serializer as module

__all__ = ("check",)

_ROOMY = Serializer()
_TIGHT = Serializer(max_depth=4)
_MOST_VALUES = 400


class _Text(enum.Enum):
    A = "a"
    NESTED = [1, [2]]  # noqa: RUF012 - an enum's value may be anything
    BAD = b"bytes"


class _Number(enum.IntEnum):
    ONE = 1


class _Str(str):
    __slots__ = ()


class _Dict(dict[Any, Any]):
    pass


class _List(list[Any]):
    pass


_ATOMS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**5000, 0.0, -0.0, 1.5, 1e16, 1e-7,
    5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf, "", "null", "[[[[[[", "ü\u2028\x7f\x00", "\ud800",
    _Str("sub"), _Text.A, _Text.NESTED, _Text.BAD, _Number.ONE, uuid.UUID(int=7), b"bytes", {1}, 1j, (), [], {},
)  # fmt: skip
_LIST, _TUPLE, _DICT, _SUB_LIST, _SUB_DICT, _ODD_KEY = range(200, 206)


class _Program:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._made = 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def value(self, room: int = 100) -> Any:
        """The next value of the program."""
        self._made += 1
        code = self._byte()
        if code < _LIST or room == 0 or self._made > _MOST_VALUES:
            return _ATOMS[code % len(_ATOMS)] if code < 150 else self._leaf(code)
        kind = _LIST + (code - _LIST) % 6
        children = [self.value(room - 1) for _ in range(self._byte() % 5)]
        match kind:
            case 200:
                return children
            case 201:
                return tuple(children)
            case 203:
                return _List(children)
            case 205:
                return {
                    (_ATOMS[7], None, 1.5, _Text.A, _Str("key"))[at % 5]: child for at, child in enumerate(children)
                }
            case _:
                keyed = {f"k{at}": child for at, child in enumerate(children)}
                return _Dict(keyed) if kind == _SUB_DICT else keyed

    def _leaf(self, code: int) -> Any:
        size = self._byte() % 32
        piece = self._data[self._at : self._at + size]
        self._at += size
        if code % 3 == 0:
            return piece.decode("utf-8", "surrogateescape")
        if code % 3 == 1:
            return int.from_bytes(piece, "big", signed=True)
        return float(int.from_bytes(piece[:8], "big")) / (1 + len(piece))


def check(data: bytes) -> None:
    """Encode one payload both ways, and read it back."""
    serializer = _TIGHT if data[:1] == b"T" else _ROOMY
    payload = _Program(data[1:]).value()
    frame = Frame("1", "2", "t", "e", payload)
    fast = _outcome(serializer, frame)
    with mock.patch.object(module, "_dumps", None):
        exact = _outcome(serializer, frame)
    if isinstance(fast, str) and isinstance(exact, str):
        # Floats may be spelled in different ways, so what they are read as is compared, and what an object repeats.
        assert repr(_ROOMY.decode(fast)) == repr(_ROOMY.decode(exact))
    else:
        assert fast == exact


def _outcome(serializer: Serializer, frame: Frame) -> str | tuple[type[Exception], str]:
    try:
        return serializer.encode(frame)
    except LocalProtocolError as error:
        assert error.__context__ is None, "the context holds the payload"  # noqa: PT017 - not a test of pytest
        return type(error), str(error)
