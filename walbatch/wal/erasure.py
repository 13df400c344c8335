"""The SQL of erasing people: finding what belongs to them, deleting it, and remembering that they were erased.

The counts stay right: what is deleted moves to `erased` in every lane that it was for, from whatever it was counted as.
A deleted row leaves zeros behind, since the writer has `secure_delete`; what is left in other places of the files is
for `SqliteLog.scrub`.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from walbatch.event import Kind, Offset
from walbatch.person import named
from walbatch.wal import Lane, store
from walbatch.wal.driver import Connection
from walbatch.wal.tombstones import KEY_BYTES, Tombstone, Tombstones

SLICE = 1000
"""Records of one transaction, and of one look: a few milliseconds, between two groups of appends."""

FEW = 10
"""Up to so many ids are looked for in the text of a payload before it is read."""

_SOME = "IN (SELECT value FROM json_each(?))"


class Page(NamedTuple):
    """What one look has found."""

    offsets: Sequence[Offset]
    last: Offset | None
    """Where to go on; None at the end."""


@dataclass(slots=True)
class Fate:
    """What had become of some records in one lane."""

    sent: int = 0
    dead: int = 0
    held: int = 0
    """Of those that are dead: they may have arrived."""
    resolved: int = 0
    pending: list[Offset] = field(default_factory=list)
    pending_bytes: int = 0

    @property
    def total(self) -> int:
        """Return how many there are."""
        return self.sent + self.dead + self.resolved + len(self.pending)


@dataclass(frozen=True, slots=True)
class Found:
    """Some records, and what had become of them."""

    offsets: Sequence[Offset]
    kinds: Counter[Kind]
    letters: int
    """Dead letters, open and closed."""
    lanes: dict[Lane, Fate]


class Quote(NamedTuple):
    """Where a destination's own words name a person. `key` is a row of `table`."""

    table: str
    key: int


def find(connection: Connection, people: Collection[str], after: int, through: int) -> Page:
    """Look at the next records behind an offset, and return those that belong to one of these people (`bare` ids)."""
    # Reading a payload costs as much as looking for some ten texts in it; the empty text is in each of them.
    texts = [orjson.dumps(one)[1:-1].decode() for one in people] if len(people) <= FEW else [""]
    found: list[Offset] = []
    seen, last = 0, Offset(after)
    cursor = connection.execute(
        "SELECT seq, kind, payload FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (after, through, SLICE)
    )
    try:
        for seq, kind, payload in cursor:
            seen, last = seen + 1, seq
            if any(text in payload for text in texts) and not named(
                Kind(kind), orjson.loads(payload)
            ).keys().isdisjoint(people):
                found.append(seq)
    finally:
        cursor.close()
    return Page(found, last if seen == SLICE else None)


def examine(connection: Connection, offsets: Sequence[Offset]) -> Found:
    """Return what has become of these records, as far as they are stored."""
    chosen = (orjson.dumps(offsets).decode(),)
    rows = connection.execute(
        f"SELECT seq, kind, length(CAST(payload AS BLOB)), routes FROM events WHERE seq {_SOME} ORDER BY seq", chosen
    ).fetchall()
    letters = {
        (destination, seq): (resolution, held)
        for destination, seq, resolution, held in connection.execute(
            f"SELECT destination, seq, resolution, held FROM dead_letters WHERE seq {_SOME}", chosen
        ).fetchall()
    }
    kinds = Counter(Kind(kind) for _, kind, _, _ in rows)
    lanes: dict[Lane, Fate] = {}
    for name, bit in store.destinations(connection).items():
        for kind in kinds:
            lane = Lane(name, kind)
            settled = store.settled_spans(connection, lane)
            since = store.started_after(connection, lane)
            fate = Fate()
            for seq, _, size, routes in (row for row in rows if row[1] == kind and row[0] > since):
                if routes is not None and not routes & (1 << bit):
                    continue
                if (name, seq) in letters:
                    resolution, held = letters[name, seq]
                    fate.dead += resolution is None
                    fate.held += resolution is None and held
                    fate.resolved += resolution is not None
                elif settled[bisect_right(settled, seq, key=lambda span: span.first) - 1].last >= seq:
                    fate.sent += 1
                else:
                    fate.pending.append(seq)
                    fate.pending_bytes += size
            if fate.total:
                lanes[lane] = fate
    return Found([Offset(row[0]) for row in rows], kinds, len(letters), lanes)


