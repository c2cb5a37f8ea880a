"""How every command runs: one Trio run that ends in order on Ctrl-C, and turns errors into one line and a status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import trio

from ..errors import InvalidOption, Layr8Error

__all__ = ("FAILED", "INTERRUPTED", "OK", "WRONG_USAGE", "complain", "printable", "run_job")

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT, what a shell shows for a program that Ctrl-C ended."""


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters: part of it may come from the node or from a peer.

    Args:
        text: any.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def complain(text: str) -> None:
    """Print one line on stderr, with the program's name before it.

    Args:
        text: what is wrong.
    """
    print(f"layr8-actors: {printable(text)}", file=sys.stderr, flush=True)


def run_job(job: Callable[[], Awaitable[int]], *, when_interrupted: int) -> int:
    """Run ``job`` under Trio until it returns, fails, or SIGINT or SIGTERM cancels it.

    Args:
        job: an async function that returns the exit status.
        when_interrupted: the status after a signal; the job's own ``finally`` blocks have run by then.

    Returns:
        The exit status; errors of this package and of the operating system are one line on stderr, and status 1, or 2
        where an argument was not allowed.
    """
    try:
        return trio.run(_guarded, job, when_interrupted)
    except BrokenPipeError:
        # Whoever read our output has gone. Python flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


async def _guarded(job: Callable[[], Awaitable[int]], when_interrupted: int) -> int:
    status = when_interrupted
    broken_pipe: BrokenPipeError | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            try:
                status = await job()
            except InvalidOption as error:
                complain(str(error))
                status = WRONG_USAGE
            except BrokenPipeError as error:
                broken_pipe = error
            except (Layr8Error, OSError) as error:
                complain(str(error))
                status = FAILED
            nursery.cancel_scope.cancel(reason="the command is done")
    if broken_pipe is not None:
        raise broken_pipe
    return status


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        scope.cancel(reason=f"signal {number}")
