"""The SQL statements of appending, fetching and settling, as plain functions over a connection.

They neither begin nor commit; nor do those of `walbatch.wal.dead_letters`, `walbatch.wal.purge` and
`walbatch.wal.erasure`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple, cast

import orjson

from walbatch.batching import BatchPolicy, byte_lengths
from walbatch.delivery import DELIVERED, Rejected, Unknown
from walbatch.errors import ConfigurationError
from walbatch.event import Kind, Offset, Record, described
from walbatch.retry import Condition, State
from walbatch.wal import Backlog, Batch, DestinationBacklog, Lane, LaneBacklog, Settlement, dead_letters, pauses
from walbatch.wal.driver import Connection
from walbatch.wal.lanes import END, LaneState, Position, Run, Span
from walbatch.wal.recent import RecentIds, key_of

BLANK = "(erased)"
"""What stands in place of a text of a destination that named an erased person."""

Route = frozenset[str] | None
"""The names of the destinations that a record is for; None means all of them."""

Tallies = Mapping[tuple[Kind, Route], Sequence[int]]
"""Of some records: the bytes of each, by kind and route."""

MAX_DESTINATIONS = 63
"""As many as there are bits in a positive integer of SQLite."""

_ROW, _USUAL_ROW = "(?,?,?,?,?,?,?)", "(?,?,?,0,NULL,NULL,NULL)"
"""Almost every record is an event, no replay, for all destinations, and not traced. Said in the statement, not bound,
that takes a fourth of the time (0.7 instead of 2.7 to 4.9 microseconds a row, 2026-11-23)."""

_INSERT = "INSERT INTO events (event_id, payload, received_at_ms, kind, replay_of, routes, trace) VALUES "
_INSERT_ROWS = (256, 64)
"""Rows of one INSERT; what is left, fewer than the last of these, is one more. Each statement gives up the interpreter
lock, and waits for it again while others run; executemany does so at every row. `driver` keeps them all prepared."""

OF_KIND = {Kind.EVENT: "kind = 0", Kind.PROFILE: "kind = 1 AND kind <> 0", Kind.GROUP: "kind = 2 AND kind <> 0"}
"""A filter by kind. The rare kinds name the condition of their partial index, which is how SQLite finds it."""


def append(
    connection: Connection, records: Sequence[Record], routes: Sequence[Route], bits: Mapping[str, int]
) -> list[Offset]:
    """Insert records in order and return their offsets. `bits` has the place of each destination in a route.

    What they are counted as is for `count_accepted`.
    """
    offsets: list[Offset] = []
    usual = routes.count(None) == len(routes) and all(
        r.kind is Kind.EVENT and r.replay_of is None and not r.trace for r in records
    )
    while len(offsets) < len(records):
        start, left = len(offsets), len(records) - len(offsets)
        size = next((size for size in _INSERT_ROWS if size <= left), left)
        values: list[object] = []
        for r, route in zip(records[start : start + size], routes[start : start + size], strict=True):
            values += (r.event_id, r.payload, r.received_at_ms)
            if not usual:
                places = None if route is None else sum(1 << bits[n] for n in route)
                values += (r.kind.value, r.replay_of, places, r.trace or None)
        last = connection.execute(_insert(_USUAL_ROW if usual else _ROW, size), values).lastrowid or 0
        offsets += cast(Sequence[Offset], range(last - size + 1, last + 1))
    for record in () if usual else records:
        if record.replay_of is not None:
            dead_letters.resolve(connection, record.destination, record.replay_of, "replayed", record.received_at_ms)
    return offsets


@cache
def _insert(row: str, rows: int) -> str:
    return _INSERT + ",".join([row] * rows)


def count_accepted(connection: Connection, tallies: Tallies) -> None:
    """Add to the totals, and to those of each destination."""
    for (kind, route), sizes in tallies.items():
        values = (len(sizes), sum(sizes), kind.value)
        connection.execute("UPDATE accepted SET count = count + ?, bytes = bytes + ? WHERE kind = ?", values)
        update = "UPDATE cursors SET accepted = accepted + ?, accepted_bytes = accepted_bytes + ? WHERE kind = ?"
        if route is None:
            connection.execute(update, values)
        else:
            connection.executemany(f"{update} AND destination = ?", [(*values, name) for name in route])


def read_span(
    connection: Connection, lane: Lane, bit: int, span: Span, policy: BatchPolicy
) -> tuple[Batch, int | None]:
    """Read the oldest records of a span that are for one lane: one batch, so at least one however large it is.

    Returns them, and when the next one was received if the span has more, else None.
    """
    offsets: list[Offset] = []
    payloads: list[str] = []
    room = policy.max_bytes
    cursor = connection.execute(f"SELECT seq, payload {_in_span(lane, bit)} LIMIT ?", (*span, policy.max_size))
    try:
        for offset, payload in cursor:
            offsets.append(offset)
            payloads.append(payload)
            room -= len(payload)
            if room < 0:  # more than fit, and up to four times as many bytes: they are counted once, below
                break
    finally:
        cursor.close()  # a half-read cursor keeps the log from being trimmed
    sizes = byte_lengths(payloads)
    count = _fitting(sizes, policy)
    if not count:
        return Batch(lane, (), (), ()), None
    oldest_at_ms = oldest_received_at_ms(connection, lane, bit, Span(offsets[0], offsets[0])) or 0
    batch = Batch(lane, offsets[:count], payloads[:count], sizes[:count], oldest_at_ms)
    return batch, oldest_received_at_ms(connection, lane, bit, Span(Offset(offsets[count - 1] + 1), span.last))


def _fitting(sizes: Sequence[int], policy: BatchPolicy) -> int:
    """Return how many records of these sizes go into one request; the first one always does."""
    if sum(sizes) + len(sizes) * policy.overhead_bytes < policy.max_bytes:  # one bracket is not counted as a comma
        return len(sizes)
    ends = list(accumulate(size + policy.overhead_bytes for size in sizes))
    return max(bisect_left(ends, policy.max_bytes), 1)


def oldest_received_at_ms(connection: Connection, lane: Lane, bit: int, span: Span) -> int | None:
    """Return when the first record of a span that is for one lane was received; None if there is none."""
    row = connection.execute(f"SELECT received_at_ms {_in_span(lane, bit)} LIMIT 1", span).fetchone()
    return row[0] if row else None


def is_empty(connection: Connection, lane: Lane, bit: int, span: Span) -> bool:
    """Say whether no record of a span is for one lane."""
    return oldest_received_at_ms(connection, lane, bit, span) is None


def _in_span(lane: Lane, bit: int) -> str:
    return f"FROM events WHERE {OF_KIND[lane.kind]} AND {is_for(bit)} AND seq BETWEEN ? AND ? ORDER BY seq"


def is_for(bit: int) -> str:
    """Return a filter for the records of one destination."""
    return f"(routes IS NULL OR routes & {1 << bit})"


def last_offset(connection: Connection) -> int:
    """Return the end of the log."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])


