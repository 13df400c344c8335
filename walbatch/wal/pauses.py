"""The SQL of a person's pause: nothing is handed out for a destination until it is resumed.

It is kept apart from the destination's condition, which each settlement writes anew: what was under way when the pause
began still ends and is settled.
"""

from __future__ import annotations

from walbatch.wal.driver import Connection


def pause(connection: Connection, destination: str, at_ms: int | None) -> int:
    """Note since when a destination is paused, None if it is not any more; return 1 if that was not so before.

    A second pause leaves the time of the first.
    """
    return connection.execute(
        "UPDATE destinations SET paused_at_ms = ?1 WHERE name = ?2 AND (paused_at_ms IS NULL) <> (?1 IS NULL)",
        (at_ms, destination),
    ).rowcount


def paused_at_ms(connection: Connection) -> dict[str, int]:
    """Return since when each destination is paused, of those that are."""
    rows = connection.execute("SELECT name, paused_at_ms FROM destinations WHERE paused_at_ms IS NOT NULL")
    return dict(rows.fetchall())
