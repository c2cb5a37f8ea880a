"""Compare layr8_actors with its peers on one neutral server: interleaved turns, one process a client, paired ratios.

    python bench/peers/compare.py [--turns 5] [--quick] [--items seq,pipe100] [--clients ours,official]

Needs g++; phoenix.js is compared where node and npm are. The official SDK is installed into .venv-sdk, phoenix.js
into bench/peers/.build, neither into .venv. Written: bench/results/peers.json, peers.md and peers.svg (see report.py).

A turn does each item with every client, one after the other, and a ratio is taken between two figures of one turn:
whatever else runs on the machine weighs on both. Medians and ranges are over the turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from typing import Any

import neutral
import report
import work

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "bench" / "results"
VENV = ROOT / ".venv-sdk"
NODE = neutral.BUILD / "node"

CLIENTS = {
    "ours": "layr8_actors, websockets",
    "ours-trio-websocket": "layr8_actors, trio-websocket",
    "official": "layr8 0.3.3",
    "phoenix.js": "phoenix.js 1.8.16, ws 8.23.0",
    "trio-websocket": "floor: raw trio-websocket, tuned, no codec",
    "sans-io": "floor: websockets sans-I/O on Trio, batched, no codec",
}
FLOORS = ("trio-websocket", "sans-io")


def install_official() -> str:
    """The interpreter of an environment with the official SDK in it."""
    python = VENV / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text(encoding="utf-8")
    mark = VENV / ".installed"
    if not (mark.exists() and mark.read_text(encoding="utf-8") == wanted):
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        mark.write_text(wanted, encoding="utf-8")
    return str(python)


def install_phoenix() -> bool:
    """Whether phoenix.js can be run."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        return False
    wanted = (HERE / "package.json").read_text(encoding="utf-8")
    mark = NODE / "package.json"
    if not (mark.exists() and mark.read_text(encoding="utf-8") == wanted and (NODE / "node_modules").exists()):
        NODE.mkdir(parents=True, exist_ok=True)
        mark.write_text(wanted, encoding="utf-8")
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=NODE, check=True)
    return True


def command(client: str, url: str, item: str, count: int) -> tuple[list[str], dict[str, str]]:
    """How to start a client, and the environment that it needs on top of ours."""
    job = [url, item, str(count)]
    if client == "official":
        return [str(VENV / "bin" / "python"), str(HERE / "client_official.py"), *job], {}
    if client == "phoenix.js":
        program = ["node", "--expose-gc", str(HERE / "client_phoenix.js"), *job, str(neutral.payloads())]
        return program, {"NODE_PATH": str(NODE / "node_modules")}
    files = {
        "ours": ("client_ours.py", "websockets"),
        "ours-trio-websocket": ("client_ours.py", "trio-websocket"),
        "growth": ("client_growth.py", "websockets"),
        "trio-websocket": ("client_trio_websocket.py", ""),
        "sans-io": ("client_sansio.py", ""),
    }
    file, transport = files[client]
    return [sys.executable, str(HERE / file), *job], {"TRANSPORT": transport, "PYTHONPATH": str(ROOT)}


def run(client: str, port: int, item: str, count: int, timeout: float = 120) -> Any:
    """Run a client to its end and return its figures; stops where it fails, for half a comparison is none."""
    words, environment = command(client, f"ws://127.0.0.1:{port}/socket/websocket", item, count)
    with neutral.on(neutral.CLIENT_CORE):
        done = subprocess.run(
            words, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, timeout=timeout, check=False
        )
    if done.returncode != 0:
        raise SystemExit(f"bench: {client} failed at {item} with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def does(client: str, item: str) -> bool:
    """Whether this client can do that item at all."""
    if item == "reconnect-exact":
        return client in ("ours", "ours-trio-websocket")
    return not (item == "reconnect" and client in FLOORS)


def count_of(client: str, item: str, *, quick: bool) -> int:
    """How many units; the transport that is slow by its library gets fewer, for a turn must not take an hour."""
    entry = (work.ITEMS | work.RECONNECT)[item]
    count = entry.quick if quick else entry.full
    if "trio-websocket" in client and entry.decides == "cpu_us" and not item.startswith("reconnect"):
        count = max(count // 2, 10)
    return count


def machine() -> dict[str, Any]:
    """Where and with what this ran."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
    }
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        lines = cpu.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        found["cpu"] = names[0] if names else platform.machine()
    ask = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    ours = [sys.executable, "-c", ask, "trio", "websockets", "trio-websocket", "wsproto", "msgspec"]
    found["ours"] = subprocess.run(ours, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    theirs = [str(VENV / "bin" / "python"), "-c", ask, "layr8", "websockets"]
    found["official"] = subprocess.run(theirs, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    if shutil.which("node"):
        asked = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, text=True, check=True)
        found["node"] = asked.stdout.strip()
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small counts: shows that all runs, no figure to quote")
    parser.add_argument("--items", default="", help=f"out of {','.join(work.ITEMS | work.RECONNECT)},restart,growth")
    parser.add_argument("--clients", default="", help=f"out of {','.join(CLIENTS)}")
    parser.add_argument("--one-frame-per-write", action="store_true", help="as a BEAM does, instead of batches")
    parser.add_argument("--into", type=pathlib.Path, default=RESULTS, help="where the results go")
    args = parser.parse_args()

    neutral.build()
    install_official()
    clients = [name for name in CLIENTS if not args.clients or name in args.clients.split(",")]
    if "phoenix.js" in clients and not install_phoenix():
        print("phoenix.js is left out: node and npm are not both on PATH")
        clients.remove("phoenix.js")
    every = [*work.ITEMS, *work.RECONNECT, "restart", "growth"]
    items = [name for name in every if not args.items or name in args.items.split(",")]

    results: dict[str, Any] = {"machine": machine(), "turns": args.turns, "quick": args.quick, "clients": CLIENTS}
    runs: dict[str, dict[str, list[Any]]] = {item: {} for item in items}
    started = time.monotonic()
    with neutral.server(one_frame_per_write=args.one_frame_per_write) as port:
        results["headroom"] = neutral.headroom(port, quick=args.quick)
        rates = {item: round(rate) for item, rate in results["headroom"].items()}
        print("server headroom, units/s:", rates, flush=True)
        for turn in range(args.turns):
            for item in items:
                if item in ("restart", "growth"):
                    continue
                # Another one begins in each turn, so that no client always follows the same one.
                first = turn % len(clients)
                for client in clients[first:] + clients[:first]:
                    if does(client, item):
                        figures = run(client, port, item, count_of(client, item, quick=args.quick))
                        runs[item].setdefault(client, []).append(figures)
            print(f"turn {turn + 1} of {args.turns} done after {time.monotonic() - started:.0f} s", flush=True)
        if "restart" in items:
            results["restart"] = run("growth", port, "restart", 5 if args.quick else 30)
        if "growth" in items:
            results["growth"] = run("growth", port, "growth", 10_000 if args.quick else 1_000_000, timeout=900)
    results["runs"] = {item: found for item, found in runs.items() if found}
    results["machine"]["load_after"] = os.getloadavg()
    results["seconds"] = round(time.monotonic() - started)
    args.into.mkdir(parents=True, exist_ok=True)
    (args.into / "peers.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = report.markdown(results)
    (args.into / "peers.md").write_text(text, encoding="utf-8")
    (args.into / "peers.svg").write_text(report.picture(results), encoding="utf-8")
    print(text)
    print(f"written to {args.into}: peers.json, peers.md, peers.svg")


if __name__ == "__main__":
    main()
