"""Count again what the counters say, from the rows themselves.

`stats` and the delivery live on counters, which are changed in the transactions that change the rows. This reads every
row, so it takes as long as reading the file; begin a transaction before, or a server's commits fall in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from walbatch.event import Kind
from walbatch.wal import Lane, store
from walbatch.wal.driver import Connection

GONE = ("purged", "erased")
"""Counters of a lane, attributes of `store.LaneCounts`, that say how many accepted records are not stored any more."""


class Difference(NamedTuple):
    """A counter that the rows contradict."""

    place: str
    """A lane, as `mixpanel/events`, or `log`."""
    what: str
    counted: int
    found: int
    """What it should be; with `at most` in `what`, the largest that it may be."""


class _Rows(NamedTuple):
    stored: int
    pending: int
    pending_bytes: int
    dead: int
    held: int
    resolved: int


def differences(connection: Connection) -> list[Difference]:
    """Return every contradiction; the schema is the newest one."""
    compared = list(_of_log(connection))
    for name, bit in store.destinations(connection).items():
        for kind in Kind:
            compared += _of_lane(connection, Lane(name, kind), bit)
    return [one for one in compared if not _agrees(one)]


def _agrees(one: Difference) -> bool:
    return one.counted <= one.found if one.what.endswith("at most") else one.counted == one.found


def _of_lane(connection: Connection, lane: Lane, bit: int) -> Iterator[Difference]:
    counts = store.lane_counts(connection, lane)
    rows = _count(connection, lane, bit)
    end = _sequence(connection)
    gone = sum(getattr(counts, name) for name in GONE)
    # A resolved letter is deleted with its record, and stays counted as resolved.
    gone += counts.resolved - rows.resolved
    place = f"{lane.destination}/{lane.name}"
    yield Difference(place, "accepted", counts.accepted, rows.stored + gone)
    yield Difference(place, "pending", counts.pending, rows.pending)
    yield Difference(place, "pending bytes", counts.pending_bytes, rows.pending_bytes)
    yield Difference(place, "sent", counts.sent, rows.stored - rows.pending - rows.dead - rows.resolved)
    yield Difference(place, "dead", counts.dead, rows.dead)
    yield Difference(place, "held", counts.held, rows.held)
    yield Difference(place, "watermark, at most", counts.settled_through, end)
    yield Difference(place, "overlapping deliveries above the watermark", _overlaps(connection, lane), 0)


def _count(connection: Connection, lane: Lane, bit: int) -> _Rows:
    key = (lane.destination, lane.kind.value)
    since, through = connection.execute(
        "SELECT started_after, settled_through FROM cursors WHERE destination = ? AND kind = ?", key
    ).fetchone()
    events = connection.execute(
        "SELECT count(*), coalesce(sum(pending), 0), coalesce(sum(bytes) FILTER (WHERE pending), 0) FROM ("
        "SELECT length(CAST(e.payload AS BLOB)) AS bytes, e.seq > ?1 AND coalesce("
        "(SELECT r.last_seq FROM deliveries r WHERE r.destination = ?3 AND r.kind = ?4 AND r.first_seq > ?1"
        " AND r.first_seq <= e.seq ORDER BY r.first_seq DESC LIMIT 1), 0) < e.seq AS pending"
        f" FROM events e WHERE {store.OF_KIND[lane.kind]} AND {store.is_for(bit)} AND e.seq > ?2)",
        (through, since, *key),
    ).fetchone()
    letters = connection.execute(
        "SELECT count(*) FILTER (WHERE resolution IS NULL), count(*) FILTER (WHERE resolution IS NULL AND held),"
        " count(*) FILTER (WHERE resolution IS NOT NULL) FROM dead_letters WHERE destination = ? AND kind = ?",
        key,
    ).fetchone()
    return _Rows(*events, *letters)


def _overlaps(connection: Connection, lane: Lane) -> int:
    spans = store.islands(connection, *lane, store.lane_counts(connection, lane).settled_through)
    backwards = sum(span.last < span.first for span in spans)
    return backwards + sum(after.first <= before.last for before, after in pairwise(spans))


def _of_log(connection: Connection) -> Iterator[Difference]:
    end = _sequence(connection)
    yield Difference("log", "newest offset, at most", store.last_offset(connection), end)
    total = 0
    for kind in Kind:
        counted = connection.execute("SELECT count FROM accepted WHERE kind = ?", (kind.value,)).fetchone()[0]
        query = f"SELECT count(*) FROM events WHERE {store.OF_KIND[kind]}"
        stored = connection.execute(query).fetchone()[0]
        total += counted
        yield Difference("log", f"stored records of kind {kind.name.lower()}, at most", stored, counted)
    yield Difference("log", "accepted records, at most", total, end)


def _sequence(connection: Connection) -> int:
    """Return the last offset that was ever given."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0
