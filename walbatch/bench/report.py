"""The figures of `walbatch bench`, for people and for programs."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from walbatch.bench.loads import Load
from walbatch.bench.measure import CALLERS, GROUP, IN_FLIGHT, Figures
from walbatch.bench.samples import BATCH, STORED
from walbatch.wal.driver import SQLITE_VERSION

WIDTH = 80
FSYNCED = "DURABILITY_FSYNCED"
PRECISE_BELOW = 10.0
MICROSECONDS_BELOW_MS = 0.1


def document(found: Figures, directory: str, seconds: float) -> dict[str, Any]:
    """Return the figures with their units in the names; times are in milliseconds."""
    disk_ms = found.disk.p50_ms
    return {
        "walbatch": version("walbatch"),
        "python": platform.python_version(),
        "sqlite": SQLITE_VERSION,
        "cores": cores(),
        "directory": directory,
        "seconds_per_load": seconds,
        "durability": {"answers_said": found.durability, "acknowledged_means": found.acknowledged_means},
        "warnings": list(found.warnings),
        "fdatasync_4kb": {"p50_ms": disk_ms, "p99_ms": found.disk.p99_ms, "samples": found.disk.samples},
        "track_event_1_caller": _timed(found.one) | {"p50_per_fdatasync": found.one.p50_ms / disk_ms},
        f"track_event_{IN_FLIGHT}_callers": _timed(found.many) | {"ratio_to_one_fdatasync_each": _to_one_each(found)},
        "ingest": _load(found.batch)
        | {"events_per_request": BATCH, "callers": CALLERS, "ratio_to_sqlite": _to_sqlite(found, found.batch)},
        "ingest_stream": _load(found.stream)
        | {"events_per_request": BATCH, "ratio_to_sqlite": _to_sqlite(found, found.stream)},
        "sqlite_alone": {"rows_per_s": found.sqlite_rows_per_s, "rows_per_transaction": GROUP},
        "drain": {"events": found.drain.events, "events_per_s": found.drain.events_per_s},
        "event": {"stored_bytes": len(STORED.payload), "disk_bytes": found.drain.disk_bytes_per_event},
    }


def text(found: Figures, directory: str, seconds: float) -> str:
    """Return the same for people: a sentence, what is wrong with the disk, a table, and what stands behind it."""
    footer = [
        (
            f"Durability: every answer said {found.durability}; in the server's own words, acknowledged means"
            f" {found.acknowledged_means}. Its counter has every event that was answered."
        ),
        (
            f"An event of {len(STORED.payload)} bytes takes {found.drain.disk_bytes_per_event:.0f} bytes of disk."
            " All of it ran on this machine: server, client, and a destination that answers at once."
        ),
        (
            f"Measured in {directory}, {seconds:g} s a load, {cores()} cores; walbatch {version('walbatch')}, Python"
            f" {platform.python_version()}, SQLite {SQLITE_VERSION}."
        ),
    ]
    warnings = [_wrapped(f"WARNING: {warning}.") for warning in found.warnings]
    return "\n".join([_sentence(found), *warnings, "", *_table(found), "", *map(_wrapped, footer)])


def _sentence(found: Figures) -> str:
    when = "once fsynced" if found.durability == FSYNCED else f"as {found.durability}"
    return _wrapped(
        f"{IN_FLIGHT} callers: {found.many.events_per_s:,.0f} events/s, each acknowledged {when}"
        f" (p99 {_ms(found.many.p99_ms)}); this disk's fdatasync takes {_ms(found.disk.p50_ms)}."
    )


def _table(found: Figures) -> Iterator[str]:
    disk, one, many = found.disk, found.one, found.many
    yield _row("", "events/s", "p50", "p99", "beside")
    yield _row("fdatasync of 4 kB", "", _ms(disk.p50_ms), _ms(disk.p99_ms))
    ratio = f"p50: {_times(one.p50_ms / disk.p50_ms)} x fdatasync"
    yield _row("TrackEvent, 1 caller", _rate(one.events_per_s), _ms(one.p50_ms), _ms(one.p99_ms), ratio)
    ratio = f"{_times(_to_one_each(found))} x an fdatasync each"
    yield _row(f"TrackEvent, {IN_FLIGHT} callers", _rate(many.events_per_s), _ms(many.p50_ms), _ms(many.p99_ms), ratio)
    for name, load in (
        (f"Ingest, {CALLERS} callers of {BATCH}", found.batch),
        (f"IngestStream of {BATCH}", found.stream),
    ):
        ratio = f"{_times(_to_sqlite(found, load))} x sqlite3 alone"
        yield _row(name, _rate(load.events_per_s), "", "", ratio)
    yield _row(f"sqlite3 alone, {GROUP} a commit", _rate(found.sqlite_rows_per_s))
    ratio = f"{_times(found.drain.events_per_s / found.stream.events_per_s)} x IngestStream"
    yield _row(f"drain of {found.drain.events:,} events", _rate(found.drain.events_per_s), "", "", ratio)


def _row(what: str, rate: str, p50: str = "", p99: str = "", beside: str = "") -> str:
    return f"{what:<28}{rate:>9}{p50:>9}{p99:>9}  {beside}".rstrip()


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}"


def _ms(ms: float) -> str:
    return f"{_times(ms)} ms" if ms >= MICROSECONDS_BELOW_MS else f"{ms * 1000:.0f} us"


def _times(number: float) -> str:
    return f"{number:.2f}" if number < PRECISE_BELOW else f"{number:,.0f}"


def _to_one_each(found: Figures) -> float:
    """Return the rate beside that of a disk which does nothing but one fdatasync for each event."""
    return found.many.events_per_s * found.disk.p50_ms / 1000


def _to_sqlite(found: Figures, load: Load) -> float:
    return load.events_per_s / found.sqlite_rows_per_s


def _load(load: Load) -> dict[str, Any]:
    return {"events": load.events, "events_per_s": load.events_per_s}


def _timed(load: Load) -> dict[str, Any]:
    return _load(load) | {"p50_ms": load.p50_ms, "p99_ms": load.p99_ms}


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
