"""The log on disk: a SQLite database in WAL mode. The only module that imports aiosqlite.

Promise: what `append` and `settle` returned for is on the disk, through a kill or a power cut at any moment.

Invariants
    - One connection writes and checkpoints, in one thread. Every other one is read-only.
    - Each group of writes is one transaction under synchronous=FULL: COMMIT returns after the fsync.
    - Rows of `events` are inserted and, long after they are settled, deleted; never updated.
    - Memory follows disk: positions and counts change after the COMMIT returned.
    - A record is below its lane's watermark, or in a range of `deliveries`, only if the destination answered for it.

What a crash leaves, by where it happens
    before COMMIT       nothing of the group; no caller had an answer
    during COMMIT       all of the group or nothing; no caller had an answer
    after COMMIT        all of the group; callers that got no answer send the same ids again and are told `duplicate`
    after a delivery,   the batch is pending again, and is sent again, byte for byte
    before its settle   (what was noted with `intend` is held instead, as far as it would count twice)

A COMMIT that raised is ambiguous: its rows may be there after a restart. It is answered `CommitFailed`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar, cast

import aiosqlite
import structlog

from walbatch.batching import BatchPolicy, Turns, byte_length
from walbatch.clock import Clock
from walbatch.errors import BacklogFull, CommitFailed, FatalError, InvalidRecord, StorageFailed, WalbatchError
from walbatch.event import Kind, Offset, Record
from walbatch.routing import Router
from walbatch.wal import (
    ORDERED,
    Appended,
    Backlog,
    Batch,
    Lane,
    Settlement,
    driver,
    erasure,
    gaps,
    intents,
    recovery,
    store,
)
from walbatch.wal.admission import NO_LIMITS, Admission, Limits
from walbatch.wal.files import DATABASE_FILE, file_sizes, wal_file
from walbatch.wal.group_commit import GroupCommit
from walbatch.wal.lanes import END, LaneState
from walbatch.wal.migrate import migrate
from walbatch.wal.ownership import Ownership
from walbatch.wal.purge import Purged
from walbatch.wal.recent import WINDOW, RecentIds
from walbatch.wal.transaction import (
    Answer,
    Blank,
    Bury,
    Discard,
    Erase,
    Erased,
    Intent,
    Planner,
    Purge,
    Transaction,
    Write,
)

log = structlog.stdlib.get_logger("walbatch.log")

T = TypeVar("T")

CHECKPOINT_PATIENCE_MS = 200
"""How long a checkpoint on demand may hold up the writer while it waits for others to end their reading."""

MAX_FAILED_COMMITS = 3
"""After so many in a row the disk is taken to be broken, and the log stops rather than answer "retry" for ever."""


class SqliteLog:
    """`EventLog` in a data directory, for one process at a time. See the module for what it promises."""

    durability = "fsynced"

    def __init__(
        self,
        directory: Path,
        destinations: Sequence[str],
        clock: Clock,
        *,
        router: Router | None = None,
        formerly: Mapping[str, str] = MappingProxyType({}),
        limits: Limits = NO_LIMITS,
        allow_affected_sqlite: bool = False,
        recent_window: int = WINDOW,
    ) -> None:
        self.path = directory / DATABASE_FILE
        self.ownership = Ownership(directory)
        self._clock = clock
        self._admission = Admission(directory, limits, clock)
        self._allow_affected = allow_affected_sqlite
        self._window = recent_window
        self._recent = RecentIds(recent_window)
        self._destinations = frozenset(destinations)
        self._router = router or Router({})
        self._formerly = formerly
        self._lanes = [Lane(name, kind) for name in destinations for kind in Kind]
        self._turns = {lane: Turns(ordered=lane.kind in ORDERED) for lane in self._lanes}
        self._states: dict[Lane, LaneState] = {}
        self._bits: dict[str, int] = {}
        self._last = 0
        self._waiting_since_s: dict[Lane, float] = {}
        self._changed = {lane: asyncio.Event() for lane in self._lanes}
        self._no_erasure = asyncio.Event()
        self._no_erasure.set()
        self._erasures = 0
        self._failed_commits = 0
        self._commits = GroupCommit[Write, Answer](self._commit, clock, weigh=_weight)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Take the directory, recover, migrate, and start the writer; see `walbatch.wal.recovery` for the order.

        Raises:
            LogLocked, CorruptLog, SchemaTooNew, AffectedSqlite: as their docstrings say; nothing was changed.
            StorageFailed: the disk refused.
        """
        driver.check_version(allow_affected=self._allow_affected)
        async with AsyncExitStack() as stack:
            stack.enter_context(self.ownership)
            try:
                await asyncio.to_thread(recovery.prepare, self.path)
                # For `scrub`. Closed after the connections: closing it drops the locks that SQLite has on the file.
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, self._descriptor)
                self._writer = await stack.enter_async_context(_connect(lambda: driver.open_writer(self.path)))
                await _run(self._writer, self._open)
                self._reader = await stack.enter_async_context(_connect(lambda: driver.open_reader(self.path)))
                self._questions = await stack.enter_async_context(_connect(lambda: driver.open_reader(self.path)))
            except driver.Error as error:
                raise self._broken(error) from error
            except OSError as error:
                raise StorageFailed(f"cannot open {self.path}: {error}") from error
            self._committing = asyncio.create_task(self._commits.run(), name="group commit")
            stack.push_async_callback(self._close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commit what was submitted, checkpoint, close, and give the directory free."""
        await self._stack.aclose()

    def _open(self, connection: driver.Connection) -> None:
        migrate(connection, self.path)
        connection.execute("BEGIN IMMEDIATE")
        for name in dict.fromkeys(lane.destination for lane in self._lanes):
            store.add_destination(connection, name, self._formerly.get(name))
        self._bits = store.destinations(connection)
        for lane in self._lanes:
            held = intents.recover(connection, lane, self._bits[lane.destination], self._clock.wall_ms())
            if held:
                log.warning("log.updates_held", destination=lane.destination, lane=lane.name, held=held)
        self._tombstones = erasure.load_tombstones(connection)
        connection.execute("COMMIT")
        self._router = self._router.knowing(self._bits)
        self._last = store.last_offset(connection)
        store.load_recent(connection, self._recent, self._window)
        counts = {lane: store.lane_counts(connection, lane) for lane in self._lanes}
        for lane, count in counts.items():
            self._admission.owed_bytes[lane.destination] += count.pending_bytes
        for lane in self._lanes:
            bit = self._bits[lane.destination]
            state = self._states[lane] = store.load_lane(connection, lane, bit)
            watermark = state.position.watermark
            store.raise_watermark(connection, lane, watermark)
            self._start_wait(lane, store.oldest_received_at_ms(connection, lane.kind, bit, watermark + 1))
        _checkpoint(connection)

    async def _close(self) -> None:
        self._commits.close()
        try:
            await asyncio.shield(self._committing)
        except WalbatchError:
            return  # `broken` has told; a log that failed is left as it is
        await self._ask(self._writer, _checkpoint)

    async def broken(self) -> None:
        """Wait until the log can store no more, and raise why; return once it was closed.

        Raises:
            StorageFailed, CorruptLog: stop the process.
        """
        await asyncio.shield(self._committing)

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See `EventLog.append`."""
        if not records:
            return []
        for record in records:
            if (refusal := self.refusal(record)) is not None:
                raise refusal
        self._admission.check()
        return cast(list[Appended], await self._commits.submit(records))

    def refusal(self, record: Record) -> InvalidRecord | None:
        """See `EventLog.refusal`."""
        return self._tombstones.refusal(record)

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool = True) -> Batch:
        """See `EventLog.fetch`."""
        state, changed = self._states[lane], self._changed[lane]
        while True:
            while not self._no_erasure.is_set():  # when it wakes up, the next one may have begun
                await self._no_erasure.wait()
            changed.clear()
            due_s, live = self._next_due(lane, policy)
            if due_s != 0.0 and not wait:
                return Batch(lane, ())
            if due_s != 0.0:
                await self._clock.wait(changed, due_s)
                continue
            span, erasures = state.next_span(live=live), self._erasures
            entries, next_received_at_ms = await self._ask(
                self._reader, store.read_span, lane.kind, self._bits[lane.destination], span, policy
            )
            if erasures != self._erasures:
                continue  # what was read may be gone by now
            # From here on nothing is awaited, so that a cancelled fetch has handed out nothing.
            state.hand_out(span, [entry.offset for entry in entries], more=next_received_at_ms is not None)
            if span.last == END:  # else the records at the end of the log go on waiting as they did
                self._start_wait(lane, next_received_at_ms)
            if entries:
                self._turns[lane].took(live=live)
                return Batch(lane, entries)

    def release(self, batch: Batch) -> None:
        """See `EventLog.release`."""
        self._states[batch.lane].release(batch.entries[0].offset)
        self._changed[batch.lane].set()

    async def intend(self, batch: Batch) -> None:
        """See `EventLog.intend`."""
        await self._commits.submit(Intent(batch))

    async def settle(self, settlement: Settlement) -> None:
        """See `EventLog.settle`."""
        await self._commits.submit(settlement)

    async def purge(self, before_ms: int, size: int) -> int:
        """Delete the records that are settled everywhere and were received before a time; return how many.

        It looks at `size` records in one transaction, and others get their turn in between. Open dead letters stay.
        """
        deleted = after = 0
        while True:
            done = cast(Purged, await self._commits.submit(Purge(before_ms, after, size)))
            deleted += done.deleted
            if done.through is None:
                return deleted
            after = done.through

    async def discard(self, destination: str, offsets: Sequence[Offset]) -> int:
        """Close the open dead letters of these records at one destination, for good; return how many there were."""
        return cast(int, await self._commits.submit(Discard(destination, offsets, self._clock.wall_ms())))

    async def bury(self, people: Iterable[str]) -> int:
        """Refuse from now on what these people did up to now; durable on return. Returns the end of the log.

        What they did before and was taken is stored up to there.
        """
        # In memory first: what was let through until now was submitted before, and is stored before.
        stones = self._tombstones.add(people, self._clock.wall_ms())
        await self._commits.submit(Bury(stones))
        return self._last

    async def erase(self, offsets: Sequence[Offset]) -> Erased:
        """Delete records in one transaction, whatever became of them, with their dead letters.

        What is in flight is left, and named in the answer: try again once it is settled.
        """
        erased = cast(Erased, await self._commits.submit(Erase(offsets)))
        for lane in self._states.keys() & erased.found.lanes.keys():
            await self._tidy(lane, erased.found.lanes[lane].pending)
        return erased

    async def _tidy(self, lane: Lane, erased: Sequence[Offset]) -> None:
        """Bring up to date what a lane's memory derives from rows that are gone: empty spans, the oldest's wait."""
        state, bit = self._states[lane], self._bits[lane.destination]
        for span in state.spans_of(erased):
            if await self._ask(self._reader, store.is_empty, lane.kind, bit, span):
                self._erasures += 1  # a fetch that is reading this span reads again
                state.forget(span)
        first = state.next_span(live=True).first
        self._start_wait(lane, await self._ask(self._reader, store.oldest_received_at_ms, lane.kind, bit, first))

    async def blank(self, quotes: Sequence[erasure.Quote]) -> None:
        """Replace texts of destinations that name an erased person."""
        await self._commits.submit(Blank(quotes))

    async def scrub(self) -> bool:
        """Leave nothing in the files but what is stored: see `walbatch.wal.gaps`. Reads all of the database.

        False if somebody who reads keeps SQLite's own log from being emptied; try again.
        """
        try:
            # The file stands still from here on: what is written meanwhile stays in SQLite's log.
            if not await self._ask(self._writer, _empty_log, 0):
                return False
            unclean = await asyncio.to_thread(gaps.find, self._descriptor)
            return await self._ask(self._writer, self._clean, unclean)
        finally:
            await self._ask(self._writer, driver.set_autocheckpoint, driver.AUTOCHECKPOINT_PAGES)

    def _clean(self, connection: driver.Connection, unclean: list[int]) -> bool:
        written = [*gaps.pages_in(wal_file(self.path), gaps.layout(self._descriptor).page)]
        if not _checkpoint(connection, CHECKPOINT_PATIENCE_MS):
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            gaps.clean(self._descriptor, [*unclean, *written])
        finally:
            connection.execute("COMMIT")
            connection.execute("PRAGMA shrink_memory")
        return True

    async def backlog(self) -> Backlog:
        """See `EventLog.backlog`."""
        positions = {lane: state.position for lane, state in self._states.items()}
        return await self._ask(self._reader, store.backlog, positions)

    async def read(self, query: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function over a read-only connection of its own, which may take long: delivery does not wait for it."""
        return await self._ask(self._questions, partial(query, **kwargs), *args)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the database and of its write-ahead log."""
        return file_sizes(self.path)

    def _next_due(self, lane: Lane, policy: BatchPolicy) -> tuple[float | None, bool]:
        state, turns = self._states[lane], self._turns[lane]
        age_s = self._clock.monotonic_s() - self._waiting_since_s[lane]
        if turns.lags(policy, state.live, age_s):
            state.fall_behind(self._last)
        return turns.next_due(policy, state.to_read, state.live, age_s)

    def _start_wait(self, lane: Lane, received_at_ms: int | None) -> None:
        """Begin the wait of a lane's oldest record. A wall clock that was set back counts as no wait yet."""
        age_ms = 0 if received_at_ms is None else max(self._clock.wall_ms() - received_at_ms, 0)
        self._waiting_since_s[lane] = self._clock.monotonic_s() - age_ms / 1000

    async def _commit(self, writes: Sequence[Write]) -> list[Answer]:
        transaction = Planner(self._recent, self._states, self._router).plan(writes)
        if transaction.erasures:  # no fetch may hand out what is being deleted
            self._erasures += 1
            self._no_erasure.clear()
        try:
            await _run(self._writer, lambda connection: transaction.run(connection, self._lanes, self._bits))
        except driver.Error as error:
            raise self._failure(error) from error
        finally:
            self._no_erasure.set()
        self._failed_commits = 0
        self._follow(transaction)
        return [answer() for answer in transaction.answers]

    def _follow(self, done: Transaction) -> None:
        """Bring memory up to what the disk has now."""
        before = self._last
        counts: Counter[tuple[Kind, store.Route]] = Counter()
        sizes: Counter[store.Route] = Counter()
        for record, route, offset in zip(done.records, done.routes, done.offsets, strict=True):
            counts[record.kind, route] += 1
            sizes[route] += byte_length(record.payload)
            self._last = offset
            if record.replay_of is None:
                self._recent.remember(record.event_id, record.name, record.distinct_id, record.time_ms, offset)
        for route, size in sizes.items():
            self._admission.owed_bytes.update(dict.fromkeys(self._owed_to(route), size))
        for (kind, route), count in counts.items():
            for name in self._owed_to(route):
                lane = Lane(name, kind)
                if self._states[lane].live == 0:
                    self._waiting_since_s[lane] = self._clock.monotonic_s()
                self._states[lane].appended(count, before)
                self._changed[lane].set()
        for settlement, cut, _ in done.settlements:
            lane = settlement.batch.lane
            self._states[lane].settle(settlement.batch.entries[0].offset, [run for run in cut if not run.settled])
            done_bytes = sum(byte_length(e.payload) for run in cut if run.settled for e in run.entries)
            self._admission.owed_bytes[lane.destination] -= done_bytes
            self._changed[lane].set()
        for erased in done.erased:
            self._recent.forget(frozenset(erased.offsets))
            for lane in self._states.keys() & erased.lanes.keys():
                self._states[lane].erased(erased.lanes[lane].pending)
                self._admission.owed_bytes[lane.destination] -= erased.lanes[lane].pending_bytes
                self._changed[lane].set()

    def _owed_to(self, route: store.Route) -> frozenset[str]:
        return self._destinations if route is None else self._destinations & route

    async def _ask(self, connection: aiosqlite.Connection, query: Callable[..., T], *args: Any) -> T:
        """Run a function over a connection, outside of the transactions."""
        try:
            return await _run(connection, query, *args)
        except driver.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> FatalError:
        """Translate what anything but a transaction raised."""
        if driver.is_damage(error):
            return recovery.damaged(self.path, error)
        return StorageFailed(f"{self.path} cannot be used: {error}")

    def _failure(self, error: sqlite3.Error) -> WalbatchError:
        """Translate what a transaction raised."""
        if driver.is_full(error):
            return BacklogFull("the disk is full; nothing was stored")
        if driver.is_damage(error):
            return recovery.damaged(self.path, error)
        self._failed_commits += 1
        if self._failed_commits >= MAX_FAILED_COMMITS:
            return StorageFailed(f"{self._failed_commits} commits in a row failed on {self.path}: {error}")
        return CommitFailed(f"the commit failed ({error}), so it is not known whether this was stored; send it again")


def _weight(write: Write) -> int:
    return len(write) if isinstance(write, Sequence) else 1


def _checkpoint(connection: driver.Connection, patience_ms: int = driver.BUSY_TIMEOUT_MS) -> bool:
    connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute(f"PRAGMA busy_timeout = {driver.BUSY_TIMEOUT_MS}")
    return not busy


def _empty_log(connection: driver.Connection, autocheckpoint_pages: int) -> bool:
    driver.set_autocheckpoint(connection, autocheckpoint_pages)
    return _checkpoint(connection, CHECKPOINT_PATIENCE_MS)


def _connect(connector: Callable[[], driver.Connection]) -> aiosqlite.Connection:
    return aiosqlite.Connection(connector, iter_chunk_size=64)


def _run(connection: aiosqlite.Connection, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
    """Run `function(connection, *args)` in the connection's thread: one hop, whatever it does there.

    aiosqlite has no public way to do that; each call of its own API would be a hop of about 75 microseconds. Its
    version is pinned for this reason.
    """
    raw = connection._conn  # noqa: SLF001
    hop: Coroutine[Any, Any, T] = connection._execute(function, raw, *args)  # type: ignore[no-untyped-call]  # noqa: SLF001
    return hop
