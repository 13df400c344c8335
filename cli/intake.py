"""What `walbatch send` reads: from bytes to lines, from lines to records, from records to batches. Pure.

A line is one JSON object in the shape in which Mixpanel takes it:

    {"event": "Signed Up", "properties": {"distinct_id": "u1", "time": 1517966773840, "$insert_id": "a1", "plan": "x"}}
    {"$distinct_id": "u1", "$set": {"plan": "x"}}               or "$set_once"

`time` is in milliseconds or in seconds. A token in the line is dropped, since the server has its own; so are `$time`,
`$ip` and `$ignore_time` of a profile, which tell how a call was made. Anything else that would be lost is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from walbatch.errors import InvalidRecord
from walbatch.event import MAX_RECORD_BYTES, new_event_id
from walbatch.pb.analytics.v1 import service_pb2 as pb

BATCH_LINES = 500
"""Lines of one request: enough to share one fsync, few enough that a repetition costs little."""

BATCH_BYTES = 2**20
"""Bytes of one request. A record that is larger by itself is larger than the server takes."""

MAX_LINE = 4 * 2**20
"""Bytes of a line. The record in it has to stay under 1,000,000; escaped text is up to six times as long."""

SECONDS_BELOW = 1e11
"""A time below this counts seconds: in milliseconds it would be in 1973, in seconds it is in the year 5138."""

LATEST_S = 253_402_300_799
"""The last second of the year 9999, where the protobuf type ends."""

_TOKENS = frozenset({"token", "$token"})
_CALL = _TOKENS | {"$time", "$ip", "$ignore_time"}
_OPERATIONS = {"$set": "set", "$set_once": "set_once"}
_IDENTITIES = {"distinct_id": "distinct_id", "$insert_id": "event_id", "$user_id": "user_id", "$device_id": "device_id"}
"""Properties that have a field of their own in the request."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one line was not stored. It names the field and never holds its value."""

    line: int
    field: str
    reason: str
    description: str


@dataclass(slots=True)
class Batch:
    """Lines that go out together: the records, the number of the line that each came from, and what is no record."""

    records: list[pb.Record] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    last_line: int = 0
    """Everything up to this line is in this batch, or in one before it."""
    source_bytes: int = 0
    """How much of the input that was."""

    def __len__(self) -> int:
        return len(self.records) + len(self.refusals)


