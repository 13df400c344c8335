"""Stored records as `walbatch send` reads them, so that they can be moved into another log with their ids and times.

A line is what is stored, byte for byte, which is what Mixpanel gets but for the token. Only an update has one thing
more: its id, which Mixpanel has no place for. `walbatch.shapes` makes the same record of the line again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import orjson

from walbatch.event import ORIGINAL_ID, Kind, Offset
from walbatch.wal import extract
from walbatch.wal.driver import Connection
from walbatch.wal.extract import Extracted, Wanted


class Lines(NamedTuple):
    """Some lines, each with its line break, and up to where the log has been looked at for them."""

    lines: list[bytes]
    through: Offset


def export(connection: Connection, wanted: Wanted, through: int, limit: int | None = None) -> Iterator[Lines]:
    """Yield the records up to an offset, oldest first, at most `limit` of them. Between two steps nothing is read."""
    after, left = 0, limit
    while left != 0 and (page := extract.page(connection, wanted, after, through)) is not None:
        records = page.records[:left]
        left = None if left is None else left - len(records)
        after = page.through
        yield Lines([line(record) for record in records], page.through)


def line(record: Extracted) -> bytes:
    """Return a record as a line of JSON."""
    if record.kind == Kind.EVENT:
        return f"{record.payload}\n".encode()
    return f"{{{_ID_KEY}:{orjson.dumps(record.event_id).decode()},{record.payload[1:]}\n".encode()


_ID_KEY = orjson.dumps(ORIGINAL_ID).decode()
