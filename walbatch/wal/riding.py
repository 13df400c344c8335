"""A purge under way, and whether it goes along with new records or alone.

In their transaction it costs next to nothing: no fsync of its own, and they take the pages that it empties
(docs/decisions/2026-11-24-purges-before-appends.md). So it waits for them, and goes alone when they stay away.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from walbatch.clock import Clock
from walbatch.errors import DiskFull, Unavailable
from walbatch.wal.purge import Purged
from walbatch.wal.transaction import Purge, Transaction

LONGEST_S = 1800.0
"""For so long a purge goes along with new records, be they ever so few; what is left then goes alone.

It can be this long since the room does not get less: at least as many go as come.
"""


FEWEST = 100
"""A slice looks at as many records as have come since the last one, once there are so many.

Ten pages: with fewer, those at its two ends count, which are written again with the slices before and after it.
"""

AHEAD = 32
"""And at one more for each so many, so that it gets ahead of them. Those cost as much as if they went alone."""


class Ride:
    """Where a purge is. Each slice begins where the last one ended that is committed, whichever way it went."""

    def __init__(self, clock: Clock, first: Purge, patience_s: float) -> None:
        self.deleted = 0
        """How many records are gone so far."""
        self.next = first
        """The next slice."""
        self._clock = clock
        self._patience_s = patience_s
        self._came = 0
        self._company_s = clock.monotonic_s()
        self._until_s = self._company_s + LONGEST_S
        self._ended = asyncio.Event()
        self._error: Unavailable | None = None

    def board(self, planned: Transaction) -> bool:
        """Add the next slice to a transaction with new records, if enough have come; say whether it was added."""
        if not planned.records or self._ended.is_set():
            return False
        self._company_s = self._clock.monotonic_s()
        self._came += len(planned.records)
        if planned.purges or self._came < FEWEST:
            return False
        size = self._came + self._came // AHEAD
        planned.purges.append(replace(self.next, size=min(size, self.next.size)))
        self._came = 0
        return True

    def follow(self, done: Purged) -> None:
        """Note what a slice has done that is committed."""
        self.deleted += done.deleted
        if done.through is None:
            self._ended.set()
        elif done.through > self.next.after:  # it is not, if the slice was planned before the last one was noted
            self.next = replace(self.next, after=done.through)

    def failed(self, error: Unavailable) -> None:
        """Note that a transaction failed to which a slice was added: nothing is deleted, and the purge ends.

        So one that cannot be done fails new records once, not each time. A full disk does not end it: what is new is
        refused then, so that it goes on alone.
        """
        if not isinstance(error, DiskFull):
            self._error = error
            self._ended.set()

    async def goes_alone(self) -> bool:
        """Wait for as long as new records take it along. True if a slice has to go alone now, False at the end.

        Raises:
            Unavailable: what `failed` was told.
        """
        while not self._ended.is_set():
            left_s = min(self._company_s + self._patience_s, self._until_s) - self._clock.monotonic_s()
            if left_s <= 0:
                return True
            await self._clock.wait(self._ended, left_s)
        if self._error is not None:
            raise self._error
        return False