def settle(connection: Connection, settlement: Settlement, settled: Iterable[Run], settled_through: int) -> None:
    """Record the settled runs of a batch, the lane's new watermark, and the destination's condition.

    The watermark is never lowered: 0 leaves it where it is.
    """
    lane = settlement.batch.lane
    for run in settled:
        _settle_run(connection, lane, settlement, run)
    raise_watermark(connection, lane, settled_through)
    condition = settlement.condition
    # A text that was blanked stays so until the next failure: the lane's memory has it as it was.
    connection.execute(
        "UPDATE destinations SET state = ?1, failures = ?2, retry_at_ms = ?3, failing_since_ms = ?7,"
        " last_error = iif(last_error = ?6 AND failures = ?2, last_error, ?4) WHERE name = ?5",
        (
            *(condition.state, condition.failures, condition.retry_at_ms, condition.last_error, lane.destination),
            *(BLANK, condition.since_ms),
        ),
    )


def touch(connection: Connection) -> int:
    """Write a page without changing anything in the end, so that the COMMIT has to go to the disk.

    Two changes, because SQLite does not write a page that stays the same.
    """
    for change in (1, -1):
        connection.execute("UPDATE accepted SET count = count + ? WHERE kind = 0", (change,))
    return 1


def raise_watermark(connection: Connection, lane: Lane, settled_through: int) -> None:
    """Note that every record of a lane up to an offset is settled."""
    connection.execute(
        "UPDATE cursors SET settled_through = ?1 WHERE destination = ?2 AND kind = ?3 AND settled_through < ?1",
        (settled_through, lane.destination, lane.kind.value),
    )


