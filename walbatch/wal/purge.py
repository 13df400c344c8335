"""The SQL of deleting what every destination has done with."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from walbatch.event import Kind
from walbatch.wal import Lane, store
from walbatch.wal.driver import Connection


class Purged(NamedTuple):
    """What one slice has done."""

    deleted: int
    through: int | None
    """The last offset that was looked at; None if nothing that is old enough lies behind it."""


def purge(connection: Connection, lanes: Iterable[Lane], before_ms: int, after: int, size: int) -> Purged:
    """Look at the next `size` records behind an offset, and delete those that every lane has settled.

    Only such as were received before a time. Open dead letters stay, with their records. A destination that is not
    served now is not waited for: what it never got counts as purged.
    """
    seen = connection.execute(
        "SELECT seq, received_at_ms FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, size)
    ).fetchall()
    if not seen or seen[0][1] >= before_ms:
        return Purged(0, None)
    first, last = seen[0][0], seen[-1][0]
    bits = store.destinations(connection)
    deleted = 0
    for kind in Kind:
        done = [_done_by(connection, lane, bits[lane.destination]) for lane in lanes if lane.kind is kind]
        rows = connection.execute(
            f"DELETE FROM events AS e WHERE {store.OF_KIND[kind]} AND seq BETWEEN ? AND ? AND received_at_ms < ?"
            f" AND {' AND '.join(done) or 'true'} AND NOT EXISTS (SELECT 1 FROM dead_letters d"
            " WHERE d.seq = e.seq AND d.resolution IS NULL) RETURNING seq, length(CAST(payload AS BLOB)), routes",
            (first, last, before_ms),
        ).fetchall()
        for name, bit in bits.items() if rows else ():
            lane = Lane(name, kind)
            since = store.started_after(connection, lane)
            sizes = {seq: size for seq, size, routes in rows if seq > since and (routes is None or routes & (1 << bit))}
            if sizes:
                _count_purged(connection, lane, sizes)
        deleted += len(rows)
    return Purged(deleted, last)


def _done_by(connection: Connection, lane: Lane, bit: int) -> str:
    """Return a filter for what a lane does not need any more."""
    through = store.lane_counts(connection, lane).settled_through
    return f"(seq <= {through} OR NOT {store.is_for(bit)})"


def _count_purged(connection: Connection, lane: Lane, sizes: Mapping[int, int]) -> None:
    """Bring one lane's counts up to the deletion of its records, given as offsets with their sizes."""
    key = (lane.destination, lane.kind.value)
    last = max(sizes)
    resolved = connection.execute(
        "DELETE FROM dead_letters WHERE destination = ? AND kind = ? AND seq BETWEEN ? AND ?"
        " AND resolution IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = dead_letters.seq)",
        (*key, min(sizes), last),
    ).rowcount
    settled = store.settled_spans(connection, lane)
    never_sent = [
        size
        for seq, size in sizes.items()
        if settled[bisect_right(settled, seq, key=lambda span: span.first) - 1].last < seq
    ]
    connection.execute(
        "UPDATE cursors SET sent = sent - ?, purged = purged + ?, settled_bytes = settled_bytes + ?"
        " WHERE destination = ? AND kind = ?",
        (len(sizes) - resolved - len(never_sent), len(sizes) - resolved, sum(never_sent), *key),
    )
    connection.execute(
        "DELETE FROM deliveries WHERE destination = ? AND kind = ? AND last_seq <= ?",
        (*key, min(last, settled[0].last)),
    )
