"""Which SQLite is used, and how a connection is set up.

Python's own SQLite is often one with the WAL-reset bug (3.7.0 to 3.51.2: two connections that write or checkpoint at
the same instant can corrupt the file, https://sqlite.org/wal.html#walresetbug), so the wheel of pysqlite3, which
brings its own, is preferred. One process must never use both on one file: closing a descriptor drops the locks of
the other (https://sqlite.org/howtocorrupt.html section 2.2).
"""

from __future__ import annotations

import sqlite3 as _types
from pathlib import Path

from walbatch.errors import AffectedSqlite, StorageFailed

try:
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:
    import sqlite3

Connection = _types.Connection
"""The shape of a connection, whichever module made it."""

Error: type[_types.Error] = sqlite3.Error
"""Base class of what a connection raises. Told apart by its code, never by its text."""

SQLITE_VERSION: str = sqlite3.sqlite_version
"""The version of the library that is really used."""

FIXED_BACKPORTS = ((3, 50, 7), (3, 44, 6))
"""Releases of older lines that carry the fix; 3.52.0 was withdrawn."""

CACHED_STATEMENTS = 256
"""Of a connection, kept prepared: an INSERT of each number of rows up to 64 is a statement (`walbatch.wal.store`)."""

BUSY_TIMEOUT_MS = 5000
"""How long to wait for a lock."""

_PRAGMAS: dict[str, int | str] = {
    "busy_timeout": BUSY_TIMEOUT_MS,
    "cell_size_check": 1,
    "foreign_keys": 1,
    "mmap_size": 0,  # a mapped file turns an I/O error into a crash
    "trusted_schema": 0,
}
_WRITER_PRAGMAS = _PRAGMAS | {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: each commit is fsynced before it returns. This line is the product's promise
    "fullfsync": 1,  # macOS: down to the medium, not only to the drive; no effect elsewhere
    "checkpoint_fullfsync": 1,
    "secure_delete": 1,
    # SQLite would do it within COMMIT, and when it fails COMMIT raises although the transaction is durable.
    "wal_autocheckpoint": 0,
    "journal_size_limit": 64 * 1024 * 1024,
}


def is_full(error: _types.Error) -> bool:
    """Say whether the disk, or the largest size of the database, is reached.

    SQLITE_FULL, or SQLITE_IOERR_SHMSIZE: the index of the write-ahead log could not grow.
    """
    return _result_code(error) == 13 or getattr(error, "sqlite_errorcode", 0) == 4874  # noqa: PLR2004


def is_interrupted(error: _types.Error) -> bool:
    """Say whether `interrupt` ended the statement (SQLITE_INTERRUPT)."""
    return _result_code(error) == 9  # noqa: PLR2004


def is_damage(error: _types.Error) -> bool:
    """Say whether the file itself is at fault (SQLITE_CORRUPT, SQLITE_NOTADB, or a text that is no UTF-8)."""
    # Python's own part raises the last one, without a code; it has no other operational error of its own.
    is_undecodable = isinstance(error, sqlite3.OperationalError) and not _result_code(error)
    return is_undecodable or _result_code(error) in {11, 26}


def _result_code(error: _types.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the rest says more precisely what kind of it


def is_affected(version: str) -> bool:
    """Say whether this SQLite version has the WAL-reset bug."""
    number = tuple(int(part) for part in version.split(".")[:3])
    if number >= (3, 51, 3):
        return number[:2] == (3, 52)
    return not any(number[:2] == fixed[:2] and number >= fixed for fixed in FIXED_BACKPORTS)


def check_version(*, allow_affected: bool) -> None:
    """Refuse to write with an affected SQLite, unless that was asked for.

    Raises:
        AffectedSqlite: install the wheel of pysqlite3, or a fixed SQLite.
    """
    if is_affected(SQLITE_VERSION) and not allow_affected:
        raise AffectedSqlite(
            f"SQLite {SQLITE_VERSION} can lose committed rows (WAL-reset bug, fixed in 3.51.3). Install pysqlite3"
            " >= 0.6.1 from its wheel, or accept the risk with WALBATCH_ALLOW_AFFECTED_SQLITE=true"
        )


def open_writer(path: Path) -> Connection:
    """Open the one connection that writes and checkpoints, with every setting read back.

    Raises:
        StorageFailed: a setting did not take effect, so the promise could not be kept.
    """
    connection = _open(f"{path.absolute().as_uri()}?mode=rwc")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes effect only in a new, empty database
    _set(connection, _WRITER_PRAGMAS)
    return connection


def checkpoint_some(connection: Connection) -> tuple[int, int]:
    """Move as much of the write-ahead log into the database as no reader needs; return its frames, and how many moved.

    Once all are moved, and nobody reads any, the next transaction begins that file anew.
    """
    _, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return frames, moved


def checkpoint(connection: Connection, patience_ms: int = BUSY_TIMEOUT_MS) -> bool:
    """Move everything out of the write-ahead log and empty that file; False if somebody who reads keeps it."""
    connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
    try:
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return not busy


def open_reader(path: Path) -> Connection:
    """Open a connection that can only read. Close its cursors: an open one keeps the log from being trimmed."""
    connection = _open(f"{path.absolute().as_uri()}?mode=ro")
    _set(connection, _PRAGMAS | {"query_only": 1})
    return connection


def open_inspector(path: Path, *, with_wal: bool) -> Connection:
    """Open a connection that changes no file at all. Nobody may write meanwhile.

    With a write-ahead log -shm must exist, and stays as it is: SQLite keeps an index of its own in memory.
    """
    way = "readonly_shm=1" if with_wal else "immutable=1"
    connection = _open(f"{path.absolute().as_uri()}?mode=ro&{way}")
    _set(connection, _PRAGMAS | {"query_only": 1})
    return connection


def open_copy(path: Path) -> Connection:
    """Open an empty file, to copy a database into it. The caller fsyncs the file."""
    connection = _open(f"{path.absolute().as_uri()}?mode=rw")
    _set(connection, _PRAGMAS | {"synchronous": 0})
    return connection


def open_scratch() -> Connection:
    """Open a database in memory, to try something."""
    return _open("file::memory:")


def _open(uri: str) -> Connection:
    # Transactions are begun by hand. A connection is made in one thread and used in another, never in two at once.
    connection: Connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
    )
    return connection


def _set(connection: Connection, pragmas: dict[str, int | str]) -> None:
    for name, wanted in pragmas.items():
        connection.execute(f"PRAGMA {name} = {wanted}")
        row = connection.execute(f"PRAGMA {name}").fetchone()
        if row is not None and row[0] != wanted:  # mmap_size has no value where it is compiled out
            connection.close()
            raise StorageFailed(f"SQLite did not accept {name} = {wanted}: it answers {row[0]}")
