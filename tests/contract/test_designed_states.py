"""A full disk, a log that cannot be trimmed, a disk that hangs: states with a name, which end without a restart."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from log_records import EVENTS, NOW, counts_of, deliver, event, events, executed, ids, open_log, settlement

from walbatch.delivery import DELIVERED, RETRY
from walbatch.errors import BacklogFull, DiskFull, NoRoom, Overloaded, TooLong, Unavailable, WalHeld
from walbatch.testing.clock import FakeClock
from walbatch.upkeep import Upkeep
from walbatch.wal import admission, driver, upkeep
from walbatch.wal.admission import Limits
from walbatch.wal.connections import LONG_S
from walbatch.wal.driver import Connection
from walbatch.wal.reserve import MAX_BYTES, RESERVE_FILE
from walbatch.wal.sqlite import SqliteLog
from walbatch.wal.transaction import Transaction

LARGE = {"text": "x" * 50_000}
PAGE = 4096
FULL = 13
"""SQLITE_FULL."""


async def limit_pages(log: SqliteLog, more: int) -> None:
    """Let the database grow by so many pages at most: SQLite then says that the disk is full."""
    ((pages,),) = await executed(log, "PRAGMA page_count")
    await executed(log, f"PRAGMA max_page_count = {pages + more}")


async def fill(log: SqliteLog, clock: FakeClock) -> int:
    """Append large events until there is no room for another; return how many that were."""
    stored = 0
    with suppress(NoRoom):
        while stored < 100:
            await log.append([event(f"large{stored}", clock, properties=LARGE)])
            stored += 1
    return stored


async def test_a_full_disk_refuses_then_recovers(log: SqliteLog, clock: FakeClock) -> None:
    """Nothing of a refused record is stored, however often it is tried; with room again the same log goes on."""
    await log.append(events("a", clock))
    await limit_pages(log, 20)
    stored = await fill(log, clock)
    assert 0 < stored < 20
    for _ in range(5):
        await log.tend()
        with pytest.raises(DiskFull, match="full"):
            await log.append([event("refused", clock, properties=LARGE)])
    assert (await counts_of(log)).accepted == stored + 1
    assert len((await deliver(log)).offsets) == stored + 1
    await limit_pages(log, 1000)
    await log.tend()
    (appended,) = await log.append([event("refused", clock, properties=LARGE)])
    assert not appended.duplicate
    assert ids(await log.fetch(EVENTS, NOW)) == "refused"


async def test_what_was_delivered_is_noted_in_the_very_group_that_finds_the_disk_full(
    log: SqliteLog, clock: FakeClock
) -> None:
    """The settlement is stored, the new record beside it is refused."""
    await log.append(events("a", clock))
    batch = await log.fetch(EVENTS, NOW)
    await limit_pages(log, 4)
    too_large = event("b", clock, properties={"text": "x" * 40 * PAGE})
    settled, appended = await asyncio.gather(
        log.settle(settlement(batch, [DELIVERED])), log.append([too_large]), return_exceptions=True
    )
    assert settled is None
    assert isinstance(appended, DiskFull)
    assert (await counts_of(log)).sent == 1


async def test_a_backlog_that_is_too_large_refuses_until_it_is_smaller(tmp_path: Path, clock: FakeClock) -> None:
    """The limit is on what is owed; it holds over a restart, and delivery makes room without one."""
    size = len(event("a", clock).payload)
    limits = Limits(max_backlog_bytes=2 * size)
    async with open_log(tmp_path, clock, limits=limits) as log:
        await log.append(events("ab", clock))
        with pytest.raises(BacklogFull, match=f"{2 * size}B wait"):
            await log.append(events("c", clock))
    async with open_log(tmp_path, clock, limits=limits) as log:
        with pytest.raises(BacklogFull):
            await log.append(events("c", clock))
        await deliver(log, [DELIVERED, RETRY])
        await log.append(events("c", clock))
        assert (await counts_of(log)).pending == 2


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A pretended disk, with so many free pages."""
    pretended = SimpleNamespace(f_bavail=1000, f_frsize=PAGE)
    monkeypatch.setattr(os, "statvfs", lambda _: pretended)
    return pretended


