"""What every durable queue promises, whatever it stores its messages in."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from ...errors import InvalidOption
from ...otp.validation import checked_count, checked_seconds

__all__ = ("Claimed", "DeadLetter", "DurableQueue", "QueueOptions", "QueueStatistics", "checked_put")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How a queue treats its messages; the same in every process that uses it.

    Args:
        lease: seconds that a claim stands without being extended. Whoever claimed it and died is missed for so long.
        max_attempts: claims that a message is worth; one that was claimed so often and not acknowledged is a dead
            letter.
        retention: seconds for which the id of an acknowledged message is remembered, so that it is not stored again.

    Raises:
        InvalidOption: a value that is not allowed.
    """

    lease: float = 30.0  # SQS: the default visibility timeout
    max_attempts: int = 20  # Oban: the default max_attempts
    retention: float = 86_400.0  # ours: a night, where SQS has 5 minutes; what was away for so long may deliver again

    def __post_init__(self) -> None:
        checked_seconds("lease", self.lease, allow_zero=False)
        checked_count("max_attempts", self.max_attempts, minimum=1)
        checked_seconds("retention", self.retention)


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """A message in somebody's hands, until the lease runs out.

    Args:
        id: as it was put.
        body: as it was put.
        key: as it was put.
        attempt: which claim of this message it is, from 1; more than 1 says that it may have been handled before.
        put_at: when it was put, in seconds of the epoch.
        token: what tells this claim from any other; for the queue alone.
    """

    id: str
    body: bytes = dataclasses.field(repr=False)
    key: str | None
    attempt: int
    put_at: float
    token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody will claim any more, until :meth:`DurableQueue.retry_dead`.

    Args:
        id: as it was put.
        body: as it was put.
        key: as it was put.
        attempts: how often it was claimed.
        reason: why the last claim failed.
        put_at: when it was put, in seconds of the epoch.
        died_at: when it was given up, in seconds of the epoch.
    """

    id: str
    body: bytes = dataclasses.field(repr=False)
    key: str | None
    attempts: int
    reason: str
    put_at: float
    died_at: float


@dataclasses.dataclass(frozen=True, slots=True)
class QueueStatistics:
    """How many messages a queue holds, by what they wait for.

    Args:
        ready: may be claimed now.
        blocked: wait for an earlier message of their key.
        claimed: in somebody's hands, or their lease has run out and nobody has looked since.
        delayed: failed and wait for their next attempt, or nobody has looked since it was due.
        dead: dead letters.
        remembered: acknowledged, only the id is left.
    """

    ready: int = 0
    blocked: int = 0
    claimed: int = 0
    delayed: int = 0
    dead: int = 0
    remembered: int = 0

    @property
    def live(self) -> int:
        """Messages that are still to be acknowledged."""
        return self.ready + self.blocked + self.claimed + self.delayed


@runtime_checkable
class DurableQueue(Protocol):
    """One named queue: messages are put, claimed, handled, and acknowledged, each at least once.

    Messages of one ``key`` are handed out one at a time, in the order in which they were put; those without a key, and
    those of different keys, about in that order. Each method is atomic: cancelled, it was done as a whole or not at
    all. Where it was done, the value is returned and the cancellation comes at the next checkpoint, so that no claim is
    lost on its way to the caller. (Redis: a cancelled call may have been done without its caller learning so.)

    All raise :class:`~layr8_actors.errors.StoreFailed` and its subclasses; nothing was done then, except where it is
    :class:`~layr8_actors.errors.StoreUnreachable`, which leaves that open.
    """

    @property
    def name(self) -> str:
        """Which queue of its store it is."""
        ...

    @property
    def options(self) -> QueueOptions:
        """Lease, attempts and retention."""
        ...

    async def put(self, id: str, body: bytes, *, key: str | None = None) -> bool:
        """Store a message; return once it is as safe as the store can make it. Checkpoints.

        Args:
            id: what tells it from all others in this queue.
            body: what the handler gets; the queue does not look into it.
            key: messages of one key are never in two hands at once, and stay in order.

        Returns:
            False where the id is known: waiting, claimed, dead, or acknowledged within the retention. Nothing is
            stored then.

        Raises:
            InvalidOption: an id or key that is no string or empty, or a body that is not bytes.
        """
        ...

    async def claim(self, limit: int) -> list[Claimed]:
        """Take up to ``limit`` messages for the time of a lease; none where there is nothing to do. Checkpoints.

        A message whose lease has run out is claimed again, or becomes a dead letter after ``max_attempts``.
        """
        ...

    async def extend(self, claimed: Claimed) -> bool:
        """Start the lease of a claim anew; False where it was lost, and somebody else may have it. Checkpoints."""
        ...

    async def acknowledge(self, claimed: Claimed) -> bool:
        """Say that a message is handled, for good; only its id is kept, for the retention. Checkpoints.

        Returns:
            True where the message is done by this claim, also when it is said again. False where the lease was lost
            and the message was claimed again, given back, or given up: it will be, or was, handled once more.
        """
        ...

    async def release(self, claimed: Claimed, *, delay: float = 0.0, reason: str = "", counted: bool = True) -> bool:
        """Give a claim back for another attempt; the last one makes it a dead letter. Checkpoints.

        Args:
            claimed: what :meth:`claim` returned.
            delay: seconds before it may be claimed again. Others of its key wait for it.
            reason: why, for whoever reads the dead letters.
            counted: whether it was an attempt. False for a shutdown, which says nothing about the message.

        Returns:
            False where the lease was lost, as in :meth:`acknowledge`.
        """
        ...

    async def bury(self, claimed: Claimed, reason: str) -> bool:
        """Make a claim a dead letter now, because no attempt can succeed; False where it was lost. Checkpoints."""
        ...

    async def wait_for_work(self) -> None:
        """Return when a claim may find something, perhaps in vain. Checkpoints; cancelled, it leaves nothing."""
        ...

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, the oldest first. Checkpoints."""
        ...

    async def retry_dead(self, id: str) -> bool:
        """Make a dead letter a message again, the last of its key, with all its attempts; False where there is none."""
        ...

    async def discard_dead(self, id: str) -> bool:
        """Forget a dead letter and its id; False where there is none. Checkpoints."""
        ...

    async def statistics(self) -> QueueStatistics:
        """Count the messages. Checkpoints."""
        ...


def checked_put(id: object, body: object, key: object) -> None:
    """Refuse what :meth:`DurableQueue.put` cannot store, in the same words everywhere.

    Raises:
        InvalidOption: which one, and what is allowed.
    """
    for option, value in (("id", id), ("key", "absent" if key is None else key)):
        if not isinstance(value, str) or not value:
            raise InvalidOption(option, value, "a str that is not empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidOption(option, value, "a str without lone surrogates, which no store can keep") from None
    if not isinstance(body, bytes):
        raise InvalidOption("body", body, "bytes")
