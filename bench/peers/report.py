"""What the comparison found, as Markdown and as a picture; from the results alone, so that old ones can be drawn anew.

python bench/peers/report.py bench/results/peers.json
"""

from __future__ import annotations

import json
import math
import pathlib
import statistics
import sys
from typing import Any
from xml.sax.saxutils import escape

import work

OFFICIAL = "official"
OURS = ("ours", "ours-trio-websocket")
ALL = work.ITEMS | work.RECONNECT

# What issue 5 asks of `ours` against the official SDK: (must, aim); memory as KiB.
WANTED = {
    "seq": (1.0, 1.5),
    "pipe100": (3.0, 4.0),
    "fnf": (3.5, 5.0),
    "in300": (1.8, 3.0),
    "in4096": (1.5, 2.0),
    "in65536": (1.3, 1.6),
    "in1000000": (1.2, 2.0),
    "out1000000": (3.0, 6.0),
    "connect": (1.0, 1.3),
}
WANTED_KIB = (12.0, 8.0)
OF_FLOOR = 0.85  # of raw trio-websocket, on trio-websocket
THROUGHPUT = ("pipe100", "pipe1000", "fnf", "in300", "in4096", "in65536", "in1000000", "out1000000")

NOISE = """\
The server is pinned to one core and the client to another, but both may be shared with other programs. So every ratio
is taken between two runs of one turn, a few seconds apart, and CPU time decides where it can: wall times and rates
wander with what else runs, and a p99 here is somebody else's time slice as often as the client's.
"""


def figures(results: dict[str, Any], item: str, client: str, key: str) -> list[float]:
    """One figure of every turn."""
    return [turn[key] for turn in results["runs"].get(item, {}).get(client, []) if key in turn]


def ratios(results: dict[str, Any], item: str, client: str, other: str, key: str) -> list[float]:
    """How many times better than ``other``, turn by turn; for a rate more is better, for all else less."""
    pairs = zip(figures(results, item, client, key), figures(results, item, other, key), strict=True)
    return [mine / theirs if key == "rate" else theirs / mine for mine, theirs in pairs]


def spread(values: list[float], digits: int = 3) -> str:
    """Median (min-max), to so many digits."""
    if not values:
        return "-"
    if len(values) == 1:
        return short(values[0], digits)
    return f"{short(statistics.median(values), digits)} ({short(min(values), digits)}-{short(max(values), digits)})"


