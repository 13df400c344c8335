"""The numbers that `walbatch stats` and the admin port show, in one shape, whether the server runs or not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from walbatch import summary
from walbatch.errors import Unavailable
from walbatch.event import Kind
from walbatch.wal import Backlog, DestinationBacklog, Lane, LaneBacklog, driver, store

DATABASE_ENGINE = "sqlite"

COUNTS = ("pending", "in_flight", "sent", "dead", "held", "resolved", "purged", "erased")
"""What is counted of a lane besides what was accepted, and summed up over all of them."""


def document(
    backlog: Backlog,
    *,
    now_ms: int,
    durability: str,
    database_bytes: int,
    wal_bytes: int,
    storage: dict[str, Any],
    serving: bool,
    max_backlog_bytes: int | None = None,
) -> dict[str, Any]:
    """Return the statistics as JSON-ready values. Totals are over all lanes; ages are in seconds, times RFC 3339.

    accepted = pending + sent + purged + dead + resolved + erased, for each lane; `held` is a part of `dead`. The limit
    of the backlog is the server's: None if there is none, 0 if it has no limit.
    """
    lanes = [lane for destination in backlog.destinations for lane in destination.lanes]
    facts = {
        "at": rfc3339(now_ms),
        "serving": serving,
        "accepted": backlog.accepted,
        **{name: sum(getattr(lane, name) for lane in lanes) for name in COUNTS},
        "oldest_pending_age_s": _age_s(lanes, now_ms),
        "pending_bytes": backlog.pending_bytes,
        "max_backlog_bytes": max_backlog_bytes,
        "durability": durability,
        "engine": DATABASE_ENGINE,
        "sqlite_version": driver.SQLITE_VERSION,
        "database_bytes": database_bytes,
        "wal_bytes": wal_bytes,
        "storage": storage,
        "destinations": [_destination(d, now_ms) for d in backlog.destinations],
    }
    return {"summary": summary.sentence(facts), **facts}


def storage(refusal: Unavailable | None, free_bytes: int) -> dict[str, Any]:
    """Return whether new records are accepted, and why not: the word and the text that clients are answered."""
    return {
        "accepting": refusal is None,
        "reason": refusal.reason if refusal else None,
        "detail": str(refusal) if refusal else None,
        "free_bytes": free_bytes,
    }


def _destination(destination: DestinationBacklog, now_ms: int) -> dict[str, Any]:
    condition = destination.condition
    retry_in_s = None if condition.retry_at_ms is None else max(condition.retry_at_ms - now_ms, 0) / 1000
    return {
        "name": destination.name,
        "state": condition.state.value,
        "failures": condition.failures,
        "failing_since": _moment(condition.since_ms),
        "retry_at": _moment(condition.retry_at_ms),
        "retry_in_s": retry_in_s,
        "last_error": condition.last_error,
        "paused_at": _moment(destination.paused_at_ms),
        "oldest_pending_age_s": _age_s(destination.lanes, now_ms),
        "lanes": [{name: getattr(lane, name) for name in ("name", "accepted", *COUNTS)} for lane in destination.lanes],
    }


def _age_s(lanes: Sequence[LaneBacklog], now_ms: int) -> float:
    times = [lane.oldest_pending_at_ms for lane in lanes if lane.oldest_pending_at_ms is not None]
    return max(now_ms - min(times), 0) / 1000 if times else 0.0


def _moment(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def rfc3339(ms: int) -> str:
    """Return a moment in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_backlog(connection: driver.Connection) -> Backlog:
    """Read the backlog of every destination that was ever served."""
    bits = store.destinations(connection)
    positions = {
        lane: store.load_lane(connection, lane, bit).position
        for name, bit in bits.items()
        for lane in (Lane(name, kind) for kind in Kind)
    }
    return store.backlog(connection, positions)
