"""From one schema to the next: a copy first, then each step as one transaction."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from log_records import EVENTS, NOW, copied, executed, ids, mode, modes_in, open_log
from version_1 import make_version_1

from walbatch.errors import SchemaTooNew, StorageFailed
from walbatch.event import Kind
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, copying, driver, migrate

NEXT = (6, "ALTER TABLE events ADD COLUMN extra TEXT;")


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """A way to add a migration to those that the program knows."""
    known = migrate.migrations()

    def add(number: int, sql: str) -> None:
        monkeypatch.setattr(migrate, "migrations", lambda: [*known, (number, sql)])

    return add


@pytest.mark.usefixtures("open_umask")
async def test_a_copy_is_made_before_an_upgrade(
    stopped: Path, clock: FakeClock, upgrade: Callable[[int, str], None]
) -> None:
    """The old database stays beside the new one, whole, for its owner only; the log goes on with the new one."""
    upgrade(*NEXT)
    async with open_log(stopped.parent, clock) as log:
        assert (await executed(log, "PRAGMA user_version")) == [(6,)]
        assert ids(await log.fetch(EVENTS, NOW)) == "b"
    copy = stopped.with_name("events.db.before-v6")
    connection = driver.open_reader(copy)
    assert connection.execute("PRAGMA user_version").fetchone() == (5,)
    assert connection.execute("SELECT group_concat(event_id, '') FROM events").fetchone() == ("ab",)
    connection.close()
    assert mode(copy) == 0o600


async def test_a_new_database_needs_no_copy(directory: Path, clock: FakeClock) -> None:
    """Before the first migration there is nothing to keep; opening again migrates nothing."""
    for _ in range(2):
        async with open_log(directory, clock):
            pass
    assert modes_in(directory).keys() == {"events.db", "walbatch.lock", "walbatch.reserve"}


async def test_a_migration_that_fails_leaves_the_old_schema(
    stopped: Path, clock: FakeClock, upgrade: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is one transaction with its number: afterwards the former program goes on as before."""
    upgrade(6, "CREATE TABLE half (done); SELECT no_such_function();")
    with pytest.raises(StorageFailed, match="no_such_function"):
        await open_log(stopped.parent, clock).__aenter__()
    monkeypatch.undo()
    async with open_log(stopped.parent, clock) as log:
        assert not (await executed(log, "SELECT * FROM sqlite_schema WHERE name = 'half'"))
        assert ids(await log.fetch(EVENTS, NOW)) == "b"


def digests(directory: Path) -> dict[str, str]:
    """What is in each file of a log that nobody has open, but for the lock, which says who looked last."""
    files = [file for file in directory.iterdir() if file.name != "walbatch.lock"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


async def test_without_room_for_the_copy_nothing_is_changed(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update is refused with the exit code of a disk, and says how much is needed; with room it is made."""
    make_version_1(directory)
    before = digests(directory)
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096))
        with pytest.raises(
            StorageFailed, match=r"4KiB are free .* copy of the \d+KiB .* Nothing was changed"
        ) as caught:
            await open_log(directory, clock, "there").__aenter__()
    assert caught.value.exit_code == 74
    assert digests(directory) == before
    async with open_log(directory, clock, "there"):
        pass


@pytest.mark.parametrize("left", ["events.db.before-v5", "events.db.before-v5.partial"])
async def test_what_a_killed_update_left_counts_as_room(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """On a disk with room for one copy the next start goes on, whether the copy was whole or not."""
    make_version_1(directory)
    shutil.copyfile(directory / "events.db", directory / left)
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    async with open_log(directory, clock, "there") as log:
        assert (await executed(log, "PRAGMA user_version")) == [(5,)]
    assert migrate.version_in(directory / "events.db.before-v5") == 1
    assert not (directory / "events.db.before-v5.partial").exists()


async def test_a_copy_that_fails_half_way_is_removed(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has its name only when it is whole, and on the disk."""

    def fail(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    make_version_1(directory)
    monkeypatch.setattr(copying, "fsync", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        await open_log(directory, clock, "there").__aenter__()
    assert set(modes_in(directory)) == {"events.db", "walbatch.lock"}


async def test_an_older_program_leaves_every_file_as_it_was(
    stopped: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 78 before anything is written, also beside a write-ahead log of the newer program."""
    async with open_log(stopped.parent, clock) as log:
        await executed(log, "PRAGMA user_version = 99")
        newer = copied(log.path, stopped.parent.parent / "newer")
    for directory in (stopped.parent, newer.parent):
        before = digests(directory)
        with pytest.raises(SchemaTooNew, match="version 99") as caught:
            await open_log(directory, clock).__aenter__()
        assert caught.value.exit_code == 78
        assert digests(directory) == before


async def test_a_log_of_the_first_version_goes_on_with_all_its_counts(directory: Path, clock: FakeClock) -> None:
    """The counts of each destination, its condition and its dead letters are those of before; groups are added."""
    make_version_1(directory)
    async with open_log(directory, clock, "there", "elsewhere", "third") as log:
        backlog = await log.backlog()
        assert (await log.fetch(EVENTS, NOW)).offsets == [4]
        assert (await log.fetch(Lane("elsewhere", Kind.EVENT), NOW)).offsets == [1, 3, 4]
        assert (await log.fetch(Lane("elsewhere", Kind.PROFILE), NOW)).offsets == [2]
    counts = {
        (d.name, lane.name): (lane.accepted, lane.pending, lane.sent, lane.dead)
        for d in backlog.destinations
        for lane in d.lanes
    }
    assert counts == {
        ("elsewhere", "events"): (3, 3, 0, 0),
        ("elsewhere", "profiles"): (1, 1, 0, 0),
        ("elsewhere", "groups"): (0, 0, 0, 0),
        ("there", "events"): (3, 1, 1, 1),
        ("there", "profiles"): (1, 1, 0, 0),
        ("there", "groups"): (0, 0, 0, 0),
        ("third", "events"): (0, 0, 0, 0),
        ("third", "profiles"): (0, 0, 0, 0),
        ("third", "groups"): (0, 0, 0, 0),
    }
    conditions = {destination.name: destination.condition.failures for destination in backlog.destinations}
    assert conditions == {"there": 7, "elsewhere": 0, "third": 0}
    assert {(d.condition.since_ms, d.paused_at_ms) for d in backlog.destinations} == {(None, None)}
