"""A CloudNode in a process of its own, so that a benchmark measures its client alone; it ends with its stdin."""

from __future__ import annotations

import sys

import trio

from layr8_actors.testing import CloudNode


async def main() -> None:
    """Serve until the parent closes our standard input."""
    async with CloudNode() as node:
        print(node.url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
