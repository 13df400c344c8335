"""The SQL of dead letters: what a destination refused, and what may have arrived and waits for a person."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from walbatch.delivery import Rejected, Unknown
from walbatch.event import Kind, Offset
from walbatch.wal import LANES, Lane, lookup
from walbatch.wal.driver import Connection
from walbatch.wal.selection import Stored

_KEY = "d.destination, d.kind, d.code, d.field, d.reason, d.held"


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


class Key(NamedTuple):
    """What the letters of a group have in common. `kind` is the number that is stored, `held` is 0 or 1."""

    destination: str
    kind: int
    code: int
    field: str
    reason: str
    held: int

    @property
    def id(self) -> str:
        """Return the group's short name: the same in every log, and never one that a record's number could be."""
        return "g" + hashlib.sha256(orjson.dumps([*self])).hexdigest()[:8]

    @property
    def lane(self) -> str:
        """Return `events`, `profiles` or `groups`."""
        return LANES[Kind(self.kind)]


@dataclass(frozen=True, slots=True)
class Group:
    """Open letters of one destination that say the same. Times are those of the refusal, in milliseconds."""

    key: Key
    count: int
    first_ms: int
    last_ms: int
    example: Offset
    """The oldest of the records."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which open letters. None and empty do not restrict; `until_ms` is excluded."""

    numbers: Sequence[int] = ()
    """Offsets of the records. A letter is chosen if it is one of these, or in one of the `groups`."""
    groups: Sequence[str] = ()
    """Ids of groups."""
    destination: str | None = None
    reason: str | None = None
    """What the reason contains; upper and lower case are the same."""
    event: str | None = None
    distinct_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    held: bool | None = None
    limit: int | None = None
    """At most so many, the oldest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a choice covers at one destination. Times are those of the refusal, in milliseconds."""

    count: int
    held: int
    first_ms: int | None
    last_ms: int | None


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter with its record. `resolution` is None while it is open, else `replayed` or `discarded`."""

    key: Key
    stored: Stored
    at_ms: int
    resolution: str | None
    resolved_at_ms: int | None
    received_at_ms: int
    replay_of: Offset | None


def groups(connection: Connection, destination: str | None = None) -> list[Group]:
    """Return the open letters by what they say, for one destination or all; what came last is first."""
    rows = connection.execute(
        f"SELECT {_KEY}, count(*), min(d.at_ms), max(d.at_ms), min(d.seq) FROM dead_letters d"
        " WHERE d.resolution IS NULL AND (?1 IS NULL OR d.destination = ?1)"
        f" GROUP BY {_KEY} ORDER BY max(d.at_ms) DESC, {_KEY}",
        (destination,),
    ).fetchall()
    return [Group(Key(*row[:6]), *row[6:]) for row in rows]


def unknown(connection: Connection, choice: Choice) -> list[str]:
    """Return those of the choice's numbers and groups that no open letter has."""
    found = connection.execute(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM dead_letters d"
        " WHERE d.seq = value AND d.resolution IS NULL)",
        (_json(choice.numbers),),
    ).fetchall()
    missing = set(choice.groups)
    if missing:
        missing.difference_update(group.key.id for group in groups(connection))
    return [*(str(number) for (number,) in found), *sorted(missing)]


def destinations(connection: Connection, choice: Choice) -> list[str]:
    """Return where the chosen letters, whatever the limit, are from."""
    where, values = _where(connection, choice)
    rows = connection.execute(f"SELECT DISTINCT d.destination FROM dead_letters d WHERE {where} ORDER BY 1", values)
    return [name for (name,) in rows.fetchall()]


def plan(connection: Connection, choice: Choice) -> Plan:
    """Count what is chosen."""
    sql, values = _selected(connection, choice)
    row = connection.execute(
        f"SELECT count(*), coalesce(sum(held), 0), min(at_ms), max(at_ms) FROM ({sql})", values
    ).fetchone()
    return Plan(*row)


