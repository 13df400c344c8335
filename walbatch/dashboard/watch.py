"""What a running server remembers for those who look: its last hour, and its last batches, as JSON-ready values."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from walbatch.clock import Clock
from walbatch.dashboard.deliveries import Deliveries, in_brief
from walbatch.dashboard.history import INTERVAL_S, History, Pace
from walbatch.errors import WalbatchError
from walbatch.stats import rfc3339
from walbatch.wal import EventLog

log = structlog.stdlib.get_logger("walbatch.dashboard")


class Watch:
    """Begins to count when it is made. `observe` is for `open_outlets`."""

    def __init__(self, event_log: EventLog, clock: Clock) -> None:
        self._log = event_log
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._history = History(clock)
        self._deliveries = Deliveries()
        self.observe = self._deliveries.observe
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Take a sample each interval, until it is cancelled. A log that cannot be read leaves a gap."""
        while True:
            try:
                await self.sample()
            except WalbatchError as error:
                log.debug("dashboard.no_sample", error=str(error))
            await self._clock.wait(self._never, INTERVAL_S)

    async def sample(self) -> None:
        """Take one sample now."""
        backlog = await self._log.backlog()
        pending = sum(lane.pending for destination in backlog.destinations for lane in destination.lanes)
        self._history.add(backlog.accepted, self._deliveries.sent, pending)

    def uptime_s(self) -> float:
        """Return for how long the server has been running."""
        return self._clock.monotonic_s() - self._started_s

    def pace(self, accepted: int) -> Pace:
        """Return the records a second of late, if so many are accepted at this moment."""
        return self._history.pace(accepted, self._deliveries.sent)

    def samples(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the samples with a higher number, oldest first. `sent` counts from the start of the server."""
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic_s()
        return [
            {
                "number": sample.number,
                "at": rfc3339(now_ms - round((now_s - sample.at_s) * 1000)),
                "accepted": sample.accepted,
                "sent": sample.sent,
                "pending": sample.pending,
            }
            for sample in self._history.after(after)
        ]

    def batches(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the batches with a higher number, oldest first."""
        return [
            {
                "number": number,
                "destination": answered.destination,
                "lane": answered.lane,
                "finished_at": rfc3339(answered.finished_at_ms),
                "events": answered.events,
                "sent": answered.sent,
                "dead": answered.dead,
                "held": answered.held,
                "pending": answered.pending,
                "payload_bytes": answered.payload_bytes,
                "attempt": answered.attempt,
                "answer": in_brief(answered),
                "duration_s": round(answered.duration_s, 3),
            }
            for number, answered in self._deliveries.after(after)
        ]
