"""A live sample of what is accepted, read from the log like anybody would: the server does nothing for it.

    look ── interval ── look ── interval ── look         each one shows some of what has come since the last one

Values are hidden unless they are asked for: what is left is enough to see that the right events come with the right
properties, and may be shown to others. A user has a mark instead of an id, the same throughout one tap, another one in
the next, so that nobody can find the id by trying.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson

from walbatch.event import Kind, Offset, described
from walbatch.stats import rfc3339
from walbatch.wal import lookup, store
from walbatch.wal.lookup import Row
from walbatch.wal.reading import reading

PAGE = 1000
"""Records of one read: some milliseconds."""

_TYPES: dict[type, str] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    dict: "object",
}
"""What JSON calls them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records. None does not restrict."""

    event: str | None = None
    distinct_id: str | None = None

    def has(self, row: Row) -> bool:
        """Say whether a record is wanted. It is read only if it has to be."""
        if self == EVERYTHING:
            return True
        kind = Kind(row.kind)
        name, distinct_id, _ = described(kind, orjson.loads(row.payload))
        if self.event is not None and (kind is not Kind.EVENT or name != self.event):
            return False
        return self.distinct_id in {None, distinct_id}


EVERYTHING = Wanted()


class Look(NamedTuple):
    """Some of the wanted records that have come since the last look, oldest first, and how many more they were."""

    rows: list[Row]
    left_out: int


class Tap:
    """Follows the log in a directory from its end, or from a time on. It need not be served.

    Raises:
        ConfigurationError, CorruptLog, StorageFailed: it cannot be read; so does `look`.
    """

    def __init__(self, directory: Path, wanted: Wanted = EVERYTHING, *, since_ms: int | None = None) -> None:
        self._directory = directory
        self._wanted = wanted
        with reading(directory) as connection:
            if since_ms is None:
                self._after = store.last_offset(connection)
            else:
                self._after = lookup.first_since(connection, since_ms) - 1

    def look(self, most: int, chance: Random) -> Look:
        """Return at most so many of the wanted records behind those of the last look, each as likely as any other."""
        kept: list[Row] = []
        seen = 0
        with reading(self._directory) as connection:
            through = store.last_offset(connection)
            while rows := lookup.rows_after(connection, self._after, through, PAGE):
                self._after = rows[-1].offset
                for row in filter(self._wanted.has, rows):
                    seen += 1
                    if len(kept) < most:
                        kept.append(row)
                    elif (place := chance.randrange(seen)) < most:
                        kept[place] = row
        return Look(sorted(kept), seen - len(kept))


class Shown(NamedTuple):
    """What is shown of a record."""

    seq: Offset
    received_at: str
    kind: str
    name: str
    event_id: str
    distinct_id: str
    bytes: int
    replay_of: Offset | None
    properties: Mapping[str, Any]


class Viewer:
    """Turns rows into what is shown of them: with `reveal` the values as well, which are personal data."""

    def __init__(self, *, reveal: bool) -> None:
        self._reveal = reveal
        self._key = secrets.token_bytes(16)

    def shown(self, row: Row) -> Shown:
        """Return what is shown of a record."""
        kind = Kind(row.kind)
        payload = orjson.loads(row.payload)
        name, distinct_id, _ = described(kind, payload)
        properties = properties_of(kind, payload)
        return Shown(
            seq=row.offset,
            received_at=rfc3339(row.received_at_ms),
            kind=kind.name.lower(),
            name=name,
            event_id=row.event_id,
            distinct_id=distinct_id if self._reveal else self._mark(distinct_id),
            bytes=len(row.payload.encode()),
            replay_of=row.replay_of,
            properties=properties if self._reveal else {key: _TYPES[type(one)] for key, one in properties.items()},
        )

    def _mark(self, distinct_id: str) -> str:
        if not distinct_id:
            return ""
        return "~" + hashlib.blake2b(distinct_id.encode(), key=self._key, digest_size=4).hexdigest()


def properties_of(kind: Kind, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties of a record by its decoded payload; of an `$unset` the names that it takes away."""
    if kind is Kind.EVENT:
        return {key: one for key, one in payload["properties"].items() if key not in {"distinct_id", "$insert_id"}}
    name, _, _ = described(kind, payload)
    match payload[name]:
        case dict() as properties:
            return properties
        case list() as names:
            return dict.fromkeys(names)
        case _:
            return {}
