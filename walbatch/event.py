"""Records: what is frozen at accept.

A record is serialised once, here. `event`, `time` (an integer: milliseconds, before 1973-03-03 seconds), `distinct_id`
and `$insert_id` are part of that text, so that every delivery and every replay sends the same bytes and Mixpanel
deduplicates them (https://docs.mixpanel.com/reference/event-deduplication). An update's payload has its `$time`, so
that `$last_seen` is right after an outage. No payload has a credential; the sink adds the token. The rules are in
`walbatch.rules`: a stored record can always be sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, NewType

import orjson
import uuid_utils

from walbatch import json_text, rules
from walbatch.errors import InvalidRecord

EventId = NewType("EventId", str)
"""A record's idempotency key, as the application gave it or as the server made it."""

Offset = NewType("Offset", int)
"""A record's position in the log: increasing, never used twice, gaps allowed."""

PROFILE_OPERATIONS = ("$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete")
"""What can be done to a user's profile (https://docs.mixpanel.com/reference/profile-set and its neighbours)."""

GROUP_OPERATIONS = ("$set", "$set_once", "$union", "$remove", "$unset", "$delete")
"""What can be done to a group's profile. Mixpanel names `$add` for groups once, without an endpoint: not offered."""

COUNTING = frozenset({"$add", "$append", "$remove"})
"""Operations that count twice when they are sent twice: profiles have no idempotency keys."""

ORIGINAL_ID = "walbatch_event_id"
"""Where the id of an event is kept that Mixpanel does not take as `$insert_id`."""

_DEVICE = "$device:"

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


class Kind(IntEnum):
    """What a record is; the number is stored."""

    EVENT = 0
    PROFILE = 1
    GROUP = 2

    __hash__ = int.__hash__  # an enum's own is Python code, and runs for each record


class Record(NamedTuple):
    """One accepted record. `payload` is the JSON that is stored and sent, without any credential."""

    kind: Kind
    event_id: EventId
    name: str
    """The event's name, or the operation on the profile."""
    distinct_id: str
    """Whose it is; of a group its key and its id, with a colon between them."""
    time_ms: int
    time_given: bool
    """False if `time_ms` is the time of acceptance, which the same request has another of when it is repeated."""
    payload: str
    received_at_ms: int
    replay_of: Offset | None = None
    destination: str = ""
    """The only destination that it is for; empty means every one that wants it."""
    trace: str = ""
    """The `traceparent` of the call that brought it; empty if that is not traced."""


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
    source: str = "",
    now_ms: int,
) -> Record:
    """Build the record of one event, or raise `InvalidRecord`.

    `properties` is decoded JSON, and `source` its text if that was read without `exact`. Without `ip` the event is
    marked as "do not geolocate", because Mixpanel would otherwise take this server's address for the user's.
    """
    rules.check_text(name, "event.name", required=True)
    special = not rules.SPECIAL.isdisjoint(properties)
    if special:
        rules.check_special(properties)
        user_id = rules.own_field(properties, "$user_id", user_id)
        device_id = rules.own_field(properties, "$device_id", device_id)
        ip = rules.own_field(properties, "ip", ip)
    _check_ids(distinct_id, device_id, user_id)
    if ip:
        rules.check_text(ip, "event.ip", limit=rules.MAX_IP)
    time, time_sent = _times(rules.check_time(time_ms, now_ms, "event.event_time"))
    if event_id:
        rules.check_text(event_id, "event.event_id", required=True)
        key = insert_id(event_id)
    else:
        key = event_id = new_event_id()
    rules.check_properties(properties, "event.properties", rules.MAX_PROPERTIES, source=source)
    who = distinct_id or user_id or _of_device(device_id)
    if name in rules.IDENTITY_EVENTS:
        rules.check_identity(name, who, properties)
    frozen: dict[str, Any] = {"time": time_sent, "distinct_id": who, "$insert_id": key, "ip": ip or "0", **properties}
    if key != event_id:
        frozen.setdefault(ORIGINAL_ID, event_id)
    if special:
        frozen["ip"] = ip or "0"
    if device_id:
        frozen["$device_id"] = device_id
    if user_id:
        frozen["$user_id"] = user_id
    return Record(
        kind=Kind.EVENT,
        event_id=EventId(event_id),
        name=name,
        distinct_id=who,
        time_ms=time,
        time_given=time_ms is not None and time_ms <= now_ms,
        payload=_serialise({"event": name, "properties": frozen}, "event.properties", rules.MAX_RECORD_BYTES),
        received_at_ms=now_ms,
    )


