"""The file of a SQLite store: how it is created, opened, recognised, kept to one writer, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import StoreCorrupt, StoreFailed, StoreFull, StoreLocked, StoreReadOnly, StoreVersion

__all__ = ("SCHEMA_VERSION", "StoreFile", "store_failed")

APPLICATION_ID = 0x4C387251  # "L8rQ"; SQLite keeps it in the header of the file, so that file(1) and we know what it is
SCHEMA_VERSION = 1
OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables; Ubuntu 22.04, Debian 12 and macOS 12 have it or newer

READY, BLOCKED, CLAIMED, DELAYED, REMEMBERED, DEAD = range(6)

# due is NULL wherever nothing waits for a time; the partial indices hold only what is looked for in them, so that dead
# and remembered messages cost nothing when others are claimed. AUTOINCREMENT: a number is never given twice.
SCHEMA = f"""
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    key TEXT,
    body BLOB NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claims INTEGER NOT NULL DEFAULT 0,
    since REAL,
    due REAL,
    put_at REAL NOT NULL,
    ended_at REAL,
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (queue, id)
) STRICT;
CREATE INDEX messages_ready ON messages (queue, number) WHERE state = {READY};
CREATE INDEX messages_due ON messages (queue, due) WHERE due IS NOT NULL;
CREATE INDEX messages_of_key ON messages (queue, key, number) WHERE key IS NOT NULL AND state < {REMEMBERED};
CREATE INDEX messages_remembered ON messages (queue, ended_at) WHERE state = {REMEMBERED};
CREATE INDEX messages_dead ON messages (queue, ended_at) WHERE state = {DEAD};
"""

POLL = 0.001
"""Seconds between two tries for the lock; a transaction takes about as long."""


def store_failed(where: str, error: Exception) -> StoreFailed:
    """Return the error of this package that says what an error of SQLite or of the file system means.

    Args:
        where: the path of the file.
        error: what was raised.
    """
    detail = str(error)
    # The low byte is the primary code, the rest says more of the same (sqlite.org/rescode.html).
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(where, f"no room left ({detail}); free some, it goes on by itself")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(where, f"another process keeps it locked ({detail})")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(where, f"not a whole SQLite file ({detail}); move it away with its -wal and -shm")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_AUTH:
            return StoreReadOnly(where, f"it cannot be written ({detail}); its folder has to be writable too")
        case _:
            pass
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(where, f"no room left ({error.strerror}); free some, it goes on by itself")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StoreReadOnly(where, f"it cannot be written ({error.strerror})")
        detail = error.strerror or detail
    return StoreFailed(where, detail)


class StoreFile:
    """A SQLite file in WAL mode and the lock beside it; to be used by one thread at a time.

    The lock is held around every transaction, with the checkpoint that SQLite adds to it, around opening and around
    closing: SQLite before 3.51.3 may damage a file when two processes write and checkpoint it in the same instant
    (sqlite.org/wal.html, "The WAL-Reset Bug"), and Debian 12 has 3.40. The kernel frees it when a process dies.

    Args:
        path: the file; it is created with mode 0600 where it is not there, and its folder has to exist.
        busy_timeout: seconds to wait for another process.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._lock = -1
        self.connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file and make sure that it is a store of this version.

        Raises:
            StoreFailed: see its subclasses.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            wanted = ".".join(map(str, OLDEST_SQLITE))
            raise StoreVersion(str(self.path), f"Python has SQLite {sqlite3.sqlite_version}, {wanted} is needed")
        try:
            self._lock = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self.alone():
                if not self.path.exists():
                    # SQLite would create it as the umask says; -wal and -shm get the mode of the file itself.
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                    self._sync_folder()
                # No statement is begun or committed by itself, and all threads of trio.to_thread may use it in turn.
                self.connection = sqlite3.connect(
                    self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
                )
                self._recognise(self.connection)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise store_failed(str(self.path), error) from error
        except StoreFailed:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the last process folds -wal into it. What is committed is safe also without this."""
        if self._lock < 0:
            return
        connection, self.connection = self.connection, None
        try:
            if connection is not None:
                try:
                    with self.alone():
                        connection.close()
                except StoreLocked:
                    connection.close()  # somebody has it open, so this is not the close that folds -wal in
        finally:
            os.close(self._lock)
            self._lock = -1

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other processes from the file meanwhile.

        Raises:
            StoreLocked: another one kept it for longer than the busy timeout.
        """
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    detail = f"another process keeps it locked for more than {self._busy_timeout:g} s"
                    raise StoreLocked(str(self.path), detail) from None
                time.sleep(POLL)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _recognise(self, connection: sqlite3.Connection) -> None:
        where = str(self.path)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise StoreCorrupt(where, "a SQLite file, but no store of layr8_actors; give another path")
        if version > SCHEMA_VERSION:
            detail = f"written by a newer layr8_actors (schema {version}, this one knows {SCHEMA_VERSION}); upgrade"
            raise StoreVersion(where, detail)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreFailed(where, f"SQLite cannot use WAL here (it says {mode}); a network file system has no WAL")
        if not tables:
            with connection:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {SCHEMA}"
                    f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )

    def _sync_folder(self) -> None:
        """A new file is only there after a power cut if its folder was written too."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
