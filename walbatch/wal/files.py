"""What the log's files are called, how large they are, and how one gets onto the disk."""

from __future__ import annotations

import os
from pathlib import Path

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


def file_sizes(database: Path) -> tuple[int, int]:
    """Return the bytes of a database and of its write-ahead log; 0 for one that is not there."""
    return _size(database), _size(wal_file(database))


def fsync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
