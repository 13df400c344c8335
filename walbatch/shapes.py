"""Records in the shapes in which Mixpanel takes them, as messages. Pure.

    {"event": "Signed Up", "properties": {"distinct_id": "u1", "time": 1517966773840, "$insert_id": "a1", "plan": "x"}}
    {"event": "$identify", "properties": {"$identified_id": "u1", "$anon_id": "a1"}}     or $create_alias, or $merge
    {"$distinct_id": "u1", "$set": {"plan": "x"}}                or another operation; $time, $ip, $ignore_time
    {"$group_key": "company", "$group_id": "acme", "$set": {"plan": "x"}}                or another operation; $time

Times are in milliseconds or in seconds. A token is dropped, since the server has its own. Anything else that would be
lost is refused.

What walbatch has stored has these shapes as well, and makes the same record again, byte for byte. Mixpanel has no ids
of updates, so beside what it knows an update can have its id as `walbatch_event_id`.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from walbatch import json_text, rules
from walbatch.errors import InvalidRecord
from walbatch.event import GROUP_OPERATIONS, ORIGINAL_ID, PROFILE_OPERATIONS, insert_id, new_event_id
from walbatch.pb.analytics.v1 import service_pb2 as pb

MAX_MESSAGE_BYTES = 2**20
"""Bytes of a message. One that is larger holds more than `rules.MAX_RECORD_BYTES` of JSON."""

LATEST_S = 253_402_300_799
"""The last second of the year 9999, where the protobuf type ends."""

_TOKENS = frozenset({"token", "$token"})
_HEAD = ("time", "distinct_id", "$insert_id", "ip")
"""Properties with which every stored event begins: see `walbatch.event.track`."""

_LINKS = {
    "$identify": {"$identified_id", "$anon_id"},
    "$create_alias": {"distinct_id", "alias"},
    "$merge": {"$distinct_ids"},
}
"""What makes a link of an event of that name, if there is nothing else in it but its `$insert_id`."""


def shaped(found: Any) -> pb.Record:
    """Return the record of an object in one of Mixpanel's shapes, with an id of its own if the object has none.

    Raises:
        InvalidRecord: It has another shape; the text says which field, and repeats nothing of it.
    """
    if not isinstance(found, dict):
        raise InvalidRecord("", "NOT_AN_OBJECT", 'must be one JSON object, such as {"event": "Signed Up"}')
    try:
        if "event" in found:
            made = _event(found)
        elif "$group_key" in found:
            made = pb.Record(group_update=_group(found))
        elif "$distinct_id" in found:
            made = pb.Record(profile_update=_profile(found))
        else:
            raise InvalidRecord(
                "", "UNKNOWN", 'has neither an "event", nor the "$distinct_id" or "$group_key" of an update'
            )
    except UnicodeEncodeError:
        raise InvalidRecord("", "NOT_UNICODE", "has text that is not valid Unicode") from None
    if made.ByteSize() > MAX_MESSAGE_BYTES:
        raise InvalidRecord("", "TOO_LARGE", f"makes a record that is not under {rules.MAX_RECORD_BYTES} bytes")
    return made


def _event(found: dict[str, Any]) -> pb.Record:
    _only(found, {"event", "properties"} | _TOKENS, "event", "put it into the properties")
    name = _text(found["event"], "event.name")
    properties = _object(found.get("properties"), "event.properties")
    for token in _TOKENS:
        properties.pop(token, None)
    own = _LINKS.get(name)
    if own and own <= properties.keys() <= own | {"$insert_id"}:
        return pb.Record(identity_link=_link(name, properties))
    is_stored = tuple(islice(properties, len(_HEAD))) == _HEAD
    event = pb.Event(
        name=name,
        distinct_id=_id(properties.pop("distinct_id", None), "event.distinct_id"),
        event_id=_id(properties.pop("$insert_id", None), "event.event_id"),
        ip=_id(properties.pop("ip", None), "event.ip"),
    )
    if (time := properties.pop("time", None)) is not None:
        event.event_time.FromMilliseconds(_time_ms(time, "event.event_time"))
    if _is_apart(properties, "$user_id", is_stored=is_stored):
        event.user_id = _id(properties.pop("$user_id"), "event.user_id")
    if _is_apart(properties, "$device_id", is_stored=is_stored):
        event.device_id = _id(properties.pop("$device_id"), "event.device_id")
    if _is_original(properties.get(ORIGINAL_ID), event.event_id):
        event.event_id = properties[ORIGINAL_ID]
        if _is_apart(properties, ORIGINAL_ID, is_stored=is_stored):
            del properties[ORIGINAL_ID]
    event.event_id = event.event_id or new_event_id()
    event.properties_json = json_text.dump(properties, "event.properties")
    return pb.Record(event=event)


def _is_apart(properties: dict[str, Any], key: str, *, is_stored: bool) -> bool:
    """Say whether a property is a field of its own in the request.

    In a stored event it is only if it stands last, where walbatch has put it. Elsewhere it came as a property and stays
    one, or the event would have other bytes than before.
    """
    if not is_stored:
        return key in properties
    return next(reversed(properties), None) == key and bool(properties[key])


def _is_original(found: Any, sent_id: str) -> bool:
    """Say whether an id is the one that an event's `$insert_id` was made of."""
    return isinstance(found, str) and found != sent_id and insert_id(found) == sent_id


