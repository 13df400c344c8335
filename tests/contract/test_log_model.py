"""The log on disk against its specification, step by step, through crashes at any moment between two answers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from walbatch.batching import BatchPolicy, Turns, byte_length
from walbatch.delivery import DELIVERED, RETRY, Outcome, Rejected, Unknown
from walbatch.event import Kind, Offset, Record, profile_update, track
from walbatch.retry import Condition, State
from walbatch.routing import Filter, Router
from walbatch.testing.clock import FakeClock
from walbatch.wal import LANES as LANE_NAMES
from walbatch.wal import ORDERED, Batch, Lane, LaneBacklog, Settlement
from walbatch.wal.driver import Connection
from walbatch.wal.files import DATABASE_FILE, wal_file
from walbatch.wal.memory import DEAD, HELD, IN_FLIGHT, PENDING, RESOLVED, SENT, MemoryLog
from walbatch.wal.recent import RecentIds, key_of
from walbatch.wal.sqlite import SqliteLog

DESTINATIONS = ["there", "elsewhere"]
ROUTER = Router({"there": Filter(), "elsewhere": Filter(never=("e*7",))})
LANES = [Lane(name, kind) for name in DESTINATIONS for kind in Kind]

outcome: st.SearchStrategy[Outcome] = st.sampled_from(
    [DELIVERED, DELIVERED, RETRY, Rejected(400, "f", "r"), Unknown("no answer")]
)
# Mostly events; some ids repeat.
kinds = st.sampled_from([Kind.EVENT, Kind.EVENT, Kind.PROFILE])
names = st.lists(st.tuples(kinds, st.integers(0, 9) | st.integers(0, 10_000)), min_size=1, max_size=12)


def stored(connection: Connection) -> set[Offset]:
    """The offsets of everything that is in the database."""
    return {row[0] for row in connection.execute("SELECT seq FROM events").fetchall()}


def make(kind: Kind, number: int, now_ms: int) -> Record:
    """A record whose id says what it is, so that an id that repeats is a duplicate."""
    text = "ä" * (number % 3)
    if kind is Kind.EVENT:
        return track(name=f"e{number}", event_id=f"e{number}", properties={"t": text}, now_ms=now_ms)
    return profile_update(
        distinct_id=f"u{number}", operation="$set", update_id=f"p{number}", properties={"t": text}, now_ms=now_ms
    )


class LogModel(RuleBasedStateMachine):
    """`SqliteLog` beside `MemoryLog`: what one answers, the other must."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory(prefix="walbatch-model-")))
        self.lives = 0
        self.clock = FakeClock()
        self.spec = MemoryLog(DESTINATIONS, self.clock, router=ROUTER)
        self.in_flight: list[Batch] = []
        self.purged: set[Offset] = set()
        self.erased: set[Offset] = set()
        self.settled_then_erased: dict[Lane, set[Offset]] = {lane: set() for lane in LANES}
        self.settlements = 0
        self.settled_since_start = False

    @initialize()
    def begin(self) -> None:
        """Open an empty log."""
        self.open()

    @property
    def directory(self) -> Path:
        """The data directory of this life."""
        return self.folder / str(self.lives)

    def open(self) -> None:
        """Open the log in the present directory."""
        self.log = SqliteLog(self.directory, DESTINATIONS, self.clock, router=ROUTER, allow_affected_sqlite=True)
        self.runner.run(self.log.__aenter__())

    def close(self) -> None:
        """Close the log in an orderly way."""
        self.runner.run(self.log.__aexit__(None, None, None))

    def forget(self) -> None:
        """Take from the specification what no engine keeps over a restart."""
        for lane, status in self.spec._status.items():
            status |= {offset: PENDING for offset, state in status.items() if state == IN_FLIGHT}
            pending = {offset for offset, state in status.items() if state == PENDING}
            # What is pending below something settled has been handed out before: then all of it counts as behind.
            settled = (status.keys() - pending - self.erased) | self.settled_then_erased[lane]
            holes = pending and any(offset > min(pending) for offset in settled)
            self.spec._behind[lane] = pending if holes else set()
            self.spec._turns[lane] = Turns(ordered=lane.kind in ORDERED)
        self.in_flight.clear()
        self.spec._due_now.clear()
        self.spec._recent = RecentIds()
        for offset, record in enumerate(self.spec._records, 1):
            if record.replay_of is None and offset not in self.purged | self.erased:
                key = key_of(record.event_id, record.name, record.distinct_id)
                self.spec._recent.remember(key, record.time_ms, Offset(offset))

    def append_both(self, records: Sequence[Record]) -> None:
        """Append to both; offsets and duplicates are the same."""
        assert self.runner.run(self.log.append(records)) == self.runner.run(self.spec.append(records))

    @rule(names=names)
    def append(self, names: list[tuple[Kind, int]]) -> None:
        """Store some records, of which some were stored before."""
        self.append_both([make(kind, number, self.clock.wall_ms()) for kind, number in names])

    @property
    def settled(self) -> list[Offset]:
        """What was answered somewhere and is still stored."""
        states = [item for status in self.spec._status.values() for item in status.items()]
        return sorted({offset for offset, state in states if state in (SENT, DEAD, HELD)} - self.purged)

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Store something again that was settled, as `replay` does."""
        offset = data.draw(st.sampled_from(self.settled))
        original = self.spec._records[offset - 1]
        destination = data.draw(st.sampled_from(["", *DESTINATIONS]))
        self.append_both(
            [original._replace(replay_of=offset, destination=destination, received_at_ms=self.clock.wall_ms())]
        )

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def discard(self, data: st.DataObject, destination: str) -> None:
        """Give up some dead letters of one destination; what is none there stays as it is."""
        offsets = data.draw(st.lists(st.sampled_from(self.settled), min_size=1, max_size=3))
        assert self.runner.run(self.log.discard(destination, offsets)) == self.runner.run(
            self.spec.discard(destination, offsets)
        )

    @property
    def pending_lanes(self) -> list[Lane]:
        """The lanes that have something to hand out."""
        paused = self.spec._paused_at_ms
        return [
            lane for lane in LANES if lane.destination not in paused and PENDING in self.spec._status[lane].values()
        ]

    @precondition(lambda self: self.pending_lanes)
    @rule(data=st.data(), limits=st.lists(st.integers(1, 6), min_size=2, max_size=5))
    def fetch(self, data: st.DataObject, limits: list[int]) -> None:
        """Fetch some batches of one lane."""
        lane = data.draw(st.sampled_from(self.pending_lanes))
        for limit in limits:
            if lane in self.pending_lanes:
                self.fetch_both(lane, limit)

    def fetch_both(self, lane: Lane, limit: int) -> None:
        """Fetch a batch: what the specification hands out, or the first part of it."""
        policy = BatchPolicy(max_size=limit).at_once()
        batch = self.runner.run(asyncio.wait_for(self.log.fetch(lane, policy), 10))
        assert 1 <= len(batch.offsets) <= limit
        handed_out = sum(byte_length(payload) + policy.overhead_bytes for payload in batch.payloads)
        spec = self.spec.fetch(lane, replace(policy, max_bytes=handed_out + 1))
        assert batch == self.runner.run(asyncio.wait_for(spec, 10))
        self.in_flight.append(batch)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), places=st.lists(st.integers(0, 9), min_size=1, max_size=3))
    def settle(self, data: st.DataObject, places: list[int]) -> None:
        """Settle batches that are in flight, in any order, sometimes twice."""
        for place in places[: len(self.in_flight)]:
            batch = self.in_flight.pop(place % len(self.in_flight))
            size = len(batch.offsets)
            outcomes = data.draw(st.just([DELIVERED] * size) | st.lists(outcome, min_size=size, max_size=size))
            self.settle_both(batch, outcomes, times=data.draw(st.integers(1, 2)))

    def settle_both(self, batch: Batch, outcomes: Sequence[Outcome], times: int = 1) -> None:
        """Settle a batch in both, with a condition that nothing else has."""
        self.settlements += 1
        condition = Condition(State.RETRYING, self.settlements, self.clock.wall_ms(), f"error {self.settlements}")
        settlement = Settlement(batch, outcomes, condition, "note", 1, 2)
        for _ in range(times):
            self.runner.run(self.log.settle(settlement))
        self.runner.run(self.spec.settle(settlement))
        self.settled_since_start = True

    @rule(destination=st.sampled_from(DESTINATIONS), resumed=st.booleans())
    def pause(self, destination: str, resumed: bool) -> None:  # noqa: FBT001
        """Pause a destination or let it go on, sometimes twice; while it is paused nothing of it is due."""
        self.pause_both(destination, None if resumed else self.clock.wall_ms())
        for kind in () if resumed else Kind:
            empty = self.runner.run(self.log.fetch(Lane(destination, kind), BatchPolicy().at_once(), wait=False))
            assert not empty.offsets
        self.settled_since_start = True

    def pause_both(self, destination: str, at_ms: int | None) -> None:
        """Pause or resume in both; they agree on whether that changed anything."""
        changed = self.runner.run(self.log.pause(destination, at_ms))
        assert changed == self.runner.run(self.spec.pause(destination, at_ms))

    @rule(destination=st.sampled_from(DESTINATIONS))
    def make_due(self, destination: str) -> None:
        """Let what waits be due at once."""
        assert self.log.make_due(destination) == self.spec.make_due(destination)

    @rule(seconds=st.floats(0.001, 20))
    def wait(self, seconds: float) -> None:
        """Let time pass, so that what waits is overdue and delivery lags."""
        self.runner.run(self.clock.advance(seconds))

    @precondition(lambda self: self.pending_lanes)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Deliver everything of one lane, but what is in flight already."""
        self.deliver_all(data.draw(st.sampled_from(self.pending_lanes)), len(self.in_flight))

    def deliver_all(self, lane: Lane, but: int = 0) -> None:
        """Hand out all of a lane, and settle as delivered what is in flight, but for the first few."""
        while lane in self.pending_lanes:
            self.fetch_both(lane, 50)
        while len(self.in_flight) > but:
            batch = self.in_flight.pop()
            self.settle_both(batch, [DELIVERED] * len(batch.offsets))

    @precondition(lambda self: self.settled)
    @rule(passed_s=st.integers(1, 60), age_s=st.integers(0, 100), limit=st.integers(1, 20))
    def purge(self, passed_s: int, age_s: int, limit: int) -> None:
        """Some time later purge: only old records that every lane has done with."""
        self.runner.run(self.clock.advance(passed_s))
        before_ms = self.clock.wall_ms() - age_s * 1000
        deleted = self.runner.run(self.log.purge(before_ms, limit))
        ever = {Offset(offset) for offset in range(1, len(self.spec._records) + 1)}
        gone = ever - self.runner.run(self.log.read(stored)) - self.purged - self.erased
        assert deleted == len(gone)
        for offset in gone:
            assert self.spec._records[offset - 1].received_at_ms < before_ms
            states = {status[offset] for status in self.spec._status.values() if offset in status}
            assert states <= {SENT, RESOLVED}
        self.purged |= gone

    @precondition(lambda self: self.spec._records)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        """Erase some records, whatever became of them; what is in flight is left, and what is gone stays gone."""
        offsets = data.draw(st.lists(st.integers(1, len(self.spec._records)).map(Offset), min_size=1, max_size=9))
        before = {lane: dict(status) for lane, status in self.spec._status.items()}
        offsets = sorted(set(offsets) - self.purged)
        erased, left = self.runner.run(self.log.erase(offsets))
        assert list(left) == self.runner.run(self.spec.erase(offsets))
        assert set(erased.offsets) == set(offsets) - set(left) - self.erased
        self.erased |= set(erased.offsets)
        for lane, status in before.items():
            done = {offset for offset, state in status.items() if state in (SENT, DEAD, HELD, RESOLVED)}
            self.settled_then_erased[lane] |= done & set(erased.offsets)
        assert self.erased.isdisjoint(self.runner.run(self.log.read(stored)))

    @precondition(lambda self: self.in_flight)
    @rule(place=st.integers(0, 9))
    def release(self, place: int) -> None:
        """Give a batch back that was never sent."""
        batch = self.in_flight.pop(place % len(self.in_flight))
        self.log.release(batch)
        self.spec.release(batch)

    @precondition(lambda self: self.settled_since_start)
    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:  # noqa: FBT001
        """Stop and start again: in an orderly way, or with the files as a kill leaves them, without shared memory."""
        before = self.directory
        if killed:
            self.lives += 1
            self.directory.mkdir(mode=0o700)
            database = before / DATABASE_FILE
            # In a process of its own: a descriptor that is closed in this one would take the locks with it.
            subprocess.run(["cp", database, wal_file(database), self.directory], check=True)
        self.close()
        self.forget()
        self.open()
        self.settled_since_start = False

    @invariant()
    def both_count_the_same(self) -> None:
        """Every count, size and condition is the specification's, and conservation holds."""
        disk, memory = self.runner.run(self.log.backlog()), self.runner.run(self.spec.backlog())
        assert (disk.accepted, disk.pending_bytes) == (memory.accepted, memory.pending_bytes)
        wanted = {destination.name: destination for destination in memory.destinations}
        assert wanted.keys() == {destination.name for destination in disk.destinations}
        for destination in disk.destinations:
            assert destination.condition == wanted[destination.name].condition
            assert destination.paused_at_ms == wanted[destination.name].paused_at_ms
            for found, spec in zip(destination.lanes, wanted[destination.name].lanes, strict=True):
                kind = next(kind for kind, name in LANE_NAMES.items() if name == found.name)
                assert found == self.after_purge(Lane(destination.name, kind), spec)
                parts = (found.pending, found.sent, found.purged, found.dead, found.resolved, found.erased)
                assert found.accepted == sum(parts)

    def after_purge(self, lane: Lane, counts: LaneBacklog) -> LaneBacklog:
        """What the specification would count if it purged."""
        purged = sum(self.spec._status[lane].get(offset) == SENT for offset in self.purged)
        return replace(counts, sent=counts.sent - purged, purged=purged)

    def teardown(self) -> None:
        """In the end everything that is owed can be delivered."""
        try:
            for name in DESTINATIONS:
                self.pause_both(name, None)
            for lane in LANES:
                self.deliver_all(lane)
            self.both_count_the_same()
            self.close()
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
