"""The log in memory: the contract as the shortest program that keeps it, and nothing else.

It is what the other engines are compared with, and good for tests of applications. A restart empties it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from walbatch.batching import BatchPolicy, Turns, byte_length, byte_lengths
from walbatch.clock import Clock
from walbatch.delivery import Delivered, Rejected, Retry, Unknown
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Offset, Record
from walbatch.retry import Condition
from walbatch.routing import Router
from walbatch.wal import (
    MAX_TRACES,
    ORDERED,
    Appended,
    Backlog,
    Batch,
    DestinationBacklog,
    Lane,
    LaneBacklog,
    Settlement,
)
from walbatch.wal.recent import RecentIds, key_of
from walbatch.wal.tombstones import KEY_BYTES, Tombstones

PENDING, IN_FLIGHT, SENT, DEAD, HELD, RESOLVED, ERASED = range(7)


class MemoryLog:
    """`EventLog` without a disk."""

    durability = "buffered"

    def __init__(self, destinations: Sequence[str], clock: Clock, *, router: Router | None = None) -> None:
        self._clock = clock
        self._router = router or Router({})
        self._records: list[Record] = []  # the record at offset n is the n-th, from 1
        self._recent = RecentIds()
        self._status: dict[Lane, dict[Offset, int]] = {Lane(d, kind): {} for d in destinations for kind in Kind}
        self._behind: dict[Lane, set[Offset]] = {lane: set() for lane in self._status}
        self._turns = {lane: Turns(ordered=lane.kind in ORDERED) for lane in self._status}
        self._waiting_since_s: dict[Offset, float] = {}
        self._tombstones = Tombstones(secrets.token_bytes(KEY_BYTES))
        self._conditions = dict.fromkeys(destinations, Condition())
        self._paused_at_ms: dict[str, int] = {}
        self._due_now: set[Lane] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Return the log; there is nothing to open."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Do nothing; there is nothing to close."""

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See `EventLog.append`."""
        for record in records:
            if (refusal := self.refusal(record)) is not None:
                raise refusal
        appended = [self._append(record) for record in records]
        self._changed.set()
        return appended

    async def append_one(self, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
        """See `EventLog.append_one`."""
        del size  # nothing waits here
        record = make()
        (appended,) = await self.append([record])
        return record, appended

    def refusal(self, record: Record) -> InvalidRecord | None:
        """See `EventLog.refusal`."""
        return self._tombstones.refusal(record)

    async def bury(self, people: Iterable[str]) -> int:
        """See `SqliteLog.bury`."""
        self._tombstones.add(people, self._clock.wall_ms())
        return len(self._records)

    async def erase(self, offsets: Sequence[Offset]) -> list[Offset]:
        """Erase records as `SqliteLog.erase` does; return those that are left because they are in flight."""
        left = [o for o in offsets if any(status.get(o) == IN_FLIGHT for status in self._status.values())]
        gone = set(offsets) - set(left)
        self._recent.forget(gone)
        for lane, status in self._status.items():
            status.update(dict.fromkeys(gone & status.keys(), ERASED))
            self._behind[lane] -= gone
        return left

    def _append(self, record: Record) -> Appended:
        key = key_of(record.event_id, record.name, record.distinct_id)
        known = self._recent.find(key, record)
        if known is not None:
            return Appended(known, duplicate=True)
        self._records.append(record)
        offset = Offset(len(self._records))
        self._waiting_since_s[offset] = self._clock.monotonic_s()
        if record.replay_of is None:
            self._recent.remember(key, record.time_ms, offset)
        route = self._router.destinations(record)
        for lane, status in self._status.items():
            if lane.kind is record.kind and (route is None or lane.destination in route):
                status[offset] = PENDING
            if record.replay_of is not None and record.destination in ("", lane.destination):
                self._resolve(lane, record.replay_of)
        return Appended(offset, duplicate=False)

    def _resolve(self, lane: Lane, offset: Offset) -> bool:
        letter = self._status[lane].get(offset) in (DEAD, HELD)
        if letter:
            self._status[lane][offset] = RESOLVED
        return letter

    async def discard(self, destination: str, offsets: Sequence[Offset]) -> int:
        """See `SqliteLog.discard`."""
        lanes = [lane for lane in self._status if lane.destination == destination]
        return sum(self._resolve(lane, offset) for lane in lanes for offset in offsets)

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool = True) -> Batch:
        """See `EventLog.fetch`."""
        while True:
            self._changed.clear()
            due_s, is_live, waiting = self._next_due(lane, policy)
            if due_s == 0.0:
                self._turns[lane].took(live=is_live, now_s=self._clock.monotonic_s())
                return self._hand_out(lane, waiting, policy)
            if not wait:
                return Batch(lane, (), (), ())
            await self._clock.wait(self._changed, due_s)

    def _next_due(self, lane: Lane, policy: BatchPolicy) -> tuple[float | None, bool, list[Offset]]:
        """Return in how many seconds a batch is due, whether it is a live one, and what it is taken from."""
        if lane.destination in self._paused_at_ms:
            return None, True, []
        behind, live, age_s = self._waiting(lane)
        if lane in self._due_now or self._turns[lane].lags(policy, len(live), age_s):
            self._behind[lane].update(live)
            self._due_now.discard(lane)
            behind, live, age_s = self._waiting(lane)
        now_s = self._clock.monotonic_s()
        due_s, is_live = self._turns[lane].next_due(policy, len(behind), len(live), age_s, now_s)
        return due_s, is_live, live if is_live else behind

    def _waiting(self, lane: Lane) -> tuple[list[Offset], list[Offset], float]:
        """Return what is behind, what is live, and how long the oldest of that has waited."""
        waiting = [offset for offset, status in self._status[lane].items() if status == PENDING]
        live = [offset for offset in waiting if offset not in self._behind[lane]]
        age_s = self._clock.monotonic_s() - self._waiting_since_s[live[0]] if live else 0.0
        return [offset for offset in waiting if offset in self._behind[lane]], live, age_s

    def _hand_out(self, lane: Lane, waiting: Sequence[Offset], policy: BatchPolicy) -> Batch:
        taken: list[Offset] = []
        room = policy.max_bytes
        for offset in waiting[: policy.max_size]:
            room -= byte_length(self._records[offset - 1].payload) + policy.overhead_bytes
            if taken and room < 1:
                break
            taken.append(offset)
            self._status[lane][offset] = IN_FLIGHT
            self._behind[lane].discard(offset)
        records = [self._records[offset - 1] for offset in taken]
        payloads = [record.payload for record in records]
        return Batch(
            lane,
            taken,
            payloads,
            byte_lengths(payloads),
            oldest_at_ms=records[0].received_at_ms,
            traces=tuple(dict.fromkeys(record.trace for record in records if record.trace))[:MAX_TRACES],
        )

    def release(self, batch: Batch) -> None:
        """See `EventLog.release`."""
        self._status[batch.lane].update(dict.fromkeys(batch.offsets, PENDING))
        self._behind[batch.lane].update(batch.offsets)
        self._changed.set()

    async def intend(self, batch: Batch) -> None:
        """See `EventLog.intend`; nothing survives this log's end, so there is nothing to note."""

    async def settle(self, settlement: Settlement) -> None:
        """See `EventLog.settle`."""
        lane = settlement.batch.lane
        status = self._status[lane]
        if status[settlement.batch.offsets[0]] != IN_FLIGHT:
            return
        after = {Delivered: SENT, Rejected: DEAD, Unknown: HELD, Retry: PENDING}
        for offset, outcome in zip(settlement.batch.offsets, settlement.outcomes, strict=True):
            status[offset] = after[type(outcome)]
            if isinstance(outcome, Retry):
                self._behind[lane].add(offset)
        self._conditions[lane.destination] = settlement.condition
        self._changed.set()

    async def pause(self, destination: str, at_ms: int | None) -> bool:
        """See `EventLog.pause`."""
        if (destination in self._paused_at_ms) is (at_ms is not None):
            return False
        if at_ms is None:
            del self._paused_at_ms[destination]
        else:
            self._paused_at_ms[destination] = at_ms
        self._changed.set()
        return True

    def make_due(self, destination: str) -> int:
        """See `EventLog.make_due`."""
        lanes = [lane for lane in self._status if lane.destination == destination]
        self._due_now.update(lanes)
        self._changed.set()
        return sum(status == PENDING for lane in lanes for status in self._status[lane].values())

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
                    name,
                    condition,
                    [self._lane(lane) for lane in self._status if lane.destination == name],
                    self._paused_at_ms.get(name),
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
            dead=states.count(DEAD) + states.count(HELD),
            held=states.count(HELD),
            resolved=states.count(RESOLVED),
            erased=states.count(ERASED),
            oldest_pending_at_ms=self._records[owed[0] - 1].received_at_ms if owed else None,
        )
