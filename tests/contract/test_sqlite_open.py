"""How the log on disk is opened: what is refused, what is never touched, and in which order things happen."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_records import EVENTS, NOW, copied, counts_of, events, executed, ids, mode, modes_in, open_log

from walbatch import ownership
from walbatch.errors import (
    AffectedSqlite,
    ConfigurationError,
    CorruptLog,
    LogLocked,
    SchemaTooNew,
    StorageFailed,
    WalbatchError,
)
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, migrate, recovery
from walbatch.wal.files import DATABASE_FILE, journal_file, wal_file


@pytest.fixture
async def killed(tmp_path: Path, clock: FakeClock) -> Path:
    """The database of a log that was killed after it acknowledged a, b and c, which are in the write-ahead log."""
    async with open_log(tmp_path / "first", clock) as log:
        await log.append(events("abc", clock))
        return copied(log.path, tmp_path / "killed")


async def refusal(directory: Path, clock: FakeClock) -> WalbatchError:
    """Open a log that must be refused; neither the database nor its write-ahead log is changed by it."""
    database = directory / DATABASE_FILE
    before = fingerprint(database)
    with pytest.raises(WalbatchError) as caught:
        await open_log(directory, clock).__aenter__()
    assert fingerprint(database) == before
    assert not ownership.is_owned(directory)
    return caught.value


def fingerprint(database: Path) -> list[str]:
    """Digests of the database and its write-ahead log; nobody has them open."""
    files = [file for file in (database, wal_file(database)) if file.exists() and file.stat().st_size]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def change(database: Path, *statements: str) -> None:
    """Run statements on a database that nobody has open."""
    connection = driver._open(f"{database.as_uri()}?mode=rwc")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def page_of(database: Path, table: str) -> int:
    """The number of the page at which a table begins."""
    connection = driver.open_reader(database)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    return int(page)


def overwrite(database: Path, page: int) -> None:
    """Spoil a page of a database that nobody has open."""
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


async def test_every_setting_took_effect(directory: Path, clock: FakeClock) -> None:
    """What the promise rests on is read back from the connections themselves."""
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "secure_delete": 1,
        "auto_vacuum": 2,
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "journal_size_limit": 64 * 1024 * 1024,
        "application_id": migrate.APPLICATION_ID,
        "user_version": 5,
    }
    async with open_log(directory, clock) as log:
        for name, value in wanted.items():
            assert (await executed(log, f"PRAGMA {name}")) == [(value,)], name
        for reader in (log._reader, log._questions):
            assert await reader.run(lambda c: c.execute("PRAGMA query_only").fetchone()) == (1,)
            with pytest.raises(driver.Error, match="readonly"):
                await reader.run(lambda c: c.execute("DELETE FROM events"))


@pytest.mark.parametrize("setting", [{"synchronous": 9}, {"journal_mode": "nonsense"}])
async def test_a_setting_that_does_not_take_effect_is_fatal(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, setting: dict[str, int | str]
) -> None:
    """Rather than promise what it cannot keep, the log does not open."""
    monkeypatch.setattr(driver, "_WRITER_PRAGMAS", driver._WRITER_PRAGMAS | setting)
    with pytest.raises(StorageFailed, match=next(iter(setting))):
        await open_log(directory, clock).__aenter__()


AFFECTED = "3.7.0 3.8.11.1 3.40.1 3.44.5 3.45.1 3.46.1 3.50.4 3.50.6 3.51.0 3.51.2 3.52.0".split()
FIXED = "3.44.6 3.44.7 3.50.7 3.50.8 3.51.3 3.51.10 3.53.0 3.53.4 3.54.1 4.0.0".split()


@pytest.mark.parametrize(
    ("version", "affected"), [(v, True) for v in AFFECTED] + [(v, False) for v in FIXED], ids=AFFECTED + FIXED
)
def test_which_versions_can_lose_rows(version: str, affected: bool) -> None:  # noqa: FBT001
    """The WAL-reset bug is in 3.7.0 to 3.51.2 but for two backports; 3.52.0 was withdrawn."""
    assert driver.is_affected(version) is affected


async def test_an_affected_sqlite_is_refused(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the version and the two ways out; nothing is made on the disk. Asked for, it is allowed."""
    monkeypatch.setattr(driver, "SQLITE_VERSION", "3.46.1")
    with pytest.raises(AffectedSqlite, match=r"3\.46\.1.*pysqlite3.*WALBATCH_ALLOW_AFFECTED_SQLITE") as caught:
        async with open_log(directory, clock, allow_affected_sqlite=False):
            pass
    assert caught.value.exit_code == 78
    assert "data" not in modes_in(directory.parent)
    async with open_log(directory, clock, allow_affected_sqlite=True):
        pass


