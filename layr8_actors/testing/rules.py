"""What the node was told to do to upgrades, joins and replies to come: rules that are used up one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .node_channel import NodeChannel

__all__ = ("UNSET", "JoinRule", "ReplyRule", "Rules", "UpgradeRule")


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""No payload given; ``None`` cannot say so, because null is a payload."""


@dataclass(slots=True)
class UpgradeRule:
    """What happens to upgrades.

    Args:
        count: how many; ``None`` for all until the rules are cleared.
        status: refuse with this HTTP status; ``None`` never answers at all.
        body: of the refusal.
        headers: of the refusal, such as ``Location`` or ``Retry-After``.
        delay: seconds before anything is answered.
        accept: let it pass after the delay instead of refusing it.
        raw: write these bytes instead of an answer, then drop the stream.
    """

    count: int | None
    status: int | None = None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    accept: bool = False
    raw: bytes | None = None


@dataclass(slots=True)
class JoinRule:
    """What happens to joins.

    Args:
        count: how many; ``None`` for all until the rules are cleared.
        did: only joins of this DID (``""``: of the blank topic); ``None`` for any.
        refuse: the response of an error reply.
        delay: seconds before the join runs, during which the whole socket waits, as in Phoenix.
        payload: what the reply carries instead of status and response, whatever came of the join.
        unanswered: no reply at all, though the join runs.
        assign: the DID that the join is given.
    """

    count: int | None
    did: str | None = None
    refuse: Any = None
    delay: float = 0.0
    payload: Any = UNSET
    unanswered: bool = False
    assign: str | None = None

    @property
    def has_payload(self) -> bool:
        return self.payload is not UNSET


@dataclass(slots=True)
class ReplyRule:
    """What happens to replies of a channel.

    Args:
        count: how many; ``None`` for all until the rules are cleared.
        did: only on the topics of this DID.
        event: only replies to this event.
        delay: seconds; the reply is lost when the channel ends before.
        times: how often it is sent; 0 for never.
        payload: what it carries instead of status and response.
    """

    count: int | None
    did: str | None = None
    event: str | None = None
    delay: float = 0.0
    times: int = 1
    payload: Any = UNSET

    @property
    def has_payload(self) -> bool:
        return self.payload is not UNSET


@dataclass(slots=True)
class Rules:
    """The rules in force, each kind in the order in which they were given; the first that fits is used."""

    upgrades: list[UpgradeRule] = field(default_factory=list)
    joins: list[JoinRule] = field(default_factory=list)
    replies: list[ReplyRule] = field(default_factory=list)
    ignores_heartbeats: bool = False

    def clear(self) -> None:
        """Forget all rules."""
        self.upgrades.clear()
        self.joins.clear()
        self.replies.clear()
        self.ignores_heartbeats = False

    def take_upgrade_rule(self) -> UpgradeRule | None:
        """Return the rule for this upgrade, and use it up."""
        for rule in self.upgrades:
            if _use(rule):
                return rule
        return None

    def take_join_rule(self, topic: str) -> JoinRule | None:
        """Return the rule for a join of this topic, and use it up."""
        did = topic.partition(":")[2]
        for rule in self.joins:
            if (rule.did is None or rule.did == did) and _use(rule):
                return rule
        return None

    def take_reply_rule(self, channel: NodeChannel, event: str) -> ReplyRule | None:
        """Return the rule for a reply of this channel to that event, and use it up."""
        for rule in self.replies:
            if rule.did is not None and rule.did != channel.did:
                continue
            if (rule.event is None or rule.event == event) and _use(rule):
                return rule
        return None


def _use(rule: UpgradeRule | JoinRule | ReplyRule) -> bool:
    if rule.count is None:
        return True
    if rule.count <= 0:
        return False
    rule.count -= 1
    return True
