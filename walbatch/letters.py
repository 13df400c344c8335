"""How dead letters look as JSON-ready values: to the commands, and on the admin port."""

from __future__ import annotations

from typing import Any

from walbatch.stats import rfc3339
from walbatch.wal.dead_letters import Group, Key


def said(key: Key) -> dict[str, Any]:
    """Return what the letters of a group have in common."""
    return {
        "destination": key.destination,
        "lane": key.lane,
        "code": key.code,
        "field": key.field,
        "reason": key.reason,
        "held": bool(key.held),
    }


def group_document(group: Group) -> dict[str, Any]:
    """Return a group. `example` is the number of its oldest record; times are RFC 3339."""
    return {
        "id": group.key.id,
        **said(group.key),
        "count": group.count,
        "first_at": rfc3339(group.first_ms),
        "last_at": rfc3339(group.last_ms),
        "example": group.example,
    }
