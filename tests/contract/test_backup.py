"""A copy of the log while it is used: complete, of one moment, in nobody's way, and never half there."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from log_records import NOW, copied, counts_of, deliver, event, events, ids, mode, open_log

from walbatch import backup
from walbatch.backup import BackupFailed, Contents, back_up
from walbatch.errors import ConfigurationError, CorruptLog, StorageFailed
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, recovery
from walbatch.wal.files import DATABASE_FILE, wal_file
from walbatch.wal.sqlite import SqliteLog

PADDING = "x" * 4000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the copy goes."""
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "one.db"


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many steps of a small log."""
    monkeypatch.setattr(backup, "STEP_PAGES", 4)


@pytest.fixture
async def full(log: SqliteLog, clock: FakeClock) -> SqliteLog:
    """A log with 2 delivered and 40 pending events, some tens of pages."""
    await log.append(events("ab", clock))
    await deliver(log)
    await log.append([event(f"e{n}", clock, properties={"p": PADDING}) for n in range(40)])
    return log


async def copy_of(log: SqliteLog, target: Path, **options: Any) -> Contents:
    """Back up an open log, outside of the event loop."""
    return await asyncio.to_thread(lambda: back_up(log.path.parent, target, **options))


def names_in(directory: Path) -> list[str]:
    """What is in a directory."""
    return sorted(file.name for file in directory.iterdir())


def replace(database: Path, copy: Path) -> None:
    """Put a copy where a database is, beside its write-ahead log."""
    database.write_bytes(copy.read_bytes())


def size_of(file: Path) -> int:
    """How large a file is."""
    return file.stat().st_size


def bytes_of(files: Iterable[Path]) -> list[bytes]:
    """What is in files that nobody has open."""
    return [file.read_bytes() for file in files]


def put_back(target: Path, directory: Path) -> Path:
    """Do what docs/backup.md says for a restore."""
    directory.mkdir(mode=0o700)
    database = directory / DATABASE_FILE
    database.write_bytes(target.read_bytes())
    database.chmod(0o600)
    return database


async def test_a_copy_is_the_whole_log(full: SqliteLog, target: Path, tmp_path: Path, clock: FakeClock) -> None:
    """Opened as a log it has every record and every position; the file stands for itself, for its owner only."""
    contents = await copy_of(full, target)
    assert contents == Contents(target, size_of(target), contents.schema_version, 42, {"there": 40})
    assert names_in(target.parent) == [target.name]
    assert mode(target) == 0o600
    async with open_log(put_back(target, tmp_path / "restored").parent, clock) as restored:
        counts = await counts_of(restored)
        assert (counts.accepted, counts.sent, counts.pending) == (42, 2, 40)


@pytest.mark.usefixtures("small_steps")
async def test_appends_go_on_while_a_copy_is_made_of_one_moment(
    full: SqliteLog, target: Path, tmp_path: Path, clock: FakeClock
) -> None:
    """A commit between any two steps is answered, does not make the copy begin again, and is not in it."""
    loop = asyncio.get_running_loop()
    steps: list[int] = []

    def between(done: int, _pages: int) -> None:
        steps.append(done)
        append = full.append([event(f"later-{done}", clock, properties={"p": PADDING})])
        asyncio.run_coroutine_threadsafe(append, loop).result(timeout=10)

    contents = await copy_of(full, target, progress=between)
    assert len(steps) > 5
    assert steps == sorted(set(steps))
    assert contents.records == 42
    assert (await counts_of(full)).accepted == 42 + len(steps)
    async with open_log(put_back(target, tmp_path / "restored").parent, clock) as restored:
        assert (await counts_of(restored)).accepted == 42


async def test_what_is_in_the_write_ahead_log_only_is_copied(
    log: SqliteLog, target: Path, tmp_path: Path, clock: FakeClock
) -> None:
    """Of a log that was killed and is not served everything acknowledged is in the copy."""
    await log.append(events("abc", clock))
    killed = copied(log.path, tmp_path / "killed")
    assert back_up(killed.parent, target).records == 3
    async with open_log(put_back(target, tmp_path / "restored").parent, clock) as restored:
        assert ids(await deliver(restored)) == "abc"


@pytest.mark.usefixtures("small_steps")
async def test_a_write_ahead_log_that_grows_ends_the_copy(full: SqliteLog, target: Path, clock: FakeClock) -> None:
    """Rather than fill the server's disk the copy is given up, and leaves nothing behind."""
    loop = asyncio.get_running_loop()
    limit = full.sizes()[1] + 20_000

    def between(done: int, _pages: int) -> None:
        append = full.append([event(f"later-{done}", clock, properties={"p": PADDING})])
        asyncio.run_coroutine_threadsafe(append, loop).result(timeout=10)

    with pytest.raises(BackupFailed, match=r"has grown to .*--max-wal") as caught:
        await copy_of(full, target, progress=between, max_wal_bytes=limit)
    assert caught.value.exit_code == 1
    assert not names_in(target.parent)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_of_a_copy_that_breaks_off(stopped: Path, target: Path, error: BaseException) -> None:
    """After Ctrl-C or a full disk there is neither FILE nor FILE.partial."""

    def fail(_done: int, _pages: int) -> None:
        assert "one.db.partial" in names_in(target.parent)
        raise error

    with pytest.raises(StorageFailed if isinstance(error, OSError) else KeyboardInterrupt):
        back_up(stopped.parent, target, progress=fail)
    assert not names_in(target.parent)


