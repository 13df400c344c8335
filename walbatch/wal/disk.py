"""The connection that writes, and what is known of the disk under it: does it take what it is given, is there room?

a commit raised           refused as `CommitFailed` until one succeeds, which is tried at every look
three in a row            the disk is broken: `StorageFailed`
the disk is full          new records are refused, what was delivered is noted in the room of `walbatch.wal.headroom`
the files are not ours    saved, then `StorageFailed` (see `walbatch.wal.guard`)
the log cannot be trimmed our own long reads are ended, and at a limit new records are refused
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from walbatch.clock import Clock
from walbatch.errors import CommitFailed, DiskFull, StorageFailed, TooLong, Unavailable, WalbatchError
from walbatch.wal import driver, recovery, upkeep
from walbatch.wal.admission import Admission
from walbatch.wal.connections import Threaded
from walbatch.wal.files import file_sizes
from walbatch.wal.guard import Guard

log = structlog.stdlib.get_logger("walbatch.log")

T = TypeVar("T")

MAX_FAILED_COMMITS = 3
"""After so many in a row the disk is taken to be broken, and the log stops rather than answer "retry" for ever."""

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""After about so many bytes of the write-ahead log they are moved into the database, as SQLite by itself would do."""

COMMIT_BYTES = 5 * 4096
"""What a commit writes besides its records: pages of counters and of positions."""

PROBE_S = 10.0
"""After so long without a commit the disk is tried: an idle server must not call itself ready on a broken one."""


class Watching(Protocol):
    """Told of what was done on the disk, in the event loop, right after it. Nothing is decided by it."""

    def committed(self, records: int, duration_s: float) -> None:
        """Hear of a transaction that is durable, and how many new records it stored."""
        ...

    def checkpointed(self, duration_s: float) -> None:
        """Hear of a checkpoint."""
        ...


class Unwatched:
    """`Watching` by nobody."""

    def committed(self, records: int, duration_s: float) -> None:
        """Do nothing."""

    def checkpointed(self, duration_s: float) -> None:
        """Do nothing."""


UNWATCHED = Unwatched()


class _Took(NamedTuple):
    """How long a transaction took, and a checkpoint before it, if there was one."""

    transaction_s: float
    checkpoint_s: float | None


