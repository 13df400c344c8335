"""An online copy of the log: one file, from one moment, made while the server goes on.

The copy is read in one transaction, so that no commit of the server makes it begin again, and no commit waits for it.
But as long as a transaction reads, SQLite cannot trim the write-ahead log of the server; so its size is watched, and
the copy is given up before it fills the disk.

The file has its name only when it is complete, checked and fsynced. Until then it is called FILE.partial; what a kill
leaves under that name is used again by the next backup to the same FILE.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from walbatch.errors import CorruptLog, StorageFailed, WalbatchError
from walbatch.ownership import is_owned
from walbatch.stats import read_backlog
from walbatch.units import format_bytes
from walbatch.wal import driver, migrate
from walbatch.wal.copying import partial_of
from walbatch.wal.files import DATABASE_FILE, fsync, journal_file, shm_file, wal_file
from walbatch.wal.reading import reading
from walbatch.wal.recovery import check_files

MAX_WAL_BYTES = 1024**3
"""Size of the server's write-ahead log at which a backup is given up, if not told otherwise."""

STEP_PAGES = 1024
"""Pages copied at a time, 4 MiB: fsynced one by one, so that no fsync of the server has to wait for more than that."""


class BackupFailed(WalbatchError):
    """There is no copy, for a reason that lies outside of the log. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a copy."""

    path: Path
    size: int
    schema_version: int
    records: int
    """Records that are stored, delivered ones included."""
    pending: Mapping[str, int]
    """Records that each destination is still owed; empty if an older walbatch wrote the log."""


Progress = Callable[[int, int], None]
"""Told after each step: the pages that are copied, and all of them."""


def back_up(
    directory: Path,
    target: Path,
    *,
    min_free_bytes: int = 0,
    max_wal_bytes: int = MAX_WAL_BYTES,
    progress: Progress = lambda _done, _all: None,
) -> Contents:
    """Copy the log in `directory` to a file that does not exist yet, and say what is in it.

    `min_free_bytes` is left free if the copy is on the disk of the log, which refuses records when there is less.

    Raises:
        ConfigurationError, SchemaTooNew: there is no log that this version can read.
        BackupFailed: the target will not do, there is too little room, or the write-ahead log grew too large.
        CorruptLog: the log is damaged, so the copy is too; it was removed.
        StorageFailed: a disk refuses.
    """
    _check_target(directory, target)
    if not is_owned(directory):
        check_files(directory / DATABASE_FILE)  # what SQLite passes over in silence; a server has looked at its start
    with reading(directory) as source:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on it is one moment
        _check_room(source, directory, target, min_free_bytes)
        with _partial(target) as (part, descriptor):
            watch = _Watch(wal_file(directory / DATABASE_FILE), max_wal_bytes, descriptor, progress)
            watch.check()
            found = _made(source, part, watch, target)
            os.fsync(descriptor)
            if os.path.lexists(target):
                raise BackupFailed(f"{target} was made by another program meanwhile; it was left as it is")
            part.rename(target)
    fsync(target.parent)
    return found