def split_lines(chunks: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """Yield the lines of a stream without their line breaks, and None wherever the stream pauses.

    A line that is longer than `MAX_LINE` is cut to one byte more, so that memory stays flat and `record` refuses it.
    """
    rest = b""
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        first, *more = chunk.split(b"\n")
        rest = (rest + first)[: MAX_LINE + 1]
        for part in more:
            yield rest
            rest = part
    if rest:
        yield rest


def batches(lines: Iterable[bytes | None]) -> Iterator[Batch | None]:
    """Yield the lines' records in batches; a pause ends a batch early, and is passed on."""
    batch, size = Batch(), 0
    for number, line in _numbered(lines):
        if line is None:
            if len(batch):
                yield batch
                batch, size = Batch(last_line=batch.last_line), 0
            yield None
            continue
        parsed = _parse(number, line)
        needed = parsed.ByteSize() if isinstance(parsed, pb.Record) else 0
        if len(batch) >= BATCH_LINES or (batch.records and size + needed > BATCH_BYTES):
            yield batch
            batch, size = Batch(), 0
        _add(batch, number, line, parsed)
        size += needed
    if len(batch):
        yield batch


def _numbered(lines: Iterable[bytes | None]) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    for line in lines:
        number += line is not None
        yield number, line


def _add(batch: Batch, number: int, line: bytes, parsed: pb.Record | Refusal | None) -> None:
    match parsed:
        case pb.Record():
            batch.records.append(parsed)
            batch.numbers.append(number)
        case Refusal():
            batch.refusals.append(parsed)
    batch.last_line = number
    batch.source_bytes += len(line) + 1


def _parse(number: int, line: bytes) -> pb.Record | Refusal | None:
    """Return what a line holds; None if it is blank."""
    if not line.strip():
        return None
    try:
        return record(line)
    except InvalidRecord as error:
        return Refusal(number, error.field, error.reason, error.description)


def record(line: bytes) -> pb.Record:
    """Return the record of one line.

    Raises:
        InvalidRecord: It is none; the text says why without repeating any of it.
    """
    if len(line) > MAX_LINE:
        raise InvalidRecord("", "TOO_LARGE", f"is longer than {MAX_LINE} bytes")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # Not the error's own text: it could quote the line.
        raise InvalidRecord("", "NOT_JSON", f"is not valid JSON from column {error.colno} on") from None
    return shaped(found)


def shaped(found: Any) -> pb.Record:
    """Return the record of an object in Mixpanel's shape, with an id of its own if the object has none.

    Raises:
        InvalidRecord: It has another shape.
    """
    if not isinstance(found, dict):
        raise InvalidRecord("", "NOT_AN_OBJECT", 'must be one JSON object, such as {"event": "Signed Up"}')
    try:
        if "event" in found:
            made = pb.Record(event=_event(found))
        elif "$distinct_id" in found:
            made = pb.Record(profile_update=_profile(found))
        else:
            raise InvalidRecord("", "UNKNOWN", 'is neither an event ("event") nor a profile update ("$distinct_id")')
    except UnicodeEncodeError:
        raise InvalidRecord("", "NOT_UTF8", "has text that is not valid Unicode") from None
    if made.ByteSize() > BATCH_BYTES:
        raise InvalidRecord("", "TOO_LARGE", f"makes a record that is not under {MAX_RECORD_BYTES} bytes")
    return made


def _event(found: dict[str, Any]) -> pb.Event:
    _only(found, {"event", "properties"} | _TOKENS, "event", "put it into the properties")
    properties = _object(found.get("properties"), "event.properties")
    for token in _TOKENS:
        properties.pop(token, None)
    event = pb.Event(name=_text(found["event"], "event.name"))
    for key, name in _IDENTITIES.items():
        setattr(event, name, _id(properties.pop(key, None), f"event.{name}"))
    event.event_id = event.event_id or new_event_id()
    event.ip = _id(properties.pop("ip", None), "event.ip")
    if (time := properties.pop("time", None)) is not None:
        event.event_time.FromMilliseconds(_time_ms(time))
    event.properties_json = _json(properties, "event.properties")
    return event


def _profile(found: dict[str, Any]) -> pb.ProfileUpdate:
    _only(found, {"$distinct_id"} | _OPERATIONS.keys() | _CALL, "profile_update", "use $set or $set_once")
    given = [operation for operation in _OPERATIONS if operation in found]
    if len(given) != 1:
        raise InvalidRecord("profile_update.operation", "REQUIRED", "give exactly one of $set and $set_once a line")
    (operation,) = given
    where = f"profile_update.{_OPERATIONS[operation]}"
    update = pb.ProfileUpdate(
        update_id=new_event_id(), distinct_id=_id(found["$distinct_id"], "profile_update.distinct_id")
    )
    getattr(update, _OPERATIONS[operation]).json = _json(_object(found[operation], where), where)
    return update


def _only(found: dict[str, Any], known: frozenset[str] | set[str], where: str, hint: str) -> None:
    """Refuse what would be lost."""
    for key in found:
        if key not in known:
            raise InvalidRecord(f"{where}.{key}", "UNKNOWN", f"is not known here; {hint}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise InvalidRecord(where, "NOT_AN_OBJECT", 'must be a JSON object, such as {"plan": "pro"}')
    return dict(value or {})


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


def _time_ms(value: Any) -> int:
    if type(value) not in (int, float):
        raise InvalidRecord(
            "event.event_time", "NOT_A_NUMBER", "must be milliseconds or seconds since 1970, as a number"
        )
    time_ms: int = round(value * 1000 if abs(value) < SECONDS_BELOW else value)
    if abs(time_ms) > LATEST_S * 1000:
        raise InvalidRecord("event.event_time", "IN_THE_FUTURE", "is beyond the year 9999")
    return time_ms


def _json(properties: dict[str, Any], where: str) -> str:
    try:
        return orjson.dumps(properties).decode()
    except TypeError:  # what came from JSON can only be nested too deeply for it, or hold text that is no Unicode
        raise InvalidRecord(where, "NOT_JSON", "is nested too deeply, or has text that is not valid Unicode") from None
