"""What a user registers before the first run: handlers, and the functions that are called beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import AlreadyConnected, InvalidOption
from .handlers import CATCH_ALL, HandlerFunction, Handlers

if TYPE_CHECKING:
    from .delegation import Delegation

__all__ = ("Functions", "Registration")

F = TypeVar("F", bound=HandlerFunction)
C = TypeVar("C", bound=Callable[..., object])


@dataclasses.dataclass(slots=True)
class Functions:
    """The user's functions that are no handlers; ``None`` for none."""

    on_delegation: Callable[[Delegation | None], object] | None = None
    on_disconnect: Callable[[Exception], object] | None = None
    on_reconnect: Callable[[], object] | None = None

    def through(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Functions:
        """Return the same functions, each wrapped.

        Args:
            wrap: what stands for a function from here on.
        """
        ours = (self.on_delegation, self.on_disconnect, self.on_reconnect)
        return Functions(*(None if function is None else wrap(function) for function in ours))


class Registration:
    """The half of a client that takes the user's functions.

    Args:
        handlers: where those for messages go.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._functions = Functions()
        self._begun = False

    def handle(self, type: str, *, timeout: float | None = None, accept_first: bool = False) -> Callable[[F], F]:
        """Register the function below as the handler of one message type.

        It is called with each :class:`Message` of the type, at most ``max_handlers`` at once, and one at a time within
        a thread. It returns a Message, which goes back to the sender in the same thread; ``None``, for no answer; or
        ``PASS``. What it raises is reported to the sender and to ``on_event``, and changes nothing else.

        One that waits has a task to itself. Those that do not wait may share one, one after the other, each with a
        deadline and context variables of its own.

        Args:
            type: the whole URI of the message type.
            timeout: seconds after which the handler is cancelled; ``None`` for ``handler_timeout``.
            accept_first: tell the node ``handled`` before the handler runs. A node of ``reply_protocol/1`` hands over
                one message at a time and waits until it is told; with this the next one comes while the handler works.
                The price: the node no longer hears of PASS or of a failure, though the sender does of a failure.

        Returns:
            A decorator that returns the function as it is.

        Raises:
            InvalidOption: an argument is not allowed, or the type has a handler.
            AlreadyConnected: the client has run; register handlers before that, because the join names their protocols.
        """

        def register(function: F) -> F:
            self._check_not_begun()
            self._handlers.add(type, function, timeout=timeout, accept_first=accept_first)
            return function

        return register

    def handle_all(self, function: F) -> F:
        """Register the function below as the handler of every type that has none of its own; see :meth:`handle`.

        Args:
            function: the handler.

        Raises:
            InvalidOption: there is a catch-all already.
            AlreadyConnected: as for :meth:`handle`.
        """
        self._check_not_begun()
        self._handlers.add(CATCH_ALL, function)
        return function

    def on_delegation(self, function: C) -> C:
        """Register what is called with each new reading of the delegated credentials, or None for none; in order.

        Args:
            function: sync or async; no message is handed out while it runs. What it raises is reported.

        Raises:
            InvalidOption: it is not callable, or there is one already.
            AlreadyConnected: the client has run.
        """
        self._functions.on_delegation = self._checked("on_delegation", function)
        return function

    def on_disconnect(self, function: C) -> C:
        """Register what is called with the typed error that ended a joined link, once per drop.

        Args:
            function: sync or async. What it raises is reported.

        Raises:
            InvalidOption: it is not callable, or there is one already.
            AlreadyConnected: the client has run.
        """
        self._functions.on_disconnect = self._checked("on_disconnect", function)
        return function

    def on_reconnect(self, function: C) -> C:
        """Register what is called without arguments after each rejoin.

        Args:
            function: sync or async. What it raises is reported.

        Raises:
            InvalidOption: it is not callable, or there is one already.
            AlreadyConnected: the client has run.
        """
        self._functions.on_reconnect = self._checked("on_reconnect", function)
        return function

    @property
    def functions(self) -> Functions:
        """The functions that are no handlers; for whoever runs them."""
        return self._functions

    def _checked(self, name: str, function: C) -> C:
        self._check_not_begun()
        if not callable(function):
            raise InvalidOption(name, function, "a function or an async function")
        if getattr(self._functions, name) is not None:
            raise InvalidOption(name, function, "one function only; there is one already")
        return function

    def _check_not_begun(self) -> None:
        if self._begun:
            raise AlreadyConnected("the client has run already; register everything before that")
