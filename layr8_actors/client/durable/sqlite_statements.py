"""The rules of a queue as transactions on a SQLite connection: synchronous, with the time as an argument."""

# ruff: noqa: S608 - the numbers of states are all that is put into a text, partial indices need them there

from __future__ import annotations

import dataclasses
import sqlite3

from .memory import LEASE_RAN_OUT
from .queue import Claimed, DeadLetter, QueueOptions, QueueStatistics
from .sqlite_file import BLOCKED, CLAIMED, DEAD, DELAYED, READY, REMEMBERED

__all__ = ("Batch", "Died", "SqliteStatements", "live")

MOST_DUE = 1000
"""Leases and delays that one claim looks at: a night's worth of delayed messages must not hold up the others."""


@dataclasses.dataclass(frozen=True, slots=True)
class Died:
    """A message that a transaction has made a dead letter."""

    id: str
    attempts: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What a claim found: messages, those that died, and when the next lease or delay runs out."""

    claimed: list[Claimed]
    died: list[Died]
    next_due: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Held:
    number: int
    key: str | None
    attempts: int


class SqliteStatements:
    """One queue of a file.

    Args:
        queue: its name in the table.
        options: lease, attempts and retention.
    """

    def __init__(self, queue: str, options: QueueOptions) -> None:
        self._queue = queue
        self._options = options
        self._latest = float("inf")

    def put(self, connection: sqlite3.Connection, id: str, body: bytes, key: str | None, now: float) -> bool:
        """Insert a message; False where the id is known."""
        connection.execute(
            f"DELETE FROM messages WHERE queue = ? AND id = ? AND state = {REMEMBERED} AND ended_at <= ?",
            (self._queue, id, now - self._options.retention),
        )
        state = BLOCKED if self._is_live(connection, key) else READY
        inserted = connection.execute(
            "INSERT INTO messages (queue, id, key, body, state, put_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (queue, id) DO NOTHING",
            (self._queue, id, key, body, state, now),
        )
        return inserted.rowcount == 1

    def claim(self, connection: sqlite3.Connection, limit: int, now: float) -> Batch:
        """Take up to ``limit`` messages, after a look at what is due."""
        self._follow_the_clock(connection, now)
        died = self._look_for_due(connection, now)
        rows = connection.execute(
            "SELECT number, id, body, key, attempts + 1, put_at, claims + 1 FROM messages"
            f" WHERE queue = ? AND state = {READY} ORDER BY number LIMIT ?",
            (self._queue, limit),
        ).fetchall()
        connection.executemany(
            f"UPDATE messages SET state = {CLAIMED}, since = ?, due = ?, attempts = attempts + 1, claims = claims + 1"
            " WHERE number = ?",
            [(now, now + self._options.lease, row[0]) for row in rows],
        )
        (next_due,) = connection.execute(
            "SELECT min(due) FROM messages WHERE queue = ? AND due IS NOT NULL", (self._queue,)
        ).fetchone()
        claimed = [
            Claimed(id, body, key, attempt, put_at, f"{number}:{claims}")
            for number, id, body, key, attempt, put_at, claims in rows
        ]
        return Batch(claimed, died, next_due)

    def extend(self, connection: sqlite3.Connection, claimed: Claimed, now: float) -> bool:
        """Start a lease anew."""
        held = self._held(connection, claimed)
        if held is None:
            return False
        connection.execute(
            f"UPDATE messages SET state = {CLAIMED}, since = ?, due = ? WHERE number = ?",
            (now, now + self._options.lease, held.number),
        )
        return True

    def acknowledge(self, connection: sqlite3.Connection, claimed: Claimed, now: float) -> bool:
        """Keep nothing but the id, and forget two that are older than the retention, so that their number stays."""
        held = self._held(connection, claimed)
        if held is None:
            number, claims = _numbers(claimed)
            done = connection.execute(
                f"SELECT 1 FROM messages WHERE number = ? AND claims = ? AND state = {REMEMBERED} AND ended_at > ?",
                (number, claims, now - self._options.retention),
            )
            return done.fetchone() is not None
        self._end(connection, held, REMEMBERED, "", now)
        connection.execute("UPDATE messages SET body = x'' WHERE number = ?", (held.number,))
        connection.execute(
            "DELETE FROM messages WHERE number IN (SELECT number FROM messages"
            f" WHERE queue = ? AND state = {REMEMBERED} AND ended_at <= ? ORDER BY ended_at LIMIT 2)",
            (self._queue, now - self._options.retention),
        )
        return True

    def release(
        self, connection: sqlite3.Connection, claimed: Claimed, delay: float, reason: str, counted: bool, now: float
    ) -> tuple[bool, list[Died]]:
        """Give a claim back, or give the message up."""
        held = self._held(connection, claimed)
        if held is None:
            return False, []
        if counted and held.attempts >= self._options.max_attempts:
            self._end(connection, held, DEAD, reason, now)
            return True, [Died(claimed.id, held.attempts, reason)]
        connection.execute(
            "UPDATE messages SET state = ?, since = ?, due = ?, attempts = ?, claims = claims + 1, reason = ?"
            " WHERE number = ?",
            (
                DELAYED if delay else READY,
                now if delay else None,
                now + delay if delay else None,
                held.attempts - (not counted),
                reason,
                held.number,
            ),
        )
        return True, []

    def bury(
        self, connection: sqlite3.Connection, claimed: Claimed, reason: str, now: float
    ) -> tuple[bool, list[Died]]:
        """Give a message up."""
        held = self._held(connection, claimed)
        if held is None:
            return False, []
        self._end(connection, held, DEAD, reason, now)
        return True, [Died(claimed.id, held.attempts, reason)]

    def dead_letters(self, connection: sqlite3.Connection, limit: int) -> list[DeadLetter]:
        """Read dead letters, the oldest first."""
        rows = connection.execute(
            "SELECT id, body, key, attempts, reason, put_at, ended_at FROM messages"
            f" WHERE queue = ? AND state = {DEAD} ORDER BY ended_at, number LIMIT ?",
            (self._queue, limit),
        )
        return [DeadLetter(*row) for row in rows]

    def retry_dead(self, connection: sqlite3.Connection, id: str) -> bool:
        """Put a dead letter at the end of the line, under a new number."""
        row = connection.execute(
            f"DELETE FROM messages WHERE queue = ? AND id = ? AND state = {DEAD} RETURNING key, body, put_at",
            (self._queue, id),
        ).fetchone()
        if row is None:
            return False
        key, body, put_at = row
        state = BLOCKED if self._is_live(connection, key) else READY
        connection.execute(
            "INSERT INTO messages (queue, id, key, body, state, put_at) VALUES (?, ?, ?, ?, ?, ?)",
            (self._queue, id, key, body, state, put_at),
        )
        return True

    def discard_dead(self, connection: sqlite3.Connection, id: str) -> bool:
        """Delete a dead letter."""
        deleted = connection.execute(
            f"DELETE FROM messages WHERE queue = ? AND id = ? AND state = {DEAD}", (self._queue, id)
        )
        return deleted.rowcount == 1

    def statistics(self, connection: sqlite3.Connection, now: float) -> QueueStatistics:
        """Count the messages."""
        counts = dict(
            connection.execute(
                "SELECT state, count(*) FROM messages"
                f" WHERE queue = ? AND NOT (state = {REMEMBERED} AND ended_at <= ?) GROUP BY state",
                (self._queue, now - self._options.retention),
            ).fetchall()
        )
        states = (READY, BLOCKED, CLAIMED, DELAYED, DEAD, REMEMBERED)
        return QueueStatistics(*(counts.get(state, 0) for state in states))

    def _held(self, connection: sqlite3.Connection, claimed: Claimed) -> _Held | None:
        """The message where nobody has claimed it since, also where the lease has run out."""
        row = connection.execute(
            "SELECT number, key, attempts FROM messages"
            f" WHERE number = ? AND claims = ? AND state IN ({READY}, {CLAIMED})",
            _numbers(claimed),
        ).fetchone()
        return None if row is None else _Held(*row)

    def _is_live(self, connection: sqlite3.Connection, key: str | None) -> bool:
        if key is None:
            return False
        live = connection.execute(
            f"SELECT 1 FROM messages WHERE queue = ? AND key = ? AND state < {REMEMBERED} LIMIT 1", (self._queue, key)
        )
        return live.fetchone() is not None

    def _end(self, connection: sqlite3.Connection, held: _Held, state: int, reason: str, now: float) -> None:
        """Let go of a message, and let the next one of its key be claimed."""
        connection.execute(
            "UPDATE messages SET state = ?, reason = ?, since = NULL, due = NULL, ended_at = ? WHERE number = ?",
            (state, reason, now, held.number),
        )
        if held.key is not None:
            connection.execute(
                f"UPDATE messages SET state = {READY} WHERE number = (SELECT number FROM messages"
                f" WHERE queue = ? AND key = ? AND state < {REMEMBERED} ORDER BY number LIMIT 1)",
                (self._queue, held.key),
            )

    def _look_for_due(self, connection: sqlite3.Connection, now: float) -> list[Died]:
        died: list[Died] = []
        due = connection.execute(
            "SELECT number, key, attempts, state, id FROM messages WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?",
            (self._queue, now, MOST_DUE),
        ).fetchall()
        for number, key, attempts, state, id in due:
            if state == CLAIMED and attempts >= self._options.max_attempts:
                self._end(connection, _Held(number, key, attempts), DEAD, LEASE_RAN_OUT, now)
                died.append(Died(id, attempts, LEASE_RAN_OUT))
            else:
                connection.execute(
                    f"UPDATE messages SET state = {READY}, since = NULL, due = NULL WHERE number = ?", (number,)
                )
        return died

    def _follow_the_clock(self, connection: sqlite3.Connection, now: float) -> None:
        """Where the clock was set back, nothing waits longer than its own time again, instead of until the old time."""
        if now < self._latest:
            connection.execute(
                "UPDATE messages SET due = ? + (due - since), since = ?"
                " WHERE queue = ? AND due IS NOT NULL AND since > ?",
                (now, now, self._queue, now),
            )
        self._latest = now


def _numbers(claimed: Claimed) -> tuple[int, int]:
    number, _, claims = claimed.token.partition(":")
    return int(number), int(claims)


def live(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the messages that are still to be acknowledged, by queue; each state by the index that holds no others."""
    # What is claimed or delayed is due some time, and what is blocked has a key.
    return dict(
        connection.execute(
            "SELECT queue, count(*) FROM ("
            f"SELECT queue FROM messages WHERE state = {READY}"
            " UNION ALL SELECT queue FROM messages WHERE due IS NOT NULL"
            f" UNION ALL SELECT queue FROM messages WHERE key IS NOT NULL AND state < {REMEMBERED}"
            f" AND state = {BLOCKED}) GROUP BY queue"
        ).fetchall()
    )
