"""The negative control of the crash tests: a server that answers before the commit. It must be caught losing events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from walbatch.event import Offset, Record
from walbatch.wal import Appended
from walbatch.wal.sqlite import SqliteLog

_durable_append = SqliteLog.append
_unfinished: set[asyncio.Task[object]] = set()


async def _append_later(log: SqliteLog, records: Sequence[Record]) -> None:
    await asyncio.sleep(0.02)
    await _durable_append(log, records)


async def _answer_early(log: SqliteLog, records: Sequence[Record]) -> list[Appended]:
    task: asyncio.Task[object] = asyncio.create_task(_append_later(log, records))
    _unfinished.add(task)
    return [Appended(Offset(0), duplicate=False) for _ in records]


async def _answer_one_early(log: SqliteLog, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
    del size
    record = make()
    return record, (await _answer_early(log, [record]))[0]


def install() -> None:
    """Make the log of this process answer early."""
    SqliteLog.append = _answer_early  # type: ignore[method-assign, assignment]
    SqliteLog.append_one = _answer_one_early  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    install()
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
