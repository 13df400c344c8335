"""A log of the first schema, as an old walbatch left it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from walbatch.wal import driver, migrate
from walbatch.wal.files import DATABASE_FILE

ROWS = """
INSERT INTO events (seq, kind, event_id, payload, received_at_ms) VALUES
  (1, 0, 'a', '{"event":"a","properties":{"time":1,"distinct_id":"u1"}}', 5),
  (2, 1, 'p', '{"$distinct_id":"u1","$set":{}}', 6),
  (3, 0, 'b', '{"event":"b","properties":{"time":2,"distinct_id":"u1"}}', 7),
  (4, 0, 'c', '{"event":"c","properties":{"time":3,"distinct_id":"u1"}}', 8);
UPDATE accepted SET count = 3, bytes = 168 WHERE kind = 0;
UPDATE accepted SET count = 1, bytes = 31 WHERE kind = 1;
INSERT INTO cursors (destination, kind, settled_through, sent, dead, settled_bytes) VALUES
  ('there', 0, 3, 1, 1, 112), ('there', 1, 0, 0, 0, 0), ('elsewhere', 0, 0, 0, 0, 0), ('elsewhere', 1, 0, 0, 0, 0);
INSERT INTO dead_letters (destination, seq, kind, code, field, reason, at_ms) VALUES ('there', 3, 0, 400, 'f', 'r', 9);
INSERT INTO destinations (name, state, failures, last_error) VALUES ('there', 'open', 7, '503');
"""
"""At `there` a was sent, b refused, and c and p wait; `elsewhere` got nothing yet."""


def make_version_1(directory: Path) -> Path:
    """Make such a log, and return its database."""
    directory.mkdir(mode=0o700)
    database = directory / DATABASE_FILE
    with closing(driver.open_writer(database)) as connection:
        sql = migrate.migrations()[0][1]
        connection.executescript(f"{sql} PRAGMA application_id = {migrate.APPLICATION_ID}; PRAGMA user_version = 1;")
        connection.executescript(ROWS)
    database.chmod(0o600)
    return database