def short(value: float, digits: int = 3) -> str:
    """A figure with about so many digits, and no exponent."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - (len(str(int(abs(value)))) - 1))}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def matrix(results: dict[str, Any], items: list[str], key: str, *, against: bool = True) -> str:
    """Clients down, items across: the figure, and in brackets after it the paired ratio to the official SDK."""
    rows = []
    for client, title in results["clients"].items():
        cells = []
        for item in items:
            values = figures(results, item, client, key)
            cell = spread(values)
            if values and against and figures(results, item, OFFICIAL, key):
                cell += f" **{statistics.median(ratios(results, item, client, OFFICIAL, key)):.2f}x**"
            cells.append(cell)
        if any(cell != "-" for cell in cells):
            rows.append([title, *cells])
    return table(["client", *(ALL[item].title for item in items)], rows)


def verdicts(results: dict[str, Any]) -> str:
    """The goals of issue 5 beside what was measured."""
    rows = []
    for item, (must, aim) in WANTED.items():
        key = ALL[item].decides
        if not figures(results, item, "ours", key) or not figures(results, item, OFFICIAL, key):
            continue
        found = ratios(results, item, "ours", OFFICIAL, key)
        median = statistics.median(found)
        rows.append([ALL[item].title, key, spread(found) + "x", f"{must:g}x", f"{aim:g}x", verdict(median, must, aim)])
    kib = figures(results, "memory", "ours", "kib")
    if kib:
        must, aim = WANTED_KIB
        word = verdict(1 / statistics.median(kib), 1 / must, 1 / aim)
        rows.append([ALL["memory"].title, "kib", f"{spread(kib)} KiB", f"{must:g} KiB", f"{aim:g} KiB", word])
    return table(["work", "decided by", "ours / official", "must", "aim", ""], rows)


def verdict(found: float, must: float, aim: float) -> str:
    """In one word."""
    return "aim reached" if found >= aim else "must reached" if found >= must else "**missed**"


def others(results: dict[str, Any]) -> str:
    """The two other goals: of raw trio-websocket, and ahead of phoenix.js."""
    rows = []
    for item, entry in work.ITEMS.items():
        key = entry.decides
        cells = ["-", "-"]
        if figures(results, item, OURS[1], key) and figures(results, item, "trio-websocket", key):
            found = ratios(results, item, OURS[1], "trio-websocket", key)
            missed = "" if statistics.median(found) >= OF_FLOOR else " **missed**"
            cells[0] = spread(found) + "x" + missed
        key = "rate"
        if item in THROUGHPUT and figures(results, item, "ours", key) and figures(results, item, "phoenix.js", key):
            found = ratios(results, item, "ours", "phoenix.js", key)
            missed = "" if statistics.median(found) >= 1 else " **missed**"
            cells[1] = spread(found) + "x" + missed
        if cells != ["-", "-"]:
            rows.append([entry.title, *cells])
    floor = f"on trio-websocket / raw trio-websocket (must: {OF_FLOOR:g}x)"
    return table(["work", floor, "rate: ours / phoenix.js (must: 1x)"], rows)


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    about = results["machine"]
    turns = f"{results['turns']} turn{'s' if results['turns'] != 1 else ''}"
    lines = [
        "# The comparison, as measured\n",
        f"{about['date']}, {about.get('cpu', 'unknown CPU')}, {about['cores']} cores, kernel {about['kernel']}, "
        f"CPython {about['python']}, node {about.get('node', '-')}; ours: {about['ours']}; "
        f"the official SDK: {about['official']}.",
        f"{turns} in {results['seconds']} s; load average {about['load_before'][0]:.1f} before and "
        f"{about['load_after'][0]:.1f} after.\n",
    ]
    if results["quick"]:
        lines.append("**Quick mode: small counts. It shows that all runs; none of these figures is to be quoted.**\n")
    lines += [
        NOISE,
        "Median (min-max) over the turns; **bold** is the median of the ratios to the official SDK paired within each "
        "turn, more than 1x is better. A raw client reads and counts, and has no codec.\n",
        "## The goals\n",
        verdicts(results),
        others(results),
        "## The server's headroom\n",
        "What a raw C++ client gets out of it, units per second, and how much of it the fastest client here uses:\n",
        headroom(results),
    ]
    throughput = [item for item in THROUGHPUT if item in results["runs"]]
    if throughput:
        lines += ["## CPU microseconds per unit\n", matrix(results, throughput, "cpu_us")]
        lines += ["## Units per second\n", matrix(results, throughput, "rate")]
    waits = [item for item in ("seq", "connect") if item in results["runs"]]
    if waits:
        lines += ["## Waiting: p50, microseconds of wall time\n", matrix(results, waits, "p50_us")]
        lines += ["p99, likewise:\n", matrix(results, waits, "p99_us")]
        lines += ["CPU microseconds of it:\n", matrix(results, waits, "cpu_us")]
        starts = figures(results, "connect", "ours", "start_p50_us")
        if starts:
            lines.append(f"Of ours, {spread(starts)} us go by before dialling: the supervision tree is started.\n")
    if "memory" in results["runs"]:
        count = results["runs"]["memory"][OFFICIAL][0]["n"] if OFFICIAL in results["runs"]["memory"] else "all"
        lines.append(f"## Memory: KiB per idle channel, {count} of them, a socket each\n")
        lines.append(matrix(results, ["memory"], "kib"))
    again = [item for item in work.RECONNECT if item in results["runs"]]
    if again:
        count = max(turn["n"] for item in again for found in results["runs"][item].values() for turn in found)
        lines += [
            f"## Reconnecting: {count:,} channels after a node that was away for 0.5 s\n",
            "Seconds until the last one has joined again. The first delay is 1 s (ours with jitter: 0.5-1 s; "
            "phoenix.js tries after 10, 50, 100, 150, 200, 250, 500 ms, 1 s), and the rest of it is the work:\n",
            matrix(results, again, "wall_s", against=False),
            "CPU microseconds per channel:\n",
            matrix(results, again, "cpu_us"),
        ]
    lines += alone(results)
    return "\n".join(lines)


def headroom(results: dict[str, Any]) -> str:
    """The server's rates beside the fastest client's."""
    rows = []
    for item, rate in results["headroom"].items():
        fastest = [
            (statistics.median(turn["rate"] for turn in found), results["clients"][client])
            for client, found in results["runs"].get(item, {}).items()
        ]
        best, name = max(fastest, default=(0.0, "-"))
        rows.append([ALL[item].title, f"{rate:,.0f}", f"{best / rate:.0%} ({name})"])
    return table(["work", "raw C++ client", "used by the fastest"], rows)


def alone(results: dict[str, Any]) -> list[str]:
    """What was measured of ours alone."""
    lines = []
    if "restart" in results:
        rows = [
            [actor, short(found["p50_ms"]), short(found["min_ms"]), short(found["max_ms"]), str(found["n"])]
            for actor, found in results["restart"].items()
        ]
        lines += [
            "## Restarts: milliseconds from an actor's crash to its being ready again\n",
            table(["actor", "p50", "min", "max", "crashes"], rows),
        ]
    if "growth" in results:
        growth = results["growth"]
        counts = list(growth["in300"])
        rows = [
            [ALL[item].title, *(short(growth[item][count]) for count in counts), linear(list(growth[item].values()))]
            for item in ("in300", "fnf", "pipe100")
        ]
        head = ["CPU us per unit", *(f"{int(count):,} messages" for count in counts), "last / first but one"]
        lines += ["## Cost as the work grows\n", table(head, rows)]
        found = growth["channels"]
        rows = []
        for key, title in (("open_cpu_us", "to open one"), ("round_trip_cpu_us", "a round trip, one in flight each")):
            costs = [entry[key] for entry in found.values()]
            rows.append([title, *(short(cost) for cost in costs), linear(costs)])
        head = ["CPU us", *(f"{int(count):,} channels" for count in found), "last / first but one"]
        lines.append(table(head, rows))
    return lines


def linear(costs: list[float]) -> str:
    """The growth of the unit's cost from the second point, where start-up no longer weighs, to the last."""
    return f"{costs[-1] / costs[1]:.2f}x" if len(costs) > 2 else "-"


