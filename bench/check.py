"""A guard for CI: do the hot paths still cost what they cost, measured against raw floors in the same run?

    python bench/check.py            compare with bench/check.json; exit 1 where a path has become 30 % dearer
    python bench/check.py --update   write bench/check.json anew, after a change that was meant

No stored time is compared, for no two machines are alike: each path's CPU time is divided by that of a floor, which is
measured in turns with it in this very run, and this quotient is compared. The floors are what the standard library and
websockets do with the same bytes, without any of our code. Instructions would be steadier than time, but counting them
needs hardware counters, which virtual machines seldom have, or valgrind, under which 40 s do not go far.

The paths over a socket need the neutral server, and so g++; without it the codec alone is checked, and that is said.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from layr8_actors.phoenix import Frame, Serializer

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

import neutral  # noqa: E402
import work  # noqa: E402

RATIOS = HERE / "check.json"
ALLOWED = 1.30
TURNS = 5
TRIES = 2
"""A path over the limit is measured once more: a machine's bad second is no regression, and a regression stays."""

COUNTS = {"pipe100": 4_000, "fnf": 8_000, "in300": 12_000}
"""Units a turn of the paths over a socket, long enough that scheduling is a small part of them."""


def cpu_of(body: Callable[[], object], times: int) -> float:
    """CPU seconds of calling it so often."""
    start = time.process_time()
    for _ in range(times):
        body()
    return time.process_time() - start


def codec() -> dict[str, list[float]]:
    """Encoding and decoding against json of the standard library, interleaved; quotients turn by turn."""
    serializer = Serializer()
    found: dict[str, list[float]] = {}
    for size, times in ((300, 3_000), (65536, 20)):
        frame = Frame("1", "2", "plugins:did:web:node.test:bench", "message", work.payload(size))
        text = serializer.encode(frame)
        plain = json.loads(text)
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            f"encode{size}": (lambda f=frame: serializer.encode(f), lambda p=plain: json.dumps(p)),
            f"decode{size}": (lambda t=text: serializer.decode(t), lambda t=text: json.loads(t)),
        }
        for name, (ours, floor) in pairs.items():
            cpu_of(ours, times // 3)
            cpu_of(floor, times // 3)
            found[name] = [cpu_of(ours, times) / cpu_of(floor, times) for _ in range(TURNS)]
    return found


def over_a_socket(names: list[str]) -> dict[str, list[float]]:
    """Ours on websockets against the sans-I/O floor, each run a process of its own, in turns."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with neutral.server() as port:
        url = f"ws://127.0.0.1:{port}/socket/websocket"
        for turn in range(TURNS):
            for name in names:
                order = ["client_ours.py", "client_sansio.py"]
                figures = {file: client(file, url, name) for file in (order if turn % 2 == 0 else reversed(order))}
                found[name].append(figures["client_ours.py"]["cpu_us"] / figures["client_sansio.py"]["cpu_us"])
    return found


def client(file: str, url: str, item: str) -> dict[str, Any]:
    """Run a client of the comparison to its end."""
    command = [sys.executable, str(HERE / "peers" / file), url, item, str(COUNTS[item])]
    with neutral.on(neutral.CLIENT_CORE):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measured(names: list[str]) -> dict[str, float]:
    """The median quotient of each path named, or of all."""
    found: dict[str, list[float]] = {}
    if not names or any(name not in COUNTS for name in names):
        found |= codec()
    sockets = [name for name in COUNTS if not names or name in names]
    if sockets and shutil.which("g++"):
        found |= over_a_socket(sockets)
    return {name: statistics.median(values) for name, values in found.items() if not names or name in names}


def main() -> None:
    """Measure, print a table, and fail where a path is over its limit twice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write bench/check.json from this run")
    args = parser.parse_args()
    began = time.monotonic()
    now = measured([])
    if args.update:
        if now.keys().isdisjoint(COUNTS):
            raise SystemExit("bench/check.json is written where g++ is, or it would lose the paths over a socket")
        RATIOS.write_text(json.dumps({name: round(value, 2) for name, value in now.items()}, indent=2) + "\n")
        print(f"written: {RATIOS}")
    stored: dict[str, float] = json.loads(RATIOS.read_text(encoding="utf-8"))
    if not shutil.which("g++"):
        print("no g++, so no neutral server: the codec alone is checked")
        stored = {name: value for name, value in stored.items() if name not in COUNTS}
    if stored.keys() != now.keys():
        raise SystemExit(f"{RATIOS.name} has {sorted(stored)}, measured were {sorted(now)}: run it with --update")
    for _ in range(TRIES - 1):
        over = [name for name, value in now.items() if value > stored[name] * ALLOWED]
        if over:
            now |= {name: min(now[name], value) for name, value in measured(over).items()}
    print("| path | ours / floor, CPU | committed | change | limit |")
    print("|---|---|---|---|---|")
    failed = []
    for name, value in now.items():
        if value > stored[name] * ALLOWED:
            failed.append(name)
        print(f"| {name} | {value:.2f} | {stored[name]:.2f} | {value / stored[name] - 1:+.0%} | {ALLOWED - 1:+.0%} |")
    print(f"{time.monotonic() - began:.0f} s")
    if failed:
        raise SystemExit(f"bench-check: dearer than allowed, against raw floors in this run: {', '.join(failed)}")
    cheaper = [name for name, value in now.items() if value * ALLOWED < stored[name]]
    if cheaper:
        print(f"much cheaper than committed: {', '.join(cheaper)}; run bench/check.py --update to hold what was gained")


if __name__ == "__main__":
    main()
