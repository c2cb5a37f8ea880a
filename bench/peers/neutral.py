"""The neutral server: compiled here, run on a core of its own, and measured by a raw client first."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import work

HERE = pathlib.Path(__file__).parent
BUILD = HERE / ".build"


def build() -> pathlib.Path:
    """Compile the server, unless this very source is compiled already; stops where there is no C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise SystemExit("bench: no g++ on PATH: the neutral server is C++17 (Debian and Ubuntu: apt-get install g++)")
    source = HERE / "server.cpp"
    program = BUILD / f"server-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-std=c++17", "-O2", "-o", str(unfinished), str(source)], check=True)
        unfinished.rename(program)
    return program


def payloads() -> pathlib.Path:
    """The folder of what the server pushes and the JavaScript client sends, one file for each size."""
    folder = BUILD / "payloads"
    folder.mkdir(parents=True, exist_ok=True)
    for size in work.SIZES:
        (folder / f"{size}.json").write_text(work.encoded(size), encoding="ascii")
    return folder


def _cores() -> tuple[set[int], set[int]]:
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    allowed = sorted(os.sched_getaffinity(0))
    return ({allowed[0]}, {allowed[1]}) if len(allowed) > 1 else (set(allowed), set(allowed))


SERVER_CORE, CLIENT_CORE = _cores()
"""Two that differ, where there are two and we may choose; empty sets where a program cannot choose."""


@contextlib.contextmanager
def on(core: set[int]) -> Iterator[None]:
    """What is started in the block stays on this core."""
    if not core:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def server(*, one_frame_per_write: bool = False, route: bool = False) -> Iterator[int]:
    """Run the server; yields its port. With ``route`` it hands messages on to the DID that they name."""
    command = [str(build()), "serve", str(payloads())]
    if one_frame_per_write:
        command.append("--one-frame-per-write")
    if route:
        command.append("--route")
    with on(SERVER_CORE):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def headroom(port: int, *, quick: bool = False) -> dict[str, float]:
    """Units per second that a raw C++ client gets out of the server, the best of three: a client far below is alone."""
    jobs = {
        "pipe100": ("pipe", 300_000, 300),
        "fnf": ("cast", 300_000, 300),
        "in300": ("flood", 1_000_000, 300),
        "in4096": ("flood", 200_000, 4096),
        "in65536": ("flood", 15_000, 65536),
        "in1000000": ("flood", 1_000, 1_000_000),
    }
    found: dict[str, float] = {}
    for item, (job, count, size) in jobs.items():
        count //= 10 if quick else 1
        rates = []
        for _ in range(1 if quick else 3):
            words = [str(build()), "load", str(port), job, str(count), str(size)]
            text = work.encoded(size).encode()
            with on(CLIENT_CORE):
                done = subprocess.run(words, input=text, stdout=subprocess.PIPE, check=True, timeout=60)
            figures = json.loads(done.stdout)
            rates.append(figures["n"] / figures["wall_s"])
        found[item] = max(rates)
    return found