def test_too_little_room_is_told_before_anything_is_written(
    stopped: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text says how much is needed, with what stays free for the log on the same disk."""
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    needed = stopped.stat().st_size // 1024
    with pytest.raises(BackupFailed, match=f"has 4KiB free, and {needed}KiB are needed;"):
        back_up(stopped.parent, target)
    with pytest.raises(BackupFailed, match=f"and {needed + 64}KiB are needed, 64KiB of them to be left free"):
        back_up(stopped.parent, target, min_free_bytes=64 * 1024)
    assert not names_in(target.parent)


def test_a_file_that_exists_is_never_replaced(stopped: Path, target: Path) -> None:
    """Neither a file nor a link that leads nowhere; nor one that appears while the copy is made."""
    target.write_text("mine")
    with pytest.raises(BackupFailed, match="exists"):
        back_up(stopped.parent, target)
    assert target.read_text() == "mine"
    link = target.with_name("link")
    link.symlink_to("nowhere")
    with pytest.raises(BackupFailed, match="exists"):
        back_up(stopped.parent, link)
    late = target.with_name("late.db")

    def make(_done: int, _pages: int) -> None:
        late.write_text("theirs")

    with pytest.raises(BackupFailed, match="made by another program"):
        back_up(stopped.parent, late, progress=make)
    assert late.read_text() == "theirs"


def test_places_that_are_no_place_for_a_copy(stopped: Path, target: Path, tmp_path: Path) -> None:
    """The data directory itself, a directory that is not there, a file that another backup writes, no log."""
    with pytest.raises(BackupFailed, match="in the data directory"):
        back_up(stopped.parent, stopped.with_name("copy.db"))
    with pytest.raises(BackupFailed, match="is no directory"):
        back_up(stopped.parent, tmp_path / "nowhere" / "copy.db")
    with pytest.raises(ConfigurationError, match="no log"):
        back_up(tmp_path / "nowhere", target)
    part = target.with_name("one.db.partial")
    with part.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BackupFailed, match="another backup"):
            back_up(stopped.parent, target)
    assert part.exists()


def test_a_file_that_another_backup_has_just_completed_is_not_written_again(
    stopped: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening FILE.partial and having its lock, the backup before may have given it its name."""
    part, taken = target.with_name("one.db.partial"), fcntl.flock
    part.write_text("the copy of the backup before")

    def rename_first(descriptor: int, operation: int) -> None:
        if os.path.samestat(os.fstat(descriptor), part.stat()):
            part.rename(target)
        taken(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", rename_first)
    with pytest.raises(BackupFailed, match="try again"):
        back_up(stopped.parent, target)
    assert target.read_text() == "the copy of the backup before"


def test_what_a_killed_backup_left_is_used_again(stopped: Path, target: Path) -> None:
    """An old FILE.partial, of any content and mode, keeps nobody from the next backup to the same FILE."""
    part = target.with_name("one.db.partial")
    part.write_text("half of a copy" * 1000)
    part.chmod(0o644)
    part.with_name("one.db.partial-journal").write_text("rest")
    assert back_up(stopped.parent, target).records == 2
    assert names_in(target.parent) == [target.name]
    assert mode(target) == 0o600


def test_a_damaged_log_has_no_copy(stopped: Path, target: Path) -> None:
    """Damage that the copy would inherit is told as damage, with its exit code."""
    with stopped.open("r+b") as file:
        file.seek(4096 * 3 + 8)
        file.write(b"\xa5" * 200)
    with pytest.raises(CorruptLog, match="walbatch doctor") as caught:
        back_up(stopped.parent, target)
    assert caught.value.exit_code == 65
    assert not names_in(target.parent)


def test_a_copy_that_does_not_stand_for_itself_is_refused(
    stopped: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the check would see a copy that still needs a write-ahead log."""

    def copy(source: driver.Connection, part: Path, watch: Callable[[int, int, int], None]) -> None:
        with closing(driver.open_copy(part)) as connection:
            source.backup(connection, pages=100, progress=watch)

    monkeypatch.setattr(backup, "_copy", copy)
    with pytest.raises(StorageFailed, match="journal mode wal"):
        back_up(stopped.parent, target)
    assert not names_in(target.parent)


async def test_a_copy_beside_another_databases_write_ahead_log_is_refused(
    log: SqliteLog, target: Path, tmp_path: Path, clock: FakeClock
) -> None:
    """SQLite would apply the pages of a newer -wal to an old copy; the start refuses that and changes nothing."""
    await log.append(events("abcdefgh", clock))
    await copy_of(log, target)
    for name in "ijklmnop":
        await log.append([event(name, clock, properties={"p": PADDING})])
        await deliver(log)
    used = copied(log.path, tmp_path / "used")
    replace(used, target)
    before = bytes_of([used, wal_file(used)])
    with pytest.raises(CorruptLog, match=r"belongs to another database.*empty directory") as caught:
        await open_log(used.parent, clock).__aenter__()
    assert caught.value.exit_code == 65
    assert bytes_of([used, wal_file(used)]) == before
    # What would happen without: the copy, which ends with h, is not what is served any more.
    with recovery.inspecting(used) as connection:
        assert connection.execute("SELECT max(seq) FROM events").fetchone() != (8,)
    wal_file(used).unlink()
    async with open_log(used.parent, clock) as restored:
        assert ids(await restored.fetch(next(iter(restored._lanes)), NOW)) == "abcdefgh"
