"""The SQL of keeping the files small while they are in use, in pieces short enough that nobody waits for it.

The log is checkpointed between commits, and SQLite starts it at the beginning again when no reader is using it. With a
reader all the time that moment never comes, and the log grows (https://sqlite.org/wal.html section 6).
"""

from __future__ import annotations

from walbatch.wal import driver
from walbatch.wal.driver import Connection

TRIM_FROM_BYTES = 16 * 1024 * 1024
"""Size of the write-ahead log from which something must be in the way: four times what is checkpointed at once."""

VACUUM_PAGES = 256
"""Pages of one slice: 1 MiB, a few milliseconds."""

SPARE_SHARE = 8
"""One page of so many is kept empty: the log that comes in tomorrow takes the room of what is purged today."""


def trim(connection: Connection, *, empty: bool) -> int:
    """Move the write-ahead log into the database, and begin it anew if no reader is in the way.

    `empty` gives its room back; else it stays, to be used again. Returns the bytes of it that cannot be used again at
    this moment: 0 if there was no reader.
    """
    frames, moved = driver.checkpoint_some(connection)
    if frames == moved and (not empty or driver.checkpoint(connection, patience_ms=0)):
        return 0
    return _pragma(connection, "page_size") * frames


def vacuum(connection: Connection) -> int:
    """Give some of the empty pages at the end of the file back, within a transaction; return how many."""
    spare = _pragma(connection, "page_count") // SPARE_SHARE
    pages = min(_pragma(connection, "freelist_count") - spare, VACUUM_PAGES)
    if pages <= 0:
        return 0
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return pages


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
