"""Plain functions in worker threads, and how they come back into the loop."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from ..errors import Layr8Error
from .loop import in_package

__all__ = ("Workers",)

T = TypeVar("T")


class Workers:
    """Worker threads of one client.

    Args:
        limit: threads at once.
        local: what their threads know of themselves; shared by all workers of a client.
    """

    def __init__(self, limit: int, local: threading.local | None = None) -> None:
        self._limit = limit
        self._limiter: anyio.CapacityLimiter | None = None
        self._local = local or threading.local()

    def others(self, limit: int) -> Workers:
        """Return as many more threads of the same client: for a further DID, which never waits for those of another.

        Args:
            limit: threads at once.
        """
        return Workers(limit, self._local)

    @property
    def inside(self) -> bool:
        """Whether this thread is one of the client's, at work."""
        return getattr(self._local, "inside", False)

    def in_thread(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return an async function that runs a plain one in a worker thread; an async one is returned as it is.

        The thread is not abandoned when the caller is cancelled: a function that ran on behind everybody's back could
        send what nobody expects any more. It is told at its next call, or by ``anyio.from_thread.check_cancelled``.
        """
        if is_async(function):
            return function

        def work(args: tuple[Any, ...]) -> Any:
            self._local.inside = True
            try:
                return function(*args)
            finally:
                self._local.inside = False

        @functools.wraps(function)
        async def in_thread(*args: Any) -> Any:
            if self._limiter is None:
                # Not the limiter that all of Trio shares: its 40 threads would be fewer than the handlers at once.
                self._limiter = anyio.CapacityLimiter(self._limit)
            return await anyio.to_thread.run_sync(work, args, limiter=self._limiter)

        return in_thread

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` in the task that this thread works for, so that its cancellation is ours."""

        async def awaited() -> T:
            return await function(*args)

        try:
            return anyio.from_thread.run(awaited)
        except Layr8Error as error:
            error.__traceback__ = in_package(error.__traceback__)
            raise


def is_async(function: object) -> bool:
    """Whether calling it gives an awaitable, as far as can be told before; objects with an async __call__ included."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
