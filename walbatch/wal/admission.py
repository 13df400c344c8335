"""Refuse new records while there is still room for what must go on: delivery writes to the same disk.

    BacklogFull   a destination waits for as much as may wait
    DiskFull      less is free than is kept free, the files got no room ahead, or the reserve was needed and is not back
    WalHeld       the write-ahead log cannot be trimmed, and has reached its limit
    Overloaded    more waits for the disk than may be kept in memory

Each of them is a state that ends by itself, without a restart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from walbatch.clock import Clock
from walbatch.errors import BacklogFull, DiskFull, NoRoom, Overloaded, WalHeld
from walbatch.units import format_bytes
from walbatch.wal.files import DATABASE_FILE
from walbatch.wal.headroom import Headroom
from walbatch.wal.reserve import MIN_BYTES, Reserve, free_bytes

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of records that wait for a commit: some ten groups of the largest size, seconds of work for a slow disk."""

LOOK_AGAIN_S = 1.0
"""How long a look at the disk is good for: what can be stored within it is far below any sensible reserve."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to refuse new records. 0 means no limit."""

    max_backlog_bytes: int = 0
    min_free_bytes: int = 0
    max_wal_bytes: int = 0


NO_LIMITS = Limits()


class Admission:
    """Says whether new records may be stored. The log keeps its public facts up to date."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock) -> None:
        self.owed_bytes: Counter[str] = Counter()
        """What each destination waits for."""
        self.wal_bytes = 0
        """Size of the write-ahead log, as far as it is in use."""
        self.disk_full = False
        """Whether a transaction has found the disk full, and it has not been seen otherwise since."""
        self.limits = limits
        self.reserve = Reserve(directory, limits.min_free_bytes)
        self.headroom = Headroom(directory / DATABASE_FILE)
        self._directory = directory
        self._clock = clock
        self._looked_s = float("-inf")
        self._free_bytes = 0

    def check(self, waiting_bytes: int) -> None:
        """Return if there is room for more, beside what waits for the next commits.

        Raises:
            NoRoom: there is none; the text says what would help.
        """
        if waiting_bytes > MAX_WAITING_BYTES:
            raise Overloaded(f"{format_bytes(waiting_bytes)} wait for the disk, which does not keep up")
        if refusal := self.refusal():
            raise refusal

    def refusal(self) -> NoRoom | None:
        """Return why new records are refused, None if they are not."""
        limits = self.limits
        # A record is stored once, however many wait for it: what counts is who is furthest behind.
        if limits.max_backlog_bytes and max(self.owed_bytes.values(), default=0) >= limits.max_backlog_bytes:
            name, owed = self.owed_bytes.most_common(1)[0]
            limit = format_bytes(limits.max_backlog_bytes)
            return BacklogFull(f"{format_bytes(owed)} wait for delivery to {name}; the limit is {limit}")
        if limits.max_wal_bytes and self.wal_bytes >= limits.max_wal_bytes:
            return WalHeld(
                f"the write-ahead log has {format_bytes(self.wal_bytes)} and cannot be trimmed while somebody reads"
                f" the database; the limit is {format_bytes(limits.max_wal_bytes)}"
            )
        if self.disk_full:
            return DiskFull("the disk is full; nothing was stored")
        if limits.min_free_bytes and self.free_bytes() < limits.min_free_bytes:
            free, kept = format_bytes(self._free_bytes), format_bytes(limits.min_free_bytes)
            return DiskFull(f"{free} are free on the disk; {kept} are kept free")
        return None

    def free_bytes(self) -> int:
        """Return what is free on the disk, by a look that is at most `LOOK_AGAIN_S` old."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= LOOK_AGAIN_S:
            self._free_bytes, self._looked_s = free_bytes(self._directory), now_s
        return self._free_bytes

    @property
    def wal_alarming(self) -> bool:
        """Whether the write-ahead log is half-way to its limit: time to end our own long reads."""
        return 0 < self.limits.max_wal_bytes <= 2 * self.wal_bytes

    def roomy(self) -> bool:
        """Say whether a disk that was full has room again; the reserve is set aside first."""
        return self.reserve.take() and free_bytes(self._directory) >= self.limits.min_free_bytes

    def before_open(self) -> None:
        """Begin on a directory that was just taken: on a full disk the reserve is what the start itself needs."""
        if free_bytes(self._directory) < max(self.limits.min_free_bytes, MIN_BYTES):
            self.reserve.release()

    def opened(self) -> None:
        """Go on with a log that is open: accept nothing without a reserve, in case others fill the disk."""
        self.disk_full = not self.reserve.take()
