"""A server whose last checkpoint never returns, as with a disk that hangs: nothing in its event loop runs any more."""

from __future__ import annotations

import threading
from importlib.metadata import entry_points

from walbatch.wal.sqlite import SqliteLog


async def _hang(log: SqliteLog) -> None:
    threading.Event().wait()


if __name__ == "__main__":
    SqliteLog._close = _hang  # type: ignore[method-assign, assignment]
    (script,) = entry_points(group="console_scripts", name="walbatch")
    script.load()(["serve"])
