"""From protobuf messages to records. Pure; everything that is refused is an `InvalidRecord`."""

from __future__ import annotations

import math
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Struct, Value

from walbatch import event as rules
from walbatch.errors import InvalidRecord
from walbatch.event import Record
from walbatch.pb.analytics.v1 import service_pb2 as pb

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
            link = message.identity_link
            return rules.identity_link(
                identified_id=link.identified_id, anonymous_id=link.anonymous_id, link_id=link.link_id, now_ms=now_ms
            )
        case _:
            raise InvalidRecord("kind", "REQUIRED", "set one of event, profile_update, identity_link")


def event(message: pb.Event, now_ms: int) -> Record:
    """Build the record of an event."""
    field = "event.properties"
    spelled = message.WhichOneof("payload")
    if spelled == "properties_json":
        properties = _parse(message.properties_json, "event.properties_json")
    else:
        properties = _walk(message.properties, field) if spelled else {}
    time_ms = None
    if message.HasField("event_time"):
        time_ms = message.event_time.seconds * 1000 + message.event_time.nanos // 1_000_000
    return rules.track(
        name=message.name,
        distinct_id=message.distinct_id,
        event_id=message.event_id,
        time_ms=time_ms,
        properties=properties,
        device_id=message.device_id,
        user_id=message.user_id,
        ip=message.ip,
        now_ms=now_ms,
    )


def identify(message: pb.IdentifyUserRequest, now_ms: int) -> list[Record]:
    """Build the records of an IdentifyUser call: the profile update, then the link if one is asked for."""
    try:
        if message.WhichOneof("payload") == "traits_json":
            traits = _parse(message.traits_json, "traits_json")
        else:
            traits = _walk(message.traits, "traits")
        update = rules.profile_update(
            distinct_id=message.user_id, operation="$set", properties=traits, update_id=message.event_id, now_ms=now_ms
        )
        if not message.anonymous_id:
            return [update]
        link = rules.identity_link(identified_id=message.user_id, anonymous_id=message.anonymous_id, now_ms=now_ms)
    except InvalidRecord as error:
        raise InvalidRecord(_identify_field(error.field), error.reason, error.description) from error
    return [update, link]


def _identify_field(field: str) -> str:
    for ours, theirs in _IDENTIFY_FIELDS.items():
        if field == ours or field.startswith(f"{ours}."):
            return theirs + field.removeprefix(ours)
    return field


def _profile_update(message: pb.ProfileUpdate, now_ms: int) -> Record:
    operation = message.WhichOneof("operation")
    if operation is None:
        raise InvalidRecord("profile_update.operation", "REQUIRED", "set one of set, set_once")
    return rules.profile_update(
        distinct_id=message.distinct_id,
        operation=f"${operation}",
        properties=_properties(getattr(message, operation), f"profile_update.{operation}"),
        update_id=message.update_id,
        now_ms=now_ms,
    )


def _properties(message: pb.Properties, field: str) -> dict[str, Any]:
    if message.WhichOneof("spelling") == "json":
        return _parse(message.json, f"{field}.json")
    return _walk(message.struct, field)


def _parse(text: str, field: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # The error's own text can quote the document, which may hold personal data: say only where it is.
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRecord(
            field, "NOT_JSON", f"is not valid JSON at {where} (NaN and Infinity are not JSON)"
        ) from None
    if not isinstance(value, dict):
        raise InvalidRecord(field, "NOT_AN_OBJECT", 'must be one JSON object, such as {"plan": "pro"}')
    return value


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
                raise InvalidRecord(field, "NOT_JSON", "has a number that JSON cannot hold (NaN or Infinity)")
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
