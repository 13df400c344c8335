"""The log on disk: a SQLite database in WAL mode.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar, cast

import structlog

from walbatch.batching import BatchPolicy
from walbatch.clock import Clock
from walbatch.errors import DiskFull, InvalidRecord, StorageFailed, Unavailable, WalbatchError
from walbatch.event import Kind, Offset, Record
from walbatch.ownership import Ownership
from walbatch.routing import Router
from walbatch.wal import (
    Appended,
    Backlog,
    Batch,
    Lane,
    Settlement,
    driver,
    erasure,
    pauses,
    recovery,
    store,
    upkeep,
)
from walbatch.wal.admission import NO_LIMITS, Admission, Limits
from walbatch.wal.connections import Questions, Threaded
from walbatch.wal.disk import UNWATCHED, Disk, Watching, ask, broken
from walbatch.wal.fetching import Fetching
from walbatch.wal.files import DATABASE_FILE, file_sizes
from walbatch.wal.group_commit import GroupCommit
from walbatch.wal.guard import Guard
from walbatch.wal.opening import open_database
from walbatch.wal.progress import Progress
from walbatch.wal.purge import Purged
from walbatch.wal.recent import WINDOW, RecentIds
from walbatch.wal.riding import Ride
from walbatch.wal.scrub import Scrubber
from walbatch.wal.transaction import (
    ROW_BYTES,
    Answer,
    Blank,
    Bury,
    Chore,
    Discard,
    Draft,
    Erase,
    Erased,
    Intent,
    Planner,
    Purge,
    Rarer,
    Transaction,
    Write,
)

log = structlog.stdlib.get_logger("walbatch.log")

T = TypeVar("T")

MAX_GROUP_BYTES = 12 * 1024 * 1024
"""Of one transaction: 20,000 events of a usual size."""

_NEW = (Draft, list)
"""What new records are submitted as; everything else goes on while they are refused."""


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
        watch: Watching = UNWATCHED,
        traced: bool = False,
    ) -> None:
        """`traced` says whether batches are to tell the traces of their records."""
        self.path = directory / DATABASE_FILE
        self.limits = limits
        self.ownership = Ownership(directory)
        self._clock, self._watch = clock, watch
        self._admission = Admission(directory, limits, clock)
        self._allow_affected = allow_affected_sqlite
        self._router = router or Router({})
        self._formerly = formerly
        self._lanes = [Lane(name, kind) for name in destinations for kind in Kind]
        self._progress = Progress(self._lanes, RecentIds(recent_window), self._admission.owed_bytes, clock)
        self._bits: dict[str, int] = {}
        self._traced = traced
        self._ride: Ride | None = None
        self._commits = GroupCommit[Write, Answer](self._commit, clock, max_weight=MAX_GROUP_BYTES)
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
            self._admission.before_open()
            try:
                await asyncio.to_thread(recovery.prepare, self.path)
                self._scrubber = stack.enter_context(Scrubber(self.path))
                headroom = stack.enter_context(self._admission.headroom)
                writer = await stack.enter_async_context(Threaded(lambda: driver.open_writer(self.path)))
                await writer.run(self._open)
                await asyncio.to_thread(headroom.open)
                self._reader = await stack.enter_async_context(Threaded(lambda: driver.open_reader(self.path)))
                self._fetching = Fetching(
                    self.path, self._reader, self._progress, self._bits, self._clock, traced=self._traced
                )
                questions = Questions(lambda: driver.open_reader(self.path), self._clock)
                self._questions = await stack.enter_async_context(questions)
                guard = Guard(self.path, self.ownership)
                self._disk = Disk(self.path, writer, guard, self._admission, self._clock, watch=self._watch)
            except driver.Error as error:
                raise broken(self.path, error) from error
            except OSError as error:
                raise StorageFailed(f"cannot open {self.path}: {error}") from error
            self._admission.opened()
            self._committing = asyncio.create_task(self._commits.run(), name="group commit")
            stack.push_async_callback(self._close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commit what was submitted, checkpoint, close, and give the directory free."""
        await self._stack.aclose()

    def _open(self, connection: driver.Connection) -> None:
        self._bits, self._tombstones = open_database(
            connection, self.path, self._lanes, formerly=self._formerly, progress=self._progress, clock=self._clock
        )
        self._router = self._router.knowing(self._bits)

    async def _close(self) -> None:
        self._commits.close()
        try:
            await asyncio.shield(self._committing)
        except WalbatchError:
            return  # `broken` has told; a log that failed is left as it is
        try:
            await self._ask(self._disk.writer, driver.checkpoint)
        except StorageFailed as error:  # the next start will do it
            log.warning("log.checkpoint_failed", error=str(error))

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
        self._admission.check(self._commits.waiting_weight)
        weight = sum(len(record.payload) + ROW_BYTES for record in records)
        return cast(list[Appended], await self._commits.submit([*records], weight))

    async def append_one(self, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
        """See `EventLog.append_one`."""
        self._admission.check(self._commits.waiting_weight)
        return cast(tuple[Record, Appended], await self._commits.submit(Draft(make), size + ROW_BYTES))

    async def _submit(self, write: Rarer) -> Answer:
        return await self._commits.submit(write, ROW_BYTES)

    def refusal(self, record: Record) -> InvalidRecord | None:
        """See `EventLog.refusal`."""
        return self._tombstones.refusal(record)

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool = True) -> Batch:
        """See `EventLog.fetch`."""
        return await self._fetching.fetch(lane, policy, wait=wait)

    def release(self, batch: Batch) -> None:
        """See `EventLog.release`."""
        self._progress.release(batch.lane, batch.offsets[0])

    async def intend(self, batch: Batch) -> None:
        """See `EventLog.intend`."""
        await self._submit(Intent(batch))

    async def settle(self, settlement: Settlement) -> None:
        """See `EventLog.settle`."""
        await self._submit(settlement)

    async def pause(self, destination: str, at_ms: int | None) -> bool:
        """See `EventLog.pause`."""
        changed = await self._submit(Chore(partial(pauses.pause, destination=destination, at_ms=at_ms)))
        self._progress.pause(destination, paused=at_ms is not None)
        return bool(changed)

    def make_due(self, destination: str) -> int:
        """See `EventLog.make_due`."""
        return self._progress.make_due(destination)

    async def purge(self, before_ms: int, size: int, *, patience_s: float = 0.0) -> int:
        """Delete the records that are settled everywhere and were received before a time; return how many.

        Transactions with new records take a slice along, of about as many as they have. Once none has come for
        `patience_s`, slices of `size` go alone, one after the other. Open dead letters stay. One purge at a time.

        Raises:
            Unavailable: a transaction with a slice failed; what was deleted before is deleted.
        """
        self._ride = ride = Ride(self._clock, Purge(before_ms, 0, size), patience_s)
        try:
            while await ride.goes_alone():
                ride.follow(cast(Purged, await self._submit(ride.next)))
        finally:
            self._ride = None
        return ride.deleted

    async def discard(self, destination: str, offsets: Sequence[Offset]) -> int:
        """Close the open dead letters of these records at one destination, for good; return how many there were."""
        return cast(int, await self._submit(Discard(destination, offsets, self._clock.wall_ms())))

    async def vacuum(self) -> int:
        """Give pages that purges have emptied back to the file system, a few at a time; return how many.

        As many are kept as the log will soon use again.
        """
        given = 0
        while pages := cast(int, await self._submit(Chore(upkeep.vacuum))):
            given += pages
        return given

    def refusing(self) -> Unavailable | None:
        """Return why new records are refused at this moment, or would be; None if all is well."""
        return self._disk.refusing()

    async def tend(self) -> None:
        """Look after the files: to be called about every second. No append waits longer for it than for another group.

        It trims the write-ahead log, sets the reserve aside again when there is room, and tries the disk if the last
        commit failed, or is long ago. What it finds is told by `refusing` and `broken`.
        """
        try:
            await self._disk.tend(lambda: self._submit(Chore(store.touch)))
        except Unavailable as error:
            log.debug("log.tend_failed", error=str(error))
        if self._admission.wal_alarming:
            await self._questions.interrupt_if_long()

    async def bury(self, people: Iterable[str]) -> int:
        """Refuse from now on what these people did up to now; durable on return. Returns the end of the log.

        What they did before and was taken is stored up to there.
        """
        # In memory first: what was let through until now was submitted before, and is stored before.
        stones = self._tombstones.add(people, self._clock.wall_ms())
        await self._submit(Bury(stones))
        return self._progress.last

    async def erase(self, offsets: Sequence[Offset]) -> Erased:
        """Delete records in one transaction, whatever became of them, with their dead letters.

        What is in flight is left, and named in the answer: try again once it is settled.
        """
        erased = cast(Erased, await self._submit(Erase(offsets)))
        for lane in self._progress.states.keys() & erased.found.lanes.keys():
            await self._fetching.erased(lane, erased.found.lanes[lane].pending)
        return erased

    async def blank(self, quotes: Sequence[erasure.Quote]) -> None:
        """Replace texts of destinations that name an erased person."""
        await self._submit(Blank(quotes))

    async def scrub(self) -> bool:
        """Leave nothing in the files but what is stored. Reads all of the database.

        False if somebody who reads keeps SQLite's own log from being emptied; try again.
        """
        return await self._scrubber.scrub(self._disk)

    async def backlog(self) -> Backlog:
        """See `EventLog.backlog`."""
        return await self._ask(self._reader, store.backlog, self._progress.positions)

    async def read(self, query: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function over a read-only connection of its own, which may take long: delivery does not wait for it.

        Raises:
            TooLong: it kept the write-ahead log from being trimmed for too long. Ask for less at a time.
        """
        return await self._ask(self._questions, partial(query, **kwargs), *args)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the database and of its write-ahead log."""
        return file_sizes(self.path)

    def free_bytes(self) -> int:
        """Return what is free on the disk."""
        return self._admission.free_bytes()

    async def _commit(self, writes: Sequence[Write]) -> Sequence[Answer]:
        if not self._admission.disk_full:
            try:
                return await self._transact(writes)
            except DiskFull:
                self._admission.disk_full = True
        # What was delivered must be noted even now; what is new can wait.
        full = DiskFull("the disk is full; nothing was stored")
        rest = [write for write in writes if not isinstance(write, _NEW)]
        try:
            answers = iter(await self._transact(rest) if rest else ())
        except DiskFull:
            if not self._admission.reserve.held:
                raise
            self._admission.reserve.release()
            answers = iter(await self._transact(rest))
        return [full if isinstance(write, _NEW) else next(answers) for write in writes]

    async def _transact(self, writes: Sequence[Write]) -> list[Answer]:
        transaction = Planner(self._progress.recent, self._progress.states, self._router, self.refusal).plan(writes)
        ride = self._ride if self._ride and self._ride.board(transaction) else None
        with self._fetching.erasing() if transaction.erasures else nullcontext():
            await self._run(transaction, ride)
        self._progress.follow(transaction)
        if ride:
            ride.follow(transaction.purged[0])
        return transaction.answers

    async def _run(self, transaction: Transaction, ride: Ride | None) -> None:
        new, weight = len(transaction.records), transaction.weight
        try:
            await self._disk.transact(new, weight, transaction.run, self._lanes, self._bits)
        except Unavailable as error:
            if transaction.records and await self._ask(self._reader, store.last_offset) > self._progress.last:
                raise StorageFailed(
                    f"{self.path} has what a failed commit was to write, and memory has not ({error}): start again"
                ) from error
            if ride:
                ride.failed(error)
            raise

    async def _ask(self, connection: Threaded, query: Callable[..., T], *args: Any) -> T:
        return await ask(self.path, connection, query, *args)
