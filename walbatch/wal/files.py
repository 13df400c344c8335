"""What the log's files are called, and how large they are."""

from __future__ import annotations

from pathlib import Path

DATABASE_FILE = "events.db"


def wal_file(database: Path) -> Path:
    """Return SQLite's write-ahead log beside a database. It is part of the database: never delete or copy one alone."""
    return database.with_name(f"{database.name}-wal")


def journal_file(database: Path) -> Path:
    """Return SQLite's rollback journal: there while a new database is made, until it is in WAL mode."""
    return database.with_name(f"{database.name}-journal")


def file_sizes(database: Path) -> tuple[int, int]:
    """Return the bytes of a database and of its write-ahead log; 0 for one that is not there."""
    return _size(database), _size(wal_file(database))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
