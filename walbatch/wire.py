"""From protobuf messages to records. Pure; everything that is refused is an `InvalidRecord`."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from walbatch import event as events
from walbatch import json_text, rules
from walbatch.errors import InvalidRecord
from walbatch.event import Record
from walbatch.pb.analytics.v1 import service_pb2 as pb

_SECOND_NS = 1_000_000_000

_IDENTIFY_FIELDS = {
    "profile_update.distinct_id": "user_id",
    "profile_update.update_id": "event_id",
    "profile_update.set": "traits",
    "identity_link.identified_id": "user_id",
    "identity_link.anonymous_id": "anonymous_id",
}
"""What the fields of the records behind IdentifyUser are called in its request."""


def record(message: pb.Record, now_ms: int) -> Record:
    """Build the record of any kind of message."""
    match message.WhichOneof("kind"):
        case "event":
            return event(message.event, now_ms)
        case "profile_update":
            return _profile_update(message.profile_update, now_ms)
        case "identity_link":
            return _identity_link(message.identity_link, now_ms)
        case "group_update":
            return _group_update(message.group_update, now_ms)
        case _:
            raise InvalidRecord("kind", "REQUIRED", f"set one of {_members(message, 'kind')}")


def event(message: pb.Event, now_ms: int) -> Record:
    """Build the record of an event."""
    text = message.properties_json
    if text:
        properties = json_text.parse(text, "event.properties_json", exact=False)
    else:
        properties = _walk(message.properties, "event.properties")
    return events.track(
        name=message.name,
        distinct_id=message.distinct_id,
        event_id=message.event_id,
        time_ms=_time_ms(message.event_time, "event.event_time") if message.HasField("event_time") else None,
        properties=properties,
        device_id=message.device_id,
        user_id=message.user_id,
        ip=message.ip,
        source=text,
        now_ms=now_ms,
    )


def identify_count(message: pb.IdentifyUserRequest) -> int:
    """Return how many records an IdentifyUser call asks for."""
    return 1 if message.anonymous_id in ("", message.user_id) else 2


def identify(message: pb.IdentifyUserRequest, now_ms: int) -> list[Record]:
    """Build the records of an IdentifyUser call: the profile update, then the link if one is asked for."""
    try:
        if message.WhichOneof("payload") == "traits_json":
            traits = _parse(message.traits_json, "traits_json")
        else:
            traits = _walk(message.traits, "traits")
        update = events.profile_update(
            distinct_id=message.user_id, operation="$set", properties=traits, update_id=message.event_id, now_ms=now_ms
        )
        if identify_count(message) == 1:
            return [update]
        link = events.identity_link(identified_id=message.user_id, anonymous_id=message.anonymous_id, now_ms=now_ms)
    except InvalidRecord as error:
        raise InvalidRecord(_identify_field(error.field), error.reason, error.description) from error
    return [update, link]


def _identify_field(field: str) -> str:
    for ours, theirs in _IDENTIFY_FIELDS.items():
        if field == ours or field.startswith(f"{ours}."):
            return theirs + field.removeprefix(ours)
    return field


def _profile_update(message: pb.ProfileUpdate, now_ms: int) -> Record:
    operation, properties = _operation(message, "profile_update")
    return events.profile_update(
        distinct_id=message.distinct_id,
        operation=operation,
        properties=properties,
        update_id=message.update_id,
        ip=message.ip,
        time_ms=_update_ms(message, "profile_update"),
        ignore_time=message.ignore_time,
        ignore_alias=message.delete.ignore_alias,
        now_ms=now_ms,
    )


def _group_update(message: pb.GroupUpdate, now_ms: int) -> Record:
    operation, properties = _operation(message, "group_update")
    return events.group_update(
        group_key=message.group_key,
        group_id=message.group_id,
        operation=operation,
        properties=properties,
        update_id=message.update_id,
        time_ms=_update_ms(message, "group_update"),
        now_ms=now_ms,
    )


def _identity_link(message: pb.IdentityLink, now_ms: int) -> Record:
    linked = message.identified_id or message.anonymous_id
    aliased = message.alias or message.distinct_id
    match bool(linked), bool(message.merged_ids), bool(aliased):
        case True, False, False:
            return events.identity_link(
                identified_id=message.identified_id,
                anonymous_id=message.anonymous_id,
                link_id=message.link_id,
                now_ms=now_ms,
            )
        case False, True, False:
            return events.identity_merge(merged_ids=[*message.merged_ids], link_id=message.link_id, now_ms=now_ms)
        case False, False, True:
            return events.identity_alias(
                alias=message.alias, distinct_id=message.distinct_id, link_id=message.link_id, now_ms=now_ms
            )
        case given:
            raise InvalidRecord(
                "identity_link",
                "CONFLICT" if any(given) else "REQUIRED",
                "give either identified_id and anonymous_id, or merged_ids, or alias and distinct_id",
            )


def _operation(message: pb.ProfileUpdate | pb.GroupUpdate, where: str) -> tuple[str, dict[str, Any] | list[str]]:
    """Return the operation by Mixpanel's name, and what it is done with."""
    name = message.WhichOneof("operation")
    if name is None:
        raise InvalidRecord(f"{where}.operation", "REQUIRED", f"set one of {_members(message, 'operation')}")
    value: dict[str, Any] | list[str] = {}
    match getattr(message, name):
        case pb.Properties() as properties:
            value = _properties(properties, f"{where}.{name}")
        case pb.PropertyNames(names=names):
            value = [*names]
    return f"${name}", value


def _members(message: Message, oneof: str) -> str:
    return ", ".join(member.name for member in message.DESCRIPTOR.oneofs_by_name[oneof].fields)


def _update_ms(message: pb.ProfileUpdate | pb.GroupUpdate, where: str) -> int | None:
    return _time_ms(message.update_time, f"{where}.update_time") if message.HasField("update_time") else None


def _time_ms(time: Timestamp, field: str) -> int:
    nanos = time.nanos
    if not 0 <= nanos < _SECOND_NS:
        raise InvalidRecord(field, "NOT_A_TIME", "has nanos outside of 0 to 999,999,999")
    return time.seconds * 1000 + nanos // 1_000_000


def _properties(message: pb.Properties, field: str) -> dict[str, Any]:
    if message.WhichOneof("spelling") == "json":
        return _parse(message.json, f"{field}.json")
    return _walk(message.struct, field)


def _parse(text: str, field: str) -> dict[str, Any]:
    return json_text.parse(text, field) if text else {}


def _walk(struct: Struct, field: str) -> dict[str, Any]:
    return {key: _value(value, field, rules.MAX_DEPTH + 1) for key, value in struct.fields.items()}


def _value(value: Value, field: str, levels: int) -> Any:
    """Decode one value of a Struct, whose numbers are all doubles: a whole one is written without a fraction."""
    if levels == 0:
        raise InvalidRecord(field, "TOO_DEEP", f"is nested more than {rules.MAX_DEPTH} levels deep")
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidRecord(field, "NOT_FINITE", "has a number that is NaN or an infinity")
            return int(number) if number.is_integer() and abs(number) <= 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {key: _value(inner, field, levels - 1) for key, inner in value.struct_value.fields.items()}
        case "list_value":
            return [_value(inner, field, levels - 1) for inner in value.list_value.values]
        case _:
            return None