class Disk:
    """What is known of the disk under the database that `writer` has open."""

    def __init__(
        self,
        path: Path,
        writer: Threaded,
        guard: Guard,
        admission: Admission,
        clock: Clock,
        *,
        watch: Watching = UNWATCHED,
    ) -> None:
        self.writer = writer
        self.trimming = True
        """Whether the write-ahead log may be moved into the database at this moment."""
        self.checkpoint_bytes = CHECKPOINT_BYTES
        self._written_bytes = 0
        self._path = path
        self._admission = admission
        self._clock = clock
        self._guard = guard
        self._watch = watch
        self._failed_commits = 0
        self._failure = ""
        self._committed_s = clock.monotonic_s()

    def refusing(self) -> Unavailable | None:
        """Return why new records are refused at this moment, or would be; None if all is well."""
        return CommitFailed(self._failure) if self._failed_commits else self._admission.refusal()

    async def transact(self, records: int, weight: int, transaction: Callable[..., None], *args: Any) -> None:
        """Run `transaction(connection, *args)`; on return it is durable, and in the files that are in their place.

        It stores so many `records`, and writes about `weight` bytes. If it raises an `Unavailable`, nothing of it can
        be seen in this process: what SQLite does after a transaction, a checkpoint, is done here before the next one.

        Raises:
            Unavailable: it is not, or that is not known. Later ones may succeed.
            FatalError: nothing more can be stored.
        """

        def run(connection: driver.Connection) -> _Took:
            checkpoint_s = None
            if self._written_bytes >= self.checkpoint_bytes and self.trimming:
                _, checkpoint_s = self._timed(driver.checkpoint_some, connection)
                self._written_bytes = 0
            if records:
                self._admission.headroom.take(max(self._written_bytes, CHECKPOINT_BYTES) + weight)
            _, transaction_s = self._timed(transaction, connection, *args)
            self._written_bytes += weight + COMMIT_BYTES
            self._guard.check(connection)
            return _Took(transaction_s, checkpoint_s)

        try:
            took = await self.writer.run(run)
        except driver.Error as error:
            raise self._judge(error) from error
        except OSError as error:  # after the COMMIT: the disk has it, memory does not; a start brings them together
            raise StorageFailed(f"the disk of {self._path} takes no more: {error}") from error
        self._failed_commits = 0
        self._committed_s = self._clock.monotonic_s()
        if took.checkpoint_s is not None:
            self._watch.checkpointed(took.checkpoint_s)
        self._watch.committed(records, took.transaction_s)

    def _timed(self, work: Callable[..., T], *args: Any) -> tuple[T, float]:
        """Do it, and return what it returns and the seconds that it took."""
        started_s = self._clock.monotonic_s()
        return work(*args), self._clock.monotonic_s() - started_s

    async def tend(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Look after the files, and `probe` the disk with a commit if there is reason to.

        Raises:
            Unavailable: what `refusing` says.
        """
        admission = self._admission
        # Before the probe: on a full disk that needs the room which this gives back once no reader is in the way.
        admission.wal_bytes = await self._trim() if self.trimming else file_sizes(self._path)[1]
        roomy = admission.disk_full and admission.roomy() and await self._has_headroom()
        idle_s = self._clock.monotonic_s() - self._committed_s
        if roomy or self._failed_commits or idle_s >= PROBE_S or self._guard.replaced:
            await probe()
        if roomy:
            admission.disk_full = False
        admission.reserve.take()

    async def _has_headroom(self) -> bool:
        """Take what the files should have ahead, and say whether they have it."""
        try:
            await self.writer.run(lambda _: self._admission.headroom.take(CHECKPOINT_BYTES))
        except DiskFull:
            return False
        return True

    async def _trim(self) -> int:
        """Return the bytes of the write-ahead log that cannot be used again at this moment."""
        large = file_sizes(self._path)[1] >= upkeep.TRIM_FROM_BYTES
        if not large and not self._admission.disk_full:
            return 0
        try:
            kept, duration_s = await self.writer.run(partial(self._timed, partial(upkeep.trim, empty=large)))
        except driver.Error as error:
            self._admission.wal_bytes = file_sizes(self._path)[1]
            raise self._judge(error) from error
        self._watch.checkpointed(duration_s)
        if large:
            await self._has_headroom()  # its room was just given back: on a full disk somebody would take it
        return kept

    def _judge(self, error: sqlite3.Error) -> WalbatchError:
        """Translate what a transaction raised."""
        if driver.is_full(error):
            return DiskFull("the disk is full; nothing was stored")
        if driver.is_damage(error):
            return recovery.damaged(self._path, error)
        return self._failed(error)

    def _failed(self, error: Exception) -> WalbatchError:
        self._failed_commits += 1
        self._failure = f"the last commit failed: {error}"
        if self._failed_commits >= MAX_FAILED_COMMITS:
            return StorageFailed(f"{self._failed_commits} commits in a row failed on {self._path}: {error}")
        return CommitFailed(f"the commit failed ({error}), so it is not known whether this was stored; send it again")


async def ask(path: Path, connection: Threaded, query: Callable[..., T], *args: Any) -> T:
    """Run a function over a connection, outside of the transactions.

    Raises:
        TooLong, FatalError: as their docstrings say.
    """
    try:
        return await connection.run(query, *args)
    except driver.Error as error:
        raise broken(path, error) from error


def broken(path: Path, error: sqlite3.Error) -> WalbatchError:
    """Translate what anything but a transaction raised."""
    if driver.is_interrupted(error):
        return TooLong("this was ended, as it kept the log from being trimmed; ask for less at a time")
    return recovery.broken(path, error)
