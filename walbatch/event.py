"""Records and their rules: what is refused, and what is frozen at accept.

A record is serialised once, here. `event`, `time` (integer milliseconds), `distinct_id` and `$insert_id` are part
of that text, so that every delivery and every replay sends the same bytes and Mixpanel deduplicates them
(https://docs.mixpanel.com/reference/event-deduplication). The rules are those of Mixpanel's import
(https://docs.mixpanel.com/reference/import-events): a stored record can always be sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NewType

import orjson
import uuid_utils

from walbatch.errors import InvalidRecord

EventId = NewType("EventId", str)
"""A record's idempotency key, as the application gave it or as the server made it."""

Offset = NewType("Offset", int)
"""A record's position in the log: increasing, never used twice, gaps allowed."""

MAX_NAME = 255
"""Characters of an id, an event's name or a property's name. Mixpanel cuts longer ones without a word."""

MAX_PROPERTIES = 247
"""Mixpanel takes 254 an event; the difference is room for the seven that walbatch may write itself."""

MAX_PROFILE_PROPERTIES = 2000
"""What one profile can hold."""

MAX_ELEMENTS = 254
"""Elements of an array, keys of a nested object."""

MAX_DEPTH = 3
"""Levels of nesting of a property's value."""

MAX_RECORD_BYTES = 1_000_000
"""A record's JSON is smaller than this: Mixpanel's 1 MB, read as the smaller of its two meanings."""

EARLIEST_MS = 31_536_000_000
"""1971-01-01: Mixpanel refuses earlier times."""

MAX_AHEAD_MS = 3_600_000
"""Mixpanel refuses times more than an hour ahead, and overwrites those within it with the time of arrival. Two
attempts would get two times and no longer deduplicate, so a time ahead becomes the time of acceptance."""

RESERVED = frozenset({"time", "distinct_id", "$insert_id", "token"})
"""Properties that are written by the server, from fields of the request and from its own settings."""

BAD_IDS = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na undefined unknown <nil> 0 -1 true false"
    " [] {}".split()
)
"""Ids that Mixpanel refuses, in lower case."""

_CONTAINERS = (dict, list)
_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


class Kind(IntEnum):
    """What a record is; the number is stored."""

    EVENT = 0
    PROFILE = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted record. `payload` is the JSON that is stored and sent, without any credential."""

    kind: Kind
    event_id: EventId
    name: str
    """The event's name, or the profile operation."""
    distinct_id: str
    time_ms: int
    time_given: bool
    """False if `time_ms` is the time of acceptance, which the same request has another of when it is repeated."""
    payload: str
    received_at_ms: int
    replay_of: Offset | None = None


def track(
    *,
    name: str,
    distinct_id: str = "",
    event_id: str = "",
    time_ms: int | None = None,
    properties: Mapping[str, Any],
    device_id: str = "",
    user_id: str = "",
    ip: str = "",
    now_ms: int,
) -> Record:
    """Build the record of one event, or raise `InvalidRecord`.

    `properties` is decoded JSON. Without `ip` the event is marked as "do not geolocate", because Mixpanel would
    otherwise take this server's address for the user's.
    """
    check_text(name, "event.name", required=True)
    for value, field in (
        (distinct_id, "event.distinct_id"),
        (device_id, "event.device_id"),
        (user_id, "event.user_id"),
    ):
        if value:
            check_id(value, field)
    check_text(ip, "event.ip")
    time = check_time(time_ms, now_ms)
    event_id = check_event_id(event_id, "event.event_id")
    check_properties(properties, "event.properties", MAX_PROPERTIES)
    who = distinct_id or user_id or (f"$device:{device_id}" if device_id else "")
    if len(who) > MAX_NAME:
        raise InvalidRecord("event.device_id", "TOO_LONG", f"makes a distinct_id of more than {MAX_NAME} characters")
    frozen: dict[str, Any] = {"time": time, "distinct_id": who, "$insert_id": insert_id(event_id), "ip": "0"}
    frozen |= properties
    if frozen["$insert_id"] != event_id:
        frozen.setdefault("walbatch_event_id", event_id)
    _add_fields(frozen, properties, {"$device_id": device_id, "$user_id": user_id, "ip": ip})
    return Record(
        kind=Kind.EVENT,
        event_id=EventId(event_id),
        name=name,
        distinct_id=who,
        time_ms=time,
        time_given=time == time_ms,
        payload=_serialise({"event": name, "properties": frozen}, "event.properties"),
        received_at_ms=now_ms,
    )


