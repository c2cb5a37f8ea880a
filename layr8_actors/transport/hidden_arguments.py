"""A dataclass whose failed construction shows none of its arguments in the traceback.

The ``__init__`` that :mod:`dataclasses` writes has each field as a local variable, in plain text, and stays in the
traceback of what ``__post_init__`` raises. Tools that print a traceback with its locals print it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

__all__ = ("hide_arguments",)

T = TypeVar("T")


def hide_arguments(cls: type[T]) -> type[T]:
    """Take the frame of ``__init__`` out of the traceback of whatever construction raises; for a class decorator.

    Args:
        cls: a dataclass. Its ``__post_init__`` has to see to its own locals, and to the fields of ``self``.

    Returns:
        The same class.
    """
    construct: Callable[..., None] = vars(cls)["__init__"]

    @functools.wraps(construct)
    def construct_quietly(self: Any, *args: Any, **kwargs: Any) -> None:
        error = _failure(construct, self, args, kwargs)
        if error is not None:
            del args, kwargs
            raise error

    type.__setattr__(cls, "__init__", construct_quietly)
    return cls


def _failure(
    construct: Callable[..., None], self: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Exception | None:
    try:
        construct(self, *args, **kwargs)
    except Exception as error:  # whatever it is, it is raised by the caller, without two frames
        return error.with_traceback(_below(error.__traceback__, construct))
    return None


def _below(traceback: TracebackType | None, construct: Callable[..., None]) -> TracebackType | None:
    """The traceback without this module's frame and without that of ``construct``."""
    below = traceback.tb_next if traceback is not None else None
    if below is not None and below.tb_frame.f_code is construct.__code__:
        return below.tb_next
    return below
