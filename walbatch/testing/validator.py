"""Mixpanel's rules for the events it is sent, in Mixpanel's words: the judging half of the fake. Pure.

Written from Mixpanel's documentation, and sharing nothing with `walbatch.event` on purpose: two readings of the
same pages check each other. Messages are verbatim where one is known; where none is, it is made up in their style.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

MAX_RECORDS = 2000
MAX_RECORD_BYTES = 1_000_000
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
IDENTITY_PAIRS = {"$identify": ("$identified_id", "$anon_id"), "$create_alias": ("distinct_id", "alias")}
"""The events that link two ids, and where these stand."""
IDENTITY_EVENTS = (*IDENTITY_PAIRS, "$merge")
"""They may come without time and ids, and are judged by `identity_failure`."""

NO_UTF8 = "string should be valid utf8"
NO_NUMBER = "must be a number of 64 bits"

_INSERT_ID = re.compile(r"[A-Za-z0-9-]+")
_SUSPICIOUS = re.compile(r"\\u[dD][89a-fA-F]|[:,\[]\s*-?(?:[0-9]{19}|[0-9.]+[eE]\+?[0-9])")
"""What the text of a value has that holds half a surrogate or too large a number. Looking for it first is twice as
fast as looking at every value.
"""


@dataclass(frozen=True, slots=True)
class Received:
    """One element of a request's array, and its text exactly as it came."""

    text: str
    value: Any

    def line(self) -> str:
        """Return the text, or the same JSON without its line breaks."""
        return orjson.dumps(self.value).decode() if "\n" in self.text or "\r" in self.text else self.text

    def size(self) -> int:
        """Return the bytes of the text."""
        return len(self.text.encode())

    def name(self) -> Any:
        """Return the event's name, if it has one."""
        return self.value.get("event") if isinstance(self.value, dict) else None

    def properties(self) -> dict[str, Any]:
        """Return the event's properties; an empty object if it has none."""
        properties = self.value.get("properties") if isinstance(self.value, dict) else None
        return properties if isinstance(properties, dict) else {}

    def insert_id(self) -> Any:
        """Return the event's `$insert_id` if it has one, or nothing."""
        return self.properties().get("$insert_id", "")

    def is_identity(self) -> bool:
        """Say whether it links ids, rather than telling what happened."""
        return self.name() in IDENTITY_EVENTS


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record is refused: a row of `failed_records`."""

    field: str
    message: str

    @classmethod
    def of(cls, field: str, problem: str) -> Failure:
        """Build the usual message for a field."""
        return cls(
            field, f"{field} is invalid: {problem}" if problem == NO_UTF8 else f"'{field}' is invalid: {problem}"
        )


def event_failure(record: Received, now_ms: int, *, strict: bool = True) -> Failure | None:
    """Judge an event sent to /import. Without `strict` missing ids are made up by the server."""
    name = record.name()
    if not isinstance(name, str) or not name.strip():
        return Failure("event", "'event' must not be missing or blank")
    properties = record.value.get("properties")
    if not isinstance(properties, dict):
        return Failure.of("properties", "must be an object")
    return (
        _size_failure(record)
        or _time_failure(properties, now_ms)
        or _distinct_id_failure(properties, required=strict)
        or _insert_id_failure(properties, required=strict)
        or _shape_failure(properties)
        or (_spelling_failure(name, properties) if _SUSPICIOUS.search(record.text) else None)
    )


def track_failure(record: Received) -> Failure | None:
    """Judge an event sent to /track, which looks at little and says less."""
    if not record.name():
        return Failure("event", "event, missing")
    properties = record.properties()
    if not properties.get("token"):
        return Failure("properties.token", "token, missing or empty")
    problem = spelling_problem(record)
    if problem:
        return Failure("event", f"event, {problem}")
    return _size_failure(record)


def identity_failure(record: Received, *, by_import: bool, simplified: bool) -> Failure | None:
    """Judge an event that links ids: `$merge` needs two of them and comes by /import only."""
    name, properties = record.name(), record.properties()
    if name == "$merge":
        ids = properties.get("$distinct_ids")
        if not by_import:
            return Failure("event", "$merge, only /import takes it")
        if not isinstance(ids, list) or len(ids) != 2 or not all(_is_id(one) for one in ids):
            return Failure.of("properties.$distinct_ids", "must hold exactly 2 ids")
        return None
    needed = ("distinct_id",) if simplified and name == "$identify" else IDENTITY_PAIRS[name]
    missing = next((key for key in needed if not _is_id(properties.get(key))), None)
    return Failure(f"properties.{missing}", f"{missing}, missing or empty") if missing else None


def dropped_by_track(record: Received, now_ms: int) -> bool:
    """Say whether /track loses this event while it answers success: it is older than five days."""
    time = record.properties().get("time")
    return isinstance(time, int | float) and seconds(time) < now_ms / 1000 - MAX_TRACK_AGE_S


def ignored(record: Received) -> bool:
    """Say whether an event asks not to be counted: a bot's, say. Mixpanel drops it without a word."""
    return bool(record.properties().get("$ignore"))


