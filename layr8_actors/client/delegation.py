"""Credentials that a node delegates to a borrowed DID: what a join said of them, and pushes that replace it."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, Final

__all__ = ("Delegation", "DelegationStatus", "applied", "parse_delegation")


class DelegationStatus(Enum):
    """How much of the delegated credentials a node could read."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    UNREAD = "unread"


@dataclasses.dataclass(frozen=True, slots=True)
class Delegation:
    """One reading of the credentials delegated to a borrowed DID, whole; a later one replaces it.

    That there is no reading (``client.delegation is None``) is another thing than a complete reading without any.

    Args:
        status: complete; partial, where the node could not read all; unread, where it could read none.
        revision: counts up with each change, from the join on; ``None`` where the node did not say.
        credentials: each an object of the node, such as ``{"id", "parent_capability", "credential_jwt"}``.
    """

    status: DelegationStatus
    revision: int | None
    credentials: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)


_STATUSES: Final = {status.value: status for status in DelegationStatus}


def parse_delegation(value: object) -> Delegation | None:
    """Read ``delegated_credentials`` of a join's response, or the payload of a push of that name.

    Args:
        value: what the node said; whatever is not exactly of that shape is no reading.
    """
    if not isinstance(value, dict):
        return None
    status = value.get("status")
    credentials = value.get("credentials")
    if not isinstance(status, str) or status not in _STATUSES or not isinstance(credentials, list):
        return None
    if not all(_is_credential(credential) for credential in credentials):
        return None
    revision = value.get("revision")
    # Only a whole number counts, and neither true nor 1.0 is one.
    known = revision if isinstance(revision, int) and not isinstance(revision, bool) else None
    return Delegation(_STATUSES[status], known, tuple(credentials))


def _is_credential(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), str) for name in ("id", "parent_capability", "credential_jwt")
    )


def applied(held: Delegation | None, pushed: object) -> Delegation | str:
    """Return the reading after a push, or why the push changes nothing.

    Args:
        held: the reading of the join in force, as replaced since.
        pushed: the payload of the push.
    """
    if held is None:
        return "no reading is held, so there is nothing that it could replace"
    reading = parse_delegation(pushed)
    if reading is None:
        return "it is no reading"
    if reading.status is DelegationStatus.UNREAD:
        return "it says that the node could not read them"
    if reading.revision is None:
        return "it has no revision that is a whole number"
    if held.revision is not None and reading.revision <= held.revision:
        return f"its revision {reading.revision} is not above {held.revision}, which is held"
    return reading
