"""The SQL of reading records out of the log to move them elsewhere: by time, name, user, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from walbatch.event import Offset
from walbatch.wal.driver import Connection
from walbatch.wal.lookup import MAX_PAGE_BYTES
from walbatch.wal.selection import narrowed

STATUSES = {
    "pending": ("pending",),
    "sent": ("sent",),
    "dead": ("dead",),
    "held": ("held",),
    "all": ("pending", "sent", "dead", "held"),
}
"""What each value of `status` selects. What was given up, or is stored once more in its place, is never extracted."""

PAGE = 1000
"""Records that one statement looks at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records. Times are those of acceptance, in milliseconds; `until_ms` is excluded. None does not restrict."""

    since_ms: int | None = None
    until_ms: int | None = None
    event: str | None = None
    distinct_id: str | None = None
    status: Literal["pending", "sent", "dead", "held", "all"] = "all"
    destination: str | None = None
    """Where the status is looked at. None: a record is chosen if it has the status at any destination."""


class Extracted(NamedTuple):
    """One record. `kind` is the number of a `walbatch.event.Kind`."""

    offset: Offset
    kind: int
    event_id: str
    payload: str


class Page(NamedTuple):
    """What one statement has found, and up to where it has looked."""

    records: list[Extracted]
    through: Offset


def page(connection: Connection, wanted: Wanted, after: int, through: int) -> Page | None:
    """Look at the next records behind an offset; None at the end.

    Of a copy and its original, if both are wanted, it is the original that is extracted.
    """
    ahead = "SELECT seq FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    (last,) = connection.execute(f"SELECT max(seq) FROM ({ahead})", (after, through, PAGE)).fetchone()
    if last is None:
        return None
    chosen, values = _chosen(wanted)
    cursor = connection.execute(
        "SELECT e.seq, e.kind, e.event_id, e.payload FROM events e WHERE e.seq > ? AND e.seq <= ?"
        f" AND {chosen.format('e.seq')} AND (e.replay_of IS NULL OR NOT {chosen.format('e.replay_of')}) ORDER BY e.seq",
        (after, last, *values, *values),
    )
    found: list[Extracted] = []
    room = MAX_PAGE_BYTES
    try:
        for one in cursor:
            found.append(Extracted(*one))
            room -= len(found[-1].payload)
            if room < 0:
                return Page(found, found[-1].offset)
    finally:
        cursor.close()  # a half-read cursor keeps the log from being trimmed
    return Page(found, last)


def _chosen(wanted: Wanted) -> tuple[str, list[Any]]:
    """Return a condition, in which {} stands for the number of a record, and its values."""
    statuses = STATUSES[wanted.status]
    terms, values = narrowed(
        "s",
        since_ms=wanted.since_ms,
        until_ms=wanted.until_ms,
        event=wanted.event,
        distinct_id=wanted.distinct_id,
    )
    if wanted.destination is not None:
        terms.append("s.destination = ?")
        values.append(wanted.destination)
    terms.append(f"s.status IN ({','.join('?' * len(statuses))})")
    return f"EXISTS (SELECT 1 FROM record_status s WHERE s.seq = {{}} AND {' AND '.join(terms)})", [*values, *statuses]
