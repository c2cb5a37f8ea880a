"""Which refusals of a node can pass and which cannot."""

from __future__ import annotations

from ..errors import ConnectFailed, JoinRejected

__all__ = ("is_permanent", "is_permanent_reason")

# Reasons that the same join meets every time; all others may pass, protocols_already_bound among them, which after a
# half-open drop is our own ghost. Nodes print them with and without the prefix "e.join.".
_PERMANENT_PREFIXES = (
    "e.join.plugin.child.",
    "e.join.plugin.parent.",
    "e.join.plugin.protocol.missing",
    "plugin.child.",
    "plugin.parent.",
    "plugin.protocol.missing",
)
_PERMANENT_PARTS = (":no_credentials", "invalid_api_key", "authentication_failed", "invalid_did")


def is_permanent_reason(reason: str) -> bool:
    """Tell whether a join refused for ``reason`` is refused for good.

    Args:
        reason: ``response.reason`` of the join's reply, or ``""``.

    Returns:
        True where only a change of the options can help. An unknown reason counts as transient: retrying for nothing
        costs a dial each 30 s, giving up for nothing costs the agent.
    """
    return reason.startswith(_PERMANENT_PREFIXES) or any(part in reason for part in _PERMANENT_PARTS)


def is_permanent(error: Exception) -> bool:
    """Tell whether ``error`` ended an attempt that can never succeed as it is.

    Args:
        error: what a dial or a join ended with.

    Returns:
        True for a permanent :class:`JoinRejected` and for an upgrade refused with HTTP 401 or 403.
    """
    return isinstance(error, JoinRejected | ConnectFailed) and error.permanent