def profile_update(
    *,
    distinct_id: str,
    operation: str,
    properties: Mapping[str, Any] | Sequence[str] = (),
    update_id: str = "",
    ip: str = "",
    time_ms: int | None = None,
    ignore_time: bool = False,
    ignore_alias: bool = False,
    now_ms: int,
) -> Record:
    """Build the record of one of `PROFILE_OPERATIONS`, or raise `InvalidRecord`.

    `properties` is decoded JSON; for `$unset` it is names, and for `$delete` nothing. `ignore_time` leaves the
    profile's `$last_seen` alone; `ignore_alias` is for `$delete`.
    """
    rules.check_id(distinct_id, "profile_update.distinct_id", required=True)
    rules.check_text(ip, "profile_update.ip", limit=rules.MAX_IP)
    options = {"$ignore_time": ignore_time, "$ignore_alias": ignore_alias and operation == "$delete"}
    return _update(
        kind=Kind.PROFILE,
        where="profile_update",
        who=distinct_id,
        head={"$distinct_id": distinct_id, "$ip": ip or "0"},
        options={option: True for option, wanted in options.items() if wanted},
        operation=_operation(operation, properties, "profile_update", PROFILE_OPERATIONS),
        update_id=update_id,
        time_ms=time_ms,
        now_ms=now_ms,
    )


def group_update(
    *,
    group_key: str,
    group_id: str,
    operation: str,
    properties: Mapping[str, Any] | Sequence[str] = (),
    update_id: str = "",
    time_ms: int | None = None,
    now_ms: int,
) -> Record:
    """Build the record of one of `GROUP_OPERATIONS`, or raise `InvalidRecord`.

    `properties` are those of `profile_update`. The payload has no `$distinct_id`, with which Mixpanel refuses it.
    """
    rules.check_id(group_key, "group_update.group_key", required=True)
    rules.check_id(group_id, "group_update.group_id", required=True)
    return _update(
        kind=Kind.GROUP,
        where="group_update",
        who=f"{group_key}:{group_id}",
        head={"$group_key": group_key, "$group_id": group_id},
        options={},
        operation=_operation(operation, properties, "group_update", GROUP_OPERATIONS),
        update_id=update_id,
        time_ms=time_ms,
        now_ms=now_ms,
    )


def identity_link(*, identified_id: str, anonymous_id: str, link_id: str = "", now_ms: int) -> Record:
    """Build the record that links an anonymous id to a user, or raise `InvalidRecord`.

    It is an event `$identify` with both spellings of the pair, those of Original and of Simplified ID Merge, as
    Mixpanel's browser SDK sends it. Without `link_id` the id is derived from the pair: a repeat is a duplicate.
    """
    rules.check_id(identified_id, "identity_link.identified_id", required=True)
    rules.check_id(anonymous_id, "identity_link.anonymous_id", required=True)
    device_id = anonymous_id.removeprefix(_DEVICE)
    rules.check_id(device_id, "identity_link.anonymous_id", required=True)
    rules.check_different(identified_id, anonymous_id, "identity_link.anonymous_id")
    pair = {"$identified_id": identified_id, "$anon_id": anonymous_id}
    return track(
        name="$identify",
        distinct_id=identified_id,
        event_id=_link_id(link_id, pair),
        properties=pair,
        user_id=identified_id,
        device_id=device_id,
        now_ms=now_ms,
    )


def identity_merge(*, merged_ids: Sequence[str], link_id: str = "", now_ms: int) -> Record:
    """Build the record that merges two ids for good, or raise `InvalidRecord`.

    It is an event `$merge` (https://docs.mixpanel.com/reference/identity-merge) of the first id, with what every other
    event has. Without `link_id` the id is derived from the two.
    """
    rules.check_merged(merged_ids, "identity_link.merged_ids")
    pair = {"$distinct_ids": list(merged_ids)}
    return track(
        name="$merge",
        distinct_id=merged_ids[0],
        event_id=_link_id(link_id, pair),
        properties=pair,
        now_ms=now_ms,
    )


def identity_alias(*, alias: str, distinct_id: str, link_id: str = "", now_ms: int) -> Record:
    """Build the record that makes `alias` another name of an id, or raise `InvalidRecord`.

    It is an event `$create_alias` (https://docs.mixpanel.com/reference/identity-create-alias). Without `link_id` the
    id is derived from the two.
    """
    rules.check_alias(alias, distinct_id, "identity_link.alias", "identity_link.distinct_id")
    pair = {"distinct_id": distinct_id, "alias": alias}
    return track(
        name="$create_alias",
        distinct_id=distinct_id,
        event_id=_link_id(link_id, pair),
        properties={"alias": alias},
        now_ms=now_ms,
    )


def repeatable(kind: Kind, payload: str) -> bool:
    """Say whether a stored record may reach its destination twice and still count once."""
    return kind is Kind.EVENT or COUNTING.isdisjoint(orjson.loads(payload))


