"""What becomes of a database when a log opens it: its schema is brought up to date, and memory to what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from walbatch.clock import Clock
from walbatch.event import Offset
from walbatch.wal import Lane, driver, erasure, intents, pauses, store
from walbatch.wal.lanes import END, Span
from walbatch.wal.migrate import migrate
from walbatch.wal.progress import Progress
from walbatch.wal.tombstones import Tombstones

log = structlog.stdlib.get_logger("walbatch.log")


class Opened(NamedTuple):
    """What a log knows of its database from now on, besides how far each lane is."""

    bits: dict[str, int]
    """Of each destination, its number in `routes`."""
    tombstones: Tombstones


def open_database(
    connection: driver.Connection,
    path: Path,
    lanes: Sequence[Lane],
    *,
    formerly: Mapping[str, str],
    progress: Progress,
    clock: Clock,
) -> Opened:
    """Migrate, add the destinations that are new, load `progress`, and empty the write-ahead log.

    `formerly` has the earlier name of a destination that was renamed.
    """
    migrate(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    for name in dict.fromkeys(lane.destination for lane in lanes):
        store.add_destination(connection, name, formerly.get(name))
    opened = Opened(store.destinations(connection), erasure.load_tombstones(connection))
    for lane in lanes:
        held = intents.recover(connection, lane, opened.bits[lane.destination], clock.wall_ms())
        if held:
            log.warning("log.updates_held", destination=lane.destination, lane=lane.name, held=held)
    progress.last = store.last_offset(connection)
    progress.paused = set(pauses.paused_at_ms(connection))
    store.load_recent(connection, progress.recent)
    for lane in lanes:
        _load(connection, lane, opened.bits[lane.destination], progress)
    connection.execute("COMMIT")
    try:
        driver.checkpoint(connection)
    except driver.Error as error:
        if not driver.is_full(error):
            raise
        log.warning("log.checkpoint_failed", error=str(error))  # it was written again and fsynced before
    return opened


def _load(connection: driver.Connection, lane: Lane, bit: int, progress: Progress) -> None:
    state, pending_bytes = store.load_lane(connection, lane, bit), store.lane_counts(connection, lane).pending_bytes
    watermark = state.position.watermark
    store.raise_watermark(connection, lane, watermark)
    oldest_at_ms = store.oldest_received_at_ms(connection, lane, bit, Span(Offset(watermark + 1), END))
    progress.load(lane, state, pending_bytes, oldest_at_ms)
