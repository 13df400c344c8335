"""The sink that keeps an archive: records as JSON lines, in files that are finished by size and by age.

    events-20261123T101500Z-000007.ndjson        finished, will not change again: take it away whenever you like
    events-20261123T101600Z-000008.ndjson.open   being written
    .lock                                        held by the one process that writes here

The number gives the order, and goes on from the files that are there; the time, in UTC, is when the file was begun, by
a clock that may be wrong.

Promise: records are `Delivered` after their lines, the length of the file and its name were fsynced. A finished file
is never empty and holds whole lines only. Invariant: what lies behind the last good length of an open file was never
settled, and is cut off before anything else is written.

    crash while writing        the next start cuts a torn last line, and finishes the file
    crash before the settling  the batch is written again: copies of an event have the same `$insert_id`, copies of an
                               update cannot be told apart
    the disk refuses           the file is cut back to its last good length, and the batch is written to a new file

No time limit: a disk that hangs holds this destination, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from walbatch.clock import Clock
from walbatch.delivery import DELIVERED, Answer, Hold, Settled
from walbatch.errors import ConfigurationError
from walbatch.event import Kind
from walbatch.sinks.lines import as_lines

LOCK_FILE = ".lock"
OPEN_SUFFIX = ".open"

FINISH_AGAIN_S = 60.0
"""How long to wait before a file that could not be finished is tried again, if no record comes before."""

_NAME = re.compile(r"events-\d{8}T\d{6}Z-(\d{6,})\.ndjson(\.open)?")
_BLOCK = 65_536


class NdjsonSink:
    """Appends records to files in a directory, which is made if it is missing. One process a directory.

    A file is finished by the batch that takes it to `rotate_bytes`, when it is `rotate_s` old, and at the end.
    """

    def __init__(self, directory: Path, *, rotate_bytes: int, rotate_s: float, clock: Clock) -> None:
        self._archive = _Archive(directory, rotate_bytes)
        self._directory = directory
        self._rotate_s = rotate_s
        self._clock = clock
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Take the directory, and finish what a crash has left.

        Raises: ConfigurationError if another process has it, or if it cannot be used.
        """
        # A thread of its own keeps the order and needs no lock; a hung disk blocks nobody else's work.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ndjson")
        try:
            await self._run(self._archive.take)
        except BaseException as error:
            self._thread.shutdown(wait=False)
            if not isinstance(error, OSError):
                raise
            raise ConfigurationError(
                f"{self._directory} cannot be used as an archive ({error.strerror});"
                " it must be a directory that this user may write in, and that no other process writes in"
            ) from error
        self._ageing = asyncio.create_task(self._finish_by_age())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Finish the file, and give the directory free."""
        self._ageing.cancel()
        await asyncio.wait([self._ageing])
        try:
            await self._run(self._archive.close)
        finally:
            self._thread.shutdown(wait=False)

    async def send(self, kind: Kind, payloads: Sequence[str]) -> Answer:
        """Append records; see `walbatch.sinks.Sink`. Whatever the disk or the directory refuses is a `Hold`."""
        lines = as_lines(kind, payloads).encode()
        try:
            await self._run(lambda: self._archive.append(lines, self._clock))
        except OSError as error:
            return Hold(f"cannot write in {self._directory}: {error.strerror}")
        finally:
            self._changed.set()
        return Settled([DELIVERED] * len(payloads), "written")

    async def _run(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _finish_by_age(self) -> None:
        again_s = 0.0
        while True:
            self._changed.clear()
            begun_s = self._archive.begun_s
            due_s = None if begun_s is None else max(begun_s + self._rotate_s - self._clock.monotonic_s(), again_s)
            if due_s is None or due_s > 0.0:
                await self._clock.wait(self._changed, due_s)
                again_s = 0.0
                continue
            try:
                await self._run(self._archive.finish)
            except OSError:
                again_s = FINISH_AGAIN_S  # the next batch tells of it, if the trouble lasts


@dataclass(slots=True)
class _OpenFile:
    path: Path
    descriptor: int
    """-1 after trouble: it is not written to again, only cut and finished."""
    good_bytes: int = 0
    """What was fsynced, and holds whole lines."""


class _Archive:
    """The directory and its open file. Blocking; used from one thread, but for `begun_s`.

    Every method raises OSError for what the disk refuses, and can be called again.
    """

    def __init__(self, directory: Path, rotate_bytes: int) -> None:
        self._directory = directory
        self._rotate_bytes = rotate_bytes
        self._lock = -1
        self._file: _OpenFile | None = None
        self._counter = 0
        self.begun_s: float | None = None
        """When the open file was begun, by the monotonic clock."""

    def take(self) -> None:
        """Make the directory, and become its only writer."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own()

    def append(self, lines: bytes, clock: Clock) -> None:
        """Write whole lines, durably."""
        self._own()
        if self._file is not None and self._file.descriptor == -1:
            self.finish()
        file = self._file or self._begin(clock)
        try:
            self._write(file, lines)
        except OSError:
            self._distrust(file)
            raise
        file.good_bytes += len(lines)
        if file.good_bytes >= self._rotate_bytes:
            with contextlib.suppress(OSError):  # the lines are safe: the next append, or its age, finishes the file
                self.finish()

    def finish(self) -> None:
        """Close the open file for good, under its final name; delete it if it is empty."""
        if self._file is None:
            return
        if self._file.descriptor != -1:
            os.close(self._file.descriptor)
            self._file.descriptor = -1
        if self._file.path.exists():  # else somebody has deleted it, with what was delivered to it
            self._finish(self._file.path, self._file.good_bytes)
        self._file, self.begun_s = None, None

    def close(self) -> None:
        """Finish, as far as the disk allows; the next start does the rest."""
        with contextlib.suppress(OSError):
            self.finish()
        if self._lock != -1:
            os.close(self._lock)

    def _own(self) -> None:
        """Take the lock, and repair what was left, unless that was done in this very directory.

        Somebody may have moved the directory away and made another: the lock and the open file went with it. The
        directory itself is made at the start only: where a disk is not mounted, nothing must be written.
        """
        path = self._directory / LOCK_FILE
        if self._lock != -1:
            if _is_at(self._lock, path):
                return
            os.close(self._lock)
            self._lock = -1
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.finish()
            for path in [path for path, _ in self._files() if path.suffix == OPEN_SUFFIX]:
                self._finish(path, _length_of_whole_lines(path))
        except BlockingIOError as error:
            os.close(lock)
            raise BlockingIOError(errno.EAGAIN, "another process writes there") from error
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def _begin(self, clock: Clock) -> _OpenFile:
        # A number that no file here has: a name is never used twice, and a finished file never replaced.
        self._counter = max([self._counter, *(number for _, number in self._files())]) + 1
        begun = datetime.fromtimestamp(clock.wall_ms() // 1000, UTC)
        path = self._directory / f"events-{begun:%Y%m%dT%H%M%SZ}-{self._counter:06}.ndjson{OPEN_SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file, self.begun_s = _OpenFile(path, descriptor), clock.monotonic_s()
        return self._file

    def _files(self) -> Iterator[tuple[Path, int]]:
        for path in self._directory.iterdir():
            if found := _NAME.fullmatch(path.name):
                yield path, int(found[1])

    def _write(self, file: _OpenFile, lines: bytes) -> None:
        rest, at = memoryview(lines), file.good_bytes
        while rest:
            written = os.pwrite(file.descriptor, rest, at)
            rest, at = rest[written:], at + written
        os.fsync(file.descriptor)
        if file.good_bytes == 0:
            _fsync_directory(self._directory)  # the file's name
        # What is written to a deleted file succeeds, and is gone.
        if not _is_at(file.descriptor, file.path):
            raise FileNotFoundError(errno.ENOENT, f"{file.path.name} was deleted or moved while it was written")

    def _distrust(self, file: _OpenFile) -> None:
        """Take back what was not settled, now if the disk allows it, else before the next write.

        After a failed fsync the kernel may call the pages clean that it could not write, so that the next fsync
        succeeds without them (https://wiki.postgresql.org/wiki/Fsync_Errors). Hence this file is not appended to
        again: only what an earlier fsync has confirmed counts, and the batch goes to a new file.
        """
        with contextlib.suppress(OSError):
            os.ftruncate(file.descriptor, file.good_bytes)
        with contextlib.suppress(OSError):
            os.close(file.descriptor)
        file.descriptor = -1
        if file.good_bytes == 0:
            with contextlib.suppress(OSError):
                self.finish()

    def _finish(self, path: Path, length: int) -> None:
        if length:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_size != length:
                    os.ftruncate(descriptor, length)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.rename(path.with_suffix(""))
        else:
            path.unlink()
        _fsync_directory(self._directory)


def _is_at(descriptor: int, path: Path) -> bool:
    """Say whether an open file is still the one of that name."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _length_of_whole_lines(path: Path) -> int:
    """Return the length up to and with the last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - _BLOCK, 0)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