def _check_target(directory: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise BackupFailed(f"{target} exists; name a file that does not, or remove that one first")
    if not target.parent.is_dir():
        raise BackupFailed(f"{target.parent} is no directory; make it first")
    if target.parent.resolve() == directory.resolve():
        raise BackupFailed(f"{target} is in the data directory itself; keep copies elsewhere, best on another disk")


def _check_room(source: driver.Connection, directory: Path, target: Path, min_free_bytes: int) -> None:
    pages, page_size = (source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    needed = pages * page_size
    same_disk = directory.stat().st_dev == target.parent.stat().st_dev
    disk = os.statvfs(target.parent)
    free = disk.f_bavail * disk.f_frsize
    if same_disk:
        needed += min_free_bytes
    if free < needed:
        kept = f", {format_bytes(min_free_bytes)} of them to be left free for the log on the same disk"
        raise BackupFailed(
            f"{target.parent} has {format_bytes(free)} free, and {format_bytes(needed)} are needed"
            f"{kept if same_disk and min_free_bytes else ''}; make room, or name a file on another disk"
        )


@contextmanager
def _partial(target: Path) -> Iterator[tuple[Path, int]]:
    """Yield the file to copy into, empty, for its owner only, and a descriptor of it. On failure it is removed."""
    part = partial_of(target)
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BackupFailed(f"{part} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupFailed(f"another backup writes {part} at this moment; wait for it") from None
        if not _is_at(part, descriptor):
            raise BackupFailed(f"another backup wrote {part} until a moment ago; try again")
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            _remove_traces(part)
            yield part, descriptor
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            _remove_traces(part)
    except OSError as error:
        raise StorageFailed(f"{part} cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether a path is still that of an open file: whoever had the lock before may have renamed or removed it."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _remove_traces(part: Path) -> None:
    for name in (journal_file, wal_file, shm_file):
        name(part).unlink(missing_ok=True)


class _Watch:
    """What happens between two steps of the copy."""

    def __init__(self, wal: Path, max_wal_bytes: int, descriptor: int, progress: Progress) -> None:
        self._wal = wal
        self._max_wal_bytes = max_wal_bytes
        self._descriptor = descriptor
        self._progress = progress

    def __call__(self, _status: int, remaining: int, pages: int) -> None:
        """Be SQLite's callback."""
        os.fsync(self._descriptor)
        self.check()
        self._progress(pages - remaining, pages)

    def check(self) -> None:
        """Return if the write-ahead log is small enough."""
        size = self._wal.stat().st_size if self._wal.exists() else 0
        if size > self._max_wal_bytes:
            raise BackupFailed(
                f"the write-ahead log of the server has grown to {format_bytes(size)}, and cannot be trimmed while it"
                f" is copied; the limit is {format_bytes(self._max_wal_bytes)} (--max-wal). Nothing is lost, there is"
                " no copy; try again when less comes in, write to a faster disk, or raise the limit"
            )


def _made(source: driver.Connection, part: Path, watch: _Watch, target: Path) -> Contents:
    try:
        _copy(source, part, watch)
        return _examine(part, target)
    except driver.Error as error:
        if driver.is_damage(error):
            raise _damaged(error) from error
        raise StorageFailed(f"{part} cannot be made: {error}") from error
    except (TypeError, ValueError, KeyError) as error:  # rows that walbatch never writes
        raise _damaged(error) from error


def _damaged(finding: object) -> CorruptLog:
    return CorruptLog(f"the log is damaged ({finding}), so there is no copy; see `walbatch doctor`")


def _copy(source: driver.Connection, part: Path, watch: _Watch) -> None:
    with closing(driver.open_copy(part)) as copy:
        source.backup(copy, pages=STEP_PAGES, progress=watch)
        # So that the file stands for itself, and a -wal beside it is known for another database's.
        copy.execute("PRAGMA journal_mode = delete").fetchall()


def _examine(part: Path, target: Path) -> Contents:
    """Check a complete copy as it would be checked at a start, and count what is in it."""
    with closing(driver.open_reader(part)) as copy:
        findings = [row[0] for row in copy.execute("PRAGMA quick_check(5)").fetchall()]
        if findings != ["ok"]:
            raise _damaged(findings[0])
        (mode,) = copy.execute("PRAGMA journal_mode").fetchone()
        if mode != "delete":
            raise StorageFailed(f"{part} is in journal mode {mode}, so it would not stand for itself; it was removed")
        version = migrate.schema_version(copy)
        migrate.check_tables(copy, version)
        known = version == migrate.migrations()[-1][0]
        destinations = read_backlog(copy).destinations if known else ()
        return Contents(
            path=target,
            size=part.stat().st_size,
            schema_version=version,
            records=copy.execute("SELECT count(*) FROM events").fetchone()[0],
            pending={d.name: sum(lane.pending for lane in d.lanes) for d in destinations},
        )
