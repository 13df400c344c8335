"""The SQL of what became of one record at each destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from walbatch.event import Offset
from walbatch.retry import Condition
from walbatch.wal import dead_letters, lookup, pauses, store
from walbatch.wal.dead_letters import Letter
from walbatch.wal.driver import Connection

Status = Literal["pending", "sent", "dead", "held", "replayed", "discarded", "filtered", "older"]
"""As `record_status` has it. `filtered`: the destination does not want it; `older`: the record is, than it is here."""


class Delivery(NamedTuple):
    """The settled run of a batch that had the record in it. Times in milliseconds."""

    sent: int
    dead: int
    bytes: int
    note: str
    """The destination's answer, in a word or a line."""
    started_at_ms: int
    finished_at_ms: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a record at one destination."""

    destination: str
    status: Status
    condition: Condition
    """The destination's own, at this moment."""
    paused_at_ms: int | None
    """Since when a person has paused delivery to it."""
    is_intended: bool
    """A note says that it is about to be sent, and must not be sent twice."""
    delivery: Delivery | None
    """None if it is not settled, or if the note of it was deleted with records that are older."""
    letter: Letter | None
    copies: list[tuple[Offset, str]]
    """The records that repeat it there, with what became of each."""


def fates(connection: Connection, offset: int, kind: int) -> list[Fate]:
    """Return what became of a stored record everywhere. The caller sees to it that it is read in one moment."""
    statuses = dict(
        connection.execute("SELECT destination, status FROM record_status WHERE seq = ?", (offset,)).fetchall()
    )
    letters = {letter.key.destination: letter for letter in dead_letters.of_record(connection, offset)}
    copies = lookup.copies(connection, offset)
    paused = pauses.paused_at_ms(connection)
    return [
        Fate(
            destination=name,
            status=cast(Status, statuses.get(name) or _unwanted(connection, offset, bit)),
            condition=store.condition_of(connection, name),
            paused_at_ms=paused.get(name),
            is_intended=_is_intended(connection, name, kind, offset),
            delivery=_delivery(connection, name, kind, offset) if name in statuses else None,
            letter=letters.get(name),
            copies=[(number, status) for owner, number, status in copies if owner == name],
        )
        for name, bit in store.destinations(connection).items()
    ]


def _unwanted(connection: Connection, offset: int, bit: int) -> Status:
    """Say why a record is none of a destination's business."""
    query = f"SELECT 1 FROM events WHERE seq = ? AND {store.is_for(bit)}"
    return "older" if connection.execute(query, (offset,)).fetchone() else "filtered"


def _is_intended(connection: Connection, destination: str, kind: int, offset: int) -> bool:
    return bool(
        connection.execute(
            "SELECT 1 FROM intents WHERE destination = ? AND kind = ? AND ? BETWEEN first_seq AND last_seq",
            (destination, kind, offset),
        ).fetchone()
    )


def _delivery(connection: Connection, destination: str, kind: int, offset: int) -> Delivery | None:
    """Return the run that a record is in. Runs of a lane do not overlap: only the last that begins before is asked."""
    found = connection.execute(
        "SELECT last_seq, sent, dead, bytes, note, started_at_ms, finished_at_ms FROM deliveries"
        " WHERE destination = ? AND kind = ? AND first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (destination, kind, offset),
    ).fetchone()
    return Delivery(*found[1:]) if found and found[0] >= offset else None
