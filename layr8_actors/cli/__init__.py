"""The command ``layr8-actors``; it needs the extra ``[cli]``, and nothing else in the package imports it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ("main",)

_NEEDED = ("cyclopts", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; ``None`` for those the process was given.

    Returns:
        The exit status: 0 when all went well, 1 when it did not, 2 for a wrong command line, 130 after Ctrl-C where
        the command was not through. Errors are one line on stderr.
    """
    try:
        from .commands import run  # noqa: PLC0415 - here, so that without the extra one sentence appears and no traceback
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        print("layr8-actors: this command needs the extra [cli]: pip install 'layr8-actors[cli]'", file=sys.stderr)
        return 1
    return run(sys.argv[1:] if arguments is None else list(arguments))
