"""What happens to the files before the log is opened: the order matters, and is tested.

1. the database is made, readable by its owner only         SQLite gives -wal and -shm the same mode
2. a -wal beside a copy from `walbatch backup` is refused   it is another database's, and SQLite would apply it
3. the bytes of -wal are written again, in place, fsynced   see `rewrite_wal`
4. a read-only look: ours? not newer? sound? any room?     so that a refusal changes nothing, not even -shm
5. a -wal that SQLite ignores is emptied                   see `_empty`
6. only then the writer opens it, migrates, and checkpoints

What the look finds, and what it cannot find, is told in docs/backup.md. A rollback journal can be there as well, if a
kill came while SQLite turned a new database, or a copy, into one with a write-ahead log. It concerns page 1 alone, so
the look does without it, and the writer undoes what was not finished.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from walbatch.errors import ConfigurationError, CorruptLog, FatalError, StorageFailed
from walbatch.wal import driver, frames, guard, migrate
from walbatch.wal.files import fsync, journal_file, shm_file, wal_file

CHECK_MAX_BYTES = 256 * 1024**2
"""A database up to this size is checked at every start, a larger one only after an unclean stop.

Measured with events of 330 bytes on 2 shared cores, with nothing of the file in memory / all of it: 64 MiB 0.4 /
0.06 s, 256 MiB 0.8 / 0.3 s, 1 GiB 3.4 / 1.6 s. Without `_read_through` the former were 1.6, 5.4 and 20 s.
"""

CHECK_AFTER_CRASH_MAX_BYTES = 1024**3
"""After an unclean stop a database up to this size is checked; a larger one would take too long."""

CHECK_WAL_MAX_BYTES = 64 * 1024**2
"""A write-ahead log up to this size is searched for damage, which takes about 30 ms for each MiB."""

_CHUNK = 1024 * 1024
_ROLLBACK_MODE = 1
"""What stands in byte 18 of a database that has no write-ahead log. Ours have one from their first moment."""


def prepare(database: Path) -> None:
    """Do steps 1 to 5. The caller owns the directory, and no connection is open.

    Raises:
        CorruptLog: not a database of ours, or a damaged one. Restore a copy, or move it away to start anew.
        SchemaTooNew: run the newer walbatch.
        ConfigurationError: it is a link.
        StorageFailed: the schema must be updated, and there is no room for the copy that is made before.
    """
    if database.is_symlink() or (database.exists() and database.stat().st_nlink > 1):
        # SQLite names -wal and its locks after the path: under a second name they would not be found.
        raise ConfigurationError(f"{database} is a link; put the data directory itself where it should be")
    guard.adopt(database)
    if not database.exists():
        os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    wal = wal_file(database)
    unclean = wal.exists() and wal.stat().st_size > 0
    if unclean:
        refuse_foreign_wal(database)
        rewrite_wal(wal)
    fsync(database.parent)
    if (database.stat().st_size and not _never_was(database)) or unclean:
        _inspect(database, unclean=unclean)
    # The look itself has removed a -wal that was beside an empty database.
    if unclean and wal.exists() and not frames.is_readable(wal):
        _empty(wal)


def _never_was(database: Path) -> bool:
    """Say whether a power cut came while the first page was written: the journal, by which SQLite undoes it, says so.

    The page may be there in part, and a look at it would take that for damage.
    """
    journal = journal_file(database)
    if not journal.exists():
        return False
    with journal.open("rb") as file:
        head = file.read(_JOURNAL_HEAD_BYTES)
    return len(head) == _JOURNAL_HEAD_BYTES and head.startswith(_JOURNAL_MAGIC) and not any(head[16:20])


_JOURNAL_HEAD_BYTES = 28
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def check_files(database: Path) -> None:
    """Return if SQLite passes over nothing in silence when it opens a log that nobody has open; changes nothing.

    Raises:
        CorruptLog: the -wal is damaged, or belongs to another database.
    """
    if wal_file(database).exists() and wal_file(database).stat().st_size:
        refuse_foreign_wal(database)
        _check_wal(database)


def _check_wal(database: Path) -> None:
    wal = wal_file(database)
    if wal.exists() and 0 < wal.stat().st_size <= CHECK_WAL_MAX_BYTES:
        lost = frames.damage(wal, database)
        if lost is not None:
            raise damaged(database, lost)


def refuse_foreign_wal(database: Path) -> None:
    """Refuse a write-ahead log beside a database that never had one: a copy that was put into a used directory.

    SQLite would apply it, page by page, to a database that it does not belong to.

    Raises:
        CorruptLog: it is so.
    """
    head = _head(database)
    if len(head) == _HEAD_BYTES and head[18] == _ROLLBACK_MODE:
        raise CorruptLog(
            f"{wal_file(database)} belongs to another database than {database}, which is a copy from `walbatch backup`."
            " Nothing was changed. Restore into an empty directory, as docs/backup.md says"
        )


_HEAD_BYTES = 100


def _head(database: Path) -> bytes:
    with database.open("rb") as file:
        return file.read(_HEAD_BYTES)


def rewrite_wal(wal: Path) -> None:
    """Write the file's bytes to itself and fsync.

    After a failed fsync Linux marks the pages clean although the disk does not have them (USENIX ATC 2020, "Can
    Applications Recover from fsync Failures?"). A new process reads them from memory and appends behind the hole, and
    a power cut then loses what was acknowledged. Simulated: lost in 528 of 888 crash images without this, in none of
    1,896 with it. A checkpoint alone would not do: it corrupted 768.
    """
    descriptor = os.open(wal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        position = 0
        while chunk := os.pread(descriptor, _CHUNK, position):
            position += os.pwrite(descriptor, chunk, position)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _empty(wal: Path) -> None:
    """Empty a write-ahead log that SQLite ignores because its header was cut short, and that has nothing new.

    SQLite begins it anew with the salts of that header all the same, so that what is left of the old frames looks like
    a part of the new log. A second kill, before the first new frame, left a sound log that was taken for a damaged one.
    """
    descriptor = os.open(wal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inspect(database: Path, *, unclean: bool) -> None:
    limit = CHECK_AFTER_CRASH_MAX_BYTES if unclean else CHECK_MAX_BYTES
    _check_wal(database)
    checked = database.stat().st_size <= limit
    if checked:
        _read_through(database)
    try:
        try:
            with inspecting(database) as connection:
                _look(database, connection, checked=checked)
        except driver.Error as error:
            if driver.is_damage(error):
                raise
            # SQLite can look without touching -shm in most cases only, and a sound log must never be refused.
            with closing(driver.open_reader(database)) as connection:
                _look(database, connection, checked=checked)
    except (driver.Error, UnicodeDecodeError) as error:  # the latter if SQLite's message quotes a bad byte
        raise damaged(database, error) from error


def _look(database: Path, connection: driver.Connection, *, checked: bool) -> None:
    version = migrate.schema_version(connection)
    if checked:
        findings = [row[0] for row in connection.execute("PRAGMA quick_check(5)").fetchall()]
        if findings != ["ok"]:
            raise damaged(database, findings[0])
    migrate.check_tables(connection, version)
    migrate.check_room(connection, database)


@contextmanager
def inspecting(database: Path) -> Iterator[driver.Connection]:
    """Yield a connection that leaves every file as it was. The caller owns the directory."""
    shm = shm_file(database)
    with_wal = frames.is_readable(wal_file(database))
    missing = with_wal and not shm.exists()
    if missing:
        os.close(os.open(shm, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        connection = driver.open_inspector(database, with_wal=with_wal)
        try:
            yield connection
        finally:
            connection.close()
    finally:
        if missing:
            shm.unlink()


def _read_through(database: Path) -> None:
    """Have the system read the file in order: SQLite would ask for its pages one at a time."""
    buffer = bytearray(_CHUNK)
    with database.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def broken(database: Path, error: sqlite3.Error) -> FatalError:
    """Return the error for what SQLite raised about a database."""
    if driver.is_damage(error):
        return damaged(database, error)
    return StorageFailed(f"{database} cannot be used: {error}")


def damaged(database: Path, finding: object) -> CorruptLog:
    """Return the error for a damaged database, with what to do."""
    return CorruptLog(f"{database} is damaged ({finding}). {_ADVICE}")


_ADVICE = (
    "Keep a copy of the whole directory, look with `walbatch doctor`; then restore a backup, or"
    " recover what can be read with `sqlite3 events.db .dump`, or move the directory away to start anew;"
    " docs/backup.md has the steps"
)
