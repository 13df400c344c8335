"""Every SQL statement of the log, as plain functions over a connection. They neither begin nor commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from walbatch.batching import byte_length
from walbatch.delivery import Delivered, Rejected
from walbatch.event import EventId, Kind, Offset, Record
from walbatch.retry import Condition, State
from walbatch.wal import Backlog, DestinationBacklog, Entry, Lane, LaneBacklog, Settlement
from walbatch.wal.driver import Connection
from walbatch.wal.lanes import LaneState, Position, Run, Span
from walbatch.wal.recent import RecentIds

_ROW = "(?,?,?,?,?)"
_INSERT = "INSERT INTO events (kind, event_id, payload, received_at_ms, replay_of) VALUES "
_INSERT_SIZES = (256, 64, 16, 4, 1)
"""Rows of one INSERT. Multi-row statements of few sizes: Python's executemany gives up and takes the interpreter lock
at every row, and each size is one statement to keep prepared."""

_OF_KIND = {Kind.EVENT: "kind = 0", Kind.PROFILE: "kind = 1 AND kind <> 0"}
"""A filter by kind. The rare kinds name the condition of their partial index, which is how SQLite finds it."""


def append(connection: Connection, records: Sequence[Record]) -> list[Offset]:
    """Insert records in order and return their offsets."""
    offsets: list[Offset] = []
    while len(offsets) < len(records):
        left = len(records) - len(offsets)
        size = next(size for size in _INSERT_SIZES if size <= left)
        part = records[len(offsets) : len(offsets) + size]
        values = [v for r in part for v in (r.kind.value, r.event_id, r.payload, r.received_at_ms, r.replay_of)]
        last = connection.execute(_INSERT + ",".join([_ROW] * size), values).lastrowid or 0
        offsets.extend(Offset(seq) for seq in range(last - size + 1, last + 1))
    for kind in Kind:
        sizes = [byte_length(r.payload) for r in records if r.kind is kind]
        if sizes:
            connection.execute(
                "UPDATE accepted SET count = count + ?, bytes = bytes + ? WHERE kind = ?",
                (len(sizes), sum(sizes), kind.value),
            )
    replayed = [r.replay_of for r in records if r.replay_of is not None]
    if replayed:
        _resolve(connection, replayed, "replayed", records[0].received_at_ms)
    return offsets


def _resolve(connection: Connection, seqs: Sequence[Offset], resolution: str, now_ms: int) -> None:
    for seq in seqs:
        for destination, kind in connection.execute(
            "UPDATE dead_letters SET resolved_at_ms = ?, resolution = ? WHERE seq = ? AND resolution IS NULL"
            " RETURNING destination, kind",
            (now_ms, resolution, seq),
        ).fetchall():
            connection.execute(
                "UPDATE cursors SET dead = dead - 1, resolved = resolved + 1 WHERE destination = ? AND kind = ?",
                (destination, kind),
            )


def read_span(
    connection: Connection, kind: Kind, span: Span, limit: int, max_bytes: int
) -> tuple[list[Entry], int | None]:
    """Read the oldest records of a span, at least one however large it is.

    Returns them, and when the next one was received if the span has more, else None.
    """
    cursor = connection.execute(
        f"SELECT seq, event_id, payload, received_at_ms FROM events WHERE {_OF_KIND[kind]} AND seq BETWEEN ? AND ?"
        " ORDER BY seq LIMIT ?",
        (span.first, span.last, limit + 1),
    )
    entries: list[Entry] = []
    room = max_bytes
    try:
        for row in cursor:
            entry = Entry(*row)
            room -= byte_length(entry.payload) + 1  # a comma or a bracket
            if len(entries) == limit or (entries and room < 1):
                return entries, entry.received_at_ms
            entries.append(entry)
    finally:
        cursor.close()  # a half-read cursor keeps the log from being trimmed
    return entries, None


def oldest_received_at_ms(connection: Connection, kind: Kind, first: int) -> int | None:
    """Return when the first record at or after an offset was received."""
    row = connection.execute(
        f"SELECT received_at_ms FROM events WHERE {_OF_KIND[kind]} AND seq >= ? ORDER BY seq LIMIT 1", (first,)
    ).fetchone()
    return row[0] if row else None


def settle(connection: Connection, settlement: Settlement, settled: Iterable[Run], settled_through: int) -> None:
    """Record the settled runs of a batch, the lane's new watermark, and the destination's condition."""
    lane = settlement.batch.lane
    for run in settled:
        _settle_run(connection, lane, settlement, run)
    raise_watermark(connection, lane, settled_through)
    condition = settlement.condition
    connection.execute(
        "INSERT INTO destinations (name, state, failures, retry_at_ms, last_error) VALUES (?,?,?,?,?)"
        " ON CONFLICT (name) DO UPDATE SET state = excluded.state, failures = excluded.failures,"
        " retry_at_ms = excluded.retry_at_ms, last_error = excluded.last_error",
        (lane.destination, condition.state, condition.failures, condition.retry_at_ms, condition.last_error),
    )


def raise_watermark(connection: Connection, lane: Lane, settled_through: int) -> None:
    """Note that every record of a lane up to an offset is settled."""
    connection.execute(
        "UPDATE cursors SET settled_through = max(settled_through, ?) WHERE destination = ? AND kind = ?",
        (settled_through, lane.destination, lane.kind.value),
    )


def _settle_run(connection: Connection, lane: Lane, settlement: Settlement, run: Run) -> None:
    sent = sum(isinstance(outcome, Delivered) for outcome in run.outcomes)
    dead = len(run.outcomes) - sent
    size = sum(byte_length(entry.payload) for entry in run.entries)
    connection.execute(
        "INSERT INTO deliveries (destination, kind, first_seq, last_seq, sent, dead, bytes, note, started_at_ms,"
        " finished_at_ms) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            *(lane.destination, lane.kind.value, *run.span, sent, dead, size),
            *(settlement.note, settlement.started_at_ms, settlement.finished_at_ms),
        ),
    )
    for entry, outcome in zip(run.entries, run.outcomes, strict=True):
        if isinstance(outcome, Rejected):
            connection.execute(
                "INSERT INTO dead_letters (destination, seq, kind, code, field, reason, at_ms) VALUES (?,?,?,?,?,?,?)",
                (
                    *(lane.destination, entry.offset, lane.kind.value),
                    *(outcome.code, outcome.field, outcome.reason, settlement.finished_at_ms),
                ),
            )
    connection.execute(
        "UPDATE cursors SET sent = sent + ?, dead = dead + ?, settled_bytes = settled_bytes + ?"
        " WHERE destination = ? AND kind = ?",
        (sent, dead, size, lane.destination, lane.kind.value),
    )


def add_destination(connection: Connection, destination: str) -> None:
    """Give a destination a cursor for each kind, at the beginning of the log, unless it has them."""
    connection.executemany(
        "INSERT INTO cursors (destination, kind) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(destination, kind.value) for kind in Kind],
    )


class LaneCounts(NamedTuple):
    """One row of `cursors`, with the count of what was accepted."""

    accepted: int
    pending_bytes: int
    settled_through: int
    sent: int
    purged: int
    dead: int
    resolved: int

    @property
    def pending(self) -> int:
        """Return what the destination is owed."""
        return self.accepted - self.sent - self.purged - self.dead - self.resolved


def lane_counts(connection: Connection, lane: Lane) -> LaneCounts:
    """Return the counts of a lane; a destination that has never been served is owed everything that is stored."""
    row = connection.execute(
        "SELECT a.count, a.bytes - coalesce(c.settled_bytes, 0), coalesce(c.settled_through, 0), coalesce(c.sent, 0),"
        " coalesce(c.purged, 0), coalesce(c.dead, 0), coalesce(c.resolved, 0)"
        " FROM accepted a LEFT JOIN cursors c ON c.kind = a.kind AND c.destination = ? WHERE a.kind = ?",
        (lane.destination, lane.kind.value),
    ).fetchone()
    return LaneCounts(*row)


def load_lane(connection: Connection, lane: Lane) -> LaneState:
    """Rebuild a lane's position from its cursor and the islands above it."""
    counts = lane_counts(connection, lane)
    islands: list[Span] = []
    through = counts.settled_through
    for first, last in _islands(connection, lane.destination, lane.kind, through):
        # What lies between two islands may all be of other kinds: then there is no gap.
        owed = read_span(connection, lane.kind, Span(Offset(through + 1), Offset(first - 1)), 1, 1)
        islands.append(Span(first if owed[0] else Offset(through + 1), last))
        through = max(through, last)
    return LaneState(counts.settled_through, islands, counts.pending)