def erase(connection: Connection, offsets: Sequence[Offset]) -> Found:
    """Delete these records and their dead letters, count them as erased, and return what had become of them."""
    found = examine(connection, offsets)
    chosen = (orjson.dumps(found.offsets).decode(),)
    connection.execute(f"DELETE FROM dead_letters WHERE seq {_SOME}", chosen)
    connection.execute(f"DELETE FROM events WHERE seq {_SOME}", chosen)
    for lane, fate in found.lanes.items():
        connection.execute(
            "UPDATE cursors SET sent = sent - ?, dead = dead - ?, held = held - ?, resolved = resolved - ?,"
            " erased = erased + ?, settled_bytes = settled_bytes + ? WHERE destination = ? AND kind = ?",
            (
                *(fate.sent, fate.dead, fate.held, fate.resolved, fate.total, fate.pending_bytes),
                *(lane.destination, lane.kind.value),
            ),
        )
    return found


_TEXTS = {
    "deliveries": "SELECT id, note, '' FROM deliveries WHERE id > ? ORDER BY id LIMIT ?",
    "dead_letters": "SELECT seq, group_concat(reason, ' '), group_concat(field, ' ') FROM dead_letters WHERE seq > ?"
    " GROUP BY seq ORDER BY seq LIMIT ?",
    "destinations": "SELECT bit, last_error, '' FROM destinations WHERE bit > ? ORDER BY bit LIMIT ?",
}
_BLANKING = {
    "deliveries": "UPDATE deliveries SET note = ? WHERE id = ?",
    "dead_letters": "UPDATE dead_letters SET reason = ?1, field = '' WHERE seq = ?2",
    "destinations": "UPDATE destinations SET last_error = ? WHERE bit = ?",
}


def quotes(connection: Connection, people: Collection[str], table: str, after: int) -> tuple[list[Quote], int | None]:
    """Look at the next texts of destinations, and return those that name one of these people, and where to go on.

    An answer about one record can quote another one of its request. An id counts only as a word of its own.
    """
    word = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, people))})(?!\w)")
    rows = connection.execute(_TEXTS[table], (after, SLICE)).fetchall()
    found = [Quote(table, key) for key, *texts in rows if any(word.search(text or "") for text in texts)]
    return found, rows[-1][0] if len(rows) == SLICE else None


def blank(connection: Connection, found: Iterable[Quote]) -> None:
    """Replace these texts."""
    for quote in found:
        connection.execute(_BLANKING[quote.table], (store.BLANK, quote.key))


TEXT_TABLES = tuple(_TEXTS)


def bury(connection: Connection, stones: Iterable[Tombstone]) -> None:
    """Remember that people were erased; of two times the later one counts."""
    connection.executemany(
        "INSERT INTO tombstones (id_hash, erased_at_ms) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET erased_at_ms = max(erased_at_ms, excluded.erased_at_ms)",
        list(stones),
    )


def load_tombstones(connection: Connection) -> Tombstones:
    """Return who was erased from this log. Makes its key if it has none yet."""
    connection.execute(
        "INSERT INTO erasure_key VALUES (1, ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(KEY_BYTES),)
    )
    (key,) = connection.execute("SELECT key FROM erasure_key").fetchone()
    rows = connection.execute("SELECT id_hash, erased_at_ms FROM tombstones").fetchall()
    return Tombstones(key, (Tombstone(*row) for row in rows))
