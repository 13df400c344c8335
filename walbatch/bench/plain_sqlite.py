"""SQLite alone: plain_sqlite DATABASE GROUP SECONDS prints the rows that it stores each second.

The tables, the pragmas and the rows are walbatch's, a transaction is GROUP rows, and nothing else happens.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

from walbatch.bench.processes import PYTHON, output
from walbatch.bench.samples import STORED
from walbatch.wal import driver
from walbatch.wal.migrate import migrate

_ROWS = 200
"""Of one INSERT."""


def rows_per_s(scratch: Path, group: int, seconds: float) -> float:
    """Measure it in a process of its own, on the disk of a directory, and leave nothing there."""
    database = scratch / "plain"
    found = float(output([*PYTHON, "walbatch.bench.plain_sqlite", str(database), str(group), str(seconds)]))
    for name in scratch.glob("plain*"):
        name.unlink()
    return found


def main(database: Path, group: int, seconds: float) -> None:
    """Insert for a while."""
    insert = "INSERT INTO events (kind, event_id, payload, received_at_ms, replay_of, routes) VALUES "
    row = (0, STORED.event_id, STORED.payload, STORED.received_at_ms, None, None)
    statements = [
        (insert + ",".join(["(?,?,?,?,?,?)"] * size), row * size)
        for size in [_ROWS] * (group // _ROWS) + [group % _ROWS]
        if size
    ]
    with closing(driver.open_writer(database)) as connection:
        migrate(connection, database)
        started = time.perf_counter()
        stored = 0
        while (taken := time.perf_counter() - started) < seconds:
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                connection.execute(statement, values)
            connection.execute("COMMIT")
            stored += group
    print(stored / taken)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
