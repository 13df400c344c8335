"""The negative control of the failing disks: it says OK although the commit failed, and never gives up.

It must be caught.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from walbatch.errors import CommitFailed
from walbatch.event import Offset, Record
from walbatch.wal import Appended, disk
from walbatch.wal.sqlite import SqliteLog

_durable_append = SqliteLog.append


async def _append(log: SqliteLog, records: Sequence[Record]) -> list[Appended]:
    try:
        return await _durable_append(log, records)
    except CommitFailed:
        return [Appended(Offset(0), duplicate=False) for _ in records]


if __name__ == "__main__":
    disk.MAX_FAILED_COMMITS = sys.maxsize
    SqliteLog.append = _append  # type: ignore[method-assign, assignment]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
