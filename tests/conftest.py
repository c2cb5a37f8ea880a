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
import time
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


def guarded_here(item: pytest.Item) -> bool:
    """Whether the guard below watches over a test: one under Hypothesis is a plain function, left to faulthandler."""
    test = getattr(item, "obj", None)
    return inspect.iscoroutinefunction(test) and not hasattr(test, "hypothesis")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take tests on virtual time out of pytest-timeout's hands, which counts the time of the wall."""
    for item in items:
        virtual = guarded_here(item) and item.get_closest_marker("real_clock") is None
        if virtual:
            item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """End an async test that waits for nothing, and say where each of its tasks waits.

    anyio's runner takes pytest-timeout's exception between two steps of the loop and then waits for the sleeping test
    all the same: only a cancellation from inside ends it. This one comes at 80 % of the test's own timeout. A test that
    shields itself from it is ended by faulthandler_timeout (pyproject.toml), and the run with it.

    On virtual time a test that hangs spins, for the clock looks for a deadline to jump to, and one that does not hang
    may be kept waiting by a busy machine, or by one that is suspended. So there it is processor time that is counted.
    """
    test = pyfuncitem.obj
    if not guarded_here(pyfuncitem):
        return
    virtual = pyfuncitem.get_closest_marker("real_clock") is None
    given = [float(marker.args[0]) for marker in pyfuncitem.iter_markers("timeout") if marker.args and marker.args[0]]
    seconds = 0.8 * (given[0] if given else float(pyfuncitem.config.getini("timeout")))
    clock = time.process_time if virtual else time.monotonic

    @functools.wraps(test)
    async def guarded(*args: Any, **kwargs: Any) -> None:
        waiting: list[str] = []
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:

            def hung() -> None:
                waiting.extend(where_tasks_wait(trio.lowlevel.current_root_task()))
                scope.cancel(reason="the test hung")

            over = threading.Event()
            until = clock() + seconds

            def watch() -> None:
                while (left := until - clock()) > 0:
                    if over.wait(left):
                        return
                # The test may end in the same instant.
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(hung)

            threading.Thread(target=watch, name="the guard against hangs", daemon=True).start()
            try:
                await test(*args, **kwargs)
            finally:
                over.set()
        if waiting:
            what = "processor time" if virtual else "real time"
            pytest.fail(f"hung for {seconds:g} s of {what}; its tasks waited here:\n" + "\n".join(waiting))

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