def _settle_run(connection: Connection, lane: Lane, settlement: Settlement, run: Run) -> None:
    sent = run.outcomes.count(DELIVERED)
    dead = len(run.outcomes) - sent
    connection.execute(
        "INSERT INTO deliveries (destination, kind, first_seq, last_seq, sent, dead, bytes, note, started_at_ms,"
        " finished_at_ms) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            *(lane.destination, lane.kind.value, *run.span, sent, dead, run.size),
            *(settlement.note, settlement.started_at_ms, settlement.finished_at_ms),
        ),
    )
    held = 0
    for offset, outcome in zip(run.offsets, run.outcomes, strict=True) if dead else ():
        if isinstance(outcome, Rejected | Unknown):
            dead_letters.add(connection, lane, offset, outcome, settlement.finished_at_ms)
            held += isinstance(outcome, Unknown)
    connection.execute(
        "UPDATE cursors SET sent = sent + ?, dead = dead + ?, held = held + ?, settled_bytes = settled_bytes + ?"
        " WHERE destination = ? AND kind = ?",
        (sent, dead, held, run.size, lane.destination, lane.kind.value),
    )


def add_destination(connection: Connection, name: str, formerly: str | None = None) -> None:
    """Give a destination a place in the routes and a cursor for each kind, unless it has them.

    If the log knows it by a former name only, it is renamed, with all that it was sent and is owed. A new one begins
    at the end of the log.

    Raises:
        ConfigurationError: there were too many names in this log's life.
    """
    bits = destinations(connection)
    if name in bits:
        return
    if formerly in bits:
        connection.execute("UPDATE destinations SET name = ? WHERE name = ?", (name, formerly))
        for table in ("cursors", "deliveries", "dead_letters", "intents"):
            connection.execute(f"UPDATE {table} SET destination = ? WHERE destination = ?", (name, formerly))
        return
    if len(bits) == MAX_DESTINATIONS:
        raise ConfigurationError(f"{name}: this log has had {MAX_DESTINATIONS} destinations, which is all it can have")
    connection.execute(
        "INSERT INTO destinations (name, state, failures, bit) VALUES (?, 'ok', 0, ?)", (name, len(bits))
    )
    last = last_offset(connection)
    connection.executemany(
        "INSERT INTO cursors (destination, kind, started_after, settled_through) VALUES (?,?,?,?)",
        [(name, kind.value, last, last) for kind in Kind],
    )


class LaneCounts(NamedTuple):
    """One row of `cursors`, with the count of what was accepted."""

    accepted: int
    pending_bytes: int
    settled_through: int
    sent: int
    purged: int
    dead: int
    held: int
    resolved: int
    erased: int

    @property
    def pending(self) -> int:
        """Return what the destination is owed."""
        return self.accepted - self.sent - self.purged - self.dead - self.resolved - self.erased


def lane_counts(connection: Connection, lane: Lane) -> LaneCounts:
    """Return the counts of a lane of a destination that was added."""
    row = connection.execute(
        "SELECT accepted, accepted_bytes - settled_bytes, settled_through, sent, purged, dead, held, resolved,"
        " erased FROM cursors WHERE destination = ? AND kind = ?",
        (lane.destination, lane.kind.value),
    ).fetchone()
    return LaneCounts(*row)


def load_lane(connection: Connection, lane: Lane, bit: int) -> LaneState:
    """Rebuild a lane's position from its cursor and the islands above it."""
    counts = lane_counts(connection, lane)
    found: list[Span] = []
    through = counts.settled_through
    for first, last in islands(connection, lane.destination, lane.kind, through):
        # What lies between two islands may all be for other lanes: then there is no gap.
        gap = Span(Offset(through + 1), Offset(first - 1))
        found.append(Span(Offset(through + 1) if is_empty(connection, lane, bit, gap) else first, last))
        through = max(through, last)
    return LaneState(counts.settled_through, found, counts.pending, last_offset(connection))


def islands(connection: Connection, destination: str, kind: Kind, through: int) -> list[Span]:
    """Return what is settled above a watermark, lowest first."""
    rows = connection.execute(
        "SELECT first_seq, last_seq FROM deliveries WHERE destination = ? AND kind = ? AND first_seq > ?"
        " ORDER BY first_seq",
        (destination, kind.value, through),
    ).fetchall()
    return [Span(*row) for row in rows]


