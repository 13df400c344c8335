"""What the log's files are called, and how large they are."""

from __future__ import annotations

from pathlib import Path

DATABASE_FILE = "events.db"


def wal_file(database: Path) -> Path:
    """Return SQLite's write-ahead log beside a database. It is part of the database: never delete or copy one alone."""
    return database.with_name(f"{database.name}-wal")


def index_file(database: Path) -> Path:
    """Return the index of that log, which readers and writers share."""
    return database.with_name(f"{database.name}-shm")


def rescued_files(database: Path) -> list[Path]:
    """Return the copies that were saved from under a server whose files were taken away, oldest first."""
    return sorted(database.parent.glob(f"{database.name}.rescued-*[0-9]"), key=lambda copy: copy.stat().st_mtime_ns)


def journal_file(database: Path) -> Path:
    """Return SQLite's rollback journal beside a database: there is one only while the database is being made."""
    return database.with_name(f"{database.name}-journal")


def file_sizes(database: Path) -> tuple[int, int]:
    """Return the bytes of a database and of its write-ahead log; 0 for one that is not there."""
    return _size(database), _size(wal_file(database))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
