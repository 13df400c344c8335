"""Disks that fail: who is told what, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from leftovers import left_by
from log_records import EVENTS, NOW, counts_of, deliver, event, events, ids, open_log, settlement

from walbatch.delivery import DELIVERED
from walbatch.errors import CommitFailed, CorruptLog, LogClosed, StorageFailed, WalbatchError
from walbatch.event import Offset, Record
from walbatch.testing.clock import FakeClock
from walbatch.wal import disk, driver, store
from walbatch.wal.disk import PROBE_S
from walbatch.wal.driver import Connection
from walbatch.wal.sqlite import SqliteLog
from walbatch.wal.transaction import Transaction

IOERR, CORRUPT, FULL = 10, 11, 13


def database_error(code: int) -> Exception:
    """What the driver raises for a result code of SQLite."""
    error: Any = driver.Error(f"pretended error {code}")
    error.sqlite_errorcode = code
    return cast(Exception, error)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A way to let the next transactions fail, each after its rows were inserted."""
    original = store.append

    def arrange(*codes: int) -> None:
        left = list(codes)

        def append(connection: Connection, records: Sequence[Record], *places: Any) -> list[Offset]:
            offsets = original(connection, records, *places)
            if left and (code := left.pop(0)):
                raise database_error(code)
            return offsets

        monkeypatch.setattr(store, "append", append)

    return arrange


async def test_a_commit_that_fails_once(log: SqliteLog, clock: FakeClock, failing: Callable[..., None]) -> None:
    """The caller is told that nothing is known; nothing of it is seen, and the same ids are stored the next time."""
    failing(IOERR)
    with pytest.raises(CommitFailed, match="pretended error"):
        await log.append(events("ab", clock))
    assert (await counts_of(log)).accepted == 0
    assert [appended.duplicate for appended in await log.append(events("ab", clock))] == [False, False]
    assert ids(await deliver(log)) == "ab"


async def test_everyone_of_the_group_is_told(log: SqliteLog, clock: FakeClock, failing: Callable[..., None]) -> None:
    """A commit that fails answers every caller, and changes nothing for the settlement that was in it."""
    await log.append(events("a", clock))
    batch = await log.fetch(EVENTS, NOW)
    failing(IOERR)
    answers = await asyncio.gather(
        *(log.append([event(name, clock)]) for name in "bcd"),
        log.settle(settlement(batch, [DELIVERED])),
        return_exceptions=True,
    )
    assert {type(answer) for answer in answers} == {CommitFailed}
    counts = await counts_of(log)
    assert (counts.accepted, counts.in_flight, counts.sent) == (1, 1, 0)
    again = asyncio.create_task(log.settle(settlement(batch, [DELIVERED])))
    await clock.advance(await clock.sleeper())
    await again
    assert (await counts_of(log)).sent == 1


@pytest.mark.parametrize("code", [IOERR, FULL])
async def test_a_group_that_was_not_stored_is_not_kept(
    log: SqliteLog, clock: FakeClock, failing: Callable[..., None], code: int
) -> None:
    """The error that all its callers are told keeps nothing of it."""

    async def work() -> None:
        failing(code)
        await asyncio.gather(
            log.append(events("ab", clock)), log.append_one(partial(event, "c", clock), 100), return_exceptions=True
        )
        log._admission.disk_full = False

    assert await left_by(work) == set()


async def test_failures_that_are_not_in_a_row_do_not_stop_the_log(
    log: SqliteLog, clock: FakeClock, failing: Callable[..., None]
) -> None:
    """A commit that works forgets the failures before it."""
    failing(IOERR, IOERR, 0, IOERR, IOERR, 0)
    answers = [await asyncio.gather(log.append([event(name, clock)]), return_exceptions=True) for name in "abcdef"]
    assert [type(answer) for (answer,) in answers].count(CommitFailed) == 4
    assert ids(await log.fetch(EVENTS, NOW)) == "cf"


@pytest.mark.parametrize(
    ("codes", "why"), [([IOERR] * 3, StorageFailed), ([CORRUPT], CorruptLog)], ids=["three in a row", "damage"]
)
async def test_a_disk_that_keeps_failing_stops_the_log(
    log: SqliteLog, clock: FakeClock, failing: Callable[..., None], codes: list[int], why: type[WalbatchError]
) -> None:
    """`broken` tells why; callers were told to try later, and nothing is accepted any more."""
    broken = asyncio.create_task(log.broken())
    failing(*codes)
    for name, _ in zip("abc", codes, strict=False):
        with pytest.raises(CommitFailed):
            await log.append([event(name, clock)])
    with pytest.raises(why):
        await broken
    with pytest.raises(LogClosed):
        await log.append(events("d", clock))