def settled_spans(connection: Connection, lane: Lane) -> list[Span]:
    """Return everything that is settled in a lane, lowest first; the first one begins at 0."""
    through = lane_counts(connection, lane).settled_through
    return [Span(Offset(0), Offset(through)), *islands(connection, *lane, through)]


def started_after(connection: Connection, lane: Lane) -> int:
    """Return the offset behind which a lane began: what is older is none of its business."""
    query = "SELECT started_after FROM cursors WHERE destination = ? AND kind = ?"
    return int(connection.execute(query, (lane.destination, lane.kind.value)).fetchone()[0])


def condition_of(connection: Connection, destination: str) -> Condition:
    """Return a destination's stored condition."""
    row = connection.execute(
        "SELECT state, failures, retry_at_ms, last_error, failing_since_ms FROM destinations WHERE name = ?",
        (destination,),
    ).fetchone()
    return Condition(State(row[0]), *row[1:]) if row else Condition()


def destinations(connection: Connection) -> dict[str, int]:
    """Return the place in the routes of every destination that was ever added, by name."""
    return dict(connection.execute("SELECT name, bit FROM destinations ORDER BY bit").fetchall())


def backlog(connection: Connection, positions: Mapping[Lane, Position]) -> Backlog:
    """Read all counts in one transaction. `positions` has the lanes to report."""
    connection.execute("BEGIN")
    try:
        counts = {lane: lane_counts(connection, lane) for lane in positions}
        bits = destinations(connection)
        names = [name for name in bits if any(lane.destination == name for lane in positions)]
        accepted = connection.execute("SELECT sum(count) FROM accepted").fetchone()[0]
        owed = (sum(c.pending_bytes for lane, c in counts.items() if lane.destination == name) for name in names)
        paused_at_ms = pauses.paused_at_ms(connection)
        found = []
        for name in names:
            lanes = [
                _lane_backlog(connection, lane, bits[name], counts[lane], position)
                for lane, position in positions.items()
                if lane.destination == name
            ]
            condition = condition_of(connection, name)
            found.append(DestinationBacklog(name, condition, lanes, paused_at_ms.get(name)))
        return Backlog(accepted, max(owed, default=0), found)
    finally:
        connection.execute("COMMIT")


def _oldest_pending_at_ms(connection: Connection, lane: Lane, bit: int, watermark: int) -> int | None:
    """Return when the first record above a watermark was received that is not in what is settled above it, too."""
    first = Offset(watermark + 1)
    for settled in islands(connection, lane.destination, lane.kind, watermark):
        gap = Span(first, Offset(settled.first - 1))
        if (received_at_ms := oldest_received_at_ms(connection, lane, bit, gap)) is not None:
            return received_at_ms
        first = Offset(settled.last + 1)
    return oldest_received_at_ms(connection, lane, bit, Span(first, END))


def _lane_backlog(connection: Connection, lane: Lane, bit: int, counts: LaneCounts, position: Position) -> LaneBacklog:
    oldest = _oldest_pending_at_ms(connection, lane, bit, position.watermark) if counts.pending else None
    return LaneBacklog(
        name=lane.name,
        accepted=counts.accepted,
        pending=counts.pending,
        in_flight=min(position.in_flight, counts.pending),  # the two are not from the same instant
        sent=counts.sent,
        purged=counts.purged,
        dead=counts.dead,
        held=counts.held,
        resolved=counts.resolved,
        erased=counts.erased,
        oldest_pending_at_ms=oldest,
    )


def load_recent(connection: Connection, recent: RecentIds) -> None:
    """Remember the ids of the newest records, oldest first."""
    newest = "SELECT seq FROM events WHERE replay_of IS NULL ORDER BY seq DESC LIMIT ?"
    rows = connection.execute(  # one at a time: all of them would take 25 MB
        "SELECT seq, kind, event_id, payload FROM events"
        f" WHERE replay_of IS NULL AND seq >= (SELECT min(seq) FROM ({newest})) ORDER BY seq",
        (recent.window,),
    )
    for seq, kind, event_id, payload in rows:
        name, distinct_id, time_ms = described(_KINDS[kind], orjson.loads(payload))
        recent.remember(key_of(event_id, name, distinct_id), time_ms, seq)


_KINDS = {kind.value: kind for kind in Kind}
"""A start looks one up for each record of the window, in a tenth of the time that `Kind(value)` takes."""
