"""One run of a blocking client: its event loop in a thread, the client in it, and the way in from other threads."""

from __future__ import annotations

import atexit
import contextlib
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import trio

from ..client import Client
from ..errors import ChannelClosed, Layr8Error

__all__ = ("Loop",)

T = TypeVar("T")

PACKAGE = str(Path(__file__).parent.parent)


class Loop:
    """A thread with an event loop, in which a client runs from :meth:`start` to :meth:`end`.

    Args:
        client: is entered in the loop.
        store: is opened before the client, and closed after it; ``None`` for none.
    """

    def __init__(self, client: Client, store: object = None) -> None:
        self._client = client
        self._store = store
        self._stack = contextlib.ExitStack()
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._held: Future[None] | None = None
        self._stop = trio.Event()
        self._thread: int | None = None
        self._ending = threading.Lock()

    # --- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, open the store and connect the client; where that fails, nothing is left.

        Raises:
            Layr8Error: as :meth:`Client.connect`.
            StoreFailed: the store cannot be opened.
        """
        with contextlib.ExitStack() as stack:
            self._portal = portal = stack.enter_context(
                anyio.from_thread.start_blocking_portal(backend="trio", name=f"layr8 {self._client.did}")
            )
            connected: Future[None] = Future()
            self._held = portal.start_task_soon(self._hold, connected, name="blocking client")
            started = False
            try:
                self._wait_for(connected, self._held)
                started = True
            finally:
                if not started:  # Ctrl-C, or it has failed: the portal waits for what it leaves behind
                    self._portal = None
                    self._held.cancel()
            self._stack = stack.pop_all()
        atexit.register(self._at_exit)

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._portal is not None

    async def _hold(self, connected: Future[None]) -> None:
        self._thread = threading.get_ident()
        try:
            async with self._opened(), self._client:
                connected.set_result(None)
                await self._stop.wait()
        finally:
            connected.cancel()  # which changes nothing once it is
            self._stop.set()

    def _opened(self) -> contextlib.AbstractAsyncContextManager[object]:
        store = self._store
        return store if isinstance(store, contextlib.AbstractAsyncContextManager) else contextlib.nullcontext()

    @staticmethod
    def _wait_for(connected: Future[None], held: Future[None]) -> None:
        try:
            outcome_of(connected)
        except CancelledError:
            outcome_of(held)  # raises why
            raise

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end of the client; False where ``timeout`` is over first. Raises why it gave up, if it did."""
        assert self._held is not None
        try:
            outcome_of(self._held, timeout)
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Close the client in order, end the thread, and raise why the client gave up, if it did. Idempotent.

        Ctrl-C in the meantime cancels what is left to do.
        """
        with self._ending:
            if self._portal is None:
                return
            atexit.unregister(self._at_exit)
            stack, self._stack = self._stack, contextlib.ExitStack()
            with stack:
                self.request_stop()
                try:
                    self.wait(None)
                finally:
                    self._portal = None

    def request_stop(self) -> None:
        """Have the client closed, without waiting for it; from any thread, the loop's included."""
        portal = self._portal
        if portal is None:
            return
        if threading.get_ident() == self._thread:
            self._stop.set()
            return
        with contextlib.suppress(RuntimeError):  # the portal has ended just now
            portal.start_task_soon(self._stop.set)

    def forgotten(self) -> None:
        """Remind whoever dropped a running client, and have it closed: by a thread, for a finalizer must not wait."""
        if self._portal is not None:
            self._remind()
            threading.Thread(target=self._end_quietly, daemon=True).start()

    def _at_exit(self) -> None:
        self._remind()
        self._end_quietly()

    def _remind(self) -> None:
        text = f"the blocking client of {self._client.did} was not closed; use `with client:` or client.close()"
        warnings.warn(text, ResourceWarning, stacklevel=3)

    def _end_quietly(self) -> None:
        with contextlib.suppress(Layr8Error):  # it gave up before, and nobody is there to be told
            self.end()

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` in the loop; whatever interrupts the calling thread cancels it.

        Raises:
            ChannelClosed: the client has ended, or ends before the call is done.
            RuntimeError: called in the loop's own thread, which it would block for ever.
        """
        portal = self._portal
        if threading.get_ident() == self._thread:
            raise RuntimeError("a blocking call from an async function would stop the loop; await client.asynchronous")
        try:
            if portal is None:
                raise RuntimeError
            future = portal.start_task_soon(function, *args)
        except RuntimeError:
            raise ChannelClosed("the client has ended") from None
        try:
            return outcome_of(future)
        except CancelledError:
            raise ChannelClosed("the client ended before the call was done") from None
        finally:
            future.cancel()  # Ctrl-C: nobody waits for it any more; where it is done this changes nothing


def outcome_of(future: Future[T], timeout: float | None = None) -> T:
    """Wait for a future; its error comes without the frames that only tell how it got from one thread to another."""
    try:
        return future.result(timeout)
    except Layr8Error as error:
        error.__traceback__ = in_package(error.__traceback__)
        raise


def in_package(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins at this package's own code behind the portal's."""
    rest = None if traceback is None else traceback.tb_next  # the first frame is whoever asks
    while rest is not None and not rest.tb_frame.f_code.co_filename.startswith(PACKAGE):
        rest = rest.tb_next
    return rest
