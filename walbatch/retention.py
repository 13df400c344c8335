"""Delete what was delivered long enough ago, and shrink the file, a little at a time, so that nobody waits for it."""

from __future__ import annotations

import asyncio

import structlog

from walbatch.clock import Clock
from walbatch.errors import Unavailable
from walbatch.wal.sqlite import SqliteLog

log = structlog.stdlib.get_logger("walbatch.retention")

INTERVAL_S = 60.0
SLICE = 1000
"""Records that one transaction looks at: a few milliseconds, between two groups of appends."""

PATIENCE_S = 5.0
"""A purge goes along with new records for as long as some come within it: clients need a moment after a restart."""


class Retention:
    """Purges the log for as long as it runs. Pending records and open dead letters are never touched."""

    def __init__(self, event_log: SqliteLog, clock: Clock, keep_s: float) -> None:
        self._log = event_log
        self._clock = clock
        self._keep_ms = round(keep_s * 1000)
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Purge every minute, until it is cancelled."""
        while True:
            try:
                deleted = await self.purge()
                await self._log.vacuum()
            except Unavailable as error:
                log.warning("retention.failed", error=str(error))
            else:
                if deleted:
                    log.info("retention.purged", records=deleted)
            await self._clock.wait(self._never, INTERVAL_S)

    async def purge(self) -> int:
        """Delete everything that is due, slice by slice, and return how many records that was."""
        return await self._log.purge(self._clock.wall_ms() - self._keep_ms, SLICE, patience_s=PATIENCE_S)
