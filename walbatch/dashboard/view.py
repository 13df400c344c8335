"""The numbers of a moment as the page shows them: written here, for the page with JavaScript and without. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walbatch.dashboard.history import Pace
from walbatch.summary import standing
from walbatch.units import format_bytes, rough_duration

DELIVERING, REFUSING = "delivering", "refusing new records"

WORDS = {"ok": DELIVERING, "open": "not answering"}
"""Where the page has other words than a table: it has more room."""

_WORST_FIRST = ("needs a person", "not answering", "retrying", "paused")

_FEW = 10
"""Below this a rate is shown with a decimal."""


def shown(document: Mapping[str, Any], pace: Pace, *, version: str, uptime_s: float) -> dict[str, str]:
    """Return the texts of the page by the names that it has for them, from the document of `/stats`."""
    return {
        "state": overall(document),
        "sentence": document["summary"],
        "received": rate(pace.received),
        "sent": rate(pace.sent),
        "pending": f"{document['pending']:,}",
        "in_flight": f"{document['in_flight']:,}",
        "dead": f"{document['dead']:,}",
        "oldest": rough_duration(document["oldest_pending_age_s"]) if document["pending"] else "none",
        "version": version,
        "uptime": rough_duration(uptime_s),
        "engine": f"{document['engine']} {document['sqlite_version']}",
        "durability": document["durability"],
        "database": f"{format_bytes(document['database_bytes'])} + {format_bytes(document['wal_bytes'])}",
    }


def overall(document: Mapping[str, Any]) -> str:
    """Return the word for all of it: what needs somebody most."""
    if not document["storage"]["accepting"]:
        return REFUSING
    found = words(document).values()
    return next((word for word in _WORST_FIRST if word in found), DELIVERING)


def words(document: Mapping[str, Any]) -> dict[str, str]:
    """Return how each destination is doing, in a word or three."""
    standings = {destination["name"]: standing(destination) for destination in document["destinations"]}
    return {name: WORDS.get(word, word) for name, word in standings.items()}


def rate(per_s: float) -> str:
    """Return a rate with the digits that mean something."""
    return f"{per_s:.1f}".removesuffix(".0") if per_s < _FEW else f"{per_s:,.0f}"
