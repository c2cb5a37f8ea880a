"""How a link ended, kept once and raised anew for each caller."""

from __future__ import annotations

import dataclasses

from ..errors import TransportClosed

__all__ = ("LinkEnd", "cut_reason")

_LONGEST_REASON = 123  # RFC 6455 section 5.5: 125 bytes of a control frame, less the code


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


def cut_reason(reason: str) -> str:
    """Cut a close reason to what a close frame holds, between characters; what cannot be encoded is left out.

    Args:
        reason: any text, for close never raises.
    """
    return reason.encode(errors="ignore")[:_LONGEST_REASON].decode(errors="ignore")
