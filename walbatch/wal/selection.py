"""Choosing stored records to repeat at one destination: what was settled there, by time, name, user and outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from walbatch.event import EventId, Kind, Offset, Record
from walbatch.wal.driver import Connection

STATUSES = {"sent": ("sent",), "dead": ("dead",), "all": ("sent", "dead")}
"""What each value of `status` selects. What is pending is never repeated: it goes out by itself; what is held, only by
name: see `walbatch.dead`."""

_ONCE = """(s.status = 'dead' OR s.replay_of IS NULL
  OR NOT EXISTS (SELECT 1 FROM events o WHERE o.seq = s.replay_of)
  OR EXISTS (SELECT 1 FROM dead_letters o
             WHERE o.destination = s.destination AND o.seq = s.replay_of AND o.resolution = 'replayed'))"""
"""What repeats each record once. Of a copy and its original it is the original, unless that was a dead letter, whose
place the copy took, perhaps corrected, or is deleted."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records. Times are those of acceptance, in milliseconds; `until_ms` is excluded. None does not restrict."""

    since_ms: int | None = None
    until_ms: int | None = None
    event: str | None = None
    distinct_id: str | None = None
    status: Literal["sent", "dead", "all"] = "all"
    limit: int | None = None
    through: int | None = None
    """The last offset to look at: the end of the log when the plan was made, so that a replay never repeats itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay of a selection would repeat."""

    count: int
    sent: int
    dead: int
    first_ms: int | None
    last_ms: int | None
    through: int
    """Pass it on as `Selection.through` to repeat just these."""


def plan(connection: Connection, destination: str, selection: Selection) -> Plan:
    """Count a selection. Reads the whole span of the log that it covers."""
    through = selection.through
    if through is None:
        through = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
    where, values = _where(destination, selection, through)
    row = connection.execute(
        "SELECT count(*), total(status <> 'dead'), total(status = 'dead'), min(received_at_ms), max(received_at_ms)"
        f" FROM (SELECT status, received_at_ms FROM record_status s WHERE {where} ORDER BY seq LIMIT ?)",
        (*values, -1 if selection.limit is None else selection.limit),
    ).fetchone()
    return Plan(row[0], int(row[1]), int(row[2]), row[3], row[4], through)


def page(
    connection: Connection, destination: str, selection: Selection, *, after: int, limit: int, now_ms: int
) -> list[Record]:
    """Return the next records of a selection, oldest first, ready to be appended again."""
    assert selection.through is not None  # noqa: S101  the plan's
    where, values = _where(destination, selection, selection.through)
    rows = connection.execute(
        "SELECT s.seq, s.kind, s.event_id, s.event, s.distinct_id, e.payload"
        f" FROM record_status s JOIN events e USING (seq) WHERE {where} AND s.seq > ? ORDER BY s.seq LIMIT ?",
        (*values, after, limit),
    ).fetchall()
    return [copy(Stored(*row), destination, now_ms) for row in rows]


class Stored(NamedTuple):
    """What a copy needs to know of its original."""

    number: int
    kind: int
    event_id: str
    name: str | None
    distinct_id: str | None
    payload: str


def copy(stored: Stored, destination: str, now_ms: int) -> Record:
    """Return a record that repeats a stored one, byte for byte, at one destination."""
    return Record(
        kind=Kind(stored.kind),
        event_id=EventId(stored.event_id),
        name=stored.name or "",
        distinct_id=stored.distinct_id or "",
        time_ms=now_ms,
        time_given=False,
        payload=stored.payload,
        received_at_ms=now_ms,
        replay_of=Offset(stored.number),
        destination=destination,
    )


def _where(destination: str, selection: Selection, through: int) -> tuple[str, list[Any]]:
    """Return a condition over `record_status s`."""
    statuses = STATUSES[selection.status]
    terms = [
        "s.destination = ?",
        "s.seq <= ?",
        f"s.status IN ({','.join('?' * len(statuses))})",
        _ONCE,
    ]
    values: list[Any] = [destination, through, *statuses]
    narrowing, narrowing_values = narrowed(
        "s",
        since_ms=selection.since_ms,
        until_ms=selection.until_ms,
        event=selection.event,
        distinct_id=selection.distinct_id,
    )
    return " AND ".join([*terms, *narrowing]), [*values, *narrowing_values]


def narrowed(
    view: str, *, since_ms: int | None, until_ms: int | None, event: str | None, distinct_id: str | None
) -> tuple[list[str], list[Any]]:
    """Return conditions, and their values, over a `record_status` that is called `view`. None does not restrict."""
    wanted = {
        f"{view}.received_at_ms >= ?": since_ms,
        f"{view}.received_at_ms < ?": until_ms,
        f"{view}.event = ?": event,
        f"{view}.distinct_id = ?": distinct_id,
    }
    given = {term: value for term, value in wanted.items() if value is not None}
    return [*given], [*given.values()]