def _islands(connection: Connection, destination: str, kind: Kind, through: int) -> list[Span]:
    """Return what is settled above a watermark, lowest first."""
    rows = connection.execute(
        "SELECT first_seq, last_seq FROM deliveries WHERE destination = ? AND kind = ? AND first_seq > ?"
        " ORDER BY first_seq",
        (destination, kind.value, through),
    ).fetchall()
    return [Span(*row) for row in rows]


def condition_of(connection: Connection, destination: str) -> Condition:
    """Return a destination's stored condition."""
    row = connection.execute(
        "SELECT state, failures, retry_at_ms, last_error FROM destinations WHERE name = ?", (destination,)
    ).fetchone()
    return Condition(State(row[0]), *row[1:]) if row else Condition()


def destinations(connection: Connection) -> list[str]:
    """Return the destinations that were ever served, by name."""
    return [row[0] for row in connection.execute("SELECT DISTINCT destination FROM cursors ORDER BY 1").fetchall()]


def backlog(connection: Connection, positions: Mapping[Lane, Position]) -> Backlog:
    """Read all counts in one transaction. `positions` has the lanes to report."""
    connection.execute("BEGIN")
    try:
        counts = {lane: lane_counts(connection, lane) for lane in positions}
        names = sorted({lane.destination for lane in positions})
        accepted = connection.execute("SELECT sum(count) FROM accepted").fetchone()[0]
        owed = (sum(c.pending_bytes for lane, c in counts.items() if lane.destination == name) for name in names)
        found = []
        for name in names:
            lanes = [
                _lane_backlog(connection, lane, counts[lane], position)
                for lane, position in positions.items()
                if lane.destination == name
            ]
            found.append(DestinationBacklog(name, condition_of(connection, name), lanes))
        return Backlog(accepted, max(owed, default=0), found)
    finally:
        connection.execute("COMMIT")


