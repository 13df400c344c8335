"""walbatch on a disk in memory: the program's own recovery, migration, planning and SQL, without its threads.

What `SqliteLog` runs in the writer's thread runs here at once, in the order of `SqliteLog.__aenter__`. Only what the
operating system gives is replaced, by `simulated`: `os` and `sqlite3` in the three modules that use them.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from crash_disk import Disk, File, Truncate, Write
from crash_sqlite import Connection, Dbapi, Disks

from walbatch.batching import BatchPolicy
from walbatch.errors import Unavailable
from walbatch.routing import Router
from walbatch.testing.clock import FakeClock
from walbatch.wal import Batch, Lane, copying, driver, files, migrate, recovery
from walbatch.wal.disk import Disk as KnownDisk
from walbatch.wal.fetching import Fetching
from walbatch.wal.files import DATABASE_FILE
from walbatch.wal.sqlite import SqliteLog
from walbatch.wal.transaction import Answer
from walbatch.wal.transaction import Write as LogWrite

T = TypeVar("T")


class DiskPath:
    """A path on a disk in memory, as far as walbatch uses one. The empty name is the folder itself."""

    def __init__(self, disk: Disk, mount: str, name: str = "") -> None:
        self.disk = disk
        self.name = name
        self._mount = mount

    def __truediv__(self, name: str) -> DiskPath:
        return DiskPath(self.disk, self._mount, name)

    with_name = __truediv__

    def __str__(self) -> str:
        return f"{self._mount}/{self.name}"

    @property
    def parent(self) -> DiskPath:
        """Return the folder."""
        return DiskPath(self.disk, self._mount)

    def absolute(self) -> DiskPath:
        """Return itself: every one is absolute."""
        return self

    def as_uri(self) -> str:
        """Return what SQLite is told."""
        return f"file://{self}"

    def exists(self) -> bool:
        """Say whether there is such a file."""
        return self.name in self.disk.files

    def is_symlink(self) -> bool:
        """Return False: there are no links."""
        return False

    def stat(self) -> SimpleNamespace:
        """Return the size, and that there is no second name."""
        return SimpleNamespace(st_size=len(self.disk.files[self.name].cache), st_nlink=1)

    def glob(self, _pattern: str) -> list[DiskPath]:
        """Return nothing: there are no copies that were saved."""
        return []

    def open(self, mode: str, buffering: int = -1) -> io.BytesIO:  # noqa: ARG002
        """Read the file."""
        assert mode == "rb"
        return io.BytesIO(bytes(self.disk.files[self.name].cache))

    def replace(self, target: DiskPath) -> None:
        """Give the file another name."""
        self.disk.rename(self.name, target.name)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        if self.exists() or not missing_ok:
            self.disk.remove(self.name)


class System:
    """The module `os`, as far as walbatch uses it for its files, over disks in memory."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[DiskPath, File | None]] = {}
        self._descriptors = itertools.count(1000)

    def __getattr__(self, name: str) -> int:
        if not name.startswith("O_"):
            raise AttributeError(f"walbatch now uses os.{name} here: the simulated disk has to learn it")
        return cast(int, getattr(os, name))

    def open(self, path: DiskPath, flags: int, _mode: int = 0o600) -> int:
        """Open a file, or the folder."""
        disk = path.disk
        if flags & os.O_EXCL:
            assert not path.exists()
        if path.name and not flags & os.O_CREAT:
            assert path.exists()
        descriptor = next(self._descriptors)
        self._open[descriptor] = path, disk.create(path.name) if path.name else None
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close."""
        del self._open[descriptor]

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read."""
        _, file = self._open[descriptor]
        assert file is not None
        return bytes(file.cache[offset : offset + length])

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write."""
        path, file = self._open[descriptor]
        assert file is not None
        path.disk.write(path.name, file, Write(offset, data))
        return len(data)

    def ftruncate(self, descriptor: int, length: int) -> None:
        """Make it shorter."""
        path, file = self._open[descriptor]
        assert file is not None
        path.disk.write(path.name, file, Truncate(length))

    def fstat(self, descriptor: int) -> SimpleNamespace:
        """Return the size of a file."""
        path, _ = self._open[descriptor]
        return path.stat()

    def statvfs(self, _path: DiskPath) -> SimpleNamespace:
        """Return that there is room."""
        return SimpleNamespace(f_bavail=2**30, f_frsize=4096)

    def fsync(self, descriptor: int) -> None:
        """Sync a file, or the folder."""
        path, file = self._open[descriptor]
        if file is None:
            path.disk.sync_folder()
        else:
            path.disk.sync(path.name, file)


class Machine:
    """Where disks are mounted and processes started."""

    def __init__(self, disks: Disks, dbapi: Dbapi) -> None:
        self.disks = disks
        self.dbapi = dbapi


def simulated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make walbatch's log use disks in memory until the test ends."""
    disks = Disks(folder)
    machine = Machine(disks, Dbapi(disks))
    monkeypatch.setattr(driver, "sqlite3", machine.dbapi)
    system = System()
    for module in (recovery, migrate, copying, files):
        monkeypatch.setattr(module, "os", system)
    return machine


