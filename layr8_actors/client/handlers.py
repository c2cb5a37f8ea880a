"""Which function handles which type of message, and the protocols that follow from it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..channel.options import checked_protocols
from ..errors import InvalidOption
from ..otp.validation import checked_flag, checked_seconds
from .message import Message
from .problem_report import PROBLEM_REPORT_PROTOCOL

__all__ = ("PASS", "Handler", "HandlerFunction", "HandlerResult", "Handlers", "Pass", "protocols_of")

CATCH_ALL: Final = "*"
_TYPE = re.compile(r"[\x21-\x7e]+/[\x21-\x7e]+")  # RFC 3986: ASCII without spaces; a protocol, and a name within it


class Pass:
    """The class of :data:`PASS`, for annotations."""

    def __repr__(self) -> str:
        return "PASS"


PASS: Final = Pass()
"""Returned from a handler: not for us after all, let the node ask the next plugin, or tell the sender."""

HandlerResult = Message | Pass | None
HandlerFunction = Callable[[Message], HandlerResult | Awaitable[HandlerResult]]


@dataclasses.dataclass(frozen=True, slots=True)
class Handler:
    """One registered function.

    Args:
        function: the user's, sync or async.
        timeout: seconds that it may take.
        accept_first: whether the message is accepted before the function runs.
        stores: whether the function stores the message, so that it may not be accepted before, in no way.
    """

    function: HandlerFunction
    timeout: float
    accept_first: bool
    stores: bool = False


class Handlers:
    """The handlers of one DID: an exact type goes before the catch-all.

    Args:
        default_timeout: of those that have no timeout of their own.
    """

    def __init__(self, default_timeout: float) -> None:
        self._default_timeout = default_timeout
        self._by_type: dict[str, Handler] = {}

    def add(
        self, type: str, function: HandlerFunction, *, timeout: float | None = None, accept_first: bool = False
    ) -> None:
        """Register a function.

        Args:
            type: the message type, or ``"*"``.
            function: the user's.
            timeout: seconds that it may take; ``None`` for the default.
            accept_first: see :meth:`Client.handle`.

        Raises:
            InvalidOption: an argument is not allowed, or the type has a handler already.
        """
        if type != CATCH_ALL and (not isinstance(type, str) or not _TYPE.fullmatch(type)):
            raise InvalidOption("type", type, "the URI of a message type, such as 'https://didcomm.org/tp/1.0/ping'")
        if not callable(function):
            raise InvalidOption("function", function, "a function or an async function that takes a Message")
        if type in self._by_type:
            raise InvalidOption("type", type, f"a type without a handler; {type!r} has one already")
        seconds = self._default_timeout
        if timeout is not None:
            seconds = checked_seconds("timeout", timeout, allow_zero=False, allow_infinity=True)
        self._by_type[type] = Handler(function, seconds, checked_flag("accept_first", accept_first))

    def exact(self, type: str) -> Handler | None:
        """Return the handler of that very type."""
        return self._by_type.get(type)

    def find(self, type: str) -> Handler | None:
        """Return the handler for a message of that type: its own, else the catch-all, else ``None``."""
        return self._by_type.get(type) or self._by_type.get(CATCH_ALL)

    def through(self, wrap: Callable[[HandlerFunction], HandlerFunction]) -> Handlers:
        """Return the same handlers, each function wrapped.

        Args:
            wrap: what stands for a function from here on.
        """
        wrapped = Handlers(self._default_timeout)
        for type, handler in self._by_type.items():
            wrapped._by_type[type] = dataclasses.replace(handler, function=wrap(handler.function))
        return wrapped

    @property
    def types(self) -> tuple[str, ...]:
        """The types that have a handler, ``"*"`` for the catch-all."""
        return tuple(self._by_type)


def protocols_of(types: Sequence[str], configured: Sequence[str]) -> tuple[str, ...]:
    """Return what a join binds, sorted and without doubles, so that each run joins with the same text.

    Args:
        types: that have a handler.
        configured: protocols named by the user.

    Returns:
        The protocol of each type (all of it but the last segment), ``"*"`` for a catch-all, the configured ones, and
        that of problem reports, without which a node keeps the denial of what we sent to itself.
    """
    derived = {type if type == CATCH_ALL else type.rpartition("/")[0] for type in types}
    return checked_protocols(frozenset({*derived, *configured, PROBLEM_REPORT_PROTOCOL}))
