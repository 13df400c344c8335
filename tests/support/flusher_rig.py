"""A flusher with everything round it: a log that can fail, a clock that stands still, a sink with a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from walbatch.batching import BatchPolicy
from walbatch.delivery import Answered
from walbatch.errors import Unavailable
from walbatch.event import Kind, profile_update, track
from walbatch.flusher import Flusher, Manner
from walbatch.retry import Backoff, Breaker, Condition
from walbatch.testing.clock import FakeClock
from walbatch.testing.sink import ScriptedSink
from walbatch.wal import LaneBacklog, Settlement
from walbatch.wal.memory import MemoryLog


class WatchedLog(MemoryLog):
    """A log that remembers every settlement, and whose settling can fail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(["there"], clock)
        self.settlements: list[Settlement] = []
        self.errors: list[Unavailable] = []
        self.settled = asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        """Fail if there is an error left, else settle."""
        if self.errors:
            raise self.errors.pop(0)
        await super().settle(settlement)
        self.settlements.append(settlement)
        self.settled.set()


class Rig:
    """A flusher and everything round it."""

    def __init__(
        self, sink: ScriptedSink, condition: Condition | None = None, *, hold_unknown: bool = False, **policy: int
    ) -> None:
        self.clock = FakeClock()
        self.sink = sink
        self.log = WatchedLog(self.clock)
        self.breaker = Breaker(Backoff(), self.clock, lambda: 0.0, condition)
        self.answered: list[Answered] = []
        self.flusher = Flusher(
            self.log,
            sink,
            "there",
            breaker=self.breaker,
            clock=self.clock,
            manner=Manner(dict.fromkeys(Kind, BatchPolicy(**policy)), hold_unknown=hold_unknown),
            observe=self.answered.append,
        )

    async def append(self, *names: str) -> None:
        """Append an event of each name."""
        now_ms = self.clock.wall_ms()
        await self.log.append([track(name=name, event_id=name, properties={}, now_ms=now_ms) for name in names])

    async def append_profiles(self, *plans: str) -> None:
        """Append an update of one user's profile for each plan."""
        now_ms = self.clock.wall_ms()
        await self.log.append(
            [
                profile_update(distinct_id="u1", operation="$set", properties={"plan": plan}, now_ms=now_ms)
                for plan in plans
            ]
        )

    async def append_updates(self, *operations: str) -> None:
        """Append an update of one user's profile for each operation."""
        now_ms = self.clock.wall_ms()
        await self.log.append(
            [
                profile_update(distinct_id="u1", operation=operation, properties={"n": 1}, now_ms=now_ms)
                for operation in operations
            ]
        )

    async def counts(self, lane: Kind = Kind.EVENT) -> LaneBacklog:
        """The counts of one lane."""
        return (await self.log.backlog()).destinations[0].lanes[lane]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the flusher; at the end cancel it, unless it has returned."""
        task = asyncio.create_task(self.flusher.run())
        await settle_down()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def settled(self, records: int) -> None:
        """Wait until that many events are neither pending nor in flight."""
        while (counts := await self.counts()).accepted - counts.pending < records:
            self.log.settled.clear()
            await self.log.settled.wait()

    async def outage(self, failures: int) -> list[float]:
        """Let that many more requests fail, one after the other, and return the waits after each of them."""
        waits = []
        for _ in range(failures):
            waits.append(await self.clock.sleeper(0.5))
            await self.clock.advance(waits[-1])
        return waits


async def settle_down() -> None:
    """Let every task run until it waits for something."""
    for _ in range(30):
        await asyncio.sleep(0)


def names(payloads: Sequence[str]) -> list[str]:
    """The names of the events in a request."""
    return [payload.split('"')[3] for payload in payloads]


def numbered(first: int, end: int) -> list[str]:
    """Names of events."""
    return [f"n{n}" for n in range(first, end)]