class Process:
    """One life of `walbatch serve`, from its start to its end."""

    def __init__(self, machine: Machine, disk: Disk, destinations: Sequence[str], router: Router) -> None:
        self.clock = FakeClock()
        self._machine = machine
        self._mount = machine.disks.mount(disk)
        folder = cast(Path, DiskPath(disk, self._mount))
        self.path = folder / DATABASE_FILE
        self.log = SqliteLog(folder, destinations, self.clock, router=router)
        self._connections: list[Connection] = []

    def start(self, opened: Callable[[Connection], None] = lambda _connection: None) -> None:
        """Recover, migrate and load, as `SqliteLog.__aenter__` does. `opened` sees the log before it is migrated."""
        self._machine.dbapi.opened = self._connections.append
        log, path = self.log, self.path
        recovery.prepare(path)
        writer = driver.open_writer(path)
        opened(cast(Connection, writer))
        log._open(writer)
        log._disk = KnownDisk(path, cast(Any, AtOnce(writer)), cast(Any, NoGuard()), log._admission, self.clock)
        log._reader = cast(Any, AtOnce(driver.open_reader(path)))
        log._fetching = Fetching(path, log._reader, log._progress, log._bits, self.clock, traced=False)

    @property
    def writer(self) -> driver.Connection:
        """Return the connection that writes."""
        return cast(AtOnce, self.log._disk.writer).connection

    @property
    def reader(self) -> driver.Connection:
        """Return the connection that reads."""
        return cast(AtOnce, self.log._reader).connection

    def write(self, *writes: LogWrite) -> list[Answer]:
        """Commit these as one group, and return the answers, or raise what any of them is refused with."""
        self.log._admission.disk_full = False  # as the next look after the disk would find
        answers = result(self.log._commit(writes))
        for answer in answers:
            if isinstance(answer, Unavailable):
                raise answer
        return cast(list[Answer], list(answers))

    def fetch(self, lane: Lane, policy: BatchPolicy) -> Batch:
        """Hand out a batch, empty if nothing waits."""
        return result(self.log.fetch(lane, policy, wait=False))

    def stop(self) -> None:
        """End as after SIGTERM: checkpoint, close."""
        driver.checkpoint(self.writer)
        self.reader.close()
        self.writer.close()
        self._end()

    def kill(self) -> None:
        """End at once. The disk keeps what was written, synced or not."""
        for connection in reversed(self._connections):
            connection.kill()
        self._end()

    def _end(self) -> None:
        self._connections.clear()
        self._machine.disks.unmount(self._mount)


class AtOnce:
    """A connection as the log uses it, without its thread."""

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run it here."""
        return function(self.connection, *args)


class NoGuard:
    """Nobody takes files away from a disk in memory."""

    replaced = None

    def check(self, connection: driver.Connection) -> None:
        """Return."""


def result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("it waits")
