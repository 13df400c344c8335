"""The files of an open log are taken away: nothing is acknowledged into nowhere, and everything before is saved."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from log_records import EVENTS, NOW, counts_of, deliver, event, events, ids, open_log

from walbatch.errors import CommitFailed, ConfigurationError, StorageFailed
from walbatch.ownership import Ownership
from walbatch.testing.clock import FakeClock
from walbatch.wal.disk import PROBE_S
from walbatch.wal.files import rescued_files, wal_file
from walbatch.wal.sqlite import SqliteLog


def delete(database: Path) -> None:
    """As in `rm events.db`."""
    database.unlink()


def delete_all(database: Path) -> None:
    """As in `rm events.db*`."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def delete_wal(database: Path) -> None:
    """As somebody does who wants to free space."""
    wal_file(database).unlink()


def replace(database: Path) -> None:
    """As in restoring a backup over a running server."""
    other = database.with_name("other.db")
    other.write_bytes(b"")
    other.replace(database)


def moved(directory: Path) -> Path:
    """As in `mv`; return where it is now."""
    return directory.rename(directory.with_name("elsewhere"))


@pytest.mark.parametrize("take_away", [delete, delete_all, delete_wal, replace])
async def test_files_that_are_taken_away(directory: Path, clock: FakeClock, take_away: Callable[[Path], None]) -> None:
    """The next append is not acknowledged, the log stops, and the saved copy has what was acknowledged before."""
    async with open_log(directory, clock) as log:
        broken = asyncio.create_task(log.broken())
        await log.append(events("a", clock))
        await deliver(log)
        await log.append(events("bc", clock))
        take_away(log.path)
        with pytest.raises(CommitFailed):
            await log.append([event("d", clock)])
        with pytest.raises(StorageFailed, match=r"deleted, moved or replaced .*events\.db\.rescued-1"):
            await broken
    (copy,) = rescued_files(log.path)
    assert copy.stat().st_mode & 0o777 == 0o600
    if log.path.exists():
        with pytest.raises(ConfigurationError, match=r"move events\.db"):
            await open_log(directory, clock).__aenter__()
        log.path.unlink()
    async with open_log(directory, clock) as log:
        assert ids(await log.fetch(EVENTS, NOW)) in ("bc", "bcd")


async def test_it_is_noticed_without_traffic(log: SqliteLog) -> None:
    """The look after the files finds it."""
    broken = asyncio.create_task(log.broken())
    log.path.unlink()
    await log.tend()
    with pytest.raises(StorageFailed, match="deleted, moved or replaced"):
        await broken


async def test_a_directory_that_was_moved_away(directory: Path, clock: FakeClock) -> None:
    """There is nowhere to save to; the text says what to do, and the moved files have everything."""
    async with open_log(directory, clock) as log:
        broken = asyncio.create_task(log.broken())
        await log.append(events("ab", clock))
        elsewhere = moved(directory)
        await log.tend()
        with pytest.raises(StorageFailed, match="put them back"):
            await broken
    async with open_log(elsewhere, clock) as log:
        assert ids(await log.fetch(EVENTS, NOW)) == "ab"


async def test_an_idle_log_tries_its_disk(log: SqliteLog, clock: FakeClock) -> None:
    """Not at every look, but after some seconds without a commit."""
    await log.tend()
    begun_s = log._disk._committed_s
    await clock.advance(PROBE_S - 1)
    await log.tend()
    assert log._disk._committed_s == begun_s
    await clock.advance(1)
    size = wal_file(log.path).stat().st_size
    await log.tend()
    assert log._disk._committed_s == clock.monotonic_s()
    assert wal_file(log.path).stat().st_size > size, "nothing was written, so nothing was tried"
    assert (await counts_of(log)).accepted == 0


async def test_a_disk_that_dies_just_after_a_commit_stops_the_log(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are there and memory does not know them, so only a start may go on; nothing is lost, nothing twice."""

    def fail(_: Ownership) -> None:
        raise OSError(errno.EIO, "pretended")

    async with open_log(directory, clock) as log:
        broken = asyncio.create_task(log.broken())
        await log.append(events("a", clock))
        with monkeypatch.context() as patched:
            patched.setattr(Ownership, "check_disk", fail)
            with pytest.raises(CommitFailed):
                await log.append(events("b", clock))
        with pytest.raises(StorageFailed, match="takes no more"):
            await broken
    async with open_log(directory, clock) as log:
        assert ids(await log.fetch(EVENTS, NOW)) == "ab"