# --- the picture ------------------------------------------------------------------------------------------------------

COLOURS = {
    "ours": "#1f6feb",
    "ours-trio-websocket": "#79b8ff",
    "official": "#8c959f",
    "phoenix.js": "#e36209",
}
BAR, GAP, LEFT, WIDTH = 13, 16, 250, 520


def picture(results: dict[str, Any]) -> str:
    """Bars of the ratio to the official SDK, item by item, on a logarithmic scale; as SVG."""
    clients = [client for client in COLOURS if client in results["clients"]]
    items = [item for item in work.ITEMS if figures(results, item, OFFICIAL, work.ITEMS[item].decides)]
    groups = []
    for item in items:
        key = work.ITEMS[item].decides
        bars = [
            (client, ratios(results, item, client, OFFICIAL, key))
            for client in clients
            if figures(results, item, client, key)
        ]
        groups.append((work.ITEMS[item].title, key, bars))
    biggest = max([2.0] + [max(found) for _, _, bars in groups for _, found in bars])
    smallest = min([0.5] + [min(found) for _, _, bars in groups for _, found in bars])
    ticks = [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16) if smallest / 2 < tick < biggest * 2]
    low, high = min(smallest, ticks[0]) / 1.1, max(biggest, ticks[-1]) * 1.1

    def at(ratio: float) -> float:
        return LEFT + WIDTH * math.log(ratio / low) / math.log(high / low)

    top = 66
    body: list[str] = []
    y = top
    for title, key, bars in groups:
        words = {"cpu_us": "CPU", "p50_us": "p50", "kib": "memory"}[key]
        middle = y + len(bars) * BAR / 2 + 4
        body.append(
            f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(title)} '
            f'<tspan class="s">({words})</tspan></text>'
        )
        for client, found in bars:
            median = statistics.median(found)
            x, end = sorted((at(1), at(median)))
            body.append(
                f'<rect x="{x:.1f}" y="{y + 1}" width="{max(end - x, 1.5):.1f}" height="{BAR - 3}" '
                f'fill="{COLOURS[client]}"/>'
            )
            if len(found) > 1:
                line = y + BAR / 2 - 0.5
                body.append(f'<path d="M{at(min(found)):.1f} {line}H{at(max(found)):.1f}" stroke="currentColor"/>')
            right = max(end, at(max(found))) + 5
            body.append(f'<text class="s" x="{right:.1f}" y="{y + BAR - 3}">{median:.2f}x</text>')
            y += BAR
        y += GAP
    bottom = y - GAP / 2
    grid = "".join(
        f'<path d="M{at(tick):.1f} {top - 8}V{bottom}" stroke="currentColor" '
        f'stroke-opacity="{0.7 if tick == 1 else 0.15}"/>'
        f'<text class="s" x="{at(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}x</text>'
        for tick in ticks
    )
    legend, x = "", float(LEFT)
    for client in clients:
        title = results["clients"][client]
        legend += f'<rect x="{x:.0f}" y="36" width="10" height="10" fill="{COLOURS[client]}"/>'
        legend += f'<text class="s" x="{x + 14:.0f}" y="45">{escape(title)}</text>'
        x += 26 + 5.7 * len(title)
    width, height = max(LEFT + WIDTH + 60, int(x)), bottom + 26
    heading = "How many times better than the official SDK (log scale; the line is the range over the turns)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(heading)}" font-family="system-ui, sans-serif" '
        f'font-size="12" fill="currentColor" color="#57606a"><style>.s{{font-size:10px}}</style>'
        f'<text x="{LEFT}" y="22" font-weight="600">{escape(heading)}</text>{legend}{grid}{"".join(body)}</svg>\n'
    )


def main() -> None:
    """Write peers.md and peers.svg beside the results."""
    path = pathlib.Path(sys.argv[1])
    results = json.loads(path.read_text(encoding="utf-8"))
    path.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    path.with_suffix(".svg").write_text(picture(results), encoding="utf-8")


if __name__ == "__main__":
    main()
