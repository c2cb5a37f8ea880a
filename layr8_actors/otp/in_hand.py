"""What an actor is at: the message in the hands of its handler, or a stand-in where a method runs without one."""

from __future__ import annotations

from .call import QueuedCall
from .monitor import Down

__all__ = ("CONTINUE", "NOTHING", "TIMEOUT", "described")


class _StandIn:
    __slots__ = ("name",)

    def __init__(self, name: str | None) -> None:
        self.name = name


NOTHING = _StandIn(None)
CONTINUE = _StandIn("handle_continue")
TIMEOUT = _StandIn("handle_timeout")


def described(item: object) -> str | None:
    """Return the handler of ``item`` and its type, never its content, which is the user's; ``None`` for no item.

    Args:
        item: what the loop took last.
    """
    if isinstance(item, _StandIn):
        return item.name
    if isinstance(item, Down):
        return f"handle_down {item.id}"
    if isinstance(item, QueuedCall):
        return f"handle_call {type(item.request).__name__}"
    return f"handle_cast {type(item).__name__}"
