"""A clock that stands still until it is told to move."""

from __future__ import annotations

import asyncio
from contextlib import suppress

RESIDUE_S = 1e-9
"""What adding and subtracting seconds may leave of a wait that is over."""


class FakeClock:
    """A `Clock` for tests. Wall time and monotonic time move together, by `advance`, or apart, by `wall_jump_ms`."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._now_s = 0.0
        self._wall_start_ms = wall_ms
        self.wall_jump_ms = 0
        """Added to the wall clock only, as an operator who sets the time does."""
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._someone_waits = asyncio.Event()

    def wall_ms(self) -> int:
        """Return the pretended wall time."""
        return self._wall_start_ms + round(self._now_s * 1000) + self.wall_jump_ms

    def monotonic_s(self) -> float:
        """Return the pretended monotonic time."""
        return self._now_s

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        """Wait until the event is set, or `advance` has passed the deadline."""
        if event.is_set() or timeout_s is None:
            return await event.wait()
        if timeout_s <= RESIDUE_S:
            await asyncio.sleep(0)
            return event.is_set()
        expired = asyncio.Event()
        sleeper = (self._now_s + timeout_s, expired)
        self._sleepers.append(sleeper)
        self._someone_waits.set()
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(expired.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with suppress(ValueError):
                self._sleepers.remove(sleeper)
        return event.is_set()

    async def sleeper(self, at_least_s: float = 0.0) -> float:
        """Wait until somebody waits for at least that long, and return how long the shortest such wait still is."""
        while not (waits := [d - self._now_s for d, _ in self._sleepers if d - self._now_s >= at_least_s]):
            self._someone_waits.clear()
            await self._someone_waits.wait()
        return min(waits)

    async def advance(self, seconds: float) -> None:
        """Move time on, wake who is due, and give every task that can run a chance to."""
        self._now_s += seconds
        for deadline, expired in self._sleepers:
            if deadline <= self._now_s + RESIDUE_S:
                expired.set()
        for _ in range(20):
            await asyncio.sleep(0)
