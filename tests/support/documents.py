"""Documents of `walbatch stats --json`, made from the few facts that a test is about."""

from __future__ import annotations

from typing import Any

NOW = "2026-11-30T14:40:00.000Z"
GIB = 1024**3


def lane(name: str = "events", **counts: int) -> dict[str, Any]:
    """Counts of a lane; what is not said is 0."""
    zero = dict.fromkeys(
        ("accepted", "pending", "in_flight", "sent", "dead", "held", "resolved", "purged", "erased"), 0
    )
    return {"name": name, **zero, **counts}


def destination(name: str = "mixpanel", pending: int = 0, **facts: Any) -> dict[str, Any]:
    """A destination that is well, but for what is said."""
    usual = {
        "name": name,
        "state": "ok",
        "failures": 0,
        "failing_since": None,
        "retry_at": None,
        "retry_in_s": None,
        "last_error": None,
        "paused_at": None,
        "oldest_pending_age_s": 0.0,
        "lanes": [lane(pending=pending)],
    }
    return usual | facts


def failing(name: str = "mixpanel", pending: int = 0, **facts: Any) -> dict[str, Any]:
    """A destination that answers 503 since 14:02, to be asked again in 38 s."""
    usual = {
        "state": "open",
        "failures": 9,
        "failing_since": "2026-11-30T14:02:31.000Z",
        "retry_in_s": 38.4,
        "last_error": "503 Service Unavailable",
    }
    return destination(name, pending, **usual | facts)


def document(*destinations: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """The document of a running server that takes records; what is pending is that of its destinations."""
    found = destinations or (destination(),)
    usual = {
        "at": NOW,
        "serving": True,
        "accepted": 0,
        "in_flight": 0,
        "dead": 0,
        "pending": sum(one["pending"] for d in found for one in d["lanes"]),
        "oldest_pending_age_s": 0.0,
        "pending_bytes": 0,
        "max_backlog_bytes": 20 * GIB,
        "storage": {"accepting": True, "reason": None, "detail": None, "free_bytes": 100 * GIB},
        "destinations": list(found),
    }
    return usual | facts


def refusing(reason: str, detail: str) -> dict[str, Any]:
    """What a document has under `storage` while new records are refused."""
    return {"accepting": False, "reason": reason, "detail": detail, "free_bytes": 0}
