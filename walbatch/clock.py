"""Time, as something that is passed in: wall time for what is stored, monotonic time for every wait."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC. It can jump; it is only stored, sent and shown."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment. It never goes back; every interval is measured with it."""
        ...

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        """Wait until the event is set or the time has passed, and say whether it is set. Cancel-safe.

        None waits without a limit. This is the only way in which the program waits for time to pass.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Return the machine's wall time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        """Wait for the event, at most that long."""
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass
        return event.is_set()