async def test_a_disk_that_is_nearly_full_refuses_before_it_is(
    tmp_path: Path, clock: FakeClock, disk: SimpleNamespace
) -> None:
    """Below the limit nothing is accepted; the disk is looked at about once a second, and delivery goes on."""
    async with open_log(tmp_path, clock, limits=Limits(min_free_bytes=50 * PAGE)) as log:
        await log.append(events("a", clock))
        disk.f_bavail = 49
        await clock.advance(1)
        with pytest.raises(DiskFull, match="free"):
            await log.append(events("b", clock))
        await deliver(log)
        disk.f_bavail = 50
        await clock.advance(1)
        await log.append(events("b", clock))


async def test_room_is_set_aside_and_is_back_before_new_records(
    tmp_path: Path, clock: FakeClock, disk: SimpleNamespace
) -> None:
    """Real blocks wait beside the log; they are set aside again before new records are accepted."""
    reserve = tmp_path / RESERVE_FILE
    async with open_log(tmp_path, clock, limits=Limits(min_free_bytes=400 * PAGE)) as log:
        assert reserve.stat().st_blocks * 512 == 400 * PAGE
        await limit_pages(log, 20)
        assert 0 < await fill(log, clock) < 20
        assert reserve.exists(), "new records are no reason to give it up"
        reserve.unlink()  # as what is noted does when there is no other room
        await deliver(log)
        await limit_pages(log, 1000)
        disk.f_bavail = 399
        await log.tend()
        assert isinstance(log.refusing(), DiskFull)
        assert not reserve.exists()
        disk.f_bavail = 400
        await log.tend()
        assert log.refusing() is None
        assert reserve.exists()


async def test_room_that_was_set_aside_again_is_given_up_again(
    tmp_path: Path, clock: FakeClock, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While new records are refused the reserve is what settlements may use, as often as it could be set aside."""
    reserve = tmp_path / RESERVE_FILE
    run = Transaction.run
    runs: list[bool] = []

    def run_in_the_last_room(transaction: Transaction, *args: Any) -> None:
        runs.append(reserve.exists())
        if reserve.exists():  # there is room for one of the two
            error: Any = driver.Error("database or disk is full")
            error.sqlite_errorcode = FULL
            raise error
        run(transaction, *args)

    disk.f_bavail = 3 * MAX_BYTES // PAGE
    async with open_log(tmp_path, clock, limits=Limits(min_free_bytes=2 * MAX_BYTES)) as log:
        await log.append(events("abc", clock))
        batches = [await log.fetch(EVENTS, replace(NOW, max_size=1)) for _ in "abc"]
        monkeypatch.setattr(Transaction, "run", run_in_the_last_room)
        disk.f_bavail = MAX_BYTES // PAGE  # enough to set it aside again, not enough for new records
        for settled, batch in enumerate(batches, 1):
            assert reserve.exists()
            await log.settle(settlement(batch, [DELIVERED]))
            assert (await counts_of(log)).sent == settled
            assert not reserve.exists()
            await log.tend()
            assert isinstance(log.refusing(), DiskFull)
    assert runs == [True, *([True, False] * len(batches))], "the first finds the disk full, and is tried again at once"


async def test_a_start_on_a_full_disk_uses_the_reserve(tmp_path: Path, clock: FakeClock, disk: SimpleNamespace) -> None:
    """It is given up before the log is opened, which delivers and refuses until there is room."""
    limits = Limits(min_free_bytes=50 * PAGE)
    async with open_log(tmp_path, clock, limits=limits) as log:
        await log.append(events("a", clock))
    disk.f_bavail = 0
    async with open_log(tmp_path, clock, limits=limits) as log:
        assert not (tmp_path / RESERVE_FILE).exists()
        assert isinstance(log.refusing(), DiskFull)
        assert ids(await deliver(log)) == "a"


async def test_more_than_memory_should_hold_is_refused_while_the_disk_hangs(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the commit is bounded; all of it is stored once the disk answers, and what waits is none again."""
    monkeypatch.setattr(admission, "MAX_WAITING_BYTES", 3 * len(event("a", clock, properties=LARGE).payload))
    free = threading.Event()
    hanging = asyncio.create_task(log._disk.writer.run(lambda _: free.wait()))
    appends = [asyncio.create_task(log.append([event(name, clock, properties=LARGE)])) for name in "abc"]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="does not keep up"):
        await log.append(events("e", clock))
    free.set()
    await asyncio.gather(hanging, *appends)
    assert log._commits.waiting_weight == 0
    last = asyncio.create_task(log.append(events("e", clock)))
    await clock.advance(await clock.sleeper())
    await last
    assert (await counts_of(log)).accepted == 4