def _lane_backlog(connection: Connection, lane: Lane, counts: LaneCounts, position: Position) -> LaneBacklog:
    oldest = oldest_received_at_ms(connection, lane.kind, position.watermark + 1) if counts.pending else None
    return LaneBacklog(
        name=lane.name,
        accepted=counts.accepted,
        pending=counts.pending,
        in_flight=min(position.in_flight, counts.pending),  # the two are not from the same instant
        sent=counts.sent,
        purged=counts.purged,
        dead=counts.dead,
        resolved=counts.resolved,
        oldest_pending_at_ms=oldest,
    )


def load_recent(connection: Connection, recent: RecentIds, window: int) -> None:
    """Remember the ids of the newest records, oldest first."""
    rows = connection.execute(
        "SELECT seq, kind, event_id, payload FROM events WHERE replay_of IS NULL ORDER BY seq DESC LIMIT ?", (window,)
    ).fetchall()
    for seq, kind, event_id, payload in reversed(rows):
        remember(recent, Kind(kind), EventId(event_id), orjson.loads(payload), Offset(seq))


def remember(recent: RecentIds, kind: Kind, event_id: EventId, payload: dict[str, object], offset: Offset) -> None:
    """Add a stored record to the window by what its payload says."""
    if kind is Kind.EVENT:
        properties = payload["properties"]
        assert isinstance(properties, dict)  # noqa: S101  written by walbatch.event
        recent.remember(event_id, str(payload["event"]), properties["distinct_id"], properties["time"], offset)
    else:
        operation = next(key for key in payload if key not in ("$distinct_id", "$ip"))
        recent.remember(event_id, operation, str(payload["$distinct_id"]), 0, offset)


def purge(connection: Connection, lanes: Iterable[Lane], before_ms: int, limit: int) -> int:
    """Delete the oldest records that every lane has settled and that were received before a time; return how many.

    Open dead letters stay, with their records. A destination that is not served now is not waited for: what it never
    got counts as purged.
    """
    deleted = 0
    for kind in Kind:
        through = [lane_counts(connection, lane).settled_through for lane in lanes if lane.kind is kind]
        rows = connection.execute(
            f"DELETE FROM events WHERE seq IN (SELECT seq FROM events e WHERE {_OF_KIND[kind]} AND seq <= ?"
            " AND received_at_ms < ? AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = e.seq AND"
            " d.resolution IS NULL) ORDER BY seq LIMIT ?) RETURNING seq, length(CAST(payload AS BLOB))",
            (min(through, default=0), before_ms, limit),
        ).fetchall()
        if rows:
            sizes = dict(sorted(rows))
            for destination, settled_through in connection.execute(
                "SELECT destination, settled_through FROM cursors WHERE kind = ?", (kind.value,)
            ).fetchall():
                _count_purged(connection, destination, kind, settled_through, sizes)
        deleted += len(rows)
    return deleted


def _count_purged(
    connection: Connection, destination: str, kind: Kind, settled_through: int, sizes: Mapping[int, int]
) -> None:
    """Bring one destination's counts up to the deletion of records, given as offsets with their sizes."""
    last = max(sizes)
    resolved = connection.execute(
        "DELETE FROM dead_letters WHERE destination = ? AND kind = ? AND seq BETWEEN ? AND ?"
        " AND resolution IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = dead_letters.seq)",
        (destination, kind.value, min(sizes), last),
    ).rowcount
    settled = [Span(Offset(0), Offset(settled_through)), *_islands(connection, destination, kind, settled_through)]
    never_sent = [size for seq, size in sizes.items() if not any(first <= seq <= end for first, end in settled)]
    connection.execute(
        "UPDATE cursors SET sent = sent - ?, purged = purged + ?, settled_bytes = settled_bytes + ?"
        " WHERE destination = ? AND kind = ?",
        (len(sizes) - resolved - len(never_sent), len(sizes) - resolved, sum(never_sent), destination, kind.value),
    )
    connection.execute(
        "DELETE FROM deliveries WHERE destination = ? AND kind = ? AND last_seq <= ?",
        (destination, kind.value, min(last, settled_through)),
    )
