"""Disk space that is set aside beside the database, for a start on a full disk, which has to make its files anew.

A file of real blocks. It is deleted before such a start, and when what was delivered cannot be noted otherwise: the
log's files have room ahead (`walbatch.wal.headroom`), but not on every file system. New records are refused until it
could be set aside again.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_FILE = "walbatch.reserve"

MIN_BYTES, MAX_BYTES = 1024 * 1024, 16 * 1024 * 1024
"""A settlement writes some ten pages, and a checkpoint every 4 MiB uses the log's room again: the larger size is enough
for any backlog, since delivered records take no more room than they had."""


class Reserve:
    """The reserve of one directory: as large as what is kept free, within `MIN_BYTES` and `MAX_BYTES`."""

    def __init__(self, directory: Path, min_free_bytes: int) -> None:
        self._directory = directory
        self._path = directory / RESERVE_FILE
        self._size = max(MIN_BYTES, min(MAX_BYTES, min_free_bytes))

    @property
    def held(self) -> bool:
        """Whether the room is set aside."""
        return self._path.exists() and self._path.stat().st_size == self._size

    def release(self) -> None:
        """Give the room to whoever writes next. Harmless if it was given before."""
        self._path.unlink(missing_ok=True)

    def take(self) -> bool:
        """Set the room aside if there is as much, and say whether it is held now."""
        if self.held:
            return True
        self.release()  # one of another size
        if free_bytes(self._directory) < self._size:
            return False
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:  # no inode left, or not writable any more
            return False
        try:
            _fill(descriptor, self._size)
        except OSError:
            self.release()
            return False
        finally:
            os.close(descriptor)
        return True


def _fill(descriptor: int, size: int) -> None:
    """Give a new file blocks of its own."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        for position in range(0, size, MIN_BYTES):
            os.pwrite(descriptor, bytes(min(MIN_BYTES, size - position)), position)


def free_bytes(directory: Path) -> int:
    """Return what an ordinary user may still write on the disk of a directory."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
