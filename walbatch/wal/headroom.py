"""Blocks that the database and its write-ahead log have before they need them, so that nobody else can take them.

When the disk is full, what was delivered must still be noted: the write-ahead log has to take it, and the database what
is in that log, or no checkpoint succeeds any more. Room beside them (`walbatch.wal.reserve`) has to be given up before
they can use it, and whoever is filling the disk takes it. So new records are taken only while both files have room of
their own (docs/decisions/2026-11-30-headroom.md).
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from walbatch.errors import DiskFull
from walbatch.wal.files import wal_file

PAGES_OVER_ROWS = 2
"""A row of just over half a page takes a page. Measured, of the weight of the records: the database grows by 1.8 times
at most, and SQLite's log has 2.7 times with a purge along, 11 MiB at a checkpoint."""

SPARE_BYTES = 4 * 1024 * 1024
"""Beside records: more than what is noted of deliveries until a checkpoint, after which that room is used again."""

_KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of linux/falloc.h: the file does not look longer, so that SQLite sees nothing of it."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Headroom:
    """The blocks set aside in both files, as a context that has to be left after the connections are closed.

    Closing a descriptor of the database drops the locks that SQLite has on it
    (https://sqlite.org/howtocorrupt.html section 2.2).
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._files: list[_File] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files:
            os.close(file.descriptor)

    def open(self) -> None:
        """Find the files, once there is a write-ahead log, and take what there is for it: notes need no more."""
        for path, grows in ((wal_file(self._database), False), (self._database, True)):
            self._files.append(_File(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), grows))
        with suppress(DiskFull):
            self._files[0].take(SPARE_BYTES)

    def take(self, weight: int) -> None:
        """Have room for all that is in the write-ahead log when records of this weight are in it. Often nothing to do.

        File systems that set nothing aside for a file are left alone (NFS before 4.2, ZFS; all of macOS).

        Raises:
            DiskFull: there is none.
        """
        for file in self._files:
            file.take(PAGES_OVER_ROWS * weight + SPARE_BYTES)


@dataclass(slots=True)
class _File:
    descriptor: int
    grows: bool
    """Whether what it takes comes behind its end. A write-ahead log begins anew within what it has."""
    ahead_bytes: int = 0
    """What it was given."""
    blocks: int = 0
    """What it had then: fewer since SQLite cut it, as it does after a checkpoint."""

    def take(self, ahead_bytes: int) -> None:
        found = os.fstat(self.descriptor)
        if ahead_bytes <= self.ahead_bytes and found.st_blocks >= self.blocks:
            return
        self.ahead_bytes = 0
        _allocate(self.descriptor, found.st_size if self.grows else 0, ahead_bytes)
        self.ahead_bytes, self.blocks = ahead_bytes, os.fstat(self.descriptor).st_blocks


def _allocate(descriptor: int, start: int, length: int) -> None:
    """Give a file blocks for a range of it that has none yet."""
    if _fallocate is None:
        return
    while _fallocate(descriptor, _KEEP_SIZE, ctypes.c_long(start), ctypes.c_long(length)):
        code = ctypes.get_errno()
        if code in _FULL:
            raise DiskFull("the disk is full; nothing was stored")
        if code != errno.EINTR:
            return  # not on this file system; or the disk is broken, which the transaction will tell


_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
