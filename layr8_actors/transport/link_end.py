"""How a link ended, kept once and raised anew for each caller."""

from __future__ import annotations

import dataclasses

from ..errors import TransportClosed

__all__ = ("LinkEnd",)


@dataclasses.dataclass(frozen=True, slots=True)
class LinkEnd:
    """The arguments of the TransportClosed that each caller gets an instance of.

    Args:
        code: the close code; 1006 where there was none.
        reason: the close reason, redacted.
        detail: what else is known, redacted.
    """

    code: int = 1006
    reason: str = ""
    detail: str = ""

    def error(self) -> TransportClosed:
        """Make the error for one caller: one instance raised in several tasks would mix their tracebacks."""
        return TransportClosed(self.code, self.reason, detail=self.detail)
