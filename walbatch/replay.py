"""Repeat stored records at one destination: they are appended again, with the same bytes, and go out like any other.

The same `$insert_id` and time travel again, so Mixpanel drops the copies that it still has. The log stays
append-only, and the replay itself is on record: each copy knows what it repeats. It is for the named destination alone,
since another may have had the record long ago, or never wanted it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from walbatch.clock import Clock
from walbatch.errors import WalbatchError
from walbatch.wal import selection as wal_selection
from walbatch.wal.selection import Plan, Selection
from walbatch.wal.sqlite import SqliteLog

PAGE = 500
"""Records of one append. Each page is durable before the next is read, so a replay that breaks off can say how far it
came."""


class WhichDestination(WalbatchError):
    """No destination was named where there are several, or one that is not there. Say which; the text has the names."""

    exit_code = 2


def destination_of(known: Collection[str], named: str | None) -> str:
    """Return the destination that is meant: the named one, or the only one.

    Raises:
        WhichDestination: as it says.
    """
    names = ", ".join(sorted(known)) or "none yet, start `walbatch serve` first"
    if named and named not in known:
        raise WhichDestination(f"--destination: {named!r} is none of this log's; it has {names}")
    if named:
        return named
    if len(known) == 1:
        return next(iter(known))
    raise WhichDestination(f"--destination NAME: say which; there are {names}")


async def plan(log: SqliteLog, destination: str, selection: Selection) -> Plan:
    """Return what a replay would repeat, without repeating it."""
    return await log.read(wal_selection.plan, destination, selection)


async def replay(log: SqliteLog, destination: str, selection: Selection, clock: Clock) -> AsyncIterator[int]:
    """Append a selection again, oldest first, and yield the count so far after each page.

    Raises:
        Unavailable: the pages before are stored, and counted.
    """
    if selection.through is None:
        selection = replace(selection, through=(await plan(log, destination, selection)).through)
    done = after = 0
    left = selection.limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = await log.read(
            wal_selection.page, destination, selection, after=after, limit=size, now_ms=clock.wall_ms()
        )
        if not page:
            return
        taken = [record for record in page if log.refusal(record) is None]  # of whom an erasure was broken off
        await log.append(taken)
        done += len(taken)
        left = None if left is None else left - len(page)
        after = page[-1].replay_of or 0
        yield done
