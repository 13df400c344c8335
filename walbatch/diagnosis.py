"""What `walbatch doctor` finds out about a log. It only reads, with a server running or not.

Each check is a function over a `Look` that yields what it found. A log that is damaged or too new stops the checks that
need its rows, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from walbatch.errors import CorruptLog, WalbatchError
from walbatch.retry import State
from walbatch.stats import read_backlog, rfc3339
from walbatch.units import format_bytes, format_duration
from walbatch.wal import audit, driver, frames, migrate, recovery
from walbatch.wal.files import DATABASE_FILE, file_sizes, wal_file

LARGE_WAL_BYTES = 256 * 1024**2
"""SQLite trims the write-ahead log at 64 MiB; far beyond it somebody keeps it from doing so."""

MAX_WAL_BYTES = 1024**3
"""Reading keeps the write-ahead log from being trimmed: at this size a check is given up."""

OLD_PENDING_S = 3600.0
"""Longer than any outage that nobody has to know of."""

CLOCK_SLACK_MS = 60_000

_STEPS_BETWEEN_LOOKS = 1_000_000
"""Of SQLite's machine: some tens of milliseconds."""


class Status(StrEnum):
    """How bad a finding is: nothing to do, look when there is time, or act."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it."""

    check: str
    status: Status
    text: str
    fix: str = ""
    damaged: bool = False
    """The log's own file is at fault."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the checks of a log work with."""

    connection: driver.Connection
    directory: Path
    now_ms: int


RESTORE = "keep a copy of the whole directory, then restore a backup or recover what can be read: docs/backup.md"


def examine(directory: Path, *, serving: bool, now_ms: int) -> Iterator[Finding]:
    """Check the log in a directory, from the cheapest to what reads all of it."""
    database = directory / DATABASE_FILE
    if not database.exists():
        yield Finding("log", Status.WARN, f"there is none in {directory}", "`walbatch serve` makes one")
        return
    yield from _guarded("write-ahead log", lambda: _wal(database, serving=serving))
    is_idle = not serving and file_sizes(database)[1] == 0
    try:
        # While nobody serves it, and nothing is left to take over, not even SQLite's own files are made beside it.
        connection = driver.open_inspector(database, with_wal=False) if is_idle else driver.open_reader(database)
    except driver.Error as error:
        yield Finding("log", Status.FAIL, f"{database} cannot be opened: {error}", "check its owner and its mode")
        return
    with closing(connection):
        connection.set_progress_handler(lambda: file_sizes(database)[1] > MAX_WAL_BYTES, _STEPS_BETWEEN_LOOKS)
        look = Look(connection, directory, now_ms)
        known = False
        for finding in _guarded("schema", lambda: _schema(look)):
            known = finding.status is Status.OK
            yield finding
        yield from _guarded("integrity", lambda: _integrity(look))
        for name, check in _OF_ROWS.items() if known else ():
            yield from _guarded(name, lambda check=check: check(look))  # type: ignore[misc]


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run a check; what stops it is a finding as well."""
    try:
        yield from check()
    except driver.Error as error:
        if driver.is_interrupted(error):
            text = f"was given up: the write-ahead log is larger than {format_bytes(MAX_WAL_BYTES)}"
            yield Finding(name, Status.WARN, text, "run this again when less comes in, or on a backup")
        else:
            yield Finding(name, Status.FAIL, f"cannot be read: {error}", RESTORE, damaged=driver.is_damage(error))
    except WalbatchError as error:
        yield Finding(name, Status.FAIL, str(error), damaged=isinstance(error, CorruptLog))
    except (TypeError, ValueError, KeyError) as error:
        yield Finding(name, Status.FAIL, f"holds what walbatch never writes: {error}", RESTORE, damaged=True)


def _wal(database: Path, *, serving: bool) -> Iterator[Finding]:
    """Is the write-ahead log this database's, whole, and of a sensible size?"""
    size = file_sizes(database)[1]
    if size and not serving:
        recovery.refuse_foreign_wal(database)
        lost = frames.damage(wal_file(database), database) if size <= MAX_WAL_BYTES else None
        if lost is not None:
            yield Finding("write-ahead log", Status.FAIL, lost, RESTORE, damaged=True)
            return
    if size > LARGE_WAL_BYTES:
        fix = "look for a program that has events.db open for reading, and end it; the log is then trimmed by itself"
        yield Finding("write-ahead log", Status.WARN, f"has {format_bytes(size)}", fix)
    else:
        yield Finding("write-ahead log", Status.OK, f"has {format_bytes(size)}")


