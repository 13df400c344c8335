"""A purge goes along with new records, and alone when none come; whatever becomes of their transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from log_records import counts_of, deliver, event, open_log

from walbatch.errors import CommitFailed, DiskFull, LogClosed
from walbatch.retention import PATIENCE_S, Retention
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, driver, transaction
from walbatch.wal.driver import Connection
from walbatch.wal.purge import Purged, purge
from walbatch.wal.riding import FEWEST, LONGEST_S
from walbatch.wal.sqlite import SqliteLog

OLD = 1000
SLICE = 600
SIZE = 100
"""Of what comes at a time."""
IOERR, FULL = 10, 13

Purging = asyncio.Task[int]


class Slices(list[tuple[int, int]]):
    """What was purged in each transaction that tried: where the slice began, and how many records it deleted.

    `fail_with`, a code of SQLite, makes the next one fail after its deletions.
    """

    fail_with: int | None = None

    def purge(self, connection: Connection, lanes: Iterable[Lane], before_ms: int, after: int, size: int) -> Purged:
        """Do it, and note it."""
        done = purge(connection, lanes, before_ms, after, size)
        code, self.fail_with = self.fail_with, None
        if code is not None:
            error = driver.Error(f"pretended error {code}")
            error.sqlite_errorcode = code
            raise error
        self.append((after, done.deleted))
        return done


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> Slices:
    """The slices of the test."""
    noted = Slices()
    monkeypatch.setattr(transaction, "purge", noted.purge)
    return noted


async def store(log: SqliteLog, clock: FakeClock, name: str, count: int = 1) -> None:
    """Store new records in one transaction."""
    await log.append([event(f"{name}-{number}", clock) for number in range(count)])


@pytest.fixture
async def purging(log: SqliteLog, clock: FakeClock, slices: Slices) -> Purging:
    """A purge of old records that has begun and waits for new ones."""
    await store(log, clock, "old", OLD)
    while (await counts_of(log)).pending:
        await deliver(log)
    await clock.advance(1)
    purging = asyncio.create_task(log.purge(clock.wall_ms(), SLICE, patience_s=PATIENCE_S))
    await clock.sleeper(PATIENCE_S)
    assert not slices
    return purging


async def test_new_records_take_about_as_many_along(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """One slice after the other, and nothing else is committed for it. Beside too many it is no more than a slice."""
    await store(log, clock, "a", 2 * SIZE)
    await store(log, clock, "b", SIZE)
    assert slices == [(0, 2 * SIZE + 6), (2 * SIZE + 6, SIZE + 3)]
    await store(log, clock, "c", SLICE + 1)
    assert not purging.done()
    for name in "de":  # the second one finds that nothing old is left
        await store(log, clock, name, SIZE)
    assert await purging == OLD
    assert sum(size for _, size in slices) == (await counts_of(log)).purged == OLD


async def test_so_few_that_they_empty_no_page_take_none_along(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """Until enough of them have come."""
    await store(log, clock, "a", FEWEST - 1)
    assert slices == []
    await store(log, clock, "b")
    assert slices == [(0, FEWEST + 3)]


async def test_what_was_stored_before_takes_none_along(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """Neither a repeat of a record nor a settlement takes new pages."""
    await store(log, clock, "old", FEWEST)
    await log.vacuum()
    assert slices == []


async def test_it_goes_alone_when_nobody_comes(clock: FakeClock, slices: Slices, purging: Purging) -> None:
    """All of it at once, in slices of the size that it was told, once its patience is over."""
    await clock.advance(PATIENCE_S - 1)
    assert slices == []
    await clock.advance(1)
    assert await purging == OLD
    assert slices == [(0, SLICE), (SLICE, OLD - SLICE), (OLD, 0)]


async def test_retention_has_patience(log: SqliteLog, clock: FakeClock, slices: Slices) -> None:
    """What it deletes goes along with new records."""
    await store(log, clock, "old", SIZE)
    await deliver(log)
    await clock.advance(2)
    purging = asyncio.create_task(Retention(log, clock, keep_s=1).purge())
    await clock.sleeper(PATIENCE_S)
    for name in "ab":
        await store(log, clock, name, SIZE)
    assert await purging == slices[0][1] == SIZE


async def test_patience_begins_anew_with_each_company(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """For as long as new records come it does not go alone."""
    for name in "abcd":
        await clock.advance(PATIENCE_S - 1)
        await store(log, clock, name)
    assert slices == []
    await clock.advance(PATIENCE_S)
    assert await purging == OLD


async def test_a_trickle_holds_it_back_for_a_while_only(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """Then all that is left goes alone, whoever comes."""
    distance_s = PATIENCE_S - 1
    come = round(LONGEST_S / distance_s) - 1
    for number in range(come):
        await clock.advance(distance_s)
        await store(log, clock, f"new-{number}")
    assert sum(size for _, size in slices) == come // FEWEST * (FEWEST + 3)
    await clock.advance(distance_s)
    assert await purging == OLD


async def test_when_its_transaction_fails_the_purge_ends_and_nothing_is_deleted(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """So new records fail once. The next purge counts what is left, each record once."""
    await store(log, clock, "a", SIZE)
    slices.fail_with = IOERR
    with pytest.raises(CommitFailed):
        await store(log, clock, "b", SIZE)
    with pytest.raises(CommitFailed):
        await purging
    first = slices[0][1]
    assert (await counts_of(log)).purged == first
    await store(log, clock, "b", SIZE)
    assert len(slices) == 1
    assert await log.purge(clock.wall_ms(), SLICE) == OLD - first
    assert (await counts_of(log)).purged == OLD


async def test_a_full_disk_refuses_the_new_records_and_the_purge_goes_on_alone(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """What it deletes may be what makes room."""
    slices.fail_with = FULL
    with pytest.raises(DiskFull):
        await store(log, clock, "a", SIZE)
    assert slices == []
    await clock.advance(PATIENCE_S)
    assert await purging == OLD
    assert (await counts_of(log)).purged == OLD


async def test_a_purge_that_is_cancelled_is_taken_along_no_more(
    log: SqliteLog, clock: FakeClock, slices: Slices, purging: Purging
) -> None:
    """As when the server stops."""
    purging.cancel()
    await asyncio.wait([purging])
    await store(log, clock, "a", SIZE)
    assert slices == []


async def test_a_purge_does_not_outlive_its_log(directory: Path, clock: FakeClock) -> None:
    """It is told so as soon as it would go alone."""
    async with open_log(directory, clock) as log:
        purging = asyncio.create_task(log.purge(clock.wall_ms(), SLICE, patience_s=PATIENCE_S))
        await clock.sleeper(PATIENCE_S)
    await clock.advance(PATIENCE_S)
    with pytest.raises(LogClosed):
        await purging


async def test_a_slice_that_goes_alone_takes_the_place_of_one_that_goes_along(
    log: SqliteLog, clock: FakeClock, slices: Slices
) -> None:
    """A transaction has one of them, and each record is counted once."""
    await store(log, clock, "old", OLD)
    while (await counts_of(log)).pending:
        await deliver(log)
    await clock.advance(1)
    purging = asyncio.create_task(log.purge(clock.wall_ms(), SLICE))
    await store(log, clock, "new", SIZE)
    await clock.advance(await clock.sleeper())  # the group commit expects two of them again
    assert await purging == (await counts_of(log)).purged == OLD
    first = SIZE + transaction.PURGED_BEYOND
    assert slices == [(0, first), (first, SLICE), (first + SLICE, OLD - SLICE - first), (OLD + SIZE, 0)]
