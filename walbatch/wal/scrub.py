"""Leave nothing in the files of an open log but what is stored. See `walbatch.wal.gaps` for what would be left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from walbatch.wal import driver, gaps
from walbatch.wal.disk import Disk, ask
from walbatch.wal.files import wal_file

CHECKPOINT_PATIENCE_MS = 200
"""How long a checkpoint on demand may hold up the writer while it waits for others to end their reading."""


class Scrubber:
    """A descriptor of the database, as a context that has to be left after the connections are closed.

    Closing it drops the locks that SQLite has on the file (https://sqlite.org/howtocorrupt.html section 2.2).
    """

    def __init__(self, database: Path) -> None:
        self._database = database

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._database, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    async def scrub(self, disk: Disk) -> bool:
        """Read all of the database, and zero what is not stored; False if a reader is in the way: try again."""
        disk.trimming = False
        try:
            # The file stands still from here on: what is written meanwhile stays in SQLite's log.
            if not await ask(self._database, disk.writer, driver.checkpoint, CHECKPOINT_PATIENCE_MS):
                return False
            unclean = await asyncio.to_thread(gaps.find, self._descriptor)
            return await ask(self._database, disk.writer, self._clean, unclean)
        finally:
            disk.trimming = True

    def _clean(self, connection: driver.Connection, unclean: list[int]) -> bool:
        written = [*gaps.pages_in(wal_file(self._database), gaps.layout(self._descriptor).page)]
        if not driver.checkpoint(connection, CHECKPOINT_PATIENCE_MS):
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            gaps.clean(self._descriptor, [*unclean, *written])
        finally:
            connection.execute("COMMIT")
            connection.execute("PRAGMA shrink_memory")
        return True
