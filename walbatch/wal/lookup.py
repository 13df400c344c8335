"""The SQL of finding stored records: by number, by time, and by id, for which there is no index.

Everything here is read a piece at a time. Between two pieces nothing is read, so that SQLite's log can be trimmed.
"""

from __future__ import annotations

from typing import NamedTuple

from walbatch.event import Offset
from walbatch.wal.driver import Connection
from walbatch.wal.lanes import Span

MAX_PAGE_BYTES = 8 * 2**20
"""A page of rows ends with the one that is beyond this: a thousand records can be a gigabyte."""

_COLUMNS = "seq, kind, event_id, payload, received_at_ms, replay_of"


class Row(NamedTuple):
    """One stored record. `kind` is the number of a `walbatch.event.Kind`."""

    offset: Offset
    kind: int
    event_id: str
    payload: str
    received_at_ms: int
    replay_of: Offset | None


def row(connection: Connection, offset: int) -> Row | None:
    """Return the record with a number; None if it is not stored."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM events WHERE seq = ?", (offset,)).fetchone()
    return Row(*found) if found else None


def rows_after(connection: Connection, after: int, through: int, size: int) -> list[Row]:
    """Return the next records behind an offset: `size`, or fewer if they are large. Empty at the end."""
    found: list[Row] = []
    room = MAX_PAGE_BYTES
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (after, through, size)
    )
    try:
        for one in cursor:
            found.append(Row(*one))
            room -= len(found[-1].payload)
            if room < 0:
                break
    finally:
        cursor.close()  # a half-read cursor keeps the log from being trimmed
    return found


def extent(connection: Connection) -> Span | None:
    """Return the first and the last stored record; None if there is none."""
    first, last = connection.execute("SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)").fetchone()
    return None if first is None else Span(first, last)


def first_since(connection: Connection, time_ms: int) -> Offset:
    """Return from which offset on records were received at or after a time, by some twenty looks.

    That is exact where the clock never went back. Where it did, records of before can follow, and such of afterwards
    be left out.
    """
    bounds = extent(connection)
    low, high = (bounds.first, bounds.last + 1) if bounds else (0, 0)
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(
            "SELECT seq, received_at_ms FROM events WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if found is None or found[1] >= time_ms:
            high = middle
        else:
            low = found[0] + 1
    return Offset(low)


def with_id(connection: Connection, event_id: str, span: Span) -> list[Offset]:
    """Return the records of a span that have this id. Reads all of it: give it a piece at a time."""
    rows = connection.execute(
        "SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND event_id = ? ORDER BY seq", (*span, event_id)
    ).fetchall()
    return [offset for (offset,) in rows]


def copies(connection: Connection, offset: int) -> list[tuple[str, Offset, str]]:
    """Return the records that repeat one, as destination, number, and what became of it there."""
    return connection.execute(
        "SELECT destination, seq, status FROM record_status WHERE seq IN"
        " (SELECT e.seq FROM events e WHERE e.replay_of = ?) ORDER BY seq, destination",
        (offset,),
    ).fetchall()
