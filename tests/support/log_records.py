"""Small records for tests of a log on disk, and what a flusher would report about them."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, Outcome, Rejected
from walbatch.event import Kind, Record, group_update, profile_update, track
from walbatch.retry import Condition
from walbatch.testing.clock import FakeClock
from walbatch.wal import Batch, EventLog, Lane, LaneBacklog, Settlement
from walbatch.wal.files import DATABASE_FILE, wal_file
from walbatch.wal.sqlite import SqliteLog

EVENTS = Lane("there", Kind.EVENT)
ELSEWHERE = Lane("elsewhere", Kind.EVENT)
PROFILES = Lane("there", Kind.PROFILE)
NOW = BatchPolicy().at_once()
BAD = Rejected(400, "properties.time", "is invalid")


def event(name: str, clock: FakeClock, **fields: Any) -> Record:
    """A small valid event; its id is its name."""
    known: dict[str, Any] = {"event_id": name, "distinct_id": "u1", "properties": {}, "now_ms": clock.wall_ms()}
    return track(name=name, **known | fields)


def update(kind: Kind, name: str, clock: FakeClock) -> Record:
    """An update of one profile or group; its id is its name, and what it sets."""
    fields: dict[str, Any] = {"operation": "$set", "update_id": name, "now_ms": clock.wall_ms()}
    fields["properties"] = {"name": name}
    if kind is Kind.PROFILE:
        return profile_update(distinct_id="u1", **fields)
    return group_update(group_key="company", group_id="c1", **fields)


def events(names: str, clock: FakeClock) -> list[Record]:
    """An event for each letter."""
    return [event(name, clock) for name in names]


def open_log(directory: Path, clock: FakeClock, *destinations: str, **settings: Any) -> SqliteLog:
    """A log for one destination, if not told otherwise, with whatever SQLite there is."""
    return SqliteLog(directory, destinations or ["there"], clock, **{"allow_affected_sqlite": True} | settings)


def settlement(batch: Batch, outcomes: Sequence[Outcome], condition: Condition | None = None) -> Settlement:
    """What the flusher would report."""
    return Settlement(batch, outcomes, condition or Condition(), "200", 1, 2)


async def settle_all(log: EventLog, batch: Batch) -> None:
    """Report that the destination has every record of the batch."""
    await log.settle(settlement(batch, [DELIVERED] * len(batch.offsets)))


async def deliver(log: EventLog, outcomes: Sequence[Outcome] = (), lane: Lane = EVENTS) -> Batch:
    """Fetch what waits, and settle it: as delivered, or as told."""
    batch = await log.fetch(lane, NOW)
    await log.settle(settlement(batch, outcomes or [DELIVERED] * len(batch.offsets)))
    return batch


async def counts_of(log: EventLog, lane: Lane = EVENTS) -> LaneBacklog:
    """The counts of one lane; on the way, conservation is checked for every lane."""
    backlog = await log.backlog()
    found = {(d.name, counts.name): counts for d in backlog.destinations for counts in d.lanes}
    for c in found.values():
        assert c.accepted == c.pending + c.sent + c.purged + c.dead + c.resolved + c.erased
        assert min(c.pending, c.sent, c.purged, c.dead, c.resolved, c.erased, c.in_flight) >= 0
    return found[lane.destination, lane.name]


def ids(batch: Batch) -> str:
    """The ids of a batch, in order."""
    return "".join(insert_ids(batch.payloads))


def ids_of(batch: Batch) -> list[str]:
    """The ids of a batch of events, one by one."""
    return insert_ids(batch.payloads)


def insert_ids(payloads: Sequence[str]) -> list[str]:
    """The ids of stored events."""
    return [orjson.loads(payload)["properties"]["$insert_id"] for payload in payloads]


def copied(database: Path, directory: Path) -> Path:
    """Copy a database as a kill would leave it at this moment."""
    directory.mkdir(mode=0o700)
    # In a process of its own: a descriptor that is closed in this one would take the locks with it.
    subprocess.run(["cp", "-p", database, wal_file(database), directory], check=True)
    return directory / DATABASE_FILE


def mode(path: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def modes_in(directory: Path) -> dict[str, int]:
    """The same, for everything in a directory."""
    return {file.name: mode(file) for file in directory.iterdir()}


async def executed(log: SqliteLog, statement: str) -> list[Any]:
    """Run a statement on the connection that writes, and return its rows."""
    return await log._disk.writer.run(lambda connection: connection.execute(statement).fetchall())