async def test_one_process_at_a_time(directory: Path, clock: FakeClock) -> None:
    """A second opener is told who has the directory; after the first has closed it is free."""
    assert not ownership.is_owned(directory)
    async with open_log(directory, clock) as log:
        log.ownership.announce(admin="127.0.0.1:9095")
        assert ownership.is_owned(directory)
        assert ownership.owner(directory) == {"pid": os.getpid(), "admin": "127.0.0.1:9095"}
        with pytest.raises(LogLocked, match=f"pid {os.getpid()}") as caught:
            async with open_log(directory, clock):
                pass
        assert caught.value.exit_code == 75
        await log.append(events("a", clock))
    assert not ownership.is_owned(directory)
    async with open_log(directory, clock) as log:
        assert (await counts_of(log)).pending == 1


async def test_the_lock_file_of_a_dead_process_keeps_nobody_out(stopped: Path, clock: FakeClock) -> None:
    """Only the kernel's lock counts, not what the file says."""
    lock = stopped.with_name(ownership.LOCK_FILE)
    for text in ('{"pid": 1}', "", "garbage"):
        lock.write_text(text)
        async with open_log(stopped.parent, clock):
            assert ownership.owner(stopped.parent)["pid"] == os.getpid()


@pytest.mark.parametrize("place", ["a file", "below a file"])
async def test_a_place_that_cannot_be_a_directory_is_the_settings_fault(
    tmp_path: Path, clock: FakeClock, place: str
) -> None:
    """The error is one of ours, and tells what to check."""
    (tmp_path / "file").touch()
    directory = tmp_path / "file" if place == "a file" else tmp_path / "file" / "data"
    with pytest.raises(ConfigurationError, match="WALBATCH_DATA_DIR"):
        async with open_log(directory, clock):
            pass


async def test_a_newer_schema_is_refused_untouched(stopped: Path, clock: FakeClock) -> None:
    """After a downgrade nothing is written; the text says what to run."""
    change(stopped, "PRAGMA user_version = 99")
    refused = await refusal(stopped.parent, clock)
    assert isinstance(refused, SchemaTooNew)
    assert refused.exit_code == 78
    assert "version 99" in str(refused)