def described(kind: Kind, payload: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return what `Record` calls name, distinct_id and time_ms, from a stored record's decoded payload.

    The time is 0 for an update that was stored before updates had one.
    """
    if kind is Kind.EVENT:
        properties = payload["properties"]
        time = properties["time"]
        return payload["event"], properties["distinct_id"], time if time >= rules.SECONDS_BELOW else time * 1000
    name = next(operation for operation in PROFILE_OPERATIONS if operation in payload)
    who = payload["$distinct_id"] if kind is Kind.PROFILE else f"{payload['$group_key']}:{payload['$group_id']}"
    return name, who, round(payload.get("$time", 0) * 1000)


def new_event_id() -> str:
    """Make an id: a UUID version 7, which is what `$insert_id` allows and sorts by time."""
    return str(uuid_utils.uuid7())


def insert_id(event_id: str) -> str:
    """Return the `$insert_id` for an id: the id itself if Mixpanel takes it, else 36 hex digits of its SHA-256."""
    if _INSERT_ID.fullmatch(event_id) and event_id.lower() not in rules.BAD_IDS:
        return event_id
    return _digest(event_id.encode())


def _check_ids(distinct_id: str, device_id: str, user_id: str) -> None:
    if distinct_id:
        rules.check_id(distinct_id, "event.distinct_id")
    if device_id:
        rules.check_id(device_id, "event.device_id")
    if user_id:
        rules.check_id(user_id, "event.user_id")


def _usable_id(value: str, field: str) -> str:
    """Return a usable idempotency key: the given one, or a new one for the empty string."""
    if not value:
        return new_event_id()
    rules.check_text(value, field, required=True)
    return value


def _times(time_ms: int) -> tuple[int, int]:
    """Return an event's time in milliseconds, and as it is sent: an early one loses its fraction of a second."""
    if time_ms >= rules.SECONDS_BELOW:
        return time_ms, time_ms
    return time_ms - time_ms % 1000, time_ms // 1000


def _of_device(device_id: str) -> str:
    """Return the distinct_id of a device on which no one has signed in: as Simplified ID Merge would make it."""
    if len(device_id) > rules.MAX_NAME - len(_DEVICE):
        raise InvalidRecord(
            "event.device_id", "TOO_LONG", f"makes a distinct_id of more than {rules.MAX_NAME} characters"
        )
    return device_id and _DEVICE + device_id


def _link_id(given: str, pair: Mapping[str, Any]) -> str:
    if given:
        rules.check_text(given, "identity_link.link_id", required=True)
    return given or _digest(orjson.dumps(pair))


def _operation(
    operation: str, value: Mapping[str, Any] | Sequence[str], where: str, known: Sequence[str]
) -> dict[str, Any]:
    """Return an operation as it is sent, or refuse it."""
    if operation not in known:
        raise InvalidRecord(f"{where}.operation", "UNKNOWN", f"is none of {', '.join(known)}")
    if operation == "$delete":
        return {operation: ""}
    field = f"{where}.{operation.removeprefix('$')}"
    if operation == "$unset":
        rules.check_names([*value], field)
    elif not isinstance(value, Mapping):
        raise InvalidRecord(field, "NOT_AN_OBJECT", 'must be a JSON object, such as {"plan": "pro"}')
    else:
        # An array of a profile is not counted: its limit is documented for events only.
        rules.check_properties(value, field, rules.MAX_PROFILE_PROPERTIES, max_elements=None)
        if operation == "$add":
            rules.check_numbers(value, field)
        if operation == "$union":
            rules.check_arrays(value, field)
    rules.check_reserved(value, field)
    return {operation: value}


def _update(
    *,
    kind: Kind,
    where: str,
    who: str,
    head: Mapping[str, str],
    options: Mapping[str, bool],
    operation: Mapping[str, Any],
    update_id: str,
    time_ms: int | None,
    now_ms: int,
) -> Record:
    """Put an update together. Its `$time` is in seconds, as Mixpanel's SDKs send it."""
    time = rules.check_time(time_ms, now_ms, f"{where}.update_time")
    update_id = _usable_id(update_id, f"{where}.update_id")
    (name,) = operation
    update = {**head, "$time": time / 1000, **options, **operation}
    return Record(
        kind=kind,
        event_id=EventId(update_id),
        name=name,
        distinct_id=who,
        time_ms=time,
        time_given=time == time_ms,
        payload=_serialise(update, f"{where}.{name[1:]}", rules.MAX_UPDATE_BYTES),
        received_at_ms=now_ms,
    )


def _serialise(record: Mapping[str, Any], field: str, limit: int) -> str:
    try:
        payload = orjson.dumps(record)
    except TypeError:
        json_text.refuse(record, field)
    if len(payload) >= limit:
        raise InvalidRecord(field, "TOO_LARGE", f"makes a record of {len(payload)} bytes; it must stay under {limit}")
    return payload.decode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:36]