@contextmanager
def reading(log: SqliteLog) -> Iterator[Connection]:
    """Somebody who has looked into the database and does not go away."""
    connection = driver.open_reader(log.path)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM events").fetchall()
    yield connection
    connection.close()


async def test_a_reader_that_stays_cannot_let_the_log_grow_for_ever(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit new records are refused, delivery goes on; when the reader ends, the log is trimmed and it ends."""
    monkeypatch.setattr(upkeep, "TRIM_FROM_BYTES", 0)
    async with open_log(tmp_path, clock, limits=Limits(max_wal_bytes=100 * PAGE)) as log:
        with reading(log):
            for number in range(10):
                await log.append([event(str(number), clock, properties=LARGE)])
            await log.tend()
            assert log.sizes()[1] > 100 * PAGE
            with pytest.raises(WalHeld, match="reads the database"):
                await log.append(events("a", clock))
            await deliver(log)
        await log.tend()
        assert log.sizes()[1] == 0
        await log.append(events("a", clock))
        assert (await counts_of(log)).pending == 1


async def test_the_log_is_trimmed_without_a_limit_too(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that a reader has let grow is small again at the next look after the reader has ended."""
    monkeypatch.setattr(upkeep, "TRIM_FROM_BYTES", 50 * PAGE)
    with reading(log):
        for number in range(10):
            await log.append([event(str(number), clock, properties=LARGE)])
        await log.tend()
        assert log.sizes()[1] > 100 * PAGE
    await log.tend()
    assert log.sizes()[1] == 0


async def test_our_own_long_question_is_ended_when_it_keeps_the_log_from_being_trimmed(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-way to the limit; whoever asked is told to ask for less, and the log works on."""
    monkeypatch.setattr(upkeep, "TRIM_FROM_BYTES", 0)
    begun = threading.Event()

    def for_ever(connection: Connection) -> None:
        cursor = connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n, (SELECT * FROM events)"
        )
        cursor.fetchone()
        begun.set()
        cursor.fetchall()

    async with open_log(tmp_path, clock, limits=Limits(max_wal_bytes=400 * PAGE)) as log:
        await log.append(events("a", clock))
        question = asyncio.create_task(log.read(for_ever))
        await asyncio.to_thread(begun.wait)
        for number in range(20):
            await log.append([event(str(number), clock, properties=LARGE)])
        await log.tend()
        assert not question.done(), "a question that began just now is not what has kept the log"
        await clock.advance(LONG_S)
        await log.tend()
        with pytest.raises(TooLong, match="less at a time"):
            await question
        await log.tend()
        assert log.sizes()[1] == 0
        assert await log.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)


async def test_purged_room_is_given_back_but_for_a_share(log: SqliteLog, clock: FakeClock) -> None:
    """The file shrinks after a purge, in slices; one page in eight stays for what comes next."""
    for number in range(100):
        await log.append([event(str(number), clock, properties=LARGE)])
    while (await counts_of(log)).pending:
        await deliver(log)
    await executed(log, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = log.sizes()[0]
    await clock.advance(1)
    assert await log.purge(clock.wall_ms(), 1000) == 100
    given = await log.vacuum()
    await executed(log, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert log.sizes()[0] <= before - given * PAGE
    assert given > upkeep.VACUUM_PAGES, "it took more than one slice"
    ((empty,),) = await executed(log, "PRAGMA freelist_count")
    assert empty * upkeep.SPARE_SHARE * PAGE >= log.sizes()[0] - upkeep.SPARE_SHARE * PAGE
    await log.append(events("a", clock))
    assert ids(await log.fetch(EVENTS, NOW)) == "a"


async def test_each_change_is_told_once(tmp_path: Path, clock: FakeClock, disk: SimpleNamespace) -> None:
    """Whoever answers health checks hears of it when records begin to be refused, and when they are accepted again."""
    told: list[str] = []

    async def tell(refusal: Unavailable | None) -> None:
        told.append(refusal.reason if refusal else "")

    async with open_log(tmp_path, clock, limits=Limits(min_free_bytes=50 * PAGE)) as log:
        keeper = Upkeep(log, clock, tell)
        for pages in (1000, 49, 48, 50, 1000):
            disk.f_bavail = pages
            await clock.advance(1)
            await keeper.tend()
    assert told == ["DISK_FULL", ""]
