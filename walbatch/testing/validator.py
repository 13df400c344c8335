"""Mixpanel's rules for what it is sent, in Mixpanel's words: the judging half of the fake. Pure.

Written from Mixpanel's documentation, and sharing nothing with `walbatch.event` on purpose: two readings of the
same pages check each other. Messages are verbatim where one is known; where none is, it is made up in their style.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

MAX_RECORDS = 2000
MAX_EVENT_BYTES = 1_000_000
MAX_PROPERTIES = 254
MAX_ELEMENTS = 254
MAX_DEPTH = 3
MAX_INSERT_ID = 36
EARLIEST_S = 31_536_000
"""1971-01-01."""
FIRST_MS = 100_000_000_000
"""From here on a time is in milliseconds: as seconds this is the year 5138."""
MAX_AHEAD_S = 3600
MAX_TRACK_AGE_S = 5 * 86_400
"""/track drops older events without a word."""

BAD_IDS = (
    "00000000-0000-0000-0000-000000000000",
    "anon",
    "anonymous",
    "nil",
    "none",
    "null",
    "n/a",
    "na",
    "undefined",
    "unknown",
    "<nil>",
    "0",
    "-1",
    "true",
    "false",
    "[]",
    "{}",
)
IDENTITY_EVENTS = ("$identify", "$create_alias", "$merge")
"""They may come without time and ids."""

PROFILE_OPERATIONS = ("$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete")

_INSERT_ID = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Received:
    """One element of a request's array, and its text exactly as it came."""

    text: str
    value: Any

    def line(self) -> str:
        """Return the text, or the same JSON without its line breaks."""
        return orjson.dumps(self.value).decode() if "\n" in self.text or "\r" in self.text else self.text

    def insert_id(self) -> Any:
        """Return the event's `$insert_id` if it has one, or nothing."""
        properties = self.value.get("properties") if isinstance(self.value, dict) else None
        return properties.get("$insert_id", "") if isinstance(properties, dict) else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record is refused: a row of `failed_records`."""

    field: str
    message: str

    @classmethod
    def of(cls, field: str, problem: str) -> Failure:
        """Build the usual message for a field."""
        return cls(field, f"'{field}' is invalid: {problem}")


def event_failure(record: Received, now_ms: int, *, strict: bool = True) -> Failure | None:
    """Judge an event sent to /import. Without `strict` a missing `$insert_id` is made up by the server."""
    name = record.value.get("event") if isinstance(record.value, dict) else None
    if not isinstance(name, str) or not name.strip():
        return Failure("event", "'event' must not be missing or blank")
    properties = record.value.get("properties")
    if not isinstance(properties, dict):
        return Failure.of("properties", "must be an object")
    if len(record.text.encode()) >= MAX_EVENT_BYTES:
        return Failure.of("event", f"must be smaller than {MAX_EVENT_BYTES} bytes")
    required = name not in IDENTITY_EVENTS
    return (
        _time_failure(properties, now_ms, required=required)
        or _distinct_id_failure(properties, required=required)
        or _insert_id_failure(properties, required=required and strict)
        or _shape_failure(properties)
    )


def track_failure(record: Received) -> str | None:
    """Judge an event sent to /track, which looks at little and says less."""
    if not isinstance(record.value, dict) or not record.value.get("event"):
        return "event, missing"
    properties = record.value.get("properties")
    if not isinstance(properties, dict) or not properties.get("token"):
        return "token, missing or empty"
    return None


def dropped_by_track(record: Received, now_ms: int) -> bool:
    """Say whether /track loses this event while it answers success."""
    time = record.value["properties"].get("time")
    return isinstance(time, int | float) and _seconds(time) < now_ms / 1000 - MAX_TRACK_AGE_S


def profile_failure(record: Received) -> str | None:
    """Judge a profile update."""
    update = record.value
    if not isinstance(update, dict):
        return "data, missing or empty"
    for key in ("$token", "$distinct_id"):
        if not update.get(key):
            return f"{key}, missing or empty"
    if not any(operation in update for operation in PROFILE_OPERATIONS):
        return "operation, missing or unknown"
    if len(record.text.encode()) >= MAX_EVENT_BYTES:
        return f"update, must be smaller than {MAX_EVENT_BYTES} bytes"
    return None


def _time_failure(properties: Mapping[str, Any], now_ms: int, *, required: bool) -> Failure | None:
    if "time" not in properties:
        return Failure.of("properties.time", "must not be missing") if required else None
    time = properties["time"]
    if type(time) is not int or _seconds(time) < EARLIEST_S:
        return Failure.of("properties.time", "must be specified as seconds since epoch")
    if _seconds(time) > now_ms / 1000 + MAX_AHEAD_S:
        return Failure.of("properties.time", "must not be in the future")
    return None


def _distinct_id_failure(properties: Mapping[str, Any], *, required: bool) -> Failure | None:
    if "distinct_id" not in properties:
        return Failure.of("properties.distinct_id", "must not be missing") if required else None
    value = properties["distinct_id"]
    if type(value) not in (str, int):
        return Failure.of("properties.distinct_id", "must be a string")
    if str(value).lower() in BAD_IDS:
        return Failure.of("properties.distinct_id", "must not be a placeholder")
    return None


def _insert_id_failure(properties: Mapping[str, Any], *, required: bool) -> Failure | None:
    if "$insert_id" not in properties:
        return Failure.of("$insert_id", "must not be missing") if required else None
    value = properties["$insert_id"]
    if not isinstance(value, str) or not _INSERT_ID.fullmatch(value):
        return Failure.of("$insert_id", "must only contain alphanumeric or hyphen '-' characters")
    if len(value) > MAX_INSERT_ID:
        return Failure.of("$insert_id", f"must have at most {MAX_INSERT_ID} bytes")
    if value.lower() in BAD_IDS:
        return Failure.of("$insert_id", "must not be a placeholder")
    return None


def _shape_failure(properties: Mapping[str, Any]) -> Failure | None:
    if len(properties) > MAX_PROPERTIES:
        return Failure.of("properties", f"must have at most {MAX_PROPERTIES} keys")
    for key, value in properties.items():
        problem = _nesting_problem(value, MAX_DEPTH)
        if problem:
            return Failure.of(f"properties.{key}", problem)
    return None


def _nesting_problem(value: Any, levels: int) -> str | None:
    if not isinstance(value, dict | list):
        return None
    if levels == 0:
        return f"must be nested at most {MAX_DEPTH} levels deep"
    if len(value) > MAX_ELEMENTS:
        return f"must have at most {MAX_ELEMENTS} elements"
    inner = value.values() if isinstance(value, dict) else value
    problems = (_nesting_problem(one, levels - 1) for one in inner)
    return next((problem for problem in problems if problem), None)


def _seconds(time: float) -> float:
    """Return a time, which may be in milliseconds, in seconds."""
    return time / 1000 if time >= FIRST_MS else time
