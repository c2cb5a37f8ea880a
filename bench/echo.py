"""Echo between two agents over a real socket: layr8_actors' Client against the official SDK's, on one neutral server.

    python bench/echo.py [--turns 7] [--quick]

Needs g++; the official SDK is installed into .venv-sdk. Both agents of an SDK live in one process, the server is a C++
program on another core that hands each message on to the DID it names (bench/peers/server.cpp, --route). A turn runs
both SDKs at each item, in an order that changes, and a ratio is taken between two figures of one turn; the median and
the range over the turns is what counts. A round trip is a request, its handler, the answer, and all dispatch_replies;
the official SDK sends one of these less, for it tells the node nothing of a response. A handler that waits lets the
loop go round once, and so cannot share its task.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
PEERS = ROOT / "bench" / "peers"
sys.path.insert(0, str(PEERS))

import compare  # noqa: E402
import neutral  # noqa: E402

ITEMS = {
    "1": ("one at a time", 3_000),
    "20": ("20 at once", 6_000),
    "100": ("100 at once", 6_000),
    "100-waits": ("100 at once, handlers that wait", 6_000),
}


def run(python: str, program: str, port: int, item: str, count: int) -> dict[str, float]:
    """Run one program to its end and return its figures."""
    words = [python, str(PEERS / program), f"ws://127.0.0.1:{port}/socket/websocket", item, str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if program == "echo_ours.py" else ""}
    with neutral.on(neutral.CLIENT_CORE):
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {program} failed at {item} with {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(values: list[float], digits: int = 0) -> str:
    """The median and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of it: shows that all runs, no figure to quote")
    args = parser.parse_args()
    sdks = {"ours": (sys.executable, "echo_ours.py"), "official": (compare.install_official(), "echo_official.py")}
    runs: dict[str, dict[str, list[dict[str, float]]]] = {item: {sdk: [] for sdk in sdks} for item in ITEMS}
    with neutral.server(route=True) as port:
        for turn in range(args.turns):
            for item, (_, count) in ITEMS.items():
                for sdk in list(sdks) if turn % 2 else list(sdks)[::-1]:
                    times = count // 10 if args.quick else count
                    runs[item][sdk].append(run(*sdks[sdk], port, item, times))
            print(f"turn {turn + 1} of {args.turns}", file=sys.stderr, flush=True)
    print("| echo | | round trips/s | p50, us | p99, us | CPU of both agents, us |\n|---|---|---|---|---|---|")
    for item, (title, _) in ITEMS.items():
        for sdk, found in runs[item].items():
            cells = [shown([one[name] for one in found]) for name in ("rate", "p50_us", "p99_us", "cpu_us")]
            print(f"| {title} | {sdk} | {' | '.join(cells)} |")
        pairs = list(zip(runs[item]["ours"], runs[item]["official"], strict=True))
        faster = [ours["rate"] / theirs["rate"] for ours, theirs in pairs]
        rest = [[theirs[name] / ours[name] for ours, theirs in pairs] for name in ("p50_us", "p99_us", "cpu_us")]
        print(f"| {title} | ratio, paired | {' | '.join(shown(one, 2) for one in (faster, *rest))} |")
    print(f"\nload of the machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())}; goal: 2 times the rate")


if __name__ == "__main__":
    main()
