"""The raw export: what was asked for, and the lines of the answer. Pure.

Source: https://docs.mixpanel.com/reference/raw-event-export. Copies are not removed; dates are days of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any

import orjson

from walbatch.sinks.mixpanel import Reply
from walbatch.testing.store import StoredEvent

MAX_LIMIT = 100_000
GZIP_FROM = 1400
"""Bytes; shorter answers are not packed."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to export. Both dates belong to it; no names are all names, no limit is no limit."""

    first: date
    last: date
    names: frozenset[str] | None
    limit: int | None
    time_in_ms: bool

    @classmethod
    def of(cls, params: Mapping[str, str]) -> Query:
        """Read the parameters. Raises: ValueError with a text for the answer."""
        first, last = _date(params, "from_date"), _date(params, "to_date")
        if first > last:
            raise ValueError("from_date must not be after to_date")
        if "where" in params:
            raise ValueError("where is not known to the fake Mixpanel; filter what it returns")
        in_ms = params.get("time_in_ms", "").lower() in ("true", "1")
        return cls(first, last, _names(params), _limit(params), in_ms)


def body(events: Iterable[StoredEvent], query: Query, host: str) -> bytes:
    """Return the lines of an export from the edge of that name."""
    wanted = (event for event in events if _matches(event, query))
    return b"".join(_line(event, query, host) for event in islice(wanted, query.limit))


def worth_packing(reply: Reply, accepted_encodings: str) -> bool:
    """Say whether an answer goes out as gzip: the client knows it, and the answer is long enough."""
    return reply.status == 200 and "gzip" in accepted_encodings and len(reply.body) > GZIP_FROM


def refusal(status: int, text: str) -> Reply:
    """Answer an export that is not made: in plain text."""
    return Reply(status, {"content-type": "text/plain"}, text.encode())


def _matches(event: StoredEvent, query: Query) -> bool:
    return (query.names is None or event.event in query.names) and query.first <= event.day <= query.last


def _line(event: StoredEvent, query: Query, host: str) -> bytes:
    properties = {key: value for key, value in event.properties().items() if key not in ("token", "ip")}
    properties["time"] = event.time_ms if query.time_in_ms else event.time_ms // 1000
    return orjson.dumps({"event": event.event, "properties": properties | _made(event, host)}) + b"\n"


def _made(event: StoredEvent, host: str) -> dict[str, Any]:
    """Return the properties that the server adds."""
    at_ms = event.arrival.at_ms
    made = {"$mp_api_endpoint": host, "$mp_api_timestamp_ms": at_ms, "mp_processing_time_ms": at_ms}
    return {"$import": True} | made if event.arrival.endpoint == "/import" else made


def _date(params: Mapping[str, str], name: str) -> date:
    try:
        return date.fromisoformat(params.get(name, ""))
    except ValueError:
        raise ValueError(f"{name} must be a date as 2026-11-23") from None


def _names(params: Mapping[str, str]) -> frozenset[str] | None:
    if "event" not in params:
        return None
    try:
        names = orjson.loads(params["event"])
    except orjson.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("event must be a JSON array of names")
    return frozenset(names)


def _limit(params: Mapping[str, str]) -> int | None:
    text = params.get("limit")
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"limit must be from 1 to {MAX_LIMIT}")
    return int(text)
