"""What a data directory holds, as lines of JSON, read with the same SQLite as the program's: read_stored.py DATA_DIR.

First what the integrity check finds (`["ok"]` if nothing is wrong), then each record with its id, its destination and
what became of it there. To be run as a process of its own: a test that opened the file of a running server would take
its locks away (https://sqlite.org/howtocorrupt.html section 2.2).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from walbatch.wal import driver
from walbatch.wal.files import DATABASE_FILE


def main(directory: Path) -> None:
    """Print all of it."""
    connection = driver.open_reader(directory / DATABASE_FILE)
    try:
        print(json.dumps([row[0] for row in connection.execute("PRAGMA integrity_check").fetchall()]))
        for record_id, destination, status in connection.execute(
            "SELECT event_id, destination, status FROM record_status ORDER BY seq, destination"
        ).fetchall():
            print(json.dumps({"id": record_id, "destination": destination, "status": status}))
    finally:
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