def with_derived_id(record: Received) -> Received:
    """Return the event with the `distinct_id` that a project with Simplified ID Merge gives it."""
    properties = record.properties()
    user, device = properties.get("$user_id"), properties.get("$device_id")
    if not user and not device:
        return record
    derived = user or f"$device:{device}"
    return Received(record.text, {**record.value, "properties": {**properties, "distinct_id": derived}})


def seconds(time: float) -> float:
    """Return a time, which may be in milliseconds, in seconds."""
    return time / 1000 if time >= FIRST_MS else time


def spelling_problem(record: Received) -> str | None:
    """Say what is wrong with a text or a number anywhere in a record: half surrogates, or a number beyond 64 bits."""
    return _problem_within(record.value) if _SUSPICIOUS.search(record.text) else None


def _problem_within(value: Any) -> str | None:
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str) and not _is_utf8(one):
            return NO_UTF8
        if isinstance(one, float) and not math.isfinite(one):
            return NO_NUMBER
        if isinstance(one, int) and not -(2**63) <= one < 2**64:
            return NO_NUMBER
        if isinstance(one, dict):
            rest += [*one, *one.values()]
        elif isinstance(one, list):
            rest += one
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and value != "" and type(value) is not bool


def _size_failure(record: Received) -> Failure | None:
    if record.size() >= MAX_RECORD_BYTES:
        return Failure.of("event", f"must be smaller than {MAX_RECORD_BYTES} bytes")
    return None


def _time_failure(properties: Mapping[str, Any], now_ms: int) -> Failure | None:
    if "time" not in properties:
        return Failure.of("properties.time", "must not be missing")
    time = properties["time"]
    if type(time) is not int or seconds(time) < EARLIEST_S:
        return Failure.of("properties.time", "must be specified as seconds since epoch")
    if seconds(time) > now_ms / 1000 + MAX_AHEAD_S:
        return Failure.of("properties.time", "must not be in the future")
    return None


def _distinct_id_failure(properties: Mapping[str, Any], *, required: bool) -> Failure | None:
    if "distinct_id" not in properties:
        return Failure.of("properties.distinct_id", "must not be missing") if required else None
    value = properties["distinct_id"]
    if type(value) not in (str, int, float):
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


def _spelling_failure(name: str, properties: Mapping[str, Any]) -> Failure | None:
    named = [("event", name)]
    for key, value in properties.items():
        named += [("properties", key), (f"properties.{key}", value)]
    problems = ((field, _problem_within(value)) for field, value in named)
    return next((Failure.of(field, problem) for field, problem in problems if problem), None)


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


def _is_utf8(text: str) -> bool:
    """Say whether a text has no half surrogates, which JSON can spell and UTF-8 cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
