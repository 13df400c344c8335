"""What `walbatch bench` measures: the figures of docs/performance.md that need nothing but the installed program.

Each load runs on a real server that delivers beside it, in turn with what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from walbatch.bench import disk
from walbatch.bench.fill import fill
from walbatch.bench.loads import Checked, Load
from walbatch.bench.plain_sqlite import rows_per_s
from walbatch.bench.processes import Sink, Walbatch
from walbatch.bench.samples import BATCH
from walbatch.disk_speed import Fdatasync, fdatasync
from walbatch.errors import MeasurementFailed
from walbatch.wal import driver
from walbatch.wal.files import DATABASE_FILE, file_sizes

IN_FLIGHT, CALLERS = 64, 8
GROUP = CALLERS * BATCH
"""Rows of a transaction of SQLite alone: as many as the callers of Ingest can have in one group."""

DRAINED_PER_S, LEAST_DRAINED = 50_000, 10_000
"""Events of the backlog for each second of a load: it goes out in less than that."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drain:
    """A backlog that went out: the rate is that at the destination."""

    events: int
    events_per_s: float
    disk_bytes_per_event: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was found, and how much it is worth."""

    disk: Fdatasync
    warnings: tuple[str, ...]
    """Why the figures may mean nothing on this disk."""
    acknowledged_means: str
    """The server's own word in /stats."""
    one: Load
    many: Load
    batch: Load
    stream: Load
    sqlite_rows_per_s: float
    drain: Drain

    @property
    def durability(self) -> str:
        """What every answer said; more than one word if they differed."""
        return ", ".join(sorted({load.durability for load in (self.one, self.many, self.batch, self.stream)}))


def measure(scratch: Path, seconds: float, progress: Progress) -> Figures:
    """Measure in an empty directory, each load for so long.

    Raises:
        MeasurementFailed: something broke, or the server accepted less than it answered.
    """
    try:
        return _measure(scratch, seconds, progress)
    except (OSError, driver.Error) as error:
        raise MeasurementFailed(f"{scratch.parent}: {error}") from error


def _measure(scratch: Path, seconds: float, progress: Progress) -> Figures:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        server = stack.enter_context(Walbatch(scratch / "server", sink.port))
        load = Checked(server, seconds)

        def run(what: str, mode: str, in_flight: int) -> Load:
            progress(what)
            done = load.python(mode, in_flight)
            server.settle()
            return done

        def look() -> list[float]:
            progress("fdatasync")
            return fdatasync(scratch, seconds / 6)

        looks = [look()]
        one = run("TrackEvent, 1 caller", "unary", 1)
        looks.append(look())
        many = run(f"TrackEvent, {IN_FLIGHT} callers", "unary", IN_FLIGHT)
        looks.append(look())
        progress("sqlite3 alone")
        before = rows_per_s(scratch, GROUP, seconds / 2)
        batch = run("Ingest", "batch", CALLERS)
        stream = run("IngestStream", "stream", 1)
        progress("sqlite3 alone, again")
        after = rows_per_s(scratch, GROUP, seconds / 2)
        acknowledged_means = server.stats()["durability"]
    progress("drain")
    probe = Fdatasync.of(*looks)
    return Figures(
        disk=probe,
        warnings=tuple(disk.warnings(scratch.parent, probe)),
        acknowledged_means=acknowledged_means,
        one=one,
        many=many,
        batch=batch,
        stream=stream,
        sqlite_rows_per_s=(before + after) / 2,
        drain=_drain(scratch / "backlog", max(round(DRAINED_PER_S * seconds), LEAST_DRAINED)),
    )


def _drain(directory: Path, events: int) -> Drain:
    fill(directory, events)
    size = file_sizes(directory / DATABASE_FILE)[0]
    with Sink() as sink, Walbatch(directory, sink.port) as server:
        return Drain(events, sink.wait_for(events, server), size / events)
