"""The handlers of a further DID, and behind them those of its client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .handlers import Handlers
from .registration import Registration

__all__ = ("DidHandlers", "LayeredHandlers")


class DidHandlers(Registration):
    """The handlers of one further DID, registered as those of a client are; for :meth:`Client.join_did`.

    They may be given to several joins, and once they are, no more can be registered.

    Args:
        handler_timeout: seconds for handlers that have no ``timeout`` of their own; 30 as in :class:`ClientConfig`.
    """

    def __init__(self, *, handler_timeout: float = 30.0) -> None:
        super().__init__(Handlers(handler_timeout))

    def begin(self) -> Handlers:
        """Return the handlers, to which none can be added from here on; for the join."""
        self._begun = True
        return self._handlers

    def through(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> DidHandlers:
        """Return handlers that are these, each function wrapped; for a client that calls them in another thread.

        Args:
            wrap: what stands for a function from here on.
        """
        wrapped = DidHandlers()
        wrapped._handlers = self.begin().through(wrap)
        wrapped._functions = self._functions.through(wrap)
        return wrapped


class LayeredHandlers(Handlers):
    """The handlers of a DID, and behind them those of the client.

    Args:
        own: asked first, its catch-all included.
        behind: asked for what ``own`` has nothing for.
    """

    def __init__(self, own: Handlers, behind: Handlers) -> None:
        super().__init__(1.0)  # nothing is added to it
        self._layers = (own, behind)

    def exact(self, type: str) -> Any:
        """Return the handler of that very type."""
        own, behind = self._layers
        return own.exact(type) or (None if own.find(type) else behind.exact(type))

    def find(self, type: str) -> Any:
        """Return the handler for a message of that type."""
        own, behind = self._layers
        return own.find(type) or behind.find(type)

    @property
    def types(self) -> tuple[str, ...]:
        """The types that have a handler."""
        return tuple({**dict.fromkeys(self._layers[0].types), **dict.fromkeys(self._layers[1].types)})
