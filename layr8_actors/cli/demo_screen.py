"""What the demo shows: a live screen on a terminal, plain lines elsewhere; both end with the same table."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol, TextIO

import trio
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..channel import Channel
from ..otp import format_tree
from .demo_report import FOOTER, Report

__all__ = ("LiveScreen", "PlainScreen", "Screen")

REFRESH = 0.1  # seconds between two pictures
MIN_EVENT_LINES = 5


class Screen(Protocol):
    """Where the demo is shown."""

    def say(self, text: str) -> None:
        """Show a line of the story."""

    def event(self, agent: str, text: str) -> None:
        """Show something that happened to an agent."""

    def show(self, channels: Sequence[tuple[str, Channel]]) -> None:
        """Begin to show the trees of these channels, by agent; they run."""

    def finish(self, report: Report, problems: Sequence[str]) -> None:
        """Show the table, and what is wrong with it; nothing is shown afterwards."""

    async def animate(self) -> None:
        """Keep the picture up to date until cancelled, which leaves the last one standing."""


def _elapsed(began: float | None) -> float:
    return 0.0 if began is None else trio.current_time() - began


def _verdict(report: Report, problems: Sequence[str]) -> str:
    if problems:
        return "\n".join(["NOT RIGHT:", *(f"  {problem}" for problem in problems)])
    return f"ALL RIGHT: {report.faults} faults in {report.seconds:.1f} s, nothing lost, nothing doubled"


class PlainScreen:
    """Lines of text, for pipes, files and logs.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began: float | None = None
        self._finished = False
        self._channels: Sequence[tuple[str, Channel]] = ()

    def say(self, text: str) -> None:
        """Write a line of the story, with the seconds since the first one."""
        if self._began is None:
            self._began = trio.current_time()
        self._write(f"{_elapsed(self._began):6.2f} s  {text}")

    def event(self, agent: str, text: str) -> None:
        """Write a line, indented below the story."""
        if not self._finished:
            self._write(f"{_elapsed(self._began):6.2f} s      {agent:<6} {text}")

    def show(self, channels: Sequence[tuple[str, Channel]]) -> None:
        """Write the trees once; they are written again at the end."""
        self._channels = channels
        self._write_trees()

    def finish(self, report: Report, problems: Sequence[str]) -> None:
        """Write the trees, the table, its footer and the verdict."""
        self._write_trees()
        rows = report.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            label, *values = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            self._write("  ".join([label.strip().ljust(widths[0]), *values]))
        self._write("")
        self._write(FOOTER)
        self._write(_verdict(report, problems))
        self._finished = True

    async def animate(self) -> None:
        """Do nothing until cancelled: what is written stays."""
        await trio.sleep_forever()

    def _write_trees(self) -> None:
        for name, channel in self._channels:
            self._write(f"\n{name}: {channel.state.status.value}")
            self._write(format_tree(channel.supervisor))
        self._write("")

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class LiveScreen:
    """The trees, the counters and the latest events, drawn anew ten times a second.

    Args:
        console: where to draw; the terminal by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console() if console is None else console
        self._events: deque[Text] = deque(maxlen=200)
        self._began: float | None = None
        self._channels: Sequence[tuple[str, Channel]] = ()
        # No thread of its own: everything here happens in the Trio loop that the channels run in.
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def say(self, text: str) -> None:
        """Add a line of the story to the events."""
        if self._began is None:
            self._began = trio.current_time()
        self._events.append(Text(f"{_elapsed(self._began):6.2f} s  {text}", style="bold yellow", no_wrap=True))

    def event(self, agent: str, text: str) -> None:
        """Add a line to the events."""
        style = "red" if "lost" in text or "crashed" in text or "raised" in text or "failed" in text else "green"
        self._events.append(Text(f"{_elapsed(self._began):6.2f} s    {agent:<6} {text}", style=style, no_wrap=True))

    def show(self, channels: Sequence[tuple[str, Channel]]) -> None:
        """Begin to draw the trees."""
        self._channels = channels

    async def animate(self) -> None:
        """Draw until cancelled. Only the drawing is lost by it."""
        with self._live:
            while True:
                self._live.update(self._picture(), refresh=True)
                await trio.sleep(REFRESH)

    def finish(self, report: Report, problems: Sequence[str]) -> None:
        """Print the table, its footer and the verdict below the last picture."""
        rows = report.rows()
        table = Table()
        for at, heading in enumerate(rows[0]):
            table.add_column(heading, justify="right" if at else "left")
        for row in rows[1:]:
            table.add_row(*row, style="bold" if row[0] in ("lost", "doubled", "out of order") else None)
        self._console.print(table)
        self._console.print(Text(FOOTER, style="dim"))
        self._console.print(Text(_verdict(report, problems), style="bold red" if problems else "bold green"))

    def _picture(self) -> RenderableType:
        trees: list[RenderableType] = []
        height = 0
        for name, channel in self._channels:
            tree = format_tree(channel.supervisor) if channel.supervisor.running else "not running"
            height = max(height, tree.count("\n") + 3)
            title = f"{name}: {channel.state.status.value}"
            trees.append(Panel(Text(tree, no_wrap=True), title=title, width=self._console.width // 2 - 1))
        room = max(MIN_EVENT_LINES, self._console.height - height - 8)
        latest = list(self._events)[-room:]
        return Group(Columns(trees), self._counters(), Panel(Group(*latest), title="what happens"))

    def _counters(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3))
        for name, channel in self._channels:
            counts = channel.statistics()
            trip = "-" if counts.round_trip is None else f"{counts.round_trip * 1000:.1f} ms"
            grid.add_row(
                f" {name}",
                f"sent {counts.sent}",
                f"replies {counts.replies}",
                f"received {counts.messages_received}",
                f"sockets {counts.links_opened}",
                f"drops {counts.drops}",
                f"heartbeat {trip}",
            )
        return grid
