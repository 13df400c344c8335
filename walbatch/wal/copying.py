"""Copy a log into one file, complete or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

from walbatch.wal.driver import Connection
from walbatch.wal.files import fsync


def copy_into(connection: Connection, target: Path) -> None:
    """Write everything that a connection sees into a new, compact database, on the disk on return.

    It is readable by its owner only, and gets its name when it is complete.
    """
    partial = partial_of(target)
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        connection.execute("VACUUM INTO ?", (str(partial),))
        fsync(partial)
    except BaseException:
        partial.unlink()
        raise
    partial.replace(target)
    fsync(target.parent)


def partial_of(target: Path) -> Path:
    """Return what a copy is called until it is complete."""
    return target.with_name(f"{target.name}.partial")
