"""What an actor has in the place of a cancel scope or a nursery that it does not need, so that it idles for less."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import trio

from ..errors import SupervisionError

__all__ = ("UNSCOPED", "at_once", "not_now")

T = TypeVar("T")


class _Unscoped:
    """In the place of a scope or a nursery that is not needed; what leaves it is not bound, so holding it is free."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    @staticmethod
    def __exit__(*_: object) -> None:
        return None

    async def __aenter__(self) -> None:
        return None

    @staticmethod
    async def __aexit__(*_: object) -> None:
        return None


UNSCOPED = _Unscoped()


def at_once(method: Coroutine[Any, Any, T]) -> T:
    """Run a method that does not wait.

    Args:
        method: what it returned when it was called.

    Raises:
        SupervisionError: it waits after all; it was broken off there.
    """
    try:
        method.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    method.close()
    raise SupervisionError(
        f"{getattr(method, '__qualname__', 'a method')} waits, though its class says that no method does"
    )


def not_now(_: object) -> trio.lowlevel.Abort:
    """The wait of an actor without a scope: who cancels the supervisor does not end its children, it does."""
    return trio.lowlevel.Abort.FAILED
