"""Everything that the log knows of one record: when it came, what became of it at each destination, its copies.

An id has no index, since that would cost every append. An id that walbatch has made is a UUID of version 7, which says
when that was. The time of acceptance rises with a record's number, but for jumps of the clock, so twenty looks tell
between which numbers it must be. Any other id is looked for in all of the log, the newest first.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from walbatch.event import Offset
from walbatch.wal import lookup
from walbatch.wal.driver import Connection
from walbatch.wal.fates import Fate, fates
from walbatch.wal.lanes import Span
from walbatch.wal.lookup import Row

NEAR_MS = ((100, 1000), (2_000, 60_000))
"""How long before and after the time in an id its record may have been accepted, the likeliest first.

The server makes an id within milliseconds of that; `walbatch send` makes it first, and repeats a call for 30 seconds.
"""

PAGE = 20_000
"""Numbers that one statement looks at: some 10 milliseconds."""

_UUID_7 = 7

Progress = Callable[[int, int], None]
"""Told after each piece of a search: how many numbers were looked at, and of how many."""


@dataclass(frozen=True, slots=True)
class Life:
    """One stored record, and what became of it everywhere."""

    row: Row
    fates: list[Fate]


class Found(NamedTuple):
    """Where an id is. Unless `everywhere` is true, other records may have it as well."""

    offsets: list[Offset]
    everywhere: bool


def search(
    connection: Connection, event_id: str, *, everywhere: bool, progress: Progress = lambda _looked, _all: None
) -> Found:
    """Find the records with an id: as soon as there is one, or all of them."""
    bounds = lookup.extent(connection)
    if bounds is None:
        return Found([], everywhere=True)
    for span in () if everywhere else _near(connection, event_id):
        for piece in _pieces(span):
            if offsets := lookup.with_id(connection, event_id, piece):
                return Found(offsets, everywhere=False)
    found: list[Offset] = []
    for piece in _pieces(bounds):
        found += lookup.with_id(connection, event_id, piece)
        progress(bounds.last - piece.first + 1, bounds.last - bounds.first + 1)
        if found and not everywhere:
            return Found(found, everywhere=piece.first == bounds.first)
    return Found(sorted(found), everywhere=True)


def _near(connection: Connection, event_id: str) -> Iterator[Span]:
    """Yield where an id must be that was made when its record was accepted, if it tells the time."""
    try:
        made = uuid.UUID(event_id)
    except ValueError:
        return
    if made.version != _UUID_7:
        return
    made_at_ms = made.int >> 80
    for before, after in NEAR_MS:
        first = lookup.first_since(connection, made_at_ms - before)
        behind = lookup.first_since(connection, made_at_ms + after)
        yield Span(first, Offset(behind - 1))


def _pieces(span: Span) -> Iterator[Span]:
    """Cut a span into what one statement looks at, the newest first."""
    for last in range(span.last, span.first - 1, -PAGE):
        yield Span(Offset(max(span.first, last - PAGE + 1)), Offset(last))


def lives(connection: Connection, offsets: list[Offset]) -> list[Life]:
    """Return the lives of these records, of those that they repeat, and of those that repeat them, oldest first."""
    connection.execute("BEGIN")  # from here on it is one moment
    try:
        rows = [lookup.row(connection, offset) for offset in _family(connection, offsets)]
        return [Life(row, fates(connection, row.offset, row.kind)) for row in rows if row is not None]
    finally:
        connection.execute("COMMIT")


def _family(connection: Connection, offsets: list[Offset]) -> list[Offset]:
    known: set[Offset] = set()
    rest = [*offsets]
    while rest:
        one = rest.pop()
        if one in known or (row := lookup.row(connection, one)) is None:
            continue
        known.add(one)
        rest += [number for _, number, _ in lookup.copies(connection, one)]
        rest += [row.replay_of] if row.replay_of is not None else []
    return sorted(known)