def _add_fields(frozen: dict[str, Any], properties: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Add what the request has fields for; the same may stand among the properties, but nothing else."""
    for key, value in fields.items():
        if value:
            if properties.get(key, value) != value:
                raise InvalidRecord(
                    f"event.properties.{key}", "CONFLICT", "differs from the event's own field; give it once"
                )
            frozen[key] = value


def profile_update(
    *, distinct_id: str, operation: str, properties: Mapping[str, Any], update_id: str = "", now_ms: int
) -> Record:
    """Build the record of one profile operation (`$set` or `$set_once`), or raise `InvalidRecord`."""
    check_id(distinct_id, "profile_update.distinct_id", required=True)
    update_id = check_event_id(update_id, "profile_update.update_id")
    field = f"profile_update.{operation.removeprefix('$')}"
    check_properties(properties, field, MAX_PROFILE_PROPERTIES)
    payload = {"$distinct_id": distinct_id, "$ip": "0", operation: properties}
    return Record(
        kind=Kind.PROFILE,
        event_id=EventId(update_id),
        name=operation,
        distinct_id=distinct_id,
        time_ms=now_ms,
        time_given=False,
        payload=_serialise(payload, field),
        received_at_ms=now_ms,
    )


def identity_link(*, identified_id: str, anonymous_id: str, link_id: str = "", now_ms: int) -> Record:
    """Build the record that links an anonymous id to a user, or raise `InvalidRecord`.

    It is an event `$identify` with both spellings of the pair, those of Original and of Simplified ID Merge, as
    Mixpanel's browser SDK sends it. Without `link_id` the id is derived from the pair: a repeat is a duplicate.
    """
    check_id(identified_id, "identity_link.identified_id", required=True)
    check_id(anonymous_id, "identity_link.anonymous_id", required=True)
    device_id = anonymous_id.removeprefix("$device:")
    check_id(device_id, "identity_link.anonymous_id", required=True)
    if link_id:
        check_text(link_id, "identity_link.link_id", required=True)
    pair = {"$identified_id": identified_id, "$anon_id": anonymous_id}
    return track(
        name="$identify",
        distinct_id=identified_id,
        event_id=link_id or _digest(orjson.dumps(pair)),
        properties=pair,
        user_id=identified_id,
        device_id=device_id,
        now_ms=now_ms,
    )


def new_event_id() -> str:
    """Make an id: a UUID version 7, which is what `$insert_id` allows and sorts by time."""
    return str(uuid_utils.uuid7())


def insert_id(event_id: str) -> str:
    """Return the `$insert_id` for an id: the id itself if Mixpanel takes it, else 36 hex digits of its SHA-256."""
    if _INSERT_ID.fullmatch(event_id) and event_id.lower() not in BAD_IDS:
        return event_id
    return _digest(event_id.encode())


def check_event_id(value: str, field: str) -> str:
    """Return a usable idempotency key: the given one, or a new one for the empty string."""
    if not value:
        return new_event_id()
    check_text(value, field, required=True)
    return value


def check_text(value: str, field: str, *, required: bool = False) -> None:
    """Refuse a text that is blank though required, or too long."""
    if required and not value.strip():
        raise InvalidRecord(field, "REQUIRED", "must not be empty or blank")
    if len(value) > MAX_NAME:
        raise InvalidRecord(field, "TOO_LONG", f"has {len(value)} characters; at most {MAX_NAME} are kept")


def check_id(value: str, field: str, *, required: bool = False) -> None:
    """Refuse an id that Mixpanel refuses. The empty string stands for "nobody" where it is not required."""
    check_text(value, field, required=required)
    if value.lower() in BAD_IDS or value.isspace():
        raise InvalidRecord(
            field, "BAD_ID", f"{value!r} stands for no one in particular; send a real id, or leave it empty"
        )


def check_time(time_ms: int | None, now_ms: int) -> int:
    """Return the time to freeze, in milliseconds: never ahead of `now_ms`."""
    if time_ms is None:
        return now_ms
    if time_ms < EARLIEST_MS:
        raise InvalidRecord(
            "event.event_time", "TOO_EARLY", "is before 1971-01-01; is it in seconds instead of milliseconds?"
        )
    if time_ms > now_ms + MAX_AHEAD_MS:
        raise InvalidRecord("event.event_time", "IN_THE_FUTURE", "is more than an hour ahead; check the sender's clock")
    return min(time_ms, now_ms)


def check_properties(properties: Mapping[str, Any], field: str, limit: int) -> None:
    """Refuse properties that Mixpanel refuses: too many, too deep, too long, or names that are not theirs to set."""
    if len(properties) > limit:
        raise InvalidRecord(field, "TOO_MANY", f"has {len(properties)} properties; at most {limit} fit")
    if not RESERVED.isdisjoint(properties):
        key = min(RESERVED.intersection(properties))
        raise InvalidRecord(f"{field}.{key}", "RESERVED", "is set by walbatch; use the record's own fields")
    if "" in properties or max(map(len, properties), default=0) > MAX_NAME:
        raise InvalidRecord(
            field, "BAD_NAME", f"has a property name that is empty or longer than {MAX_NAME} characters"
        )
    for key, value in properties.items():
        if type(value) in _CONTAINERS:
            _check_nested(value, f"{field}.{key}", MAX_DEPTH)


def _check_nested(value: dict[str, Any] | list[Any], field: str, levels: int) -> None:
    if levels == 0:
        raise InvalidRecord(field, "TOO_DEEP", f"is nested more than {MAX_DEPTH} levels deep")
    if len(value) > MAX_ELEMENTS:
        raise InvalidRecord(field, "TOO_MANY", f"has {len(value)} elements; at most {MAX_ELEMENTS} fit")
    for inner in value.values() if isinstance(value, dict) else value:
        if type(inner) in _CONTAINERS:
            _check_nested(inner, field, levels - 1)


def _serialise(record: Mapping[str, Any], field: str) -> str:
    try:
        payload = orjson.dumps(record)
    except (TypeError, ValueError) as error:
        raise InvalidRecord(field, "NOT_JSON", f"cannot be written as JSON: {error}") from error
    if len(payload) >= MAX_RECORD_BYTES:
        raise InvalidRecord(
            field, "TOO_LARGE", f"makes a record of {len(payload)} bytes; it must stay under {MAX_RECORD_BYTES}"
        )
    return payload.decode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:36]
