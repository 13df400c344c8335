"""The SQL of dead letters: what a destination refused, and what may have arrived and waits for a person."""

from __future__ import annotations

from walbatch.delivery import Rejected, Unknown
from walbatch.event import Offset
from walbatch.wal import Lane
from walbatch.wal.driver import Connection


def add(connection: Connection, lane: Lane, offset: Offset, outcome: Rejected | Unknown, now_ms: int) -> None:
    """Keep what became of one record. The caller counts it."""
    code, field = (outcome.code, outcome.field) if isinstance(outcome, Rejected) else (0, "")
    connection.execute(
        "INSERT INTO dead_letters (destination, seq, kind, code, field, reason, at_ms, held) VALUES (?,?,?,?,?,?,?,?)",
        (
            *(lane.destination, offset, lane.kind.value),
            *(code, field, outcome.reason, now_ms, isinstance(outcome, Unknown)),
        ),
    )


def resolve(connection: Connection, destination: str, offset: Offset, resolution: str, now_ms: int) -> int:
    """Close the open letter of a record, at one destination or, for the empty name, at all; return how many."""
    closed = connection.execute(
        "UPDATE dead_letters SET resolved_at_ms = ?, resolution = ? WHERE seq = ? AND resolution IS NULL"
        " AND (destination = ? OR ? = '') RETURNING destination, kind, held",
        (now_ms, resolution, offset, destination, destination),
    ).fetchall()
    for owner, kind, held in closed:
        connection.execute(
            "UPDATE cursors SET dead = dead - 1, held = held - ?, resolved = resolved + 1"
            " WHERE destination = ? AND kind = ?",
            (held, owner, kind),
        )
    return len(closed)
