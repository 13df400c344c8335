"""Delete everything that belongs to a person from the log, and say what cannot be reached from here.

    1. a tombstone, durable     from now on nothing older of this person is taken again
    2. delete, slice by slice   whatever became of the records, with their dead letters; others get their turn between
    3. wait for what is in flight, and delete it once it is settled: nothing goes out after the receipt
    4. blank the destinations' own words where they name the person
    5. scrub the files: SQLite's own log, which has the old pages, and what it left between the rows that remain
    6. name the copies of the database in the data directory, or delete them

A run that breaks off, wherever, is finished by running it again. What was delivered has to be erased at the destination
as well; the receipt has the counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from walbatch.clock import Clock
from walbatch.event import Offset
from walbatch.stats import rfc3339
from walbatch.wal import LANES, erasure, store
from walbatch.wal.erasure import SLICE, Found
from walbatch.wal.files import other_files, readers
from walbatch.wal.sqlite import SqliteLog

log = structlog.stdlib.get_logger("walbatch.erasure")

WAIT_S = 60.0
"""How long to wait for what is in flight: two requests that are answered at the last moment."""

SCRUB_S = 30.0
"""How long to wait for others to end their reading of the database."""

LOOK_AGAIN_S = 0.1


@dataclass(slots=True)
class Share:
    """What one destination had of the records."""

    name: str
    sent: int = 0
    """Delivered: to be erased at the destination as well."""
    held: int = 0
    """Nobody knows whether they arrived: to be erased there as well."""
    dead: int = 0
    """Refused, or held; `held` is a part of it."""
    resolved: int = 0
    """Refused, then replayed or discarded. A copy that was replayed is a record of its own."""
    pending: int = 0
    """Not delivered, as far as is known: one whose request had no answer may have arrived all the same."""


@dataclass(slots=True)
class Plan:
    """What belongs to the persons, and what was made of it. Without the ids."""

    people: int
    erased: int = 0
    """Records."""
    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LANES.values(), 0))
    """How many of each kind. Updates of groups belong to no person."""
    dead_letters: int = 0
    """Open and closed."""
    destinations: list[Share] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    """Other databases in the data directory, which may hold the same: they are not looked into."""

    def add(self, found: Found) -> None:
        """Count some more records."""
        self.erased += len(found.offsets)
        self.dead_letters += found.letters
        for kind, count in found.kinds.items():
            self.records[LANES[kind]] += count
        shares = {share.name: share for share in self.destinations}
        for lane, fate in found.lanes.items():
            share = shares.setdefault(lane.destination, Share(lane.destination))
            share.sent += fate.sent
            share.held += fate.held
            share.dead += fate.dead
            share.resolved += fate.resolved
            share.pending += len(fate.pending)
        self.destinations = list(shares.values())


@dataclass(slots=True)
class Receipt(Plan):
    """What was done. `complete` is false while it is under way, and if something is left: then run it again."""

    erased_at: str = ""
    """Up to when it is refused from now on, RFC 3339."""
    in_flight: int = 0
    """Records that are still being sent, and were left."""
    blanked: int = 0
    """Answers of destinations in which a person was named."""
    scrubbed: bool = False
    """Whether the deleted bytes are gone from the files."""
    readers: list[int] = field(default_factory=list)
    """Processes whose reading keeps them there, as far as the system tells."""
    copies_deleted: list[str] = field(default_factory=list)
    complete: bool = False


async def plan(event_log: SqliteLog, people: Collection[str]) -> Plan:
    """Count what belongs to these people (`walbatch.person.bare` ids). Reads the whole log."""
    counted = Plan(len(people))
    through = await event_log.read(store.last_offset)
    async for offsets in _found(event_log, people, through):
        counted.add(await event_log.read(erasure.examine, offsets))
    counted.copies = [str(path) for path in await asyncio.to_thread(other_files, event_log.path)]
    return counted


async def erase(
    event_log: SqliteLog, clock: Clock, people: Collection[str], *, delete_copies: bool
) -> AsyncIterator[Receipt]:
    """Erase what these people did up to now, and yield the same receipt as it fills; the last time it is the result.

    Raises:
        Unavailable: what was deleted before is deleted; run it again.
    """
    receipt = Receipt(len(people), erased_at=rfc3339(clock.wall_ms()))
    through = await event_log.bury(people)
    waiting: list[Offset] = []
    async for offsets in _found(event_log, people, through):
        waiting += await _delete(event_log, offsets, receipt)
        yield receipt
    give_up_s, never = clock.monotonic_s() + WAIT_S, asyncio.Event()
    while waiting and clock.monotonic_s() < give_up_s:
        await clock.wait(never, LOOK_AGAIN_S)
        waiting = await _delete(event_log, waiting, receipt)
        receipt.in_flight = len(waiting)
        yield receipt
    receipt.in_flight = len(waiting)
    receipt.blanked = await _blank(event_log, people)
    receipt.scrubbed = await _scrub(event_log, clock)
    receipt.readers = [] if receipt.scrubbed else await asyncio.to_thread(readers, event_log.path)
    await asyncio.to_thread(_see_to_copies, event_log.path, receipt, delete=delete_copies)
    receipt.complete = receipt.scrubbed and not receipt.in_flight and not receipt.copies
    log.info("erasure.done", people=receipt.people, records=receipt.erased, complete=receipt.complete)
    yield receipt


async def _found(event_log: SqliteLog, people: Collection[str], through: int) -> AsyncIterator[Sequence[Offset]]:
    """Yield what belongs to these people up to an offset, a slice at a time."""
    after: Offset | None = Offset(0)
    found: list[Offset] = []
    while after is not None:
        offsets, after = await event_log.read(erasure.find, people, after, through)
        found += offsets
        while len(found) >= SLICE or (found and after is None):
            yield found[:SLICE]
            found = found[SLICE:]


async def _delete(event_log: SqliteLog, offsets: Sequence[Offset], receipt: Receipt) -> list[Offset]:
    """Delete what is not in flight, and return the rest."""
    left: list[Offset] = []
    for start in range(0, len(offsets), SLICE):
        found, in_flight = await event_log.erase(offsets[start : start + SLICE])
        receipt.add(found)
        left += in_flight
    return left


async def _blank(event_log: SqliteLog, people: Collection[str]) -> int:
    count = 0
    for table in erasure.TEXT_TABLES:
        after: int | None = -1
        while after is not None:
            quotes, after = await event_log.read(erasure.quotes, people, table, after)
            if quotes:
                await event_log.blank(quotes)
                count += len(quotes)
    return count


async def _scrub(event_log: SqliteLog, clock: Clock) -> bool:
    give_up_s, never = clock.monotonic_s() + SCRUB_S, asyncio.Event()
    while not (scrubbed := await event_log.scrub()) and clock.monotonic_s() < give_up_s:
        await clock.wait(never, LOOK_AGAIN_S)
    return scrubbed


def _see_to_copies(database: Path, receipt: Receipt, *, delete: bool) -> None:
    for path in other_files(database):
        if delete and not path.is_symlink():
            path.unlink(missing_ok=True)
            receipt.copies_deleted.append(str(path))
        else:
            receipt.copies.append(str(path))