def _schema(look: Look) -> Iterator[Finding]:
    version = migrate.schema_version(look.connection)
    newest = migrate.migrations()[-1][0]
    if version == newest:
        migrate.check_tables(look.connection, version)
        yield Finding("schema", Status.OK, f"version {version}, the newest")
    elif version == 0:
        yield Finding("schema", Status.WARN, "the database is empty", "`walbatch serve` sets it up")
    else:
        fix = (
            "`walbatch serve` updates it at its next start, or `walbatch migrate` now; the rows are checked after that"
        )
        yield Finding("schema", Status.WARN, f"version {version}, the newest is {newest}", fix)


def _integrity(look: Look) -> Iterator[Finding]:
    wrong = [row[0] for row in look.connection.execute("PRAGMA integrity_check(5)").fetchall()]
    if wrong == ["ok"]:
        size = format_bytes(file_sizes(look.directory / DATABASE_FILE)[0])
        yield Finding("integrity", Status.OK, f"every page of {size} is where it should be")
    for text in wrong if wrong != ["ok"] else ():
        yield Finding("integrity", Status.FAIL, text.replace("\n", ", "), RESTORE, damaged=True)


def _accounting(look: Look) -> Iterator[Finding]:
    look.connection.execute("BEGIN")
    try:
        found = audit.differences(look.connection)
    finally:
        look.connection.execute("COMMIT")
    for one in found:
        text = f"{one.place}: {one.what} is {one.counted:,}, the rows say {one.found:,}"
        fix = "keep a copy of the directory and tell the makers; delivery goes on"
        yield Finding("accounting", Status.FAIL, text, fix)
    if not found:
        yield Finding("accounting", Status.OK, "every counter and watermark is what the rows say")


def _pending(look: Look) -> Iterator[Finding]:
    for destination in read_backlog(look.connection).destinations:
        condition = destination.condition
        ages = [lane.oldest_pending_at_ms for lane in destination.lanes if lane.oldest_pending_at_ms is not None]
        owed = sum(lane.pending for lane in destination.lanes)
        age_s = max(look.now_ms - min(ages), 0) / 1000 if ages else 0.0
        text = f"{destination.name}: {owed:,} pending"
        if ages:
            text += f", the oldest for {format_duration(round(age_s))}"
        if destination.paused_at_ms is not None:
            text = f"{text}; paused by a person since {rfc3339(destination.paused_at_ms)}"
            yield Finding("delivery", Status.WARN, text, "nothing is lost; `walbatch resume` lets it go on")
        elif condition.state is State.OK:
            late = age_s > OLD_PENDING_S
            fix = "is it still configured, and is a server running? `walbatch stats`" if late else ""
            yield Finding("delivery", Status.WARN if late else Status.OK, text, fix)
        else:
            text = f"{text}; {condition.state} after {condition.failures:,} failures: {condition.last_error}"
            fix = "nothing is lost; it goes on by itself when the destination takes records again: docs/delivery.md"
            yield Finding("delivery", Status.WARN, text, fix)


def _clock(look: Look) -> Iterator[Finding]:
    newest = look.connection.execute("SELECT received_at_ms FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    if newest is not None and newest[0] > look.now_ms + CLOCK_SLACK_MS:
        fix = "set this machine's clock; retention and ages are by it"
        yield Finding("clock", Status.WARN, f"the newest record is of {rfc3339(newest[0])}, which is to come", fix)
    else:
        yield Finding("clock", Status.OK, "no record is from the future")


_OF_ROWS: dict[str, Callable[[Look], Iterator[Finding]]] = {
    "accounting": _accounting,
    "delivery": _pending,
    "clock": _clock,
}
"""What only a readable log of this version's schema can be asked."""
