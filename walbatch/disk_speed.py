"""How long the disk of a directory takes to make 4 kB durable, as SQLite does in a commit."""

from __future__ import annotations

import fcntl
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROBE_FILE = "walbatch.probe"
"""The scratch file. One that a killed process has left behind is used again, and removed."""

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


def fdatasync(directory: Path, seconds: float = 0.5, *, patience_s: float = math.inf) -> list[float]:
    """Append for so long, and `LEAST_SAMPLES` times at least; return what each took, in seconds.

    After `patience_s` it is enough: two samples are all that is needed then. The scratch file is removed.

    Raises:
        OSError: nothing can be written there.
    """
    probe = directory / PROBE_FILE
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    taken: list[float] = []
    begun = time.perf_counter()
    try:
        while (started := time.perf_counter()) < begun + seconds or len(taken) < LEAST_SAMPLES:
            if started > begun + patience_s and len(taken) > 1:
                break
            os.write(descriptor, b"x" * 4096)
            _sync(descriptor)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)
    return taken


def _sync(descriptor: int) -> None:
    """Do what SQLite does in a commit: on macOS fsync alone leaves the data in the drive's own memory."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
