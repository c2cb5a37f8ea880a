"""Problem reports (DIDComm v2, report-problem 2.0): what a sender is told of a failure, and what one tells us."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ..errors import ProblemReportError
from .message import Message

__all__ = (
    "CANNOT_PROCESS",
    "PROBLEM_REPORT_PROTOCOL",
    "describe_failure",
    "is_problem_report",
    "problem_report",
    "read_problem_report",
)

PROBLEM_REPORT_PROTOCOL: Final = "https://didcomm.org/report-problem/2.0"
_TYPE: Final = f"{PROBLEM_REPORT_PROTOCOL}/problem-report"
_ANY_VERSION: Final = re.compile(r"https://didcomm\.org/report-problem/[^/]+/problem-report")

CANNOT_PROCESS: Final = "e.p.xfer.cant-process"
"""The code that all Layr8 SDKs give a handler's failure."""

_MOST_SAID: Final = 300
"""Characters of an error that a sender is told; ours: as many as our own error texts show of a node's words."""

_PLACE: Final = re.compile(r"\{(\d{1,3})\}")


def is_problem_report(message: Message) -> bool:
    """Whether a message is a problem report, of any version of the protocol."""
    return _ANY_VERSION.fullmatch(message.type) is not None


def problem_report(request: Message, comment: str, code: str = CANNOT_PROCESS) -> Message:
    """Make the report of a failure, for the sender of what failed.

    Args:
        request: the message whose handling failed.
        comment: what went wrong, for people.
        code: what kind of problem it is.
    """
    return request.reply(_TYPE, {"code": code, "comment": comment})


def read_problem_report(message: Message) -> ProblemReportError:
    """Return a problem report as an exception.

    Args:
        message: the report. Whatever of its body is not as the protocol has it counts as empty.
    """
    body: Any = message.body if isinstance(message.body, dict) else {}
    code, comment, args = body.get("code"), body.get("comment"), body.get("args")
    arguments = tuple(_text(argument) for argument in args) if isinstance(args, list) else ()
    text = comment if isinstance(comment, str) else ""
    return ProblemReportError(code if isinstance(code, str) else "", _filled(text, arguments), arguments)


def _text(argument: object) -> str:
    return argument if isinstance(argument, str) else str(argument)


def _filled(comment: str, arguments: tuple[str, ...]) -> str:
    # In one pass, so that an argument which looks like a place is not filled in turn; a place without one is kept.
    def argument(place: re.Match[str]) -> str:
        number = int(place[1])
        return arguments[number - 1] if 1 <= number <= len(arguments) else place[0]

    return _PLACE.sub(argument, comment)


def describe_failure(error: Exception, redact: Callable[[str], str]) -> str:
    """Return what a peer is told of an error: its text, redacted, cut, and without what no JSON can hold.

    Args:
        error: of the handler.
        redact: takes the key out, and gets the whole text: of a key that is cut in two it would find nothing.
    """
    try:
        text = str(error)
    except Exception:  # a user's class, whose own text fails
        text = ""
    text = redact(text or type(error).__name__)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}..."