def _link(name: str, properties: dict[str, Any]) -> pb.IdentityLink:
    link = pb.IdentityLink(link_id=_id(properties.get("$insert_id"), "identity_link.link_id"))
    if name == "$identify":
        link.identified_id = _id(properties["$identified_id"], "identity_link.identified_id")
        link.anonymous_id = _id(properties["$anon_id"], "identity_link.anonymous_id")
    elif name == "$create_alias":
        link.alias = _id(properties["alias"], "identity_link.alias")
        link.distinct_id = _id(properties["distinct_id"], "identity_link.distinct_id")
    else:
        ids = _array(properties["$distinct_ids"], "identity_link.merged_ids")
        link.merged_ids.extend(_id(one, "identity_link.merged_ids") for one in ids)
    return link


def _profile(found: dict[str, Any]) -> pb.ProfileUpdate:
    where = "profile_update"
    options = {"$distinct_id", "$time", "$ip", "$ignore_time", "$ignore_alias", ORIGINAL_ID} | _TOKENS
    _only(found, {*PROFILE_OPERATIONS} | options, where, f"an update has one of {', '.join(PROFILE_OPERATIONS)}")
    update = pb.ProfileUpdate(
        update_id=_id(found.get(ORIGINAL_ID), f"{where}.update_id") or new_event_id(),
        distinct_id=_id(found["$distinct_id"], f"{where}.distinct_id"),
        ip=_id(found.get("$ip"), f"{where}.ip"),
        ignore_time=_flag(found.get("$ignore_time"), f"{where}.ignore_time"),
    )
    _fill(update, found, where, PROFILE_OPERATIONS)
    if "$ignore_alias" in found:
        if update.WhichOneof("operation") != "delete":
            raise InvalidRecord(f"{where}.$ignore_alias", "UNKNOWN", "belongs to $delete alone")
        update.delete.ignore_alias = _flag(found["$ignore_alias"], f"{where}.delete.ignore_alias")
    return update


def _group(found: dict[str, Any]) -> pb.GroupUpdate:
    where = "group_update"
    options = {"$group_key", "$group_id", "$time", ORIGINAL_ID} | _TOKENS
    _only(found, {*GROUP_OPERATIONS} | options, where, f"an update has one of {', '.join(GROUP_OPERATIONS)}")
    update = pb.GroupUpdate(
        update_id=_id(found.get(ORIGINAL_ID), f"{where}.update_id") or new_event_id(),
        group_key=_text(found["$group_key"], f"{where}.group_key"),
        group_id=_id(found.get("$group_id"), f"{where}.group_id"),
    )
    _fill(update, found, where, GROUP_OPERATIONS)
    return update


def _fill(
    update: pb.ProfileUpdate | pb.GroupUpdate, found: dict[str, Any], where: str, operations: tuple[str, ...]
) -> None:
    """Move the time and the one operation of an object into a message."""
    if (time := found.get("$time")) is not None:
        update.update_time.FromMilliseconds(_time_ms(time, f"{where}.update_time"))
    given = [operation for operation in operations if operation in found]
    if len(given) != 1:
        raise InvalidRecord(
            f"{where}.operation",
            "CONFLICT" if given else "REQUIRED",
            f"has {len(given)} operations; give exactly one of {', '.join(operations)}, and several in an object each",
        )
    (operation,) = given
    name = operation.removeprefix("$")
    field = f"{where}.{name}"
    match getattr(update, name):
        case pb.Properties() as properties:
            properties.json = json_text.dump(_object(found[operation], field), field)
        case pb.PropertyNames() as unset:
            unset.names.extend(_text(one, field) for one in _array(found[operation], field))
            unset.SetInParent()
        case deletion:
            deletion.SetInParent()


def _only(found: dict[str, Any], known: set[str], where: str, hint: str) -> None:
    """Refuse what would be lost."""
    for key in found:
        if key not in known:
            raise InvalidRecord(f"{where}.{key}", "UNKNOWN", f"is not known here; {hint}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise InvalidRecord(where, "NOT_AN_OBJECT", 'must be a JSON object, such as {"plan": "pro"}')
    return dict(value or {})


def _array(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRecord(where, "NOT_AN_ARRAY", 'must be an array, such as ["a", "b"]')
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidRecord(where, "NOT_TEXT", "must be text")
    return value


def _id(value: Any, where: str) -> str:
    """Return an id as text. A whole number is one as well: many systems count their users."""
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise InvalidRecord(where, "NOT_TEXT", "must be text or a whole number")
    return value


def _flag(value: Any, where: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidRecord(where, "NOT_A_BOOLEAN", "must be true or false")
    return bool(value)


def _time_ms(value: Any, where: str) -> int:
    if type(value) not in (int, float):
        raise InvalidRecord(where, "NOT_A_NUMBER", "must be milliseconds or seconds since 1970, as a number")
    if not abs(value) <= LATEST_S * 1000:
        raise InvalidRecord(where, "IN_THE_FUTURE", "is beyond the year 9999")
    number: float = value
    return round(number * 1000 if abs(number) < rules.SECONDS_BELOW else number)
