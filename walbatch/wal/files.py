"""What the log's files are called, how large they are, and how one gets onto the disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from walbatch.ownership import LOCK_FILE

DATABASE_FILE = "events.db"


def wal_file(database: Path) -> Path:
    """Return SQLite's write-ahead log beside a database. It is part of the database: never delete or copy one alone."""
    return database.with_name(f"{database.name}-wal")


def shm_file(database: Path) -> Path:
    """Return SQLite's index of the write-ahead log. It is made anew whenever it is needed, so it never holds data."""
    return database.with_name(f"{database.name}-shm")


def journal_file(database: Path) -> Path:
    """Return SQLite's rollback journal: there only while a database is made one with a write-ahead log."""
    return database.with_name(f"{database.name}-journal")


def rescued_files(database: Path) -> list[Path]:
    """Return the copies that were saved from under a server whose files were taken away, oldest first."""
    return sorted(database.parent.glob(f"{database.name}.rescued-*[0-9]"), key=lambda copy: copy.stat().st_mtime_ns)


def file_sizes(database: Path) -> tuple[int, int]:
    """Return the bytes of a database and of its write-ahead log; 0 for one that is not there."""
    return _size(database), _size(wal_file(database))


def other_files(database: Path) -> list[Path]:
    """Return what else in a data directory looks like a database, or a part of one: copies, backups, what was rescued.

    Links are named, and not followed. A folder with a lock file of its own is another walbatch's data directory.
    """
    live = {database, wal_file(database), shm_file(database)}
    found = []
    for folder, folders, names in os.walk(database.parent):
        folders[:] = [name for name in folders if not Path(folder, name, LOCK_FILE).exists()]
        found += [Path(folder, name) for name in names if _A_DATABASE.search(name)]
    return sorted(path for path in found if path not in live)


def readers(database: Path) -> list[int]:
    """Return which other processes are in the middle of reading a database, where the system tells (Linux).

    While they are, SQLite's log cannot be emptied. Their locks are on five bytes of the index of that log
    (https://sqlite.org/walformat.html#wal_locks).
    """
    try:
        inode = str(shm_file(database).stat().st_ino)
        rows = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return []
    # 1: POSIX ADVISORY READ 4321 00:2d:1234 123 123; a lock that is waited for has an arrow behind its number.
    held = (row for row in rows if len(row) == _LOCK_FIELDS and row[5].rpartition(":")[2] == inode)
    found = {int(row[4]) for row in held if int(row[6]) in _READ_LOCKS}
    return sorted(found - {os.getpid()})


_A_DATABASE = re.compile(r"\.db(?=[-.]|$)")

_LOCKS, _LOCK_FIELDS = Path("/proc/locks"), 8
_READ_LOCKS = range(123, 128)


def fsync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
