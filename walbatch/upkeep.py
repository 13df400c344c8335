"""Look after the log's files every second, and tell whoever asks for it whether new records are accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from walbatch.clock import Clock
from walbatch.errors import Unavailable
from walbatch.wal.sqlite import SqliteLog

log = structlog.stdlib.get_logger("walbatch.upkeep")

INTERVAL_S = 1.0
"""Short enough that records are accepted again within seconds after there is room."""


class Upkeep:
    """Tends a log for as long as it runs.

    `refuse` is called when new records begin to be refused, with why, and with None when they are accepted again.
    """

    def __init__(
        self, event_log: SqliteLog, clock: Clock, refuse: Callable[[Unavailable | None], Awaitable[None]]
    ) -> None:
        self._log = event_log
        self._clock = clock
        self._refuse = refuse
        self._told = ""
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Tend every second, until it is cancelled."""
        while True:
            await self.tend()
            await self._clock.wait(self._never, INTERVAL_S)

    async def tend(self) -> None:
        """Do what is to be done now, and tell what has changed."""
        await self._log.tend()
        refusal = self._log.refusing()
        reason = refusal.reason if refusal else ""
        if reason == self._told:
            return
        self._told = reason
        if refusal:
            log.error("log.refusing", reason=reason, detail=str(refusal))
        else:
            log.info("log.accepting_again")
        await self._refuse(refusal)
