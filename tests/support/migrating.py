"""Update a log's schema and be killed at a point on the way.

Usage: migrating.py DIRECTORY POINT [unsafe]. The points are those of `points()`; at any other it runs to its end. With
`unsafe` the steps are no transactions: what the checker of the test must catch.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from walbatch.wal import copying, driver, migrate, recovery
from walbatch.wal.files import DATABASE_FILE

NEXT = migrate.migrations()[-1][0] + 1
"""A migration that only this program knows, so that there are at least two."""

ALL = [
    *migrate.migrations(),
    (
        NEXT,
        "ALTER TABLE events ADD COLUMN extra TEXT; UPDATE events SET extra = event_id; CREATE TABLE added (x TEXT);",
    ),
]


def points() -> list[str]:
    """Return where it can be killed, beginning with a log of the first version."""
    steps = [f"{place} {number}" for number, _ in ALL[1:] for place in ("start of", "middle of", "end of")]
    return ["before the copy", "before its fsync", "before its name", "after the copy", *steps, "after all"]


def marked(number: int, sql: str, *, unsafe: bool) -> str:
    """Return a step that calls the function `reach` on its way."""
    ends = [at + 1 for at, sign in enumerate(sql) if sign == ";" and sqlite3.complete_statement(sql[: at + 1])]
    half = ends[len(ends) // 2 - 1]
    parts = ["", sql[:half], sql[half:]]
    places = ("start of", "middle of", "end of")
    text = " ".join(f"{part} SELECT reach('{place} {number}');" for part, place in zip(parts, places, strict=True))
    return f"COMMIT; {text} BEGIN;" if unsafe else text


def main(directory: Path, point: str, *, unsafe: bool) -> None:
    """Do as `walbatch migrate` does."""

    def reach(name: str) -> int:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def wrap(module: Any, name: str, before: str, after: str = "") -> None:
        original: Callable[..., Any] = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            reach(before)
            result = original(*args, **kwargs)
            reach(after)
            return result

        setattr(module, name, wrapped)

    database = directory / DATABASE_FILE
    recovery.prepare(database)
    wrap(migrate, "copy_before", "before the copy", "after the copy")
    wrap(copying, "fsync", "before its fsync")
    wrap(Path, "replace", "before its name")
    steps = [(number, marked(number, sql, unsafe=unsafe)) for number, sql in ALL]
    migrate.migrations = lambda: steps
    connection = driver.open_writer(database)
    connection.create_function("reach", 1, reach)
    migrate.migrate(connection, database)
    reach("after all")
    connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], unsafe=sys.argv[3:] == ["unsafe"])
