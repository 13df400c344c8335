"""Holds a read transaction on a database until it is ended: long_reader.py DATABASE. To be run as its own process."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from walbatch.wal import driver

if __name__ == "__main__":
    connection = driver.open_reader(Path(sys.argv[1]))
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM events").fetchall()
    print("reading", flush=True)
    threading.Event().wait()
