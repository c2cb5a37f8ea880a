"""Each program of examples/ tells the story that its docstring promises, and, cancelled, leaves nothing behind.

A docstring ends with ``It prints...:`` and the output, indented; ``...`` in it stands for any text on one line. The
programs run in the test's own Trio, on virtual time; what they wait for is in the same process. One whose store is in a
thread runs on the real clock.
"""

from __future__ import annotations

import gc
import importlib.util
import re
import signal
import textwrap
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
MOMENTS = 12
"""How many moments of each program's life are tried for its cancellation."""


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def story_of(module: types.ModuleType) -> str:
    assert module.__doc__ is not None
    found = re.search(r"^It prints.*:\n\n((?: {4}.*\n)+)\Z", module.__doc__, re.MULTILINE)
    assert found is not None, f"{module.__file__}: its docstring shall end with what it prints"
    return textwrap.dedent(found[1])


def agrees(shown: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), printed) is not None


IN_THREADS = {"durable_agent"}
OF_THE_CLIENT = {"agent_with_web_service", "chat", "durable_agent", "echo_agent", "fan_out", "many_dids"}

each_example = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.real_clock] if path.stem in IN_THREADS else [])
        for path in EXAMPLES
    ],
)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8
    assert {path.stem for path in EXAMPLES} >= OF_THE_CLIENT


@each_example
async def test_an_example_tells_its_story_within_a_few_seconds(
    path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    example = load(path)
    start = trio.current_time()
    await example.main()
    printed = capsys.readouterr().out
    assert agrees(story_of(example), printed), printed
    assert trio.current_time() - start < 5
    assert caplog.records == []


@each_example
def test_an_example_is_short_and_imports_what_it_is_about(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert 60 <= len(text.splitlines()) <= 160
    allowed = {"layr8_actors.otp", "layr8_actors.errors", "layr8_actors.telemetry"}
    if path.stem in OF_THE_CLIENT:
        allowed |= {"layr8_actors", "layr8_actors.client", "layr8_actors.client.durable", "layr8_actors.testing"}
    assert set(re.findall(r"^from (layr8_actors\S*) import|^import (?:layr8_actors\S*)", text, re.MULTILINE)) <= allowed
    assert text.endswith('if __name__ == "__main__":\n    trio.run(main)\n')


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks, and calls ``act`` at one of them."""

    def __init__(self, at: int = -1, act: Callable[[], object] = lambda: None) -> None:
        self.at = at
        self.act = act
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        if self.count == self.at:
            self.act()


async def run_with(example: types.ModuleType, steps: Steps) -> None:
    trio.lowlevel.add_instrument(steps)
    try:
        await example.main()
    finally:
        trio.lowlevel.remove_instrument(steps)


@each_example
async def test_an_example_cancelled_at_any_moment_leaves_no_task_and_no_socket(path: Path) -> None:
    example = load(path)
    moments = 4 if path.stem == "fan_out" else MOMENTS  # its hundred agents take their time
    whole = Steps()
    await run_with(example, whole)
    assert whole.count > moments
    tasks = trio.lowlevel.current_statistics().tasks_living
    cancelled = 0
    for moment in range(moments):
        with trio.CancelScope() as scope:
            await run_with(example, Steps(1 + whole.count * moment // moments, scope.cancel))
        cancelled += scope.cancelled_caught
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    gc.collect()  # a socket that was left open would warn now, which fails the test
    assert cancelled >= moments // 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_crash_loop_ends_in_order_at_a_signal(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(Path(__file__).parent.parent / "examples" / "crash_loop.py")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(example.main)
        await trio.sleep(0.4)  # one branch has given up and waits for its restart
        signal.raise_signal(number)
    assert capsys.readouterr().out.endswith(
        f"app starts feed again in 0.25 s\n{signal.Signals(number).name}: stopping\nthe end\n"
    )
