"""How far each lane is, as memory knows it: brought up to date only by what is on the disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from walbatch.batching import BatchPolicy, Turns
from walbatch.clock import Clock
from walbatch.event import Offset
from walbatch.wal import ORDERED, Batch, Lane, store
from walbatch.wal.lanes import END, LaneState, Position, Span
from walbatch.wal.recent import RecentIds
from walbatch.wal.transaction import Transaction


class Progress:
    """The lanes of one log, and the end of it. `owed_bytes` is counted for each destination."""

    def __init__(self, lanes: Sequence[Lane], recent: RecentIds, owed_bytes: Counter[str], clock: Clock) -> None:
        self.last = 0
        """The end of the log."""
        self.states: dict[Lane, LaneState] = {}
        self.changed = {lane: asyncio.Event() for lane in lanes}
        """Set when a lane may have more to hand out, or have it sooner."""
        self.paused: set[str] = set()
        """The destinations for which nothing is due."""
        self._due_now: set[Lane] = set()
        self._sooner_at = dict.fromkeys(lanes, 0)
        self._destinations = frozenset(lane.destination for lane in lanes)
        self._turns = {lane: Turns(ordered=lane.kind in ORDERED) for lane in lanes}
        self._waiting_since_s: dict[Lane, float] = {}
        self.recent = recent
        self._owed_bytes = owed_bytes
        self._clock = clock

    @property
    def positions(self) -> dict[Lane, Position]:
        """What only memory knows of each lane."""
        return {lane: state.position for lane, state in self.states.items()}

    def load(self, lane: Lane, state: LaneState, pending_bytes: int, oldest_at_ms: int | None) -> None:
        """Begin with what is stored of a lane."""
        self.states[lane] = state
        self._owed_bytes[lane.destination] += pending_bytes
        self.start_wait(lane, oldest_at_ms)

    def next_due(self, lane: Lane, policy: BatchPolicy) -> tuple[float | None, bool]:
        """Return in how many seconds a batch is due, None if nothing waits, and whether it is of the log's end."""
        if lane.destination in self.paused:
            return None, True
        state, turns, now_s = self.states[lane], self._turns[lane], self._clock.monotonic_s()
        age_s = now_s - self._waiting_since_s[lane]
        if turns.lags(policy, state.live, age_s) or (lane in self._due_now and state.live):
            state.fall_behind(self.last)
        self._due_now.discard(lane)
        self._sooner_at[lane] = policy.due_sooner_at(state.live)
        return turns.next_due(policy, state.to_read, state.live, age_s, now_s)

    def hand_out(self, batch: Batch, span: Span, next_at_ms: int | None, *, live: bool) -> None:
        """Mark what was read from a span; `next_at_ms` is when the first record behind it was received, if any."""
        lane = batch.lane
        self.states[lane].hand_out(span, batch.offsets, more=next_at_ms is not None)
        if span.last == END:  # else the records at the end of the log go on waiting as they did
            self.start_wait(lane, next_at_ms)
        if batch.offsets:
            self._turns[lane].took(live=live, now_s=self._clock.monotonic_s())

    def release(self, lane: Lane, first: Offset) -> None:
        """Take back the batch that begins here."""
        self.states[lane].release(first)
        self.changed[lane].set()

    def pause(self, destination: str, *, paused: bool) -> None:
        """Follow a pause, or its end, that is on the disk."""
        if paused:
            self.paused.add(destination)
        else:
            self.paused.discard(destination)
        self._wake(destination)

    def make_due(self, destination: str) -> int:
        """Let what waits for a destination count as behind, which is due at once; return how many records wait.

        It begins to count so when the next batch is asked for: a fetch may be reading what is at the end of the log.
        """
        lanes = self._wake(destination)
        self._due_now.update(lanes)
        return sum(self.states[lane].behind + self.states[lane].live for lane in lanes)

    def _wake(self, destination: str) -> list[Lane]:
        """Let whoever waits for a batch of a destination look again; return its lanes."""
        lanes = [lane for lane in self.states if lane.destination == destination]
        for lane in lanes:
            self.changed[lane].set()
        return lanes

    def start_wait(self, lane: Lane, received_at_ms: int | None) -> None:
        """Begin the wait of a lane's oldest record. A wall clock that was set back counts as no wait yet."""
        age_ms = 0 if received_at_ms is None else max(self._clock.wall_ms() - received_at_ms, 0)
        self._waiting_since_s[lane] = self._clock.monotonic_s() - age_ms / 1000

    def follow(self, done: Transaction) -> None:
        """Bring memory up to what the disk has now."""
        self._follow_appends(done)
        for settlement, cut, _ in done.settlements:
            lane = settlement.batch.lane
            self.states[lane].settle(settlement.batch.offsets[0], [run for run in cut if not run.settled])
            self._owed_bytes[lane.destination] -= sum(run.size for run in cut if run.settled)
            self.changed[lane].set()
        for erased in done.erased:
            self.recent.forget(frozenset(erased.offsets))
            for lane in self.states.keys() & erased.lanes.keys():
                self.states[lane].erased(erased.lanes[lane].pending)
                self._owed_bytes[lane.destination] -= erased.lanes[lane].pending_bytes
                self.changed[lane].set()

    def _follow_appends(self, done: Transaction) -> None:
        before = self.last
        if done.offsets:
            self.last = done.offsets[-1]
        remember = self.recent.remember
        for key, record, offset in zip(done.keys, done.records, done.offsets, strict=True):
            if record.replay_of is None:
                remember(key, record.time_ms, offset)
        for (kind, route), sizes in done.tallies.items():
            count, size = len(sizes), sum(sizes)
            for name in self._owed_to(route):
                lane = Lane(name, kind)
                self._owed_bytes[name] += size
                if self.states[lane].live == 0:
                    self._waiting_since_s[lane] = self._clock.monotonic_s()
                self.states[lane].appended(count, before)
                # Whoever waits for a batch is not woken by every commit: that took 80 us of it, with a single caller.
                if self.states[lane].live >= self._sooner_at[lane]:
                    self.changed[lane].set()

    def _owed_to(self, route: store.Route) -> frozenset[str]:
        return self._destinations if route is None else self._destinations & route