FOREIGN: dict[str, list[str]] = {
    "tables": ["CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')"],
    "application": ["PRAGMA application_id = 1234"],
    "version": ["PRAGMA user_version = 1"],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
async def test_a_strangers_database_is_refused_untouched(
    tmp_path: Path, clock: FakeClock, statements: list[str]
) -> None:
    """A database without our mark is never migrated."""
    change(tmp_path / DATABASE_FILE, *statements)
    refused = await refusal(tmp_path, clock)
    assert isinstance(refused, CorruptLog)
    assert refused.exit_code == 65


def write_text(database: Path) -> None:
    """Replace the database by something else."""
    database.write_text("Dear diary, " * 1000)


def cut(database: Path) -> None:
    """Keep the first one and a half pages."""
    os.truncate(database, 6144)


def spoil_header(database: Path) -> None:
    """Change a byte of the first line."""
    with database.open("r+b") as file:
        file.write(b"sqlite")


@pytest.mark.parametrize("damage", [write_text, cut, spoil_header])
async def test_a_file_that_is_no_database_is_refused_untouched(
    stopped: Path, clock: FakeClock, damage: Callable[[Path], None]
) -> None:
    """The damaged file stays as it is, for a person to recover."""
    damage(stopped)
    refused = await refusal(stopped.parent, clock)
    assert isinstance(refused, CorruptLog)
    assert "recover" in str(refused)


async def test_damage_is_found_after_an_unclean_stop(stopped: Path, tmp_path: Path, clock: FakeClock) -> None:
    """Before an uncleanly stopped database is served it is checked, page by page."""
    garbled = tmp_path / "killed" / DATABASE_FILE
    async with open_log(stopped.parent, clock) as log:
        await log.append(events("c", clock))
        copied(log.path, garbled.parent)
    page = page_of(stopped, "dead_letters")
    overwrite(garbled, page)
    refused = await refusal(garbled.parent, clock)
    assert isinstance(refused, CorruptLog)


@pytest.mark.parametrize("table", ["cursors", "events"])
async def test_damage_that_is_met_while_opening_is_told_as_damage(stopped: Path, clock: FakeClock, table: str) -> None:
    """A page that cannot be read is a damaged log, with that exit code, although the last stop was clean."""
    overwrite(stopped, page_of(stopped, table))
    with pytest.raises(CorruptLog):
        await open_log(stopped.parent, clock).__aenter__()


@pytest.mark.usefixtures("open_umask")
async def test_files_are_for_their_owner_only(directory: Path, clock: FakeClock) -> None:
    """Whatever the umask, nobody else can read what people did."""
    async with open_log(directory, clock) as log:
        await log.append(events("a", clock))
        modes = modes_in(directory)
    assert mode(directory) == 0o700
    assert modes == dict.fromkeys(
        ["events.db", "events.db-wal", "events.db-shm", "walbatch.lock", "walbatch.reserve"], 0o600
    )


async def test_what_was_acknowledged_before_a_kill_is_there(killed: Path, clock: FakeClock) -> None:
    """The write-ahead log is taken over into the database, and is empty afterwards."""
    assert wal_file(killed).stat().st_size > 0
    async with open_log(killed.parent, clock) as log:
        assert log.sizes()[1] == 0
        assert ids(await log.fetch(EVENTS, NOW)) == "abc"


CUT_OFF = """
import os, sys
from walbatch.wal import driver
connection = driver._open(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the COMMIT
connection.execute("BEGIN")
connection.execute("CREATE TABLE t (x)")
connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50)"
                   " INSERT INTO t SELECT randomblob(4000) FROM n")
os._exit(0)
"""


def cut_off(directory: Path) -> Path:
    """Make a directory whose database was being made when the process was killed, and return the database."""
    database = directory / DATABASE_FILE
    directory.mkdir(mode=0o700)
    change(database, "PRAGMA application_id = 0")  # it has a first page, as after SQLite made it
    subprocess.run([sys.executable, "-c", CUT_OFF, f"{database.as_uri()}?mode=rwc"], check=True)
    assert journal_file(database).stat().st_size > 0
    return database


async def test_a_first_start_that_was_cut_off_is_no_damage(directory: Path, clock: FakeClock) -> None:
    """A kill while the database was being made leaves a rollback journal, which is played back by the next start."""
    database = cut_off(directory)
    async with open_log(directory, clock) as log:
        await log.append(events("abc", clock))
        assert ids(await log.fetch(EVENTS, NOW)) == "abc"
    assert not journal_file(database).exists()


async def test_the_order_of_opening(killed: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log is rewritten before SQLite opens anything, and looked at before it can be written."""
    steps: list[str] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            steps.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module, name in (
        (recovery, "rewrite_wal"),
        (recovery, "_inspect"),
        (driver, "open_inspector"),
        (driver, "open_reader"),
        (driver, "open_writer"),
        (migrate, "schema_version"),
    ):
        watch(module, name)
    async with open_log(killed.parent, clock):
        pass
    before = steps[: steps.index("open_writer")]
    assert before[:4] == ["rewrite_wal", "_inspect", "open_inspector", "schema_version"]
    assert "open_reader" not in before
    assert steps[-2:] == ["open_reader"] * 2
    assert steps.count("rewrite_wal") == 1


@pytest.mark.parametrize("size", [1, 1024 * 1024, 2 * 1024 * 1024 + 17])
def test_rewriting_changes_nothing_and_ends_with_an_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Every byte is written again where it was, then the file is synced."""
    wal = tmp_path / "wal"
    content = os.urandom(size)
    wal.write_bytes(content)
    written: list[tuple[int, int]] = []
    pwrite, fsync = os.pwrite, os.fsync

    def watched_write(descriptor: int, data: bytes, position: int) -> int:
        written.append((position, len(data)))
        return pwrite(descriptor, data, position)

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        written.append((-1, 0))

    monkeypatch.setattr(os, "pwrite", watched_write)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    recovery.rewrite_wal(wal)
    assert wal.read_bytes() == content
    assert written.pop() == (-1, 0)
    assert sum(length for _, length in written) == size
    assert [position for position, _ in written] == list(range(0, size, 1024 * 1024))


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["a symbolic link", "a second name"])
async def test_a_linked_database_is_refused(
    stopped: Path, tmp_path: Path, clock: FakeClock, link: Callable[[Path, Path], None]
) -> None:
    """Under another name SQLite would miss the write-ahead log and the locks of the first."""
    other = tmp_path / "other"
    other.mkdir()
    link(stopped, other / DATABASE_FILE)
    assert isinstance(await refusal(other, clock), ConfigurationError)
