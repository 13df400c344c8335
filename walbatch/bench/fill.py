"""A data directory with as many pending events as you like, in seconds: rows that the server itself would have made.

The database is made by the program's own migrations, and its counters are those of so many accepted events.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from walbatch.bench.samples import STORED
from walbatch.wal import driver, store
from walbatch.wal.files import DATABASE_FILE, fsync
from walbatch.wal.migrate import migrate

DESTINATION = "mixpanel"
SLICE = 1_000_000
"""Rows of one statement."""

_ID = "lower(hex(randomblob(4))) || '-0000-7000-8000-' || lower(hex(randomblob(6)))"
_INSERT = f"""
INSERT INTO events (kind, event_id, payload, received_at_ms)
WITH RECURSIVE ids (n, id) AS MATERIALIZED (SELECT 1, {_ID} UNION ALL SELECT n + 1, {_ID} FROM ids WHERE n < ?1)
SELECT 0, id, ?2 || id || ?3, ?4 FROM ids
"""  # noqa: S608  a constant


def fill(directory: Path, events: int) -> None:
    """Make a data directory with so many pending events, all of it on the disk. No server may run on it."""
    directory.mkdir(mode=0o700, parents=True)
    database = directory / DATABASE_FILE
    before, after = STORED.payload.split(STORED.event_id)
    now_ms = time.time_ns() // 1_000_000
    with closing(driver.open_writer(database)) as connection:
        migrate(connection, database)
        store.add_destination(connection, DESTINATION)
        for name, value in (("journal_mode", "off"), ("synchronous", "off"), ("temp_store", "memory")):
            connection.execute(f"PRAGMA {name} = {value}")
        for start in range(0, events, SLICE):
            connection.execute(_INSERT, (min(SLICE, events - start), before, after, now_ms))
        size = events * len(STORED.payload)
        connection.execute("UPDATE accepted SET count = ?, bytes = ? WHERE kind = 0", (events, size))
        connection.execute("UPDATE cursors SET accepted = ?, accepted_bytes = ? WHERE kind = 0", (events, size))
        connection.execute("PRAGMA journal_mode = wal")
    database.chmod(0o600)
    fsync(database)
