"""The disk by itself: how long it takes to make 4 kB durable, and whether it is one that can."""

from __future__ import annotations

import fcntl
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from walbatch.diagnosis import Status
from walbatch.doctor import file_system

LEAST_SAMPLES = 50
"""Of one look, also at a slow disk."""

IMPLAUSIBLE_MS = 0.02
"""The fastest disks with a battery take about as long; what is faster did not ask the disk."""


@dataclass(frozen=True, slots=True)
class Fdatasync:
    """How long it took to append 4 kB and to make them durable, over several looks: disks have their moments."""

    p50_ms: float
    p99_ms: float
    samples: int

    @classmethod
    def of(cls, *looks: Sequence[float]) -> Self:
        """Return the percentiles of all looks."""
        taken = [seconds for look in looks for seconds in look]
        cuts = statistics.quantiles(taken, n=100)
        return cls(cuts[49] * 1000, cuts[98] * 1000, len(taken))


def fdatasync(directory: Path, seconds: float = 0.5) -> list[float]:
    """Append for so long, and `LEAST_SAMPLES` times at least, without any of us; return what each took, in seconds."""
    probe = directory / "probe"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or len(taken) < LEAST_SAMPLES:
        os.write(descriptor, b"x" * 4096)
        _sync(descriptor)
        taken.append(time.perf_counter() - started)
    os.close(descriptor)
    probe.unlink()
    return taken


def _sync(descriptor: int) -> None:
    """Do what SQLite does in a commit: on macOS fsync alone leaves the data in the drive's own memory."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def warnings(directory: Path, disk: Fdatasync) -> Iterator[str]:
    """Yield why the figures of this directory may mean nothing."""
    finding = file_system(directory)
    if finding.status is not Status.OK:
        yield f"{finding.text}: {finding.fix}"
    if disk.p50_ms < IMPLAUSIBLE_MS:
        yield (
            f"fdatasync takes {disk.p50_ms * 1000:.0f} us, which is no disk: nothing here survives a power cut, and"
            " these figures say nothing about a disk"
        )