def offsets(connection: Connection, choice: Choice) -> list[Offset]:
    """Return the records of what is chosen at one destination, oldest first."""
    sql, values = _selected(connection, choice)
    return [Offset(row[0]) for row in connection.execute(sql, values).fetchall()]


def letters(connection: Connection, destination: str, numbers: Sequence[int]) -> list[Letter]:
    """Return those of these records' letters at one destination that are open, oldest first."""
    return _letters(connection, "d.destination = ? AND d.resolution IS NULL", (destination,), numbers)


def payloads(connection: Connection, numbers: Sequence[int]) -> dict[Offset, str]:
    """Return the payloads of records by their numbers, as far as they are stored."""
    rows = connection.execute(
        "SELECT seq, payload FROM events WHERE seq IN (SELECT value FROM json_each(?))", (_json(numbers),)
    ).fetchall()
    return {Offset(number): payload for number, payload in rows}


def of_record(connection: Connection, number: int) -> list[Letter]:
    """Return every letter of one record, closed ones too."""
    return _letters(connection, "true", (), [number])


def copies(connection: Connection, letter: Letter) -> list[tuple[Offset, str]]:
    """Return the records that repeat a letter's at its destination, each with what became of it."""
    everywhere = lookup.copies(connection, letter.stored.number)
    return [(number, status) for name, number, status in everywhere if name == letter.key.destination]


def _letters(connection: Connection, where: str, values: Sequence[Any], numbers: Sequence[int]) -> list[Letter]:
    rows = connection.execute(
        f"SELECT {_KEY}, s.seq, s.kind, s.event_id, s.event, s.distinct_id, e.payload,"
        " d.at_ms, d.resolution, d.resolved_at_ms, s.received_at_ms, s.replay_of"
        " FROM dead_letters d JOIN events e USING (seq)"
        " JOIN record_status s ON s.seq = d.seq AND s.destination = d.destination"
        f" WHERE {where} AND d.seq IN (SELECT value FROM json_each(?)) ORDER BY d.seq, d.destination",
        (*values, _json(numbers)),
    ).fetchall()
    return [Letter(Key(*row[:6]), Stored(*row[6:12]), *row[12:]) for row in rows]


def _selected(connection: Connection, choice: Choice) -> tuple[str, list[Any]]:
    where, values = _where(connection, choice)
    limit = -1 if choice.limit is None else choice.limit
    return f"SELECT d.seq, d.held, d.at_ms FROM dead_letters d WHERE {where} ORDER BY d.seq LIMIT ?", [*values, limit]


def _where(connection: Connection, choice: Choice) -> tuple[str, list[Any]]:
    """Return a condition over `dead_letters d`."""
    of_record = (
        "EXISTS (SELECT 1 FROM record_status s WHERE s.seq = d.seq AND s.destination = d.destination AND {} = ?)"
    )
    terms: list[str] = ["d.resolution IS NULL"]
    values: list[Any] = []
    for term, value in (
        ("d.destination = ?", choice.destination),
        ("d.at_ms >= ?", choice.since_ms),
        ("d.at_ms < ?", choice.until_ms),
        ("d.held = ?", choice.held),
        ("instr(lower(d.reason), lower(?))", choice.reason),
        (of_record.format("s.event"), choice.event),
        (of_record.format("s.distinct_id"), choice.distinct_id),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if choice.numbers or choice.groups:
        keys = [group.key for group in groups(connection) if group.key.id in choice.groups]
        rows = ",".join(["(?,?,?,?,?,?)"] * len(keys))
        named = f"({_KEY}) IN (VALUES {rows})" if keys else "false"
        terms.append(f"({named} OR d.seq IN (SELECT value FROM json_each(?)))")
        values += [*(part for key in keys for part in key), _json(choice.numbers)]
    return " AND ".join(terms), values


def _json(numbers: Sequence[int]) -> str:
    return orjson.dumps([*numbers]).decode()
