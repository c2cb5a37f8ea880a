"""What every test gets: Trio on virtual time, the `real_clock` marker to opt out of it, and a guard against hangs.

Virtual time is right as long as all peers live in the test's own Trio loop, sockets included. With a peer in another
thread or process the clock would jump past every deadline while that peer works: mark such a test, or its whole module
with `pytestmark = pytest.mark.real_clock`.

No fixture may hold a nursery across its yield: when a child crashes there, anyio's runner hangs (anyio#805).

Hypothesis runs 100 examples of each test that does not say otherwise; LAYR8_HYPOTHESIS_PROFILE=nightly makes it 2000.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import settings
from trio.testing import MockClock

# No deadline: an example that the machine is too busy for is no failure.
settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("LAYR8_HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Let Ctrl-C be heard: a shell starts background jobs with SIGINT ignored, and Python leaves that as it is."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Trio with a fresh clock at 0 that jumps to the next deadline whenever all tasks are blocked."""
    if request.node.get_closest_marker("real_clock") is not None:
        return ("trio", {})
    # Synchronous on purpose: a MockClock must exist before the loop it drives.
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """End an async test that waits for nothing, in real time, and say where each of its tasks waits.

    anyio's runner takes pytest-timeout's exception between two steps of the loop and then waits for the sleeping test
    all the same: only a cancellation from inside ends it. This one comes at 80 % of the test's own timeout. A test that
    shields itself from it is ended by faulthandler_timeout (pyproject.toml), and the run with it.
    """
    test = pyfuncitem.obj
    # Under Hypothesis the test is a plain function; one example that hangs is left to faulthandler_timeout.
    if not inspect.iscoroutinefunction(test) or hasattr(test, "hypothesis"):
        return
    marker = pyfuncitem.get_closest_marker("timeout")
    seconds = 0.8 * float(marker.args[0] if marker and marker.args else pyfuncitem.config.getini("timeout"))

    @functools.wraps(test)
    async def guarded(*args: Any, **kwargs: Any) -> None:
        waiting: list[str] = []
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:

            def hung() -> None:
                waiting.extend(where_tasks_wait(trio.lowlevel.current_root_task()))
                scope.cancel(reason="the test hung")

            def fire() -> None:
                # The test may end in the same instant.
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(hung)

            timer = threading.Timer(seconds, fire)
            timer.daemon = True
            timer.start()
            try:
                await test(*args, **kwargs)
            finally:
                timer.cancel()
        if waiting:
            pytest.fail(f"hung for {seconds:g} s of real time; its tasks waited here:\n" + "\n".join(waiting))

    pyfuncitem.obj = guarded


def where_tasks_wait(task: trio.lowlevel.Task | None, depth: int = 0) -> Iterator[str]:
    if task is None:
        return
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in task.iter_await_frames()
        if "/trio/" not in frame.f_code.co_filename and "/anyio/" not in frame.f_code.co_filename
    ]
    yield "  " * depth + f"{task.name}: {' > '.join(frames[-3:])}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from where_tasks_wait(child, depth + 1)
