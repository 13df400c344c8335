"""The negative control of the failing disks: it says OK although the commit failed, and never gives up.

It must be caught.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from walbatch.errors import CommitFailed
from walbatch.event import Offset, Record
from walbatch.wal import Appended, disk
from walbatch.wal.sqlite import SqliteLog

_durable_append, _durable_append_one = SqliteLog.append, SqliteLog.append_one


async def _append(log: SqliteLog, records: Sequence[Record]) -> list[Appended]:
    try:
        return await _durable_append(log, records)
    except CommitFailed:
        return [Appended(Offset(0), duplicate=False) for _ in records]


async def _append_one(log: SqliteLog, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
    try:
        return await _durable_append_one(log, make, size)
    except CommitFailed:
        return make(), Appended(Offset(0), duplicate=False)


if __name__ == "__main__":
    disk.MAX_FAILED_COMMITS = sys.maxsize
    SqliteLog.append = _append  # type: ignore[method-assign, assignment]
    SqliteLog.append_one = _append_one  # type: ignore[method-assign, assignment]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
