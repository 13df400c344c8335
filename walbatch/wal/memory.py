"""The log in memory: the contract as the shortest program that keeps it, and nothing else.

It is what the other engines are compared with, and good for tests of applications. A restart empties it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from walbatch.batching import BatchPolicy, byte_length
from walbatch.clock import Clock
from walbatch.delivery import Delivered, Rejected, Retry
from walbatch.event import Kind, Offset, Record
from walbatch.retry import Condition
from walbatch.wal import Appended, Backlog, Batch, DestinationBacklog, Entry, Lane, LaneBacklog, Settlement
from walbatch.wal.recent import RecentIds

PENDING, IN_FLIGHT, SENT, DEAD, RESOLVED = range(5)


class MemoryLog:
    """`EventLog` without a disk."""

    durability = "buffered"

    def __init__(self, destinations: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        self._records: list[Record] = []  # the record at offset n is the n-th, from 1
        self._recent = RecentIds()
        self._status: dict[Lane, dict[Offset, int]] = {Lane(d, kind): {} for d in destinations for kind in Kind}
        self._given_back: dict[Lane, set[Offset]] = {lane: set() for lane in self._status}
        self._waiting_since_s: dict[Offset, float] = {}
        self._conditions = dict.fromkeys(destinations, Condition())
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Return the log; there is nothing to open."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Do nothing; there is nothing to close."""

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See `EventLog.append`."""
        appended = [self._append(record) for record in records]
        self._changed.set()
        return appended

    def _append(self, record: Record) -> Appended:
        known = self._recent.find(record)
        if known is not None:
            return Appended(known, duplicate=True)
        self._records.append(record)
        offset = Offset(len(self._records))
        self._waiting_since_s[offset] = self._clock.monotonic_s()
        if record.replay_of is None:
            self._recent.remember(record.event_id, record.name, record.distinct_id, record.time_ms, offset)
        for lane, status in self._status.items():
            if lane.kind is record.kind:
                status[offset] = PENDING
            if record.replay_of is not None and status.get(record.replay_of) == DEAD:
                status[record.replay_of] = RESOLVED
        return Appended(offset, duplicate=False)

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool = True) -> Batch:
        """See `EventLog.fetch`."""
        while True:
            self._changed.clear()
            waiting = [offset for offset, status in self._status[lane].items() if status == PENDING]
            if waiting:
                age_s = self._clock.monotonic_s() - self._waiting_since_s[waiting[0]]
                due_s = 0.0 if self._given_back[lane] else policy.due_in_s(len(waiting), age_s)
                if due_s == 0.0:
                    return self._hand_out(lane, waiting, policy)
            else:
                due_s = None
            if not wait:
                return Batch(lane, ())
            await self._clock.wait(self._changed, due_s)

    def _hand_out(self, lane: Lane, waiting: Sequence[Offset], policy: BatchPolicy) -> Batch:
        entries: list[Entry] = []
        room = policy.max_bytes
        for offset in waiting[: policy.max_size]:
            record = self._records[offset - 1]
            room -= byte_length(record.payload) + 1
            if entries and room < 1:
                break
            entries.append(Entry(offset, record.event_id, record.payload, record.received_at_ms))
            self._status[lane][offset] = IN_FLIGHT
            self._given_back[lane].discard(offset)
        return Batch(lane, entries)

    async def settle(self, settlement: Settlement) -> None:
        """See `EventLog.settle`."""
        lane = settlement.batch.lane
        status = self._status[lane]
        if status[settlement.batch.entries[0].offset] != IN_FLIGHT:
            return
        after = {Delivered: SENT, Rejected: DEAD, Retry: PENDING}
        for entry, outcome in zip(settlement.batch.entries, settlement.outcomes, strict=True):
            status[entry.offset] = after[type(outcome)]
            if isinstance(outcome, Retry):
                self._given_back[lane].add(entry.offset)
        self._conditions[lane.destination] = settlement.condition
        self._changed.set()

    async def backlog(self) -> Backlog:
        """See `EventLog.backlog`."""
        owed = [0]
        for destination in self._conditions:
            lanes = [(lane, status) for lane, status in self._status.items() if lane.destination == destination]
            open_offsets = [o for _, status in lanes for o, s in status.items() if s in (PENDING, IN_FLIGHT)]
            owed.append(sum(byte_length(self._records[offset - 1].payload) for offset in open_offsets))
        return Backlog(
            accepted=len(self._records),
            pending_bytes=max(owed),
            destinations=[
                DestinationBacklog(
                    name, condition, [self._lane(lane) for lane in self._status if lane.destination == name]
                )
                for name, condition in self._conditions.items()
            ],
        )

    def _lane(self, lane: Lane) -> LaneBacklog:
        status = self._status[lane]
        states = list(status.values())
        owed = [offset for offset, state in status.items() if state in (PENDING, IN_FLIGHT)]
        return LaneBacklog(
            name=lane.name,
            accepted=len(states),
            pending=len(owed),
            in_flight=states.count(IN_FLIGHT),
            sent=states.count(SENT),
            purged=0,
            dead=states.count(DEAD),
            resolved=states.count(RESOLVED),
            oldest_pending_at_ms=self._records[owed[0] - 1].received_at_ms if owed else None,
        )
