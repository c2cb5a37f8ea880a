"""What a node says to a request."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("Reply",)


class Reply(msgspec.Struct, frozen=True):
    """The node's answer to ``send_msg``; a refusal is an answer too and not an exception.

    Args:
        status: ``"ok"``, ``"error"``, or whatever other atom the node replied with.
        reason: ``response.reason`` where it is a string, else ``""``.
        response: the whole ``response``, any JSON value; not shown by ``repr``, since it is the node's to say what is
            in it.
    """

    status: str
    reason: str
    response: Any

    @property
    def ok(self) -> bool:
        """True for the status ``"ok"`` alone: accepted by the node, which is not yet delivered to the recipient."""
        return self.status == "ok"

    def __repr__(self) -> str:
        return f"Reply(status={self.status!r}, reason={self.reason!r})"
