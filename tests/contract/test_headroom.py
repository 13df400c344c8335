"""Both files have room for what is to be written before new records are taken, so that a full disk stops only those."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_records import counts_of, deliver, event, events, ids, open_log

from walbatch.errors import DiskFull
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, headroom, upkeep
from walbatch.wal.disk import CHECKPOINT_BYTES, PROBE_S
from walbatch.wal.files import DATABASE_FILE, wal_file
from walbatch.wal.headroom import PAGES_OVER_ROWS, SPARE_BYTES
from walbatch.wal.reserve import RESERVE_FILE
from walbatch.wal.transaction import Transaction

FULL = 13
"""SQLITE_FULL."""

AHEAD_BYTES = PAGES_OVER_ROWS * CHECKPOINT_BYTES + SPARE_BYTES


def set_aside(path: Path) -> int:
    """Return how many bytes a file has that nothing was written to yet."""
    found = path.stat()
    return found.st_blocks * 512 - found.st_size


def answering(code: int, times: int = 1_000_000) -> Callable[..., int]:
    """Stand in for fallocate: fail with this error so many times, then succeed."""
    left = [times]

    def fallocate(*_: object) -> int:
        left[0] -= 1
        ctypes.set_errno(code)
        return -1 if left[0] >= 0 else 0

    return fallocate


async def test_both_files_have_room_for_more_than_comes_until_a_checkpoint(tmp_path: Path, clock: FakeClock) -> None:
    """Also after one, which cuts the database to its length; nobody sees the files grow."""
    database = tmp_path / DATABASE_FILE
    async with open_log(tmp_path, clock) as log:
        for name in "ab":
            await log.append(events(name, clock))
            assert set_aside(database) >= AHEAD_BYTES
            assert set_aside(wal_file(database)) >= AHEAD_BYTES - wal_file(database).stat().st_size
            assert database.stat().st_size < CHECKPOINT_BYTES
            await log._disk.writer.run(driver.checkpoint_some)
            assert set_aside(database) < CHECKPOINT_BYTES


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_without_that_room_new_records_are_refused_and_the_rest_goes_on(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The reserve is not given up for it: whoever is filling the disk would take it. It is over by itself."""
    async with open_log(tmp_path, clock) as log:
        await log.append(events("a", clock))
        await log._disk.writer.run(driver.checkpoint_some)
        with monkeypatch.context() as full:
            full.setattr(headroom, "_fallocate", answering(code))
            with pytest.raises(DiskFull):
                await log.append(events("b", clock))
            assert ids(await deliver(log)) == "a"
            await log.tend()
            assert isinstance(log.refusing(), DiskFull)
            assert (tmp_path / RESERVE_FILE).exists()
        await log.tend()
        assert log.refusing() is None
        await log.append(events("b", clock))
        assert ids(await deliver(log)) == "b"
        assert (await counts_of(log)).sent == 2


@pytest.mark.parametrize("found", [None, answering(errno.EOPNOTSUPP)], ids=["system", "file system"])
async def test_what_sets_nothing_aside_is_written_to_all_the_same(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    """Neither a system without the call nor a file system without the feature has a disk that is full."""
    monkeypatch.setattr(headroom, "_fallocate", found)
    async with open_log(tmp_path, clock) as log:
        await log.append(events("a", clock))
        assert ids(await deliver(log)) == "a"


def test_a_signal_is_not_taken_for_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was interrupted is made again."""
    (tmp_path / DATABASE_FILE).touch()
    wal_file(tmp_path / DATABASE_FILE).touch()
    calls = answering(errno.EINTR, times=1)
    monkeypatch.setattr(headroom, "_fallocate", calls)
    with headroom.Headroom(tmp_path / DATABASE_FILE) as room:
        room.open()
    assert calls() == 0, "the interrupted call was followed by another"


async def test_the_log_is_trimmed_although_the_disk_takes_nothing(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a reader in the way until now that is what gives room; it was not done once the disk was due to be tried."""

    def find_no_room(*_: object) -> None:
        error: Any = driver.Error("database or disk is full")
        error.sqlite_errorcode = FULL
        raise error

    async with open_log(tmp_path, clock) as log:
        await log.append([event("a", clock, properties={"text": "x" * 100_000})])
        database_bytes, _ = log.sizes()
        with monkeypatch.context() as full:
            full.setattr(Transaction, "run", find_no_room)
            with pytest.raises(DiskFull):
                await log.append(events("b", clock))
            await clock.advance(2 * PROBE_S)
            await log.tend()
        assert isinstance(log.refusing(), DiskFull)
        assert log.sizes()[0] > database_bytes + 80_000


async def test_room_that_is_given_back_is_taken_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write-ahead log that grew under a reader is cut, and has room ahead again at once."""
    wal = wal_file(tmp_path / DATABASE_FILE)
    async with open_log(tmp_path, clock) as log:
        await log.append(events("a", clock))
        monkeypatch.setattr(upkeep, "TRIM_FROM_BYTES", 1)
        await log.tend()
        assert wal.stat().st_size == 0
        assert set_aside(wal) >= AHEAD_BYTES
