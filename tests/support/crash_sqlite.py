"""SQLite on a disk in memory: a VFS for apsw, and a connection as `walbatch.wal.driver` expects it.

Every byte and every sync goes to a `crash_disk.Disk`. Locks and the -shm file, which no power cut survives, are those
of SQLite's own `unix-excl`, which keeps them in memory; for that it wants a real file, which is empty and stays so.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
from crash_disk import Disk, File, Truncate, Write

from walbatch.wal import driver

_NAME = "crash-disk"
_BASE = "unix-excl"
_NEW_NAMES = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
"""Files after whose first sync SQLite's own VFS syncs the folder."""


class Disks(apsw.VFS):
    """The VFS. A disk is mounted under a number: the database of disk 7 is `/7/events.db`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_NAME, _BASE)
        self._folder = folder
        self._disks: dict[str, Disk] = {}
        self._numbers = itertools.count(1)

    def mount(self, disk: Disk) -> str:
        """Return the path below which the disk is."""
        number = str(next(self._numbers))
        self._disks[number] = disk
        return f"/{number}"

    def unmount(self, path: str) -> None:
        """Forget a disk; its connections are closed."""
        del self._disks[path[1:]]
        for file in self._folder.glob(f"{path[1:]}-*"):
            file.unlink()

    def find(self, path: str) -> tuple[Disk, str]:
        """Return the disk of a path, and the name of the file on it."""
        _, number, name = path.split("/")
        return self._disks[number], name

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        """Return the path as it is."""
        return name

    def xAccess(self, pathname: str, _flags: int) -> bool:  # noqa: N802
        """Say whether a file is there, and not empty, as SQLite's own VFS does."""
        disk, name = self.find(pathname)
        return name in disk.files and bool(disk.files[name].cache)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        """Remove a file."""
        disk, name = self.find(filename)
        if name not in disk.files:
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE_NOENT)
        disk.remove(name)
        if syncdir:
            disk.sync_folder()

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:  # noqa: N802
        """Open a file; one without a name is for sorting, and is on no disk."""
        flags[1] = flags[0]
        if name is None:
            return _Opened(Disk(random.Random(0)), "", File())
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        disk, short = self.find(path)
        if short not in disk.files and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
        file = disk.create(short)
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Opened(disk, short, file, sync_folder=bool(flags[0] & _NEW_NAMES))
        locks = self._folder / path[1:].replace("/", "-")
        locks.touch()
        return _Database(disk, short, file, locks, flags[0])


