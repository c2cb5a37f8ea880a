"""Runs one target under atheris: ``python -m fuzz.run decode -max_total_time=60`` (or ``make fuzz``).

Everything behind the name goes to libFuzzer. What a run finds is kept in ``.fuzz/TARGET``, which git ignores; it starts
from there and from what is committed in ``tests/phoenix/corpus/TARGET``. An input that breaks a target is written to
``.fuzz/TARGET-crash-...``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pathlib
import sys

import atheris  # type: ignore[import-untyped]
import trio
from trio.testing import MockClock

ROOT = pathlib.Path(__file__).parent.parent
TARGETS = ("decode", "encode", "topic", "router", "upgrade", "frames")
# What reads bytes of the peer. Trio is left out: its scheduler would count as news in every run.
INSTRUMENTED = ["fuzz", "layr8_actors", "wsproto", "h11", "trio_websocket", "websockets"]


def main() -> None:
    """Fuzz until libFuzzer says that it is done, which ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"usage: python -m fuzz.run {{{','.join(TARGETS)}}} [libFuzzer's arguments]")
    name = sys.argv[1]
    with atheris.instrument_imports(include=INSTRUMENTED):
        check = importlib.import_module(f"fuzz.{name}").check
    found = ROOT / ".fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    folders = [str(path) for path in (found, ROOT / "tests" / "phoenix" / "corpus" / name) if path.is_dir()]
    flags = ["-max_len=4096", f"-dict={ROOT / 'fuzz' / 'phoenix.dict'}", f"-artifact_prefix={found}-"]
    if inspect.iscoroutinefunction(check):
        atheris.Setup([sys.argv[0], *flags, *sys.argv[2:], *folders], functools.partial(_run, check))
    else:
        atheris.Setup([sys.argv[0], *flags, *sys.argv[2:], *folders], check)
    atheris.Fuzz()


def _run(check: object, data: bytes) -> None:
    # A clock of its own for each: a wait of ours must be as cheap as no wait.
    trio.run(check, data, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
