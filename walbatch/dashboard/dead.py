"""Open dead letters for whoever can reach the port: in groups, each with one example without its values."""

from __future__ import annotations

from typing import Any

import orjson

from walbatch.dashboard.redaction import outline, without_values
from walbatch.letters import group_document
from walbatch.wal import dead_letters
from walbatch.wal.driver import Connection

GROUPS = 50
"""The latest that are shown. Each needs its example's record."""


def document(connection: Connection) -> dict[str, Any]:
    """Return the latest groups as `walbatch dead list` has them, and how many there are besides.

    `sample` has the names and types of the example's properties. The reason is the destination's own text, and may
    quote a value of the record; it is then left out.
    """
    groups = dead_letters.groups(connection)
    shown = groups[:GROUPS]
    payloads = dead_letters.payloads(connection, [group.example for group in shown])
    found = []
    for group in shown:
        record = orjson.loads(payloads.get(group.example, "{}"))
        reason = without_values(group.key.reason, record)
        found.append(group_document(group) | {"reason": reason, "sample": outline(record)})
    return {"groups": found, "more": len(groups) - len(shown)}
