"""Holds a read transaction on a database until it is ended: long_reader.py DATABASE. To be run as its own process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walbatch.wal import driver


@contextmanager
def reading(database: Path) -> Iterator[int]:
    """Hold a read transaction open as long as the block runs, in another process, whose pid this is."""
    with subprocess.Popen([sys.executable, __file__, str(database)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        try:
            assert reader.stdout.readline() == b"reading\n"
            yield reader.pid
        finally:
            reader.terminate()


if __name__ == "__main__":
    connection = driver.open_reader(Path(sys.argv[1]))
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM events").fetchall()
    print("reading", flush=True)
    threading.Event().wait()