class _Opened:
    """An open file that is not locked: the log, a journal."""

    def __init__(self, disk: Disk, name: str, file: File, *, sync_folder: bool = False) -> None:
        self._disk = disk
        self._name = name
        self._file = file
        self._sync_folder = sync_folder

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._file.cache[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._change(Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._change(Truncate(newsize))

    def _change(self, change: Write | Truncate) -> None:
        with _errors(apsw.SQLITE_IOERR_WRITE):
            self._disk.write(self._name, self._file, change)

    def xSync(self, _flags: int) -> None:  # noqa: N802
        with _errors(apsw.SQLITE_IOERR_FSYNC):
            self._disk.sync(self._name, self._file)
        if self._sync_folder:
            self._disk.sync_folder()
            self._sync_folder = False

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._file.cache)

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | apsw.SQLITE_IOCAP_SUBPAGE_READ

    def xFileControl(self, _op: int, _ptr: int) -> bool:  # noqa: N802
        return False

    def xClose(self) -> None:  # noqa: N802
        pass


class _Database(_Opened, apsw.VFSFile):
    """An open database: the bytes are the disk's, the locks and the shared memory those of an empty file."""

    def __init__(self, disk: Disk, name: str, file: File, locks: Path, flags: int) -> None:
        _Opened.__init__(self, disk, name, file)
        apsw.VFSFile.__init__(self, _BASE, str(locks), [flags, 0])

    def xLock(self, level: int) -> None:  # noqa: N802
        try:
            apsw.VFSFile.xLock(self, level)
        except apsw.IOError:  # a reader may not lock for writing; apsw tells of every error but this one
            raise apsw.exception_for(apsw.SQLITE_BUSY) from None

    def xClose(self) -> None:  # noqa: N802
        apsw.VFSFile.xClose(self)


@contextlib.contextmanager
def _errors(otherwise: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise apsw.exception_for(apsw.SQLITE_FULL if error.errno == errno.ENOSPC else otherwise) from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        told = driver.Error(str(error))
        told.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_MISUSE)
        raise told from error


class Cursor:
    """A result, as far as walbatch uses one."""

    def __init__(self, raw: apsw.Cursor, lastrowid: int, rowcount: int) -> None:
        self._raw = raw
        self.lastrowid = lastrowid
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None."""
        with _translated():
            return self._raw.fetchone()

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        with _translated():
            return self._raw.fetchall()

    def close(self) -> None:
        """Let go of a result that was not read to its end."""
        with _translated():
            self._raw.close()


class Connection:
    """A connection of apsw in the shape of one of `sqlite3`, as far as walbatch uses that."""

    def __init__(self, raw: apsw.Connection) -> None:
        self.raw = raw
        self.committing: Callable[[Connection], None] = lambda _connection: None
        """Called before each COMMIT, inside of its transaction."""
        self.committed: Callable[[], None] = lambda: None
        """Called after each COMMIT that returned."""
        self._commits = False
        raw.exec_trace = self._before

    @property
    def in_transaction(self) -> bool:
        """Say whether a transaction is open."""
        return self.raw.in_transaction

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        """Run one statement. A change outside of a transaction gets one of its own, as SQLite would do unseen."""
        if sql.startswith(("INSERT", "UPDATE", "DELETE")) and not self.in_transaction:
            self.execute("BEGIN")
            cursor = self.execute(sql, values)
            self.execute("COMMIT")
            return cursor
        with _translated():
            raw = self.raw.execute(sql, values)
        self._after()
        return Cursor(raw, self.raw.last_insert_rowid(), self.raw.changes())

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""
        with _translated():
            self.raw.executemany(sql, rows)

    def executescript(self, script: str) -> None:
        """Run statements without values."""
        with _translated():
            self.raw.execute(script).fetchall()
        self._after()

    def close(self) -> None:
        """Close; the last connection of a database brings its log into it."""
        with _translated():
            self.raw.close()

    def kill(self) -> None:
        """Close as the end of the process does: nothing is written."""
        with contextlib.suppress(apsw.ConnectionClosedError):
            self.raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self.raw.close(True)

    def _before(self, _cursor: apsw.Cursor, sql: str, _values: Any) -> bool:
        if sql.lstrip().startswith("COMMIT"):
            self.committing(self)
            self._commits = True
        return True

    def _after(self) -> None:
        if self._commits and not self.in_transaction:
            self.committed()
        self._commits = False


class Dbapi:
    """What `walbatch.wal.driver` takes for its `sqlite3`."""

    Error = driver.Error
    OperationalError = vars(driver)["sqlite3"].OperationalError

    def __init__(self, disks: Disks) -> None:
        self.opened: Callable[[Connection], None] = lambda _connection: None
        self._disks = disks

    def connect(self, name: str, **_settings: Any) -> sqlite3.Connection:
        """Open a database on a mounted disk, or one in memory."""
        if name.startswith("file::memory:") or "immutable=1" in name:
            return self._in_memory(name)
        with _translated():
            flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
            connection = Connection(apsw.Connection(name, flags=flags, vfs=_NAME))
        self.opened(connection)
        return connection  # type: ignore[return-value]

    def _in_memory(self, name: str) -> sqlite3.Connection:
        """Open nothing, or what a file has at this moment, without its log and its journal."""
        raw = apsw.Connection(":memory:")
        if "immutable=1" in name:
            disk, short = self._disks.find(name.removeprefix("file://").partition("?")[0])
            content = bytearray(disk.files[short].cache)
            content[18:20] = b"\1\1" if content else b""  # there is no log in memory
            with _translated():
                raw.deserialize("main", bytes(content))
        return Connection(raw)  # type: ignore[return-value]
