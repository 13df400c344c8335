"""Refuse new records while there is still room for what must go on: delivery writes to the same disk."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from walbatch.clock import Clock
from walbatch.errors import BacklogFull

LOOK_AGAIN_S = 1.0
"""How long a look at the disk is good for: what can be stored within it is far below any sensible reserve."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to refuse new records. 0 means no limit."""

    max_backlog_bytes: int = 0
    min_free_bytes: int = 0


NO_LIMITS = Limits()


class Admission:
    """Says whether new records may be stored. `owed_bytes` is what each destination waits for, kept by the log."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock) -> None:
        self.owed_bytes: Counter[str] = Counter()
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._looked_s = float("-inf")
        self._free_bytes = 0

    def check(self) -> None:
        """Return if there is room.

        Raises:
            BacklogFull: there is none; it comes back by delivery, or by freeing space, without a restart.
        """
        limits = self._limits
        # A record is stored once, however many wait for it: what counts is who is furthest behind.
        if limits.max_backlog_bytes and max(self.owed_bytes.values(), default=0) >= limits.max_backlog_bytes:
            name, owed = self.owed_bytes.most_common(1)[0]
            raise BacklogFull(f"{owed} bytes wait for delivery to {name}; the limit is {limits.max_backlog_bytes}")
        if limits.min_free_bytes and self._free() < limits.min_free_bytes:
            raise BacklogFull(f"{self._free_bytes} bytes are free on the disk; {limits.min_free_bytes} are kept free")

    def _free(self) -> int:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= LOOK_AGAIN_S:
            disk = os.statvfs(self._directory)
            self._free_bytes, self._looked_s = disk.f_bavail * disk.f_frsize, now_s
        return self._free_bytes