async def test_a_failed_commit_is_told_until_one_succeeds(
    log: SqliteLog, clock: FakeClock, failing: Callable[..., None]
) -> None:
    """New records count as refused from the failure on; the next look tries the disk by itself, without traffic."""
    assert log.refusing() is None
    failing(IOERR)
    with pytest.raises(CommitFailed):
        await log.append([event("a", clock)])
    assert isinstance(log.refusing(), CommitFailed)
    assert "pretended error" in str(log.refusing())
    await log.tend()
    assert log.refusing() is None


async def test_a_broken_disk_is_found_without_traffic(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look after a failure tries again, and the third failure in a row stops the log."""

    def fail(_: Connection) -> int:
        raise database_error(IOERR)

    monkeypatch.setattr(store, "touch", fail)
    broken = asyncio.create_task(log.broken())
    await clock.advance(PROBE_S)
    for _ in range(3):
        assert not broken.done()
        await log.tend()
    with pytest.raises(StorageFailed, match="3 commits in a row failed"):
        await broken


async def test_a_log_that_is_closed_is_not_broken(tmp_path: Path, clock: FakeClock) -> None:
    """`broken` returns after an orderly end."""
    async with open_log(tmp_path, clock) as log:
        broken = asyncio.create_task(log.broken())
        await log.append(events("a", clock))
        assert not broken.done()
    await broken


async def test_closing_commits_what_was_submitted(tmp_path: Path, clock: FakeClock) -> None:
    """Callers that wait while the log closes are answered, and what they were told is true."""
    async with open_log(tmp_path, clock) as log:
        appends = [asyncio.create_task(log.append([event(name, clock)])) for name in "abcde"]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*appends)
    assert not any(answer[0].duplicate for answer in answers)
    async with open_log(tmp_path, clock) as log:
        assert ids(await log.fetch(EVENTS, NOW)) == "abcde"


@pytest.mark.parametrize("verb", ["fetch", "backlog", "read"])
async def test_no_error_of_sqlite_leaves_the_log(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Whoever reads meets errors of ours only, which say how the process should end."""

    def fail(*_: Any) -> None:
        raise database_error(CORRUPT)

    await log.append(events("a", clock))
    monkeypatch.setattr(store, "read_span", fail)
    monkeypatch.setattr(store, "lane_counts", fail)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "fetch": lambda: log.fetch(EVENTS, NOW),
        "backlog": log.backlog,
        "read": lambda: log.read(fail),
    }
    with pytest.raises(CorruptLog):
        await calls[verb]()


async def test_a_checkpoint_that_fails_takes_no_commit_with_it(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered as failed is not there; what comes after it is delivered, and so is what is sent again."""
    failures = [database_error(IOERR)]
    checkpoint = driver.checkpoint_some

    def fail_once(connection: Connection) -> tuple[int, int]:
        if failures:
            raise failures.pop()
        return checkpoint(connection)

    monkeypatch.setattr(driver, "checkpoint_some", fail_once)
    monkeypatch.setattr(disk, "CHECKPOINT_BYTES", 1)
    async with open_log(tmp_path, clock) as log:
        await log.append(events("a", clock))
        with pytest.raises(CommitFailed):
            await log.append(events("b", clock))
        assert ids(await deliver(log)) == "a"
        again = await log.append(events("bc", clock))
        assert not any(one.duplicate for one in again)
        assert ids(await deliver(log)) == "bc"
    assert not failures


async def test_a_commit_that_raised_and_is_there_all_the_same_ends_the_log(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is built on a memory that knows less than the disk; the next start hands out what was in doubt."""
    run = Transaction.run

    def run_and_fail(transaction: Transaction, *args: Any) -> None:
        run(transaction, *args)
        raise database_error(IOERR)

    async with open_log(tmp_path, clock) as log:
        await log.append(events("a", clock))
        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "run", run_and_fail)
            with pytest.raises(CommitFailed):
                await log.append(events("b", clock))
        with pytest.raises(StorageFailed, match="start again"):
            await log.broken()
        with pytest.raises(LogClosed):
            await log.append(events("c", clock))
    async with open_log(tmp_path, clock) as log:
        assert (await log.append(events("b", clock)))[0].duplicate
        assert ids(await deliver(log)) == "ab"
