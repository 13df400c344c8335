"""What went in comes out: every record that walbatch accepts is accepted by Mixpanel, and is there as it was sent.

The way is the real one: message, record, `HttpSink`, socket, the fake's own reading of Mixpanel's rules, its export.
What to expect is made from the message alone, by rules that are written down here a second time.

Values are compared as JSON texts, so that 1, 1.0, true and "1" are four things. What is different on purpose:

* Texts and inner names of an event end after 255 characters, as at Mixpanel. (The fake does not cut those of profiles.)
* A whole number of a Struct, which knows only doubles, is an integer up to 2^53; so -0.0 is 0 there.
* The address and the token of an event are not in an export, as at Mixpanel; what the server makes is left out.
* An event's time before 1973-03-03 loses its fraction of a second.

An event that is named `$identify` and has not all that an `IdentityLink` makes it of suits one mode of ID Merge alone.
walbatch cannot know the project's mode, so such an event is sent only to a project of the mode that it suits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from fakes_in_thread import served
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_strategies import NOW_MS, records

from walbatch import wire
from walbatch.delivery import DELIVERED, Settled
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Record
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.sinks.http import HttpSink
from walbatch.sinks.mixpanel import Credentials, Mixpanel
from walbatch.testing.clock import FakeClock
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project
from walbatch.testing.store import ProjectData

TOKEN = "0123456789abcdef0123456789abcdef"
GUIDE = (Path(__file__).parents[2] / "docs/grpc.md").read_text()
REASONS = set(
    re.findall(r"`([A-Z_]+)`", GUIDE.partition("## Reasons of a refusal")[2].partition("What is not refused")[0])
)
SERVER_MADE = {"$import", "$mp_api_endpoint", "$mp_api_timestamp_ms", "mp_processing_time_ms"}
PLACEHOLDERS = {
    "00000000-0000-0000-0000-000000000000",
    *"0 -1 anon anonymous nil none null na undefined unknown true false".split(),
}
"""What an id of an event can look like, and Mixpanel does not take."""

LINKS = {"$identify": ("$identified_id", "$anon_id"), "$create_alias": ("distinct_id", "alias")}


class Way:
    """The way to a fake and back. Each delivery goes to a project of its own."""

    def __init__(self, fake: FakeMixpanel, url: str) -> None:
        self._fake = fake
        self._numbers = count(1)
        self._runner = asyncio.Runner()
        self._sink = HttpSink(Mixpanel(url, Credentials(token=TOKEN)))
        self._client = httpx.Client(base_url=url, trust_env=False)

    def __enter__(self) -> Self:
        self._runner.run(self._sink.__aenter__())
        return self

    def __exit__(self, *exc: object) -> None:
        self._runner.run(self._sink.__aexit__())
        self._runner.close()
        self._client.close()

    def deliver(self, accepted: Sequence[Record], *, simplified: bool = False) -> ProjectData:
        """Send records, those of a kind in one request, and see that all of them are taken."""
        mode: Any = "simplified" if simplified else "original"
        self._fake.projects = [Project(next(self._numbers), TOKEN, id_mode=mode)]
        for kind in Kind:
            payloads = [record.payload for record in accepted if record.kind is kind]
            if payloads:
                answer = self._runner.run(self._sink.send(kind, payloads))
                assert answer == Settled([DELIVERED] * len(payloads)), answer
        return self._fake.data()

    def export(self) -> list[str]:
        """Return the events of the last delivery, in order, without what the server makes."""
        params = {"from_date": "1970-01-01", "to_date": "2100-01-01", "time_in_ms": "true"}
        reply = self._client.get("/api/2.0/export", params=params, auth=(TOKEN, ""))
        assert reply.status_code == 200
        events = [json.loads(line) for line in reply.content.splitlines()]
        for one in events:
            assert one["properties"].keys() >= SERVER_MADE
            one["properties"] = {key: value for key, value in one["properties"].items() if key not in SERVER_MADE}
        return [spelled(one) for one in events]


@pytest.fixture(scope="module")
def way() -> Iterator[Way]:
    """A fake with strict validation, on a socket, whose clock stands still."""
    fake = FakeMixpanel(clock=FakeClock(NOW_MS), max_bytes=64 * 2**20)
    with served(fake) as (url,), Way(fake, url) as opened:
        yield opened


def spelled(value: Any) -> str:
    """Return a value as JSON, in which 1 is not 1.0, and the order of names does not matter."""
    return json.dumps(value, sort_keys=True)


def accepted_of(messages: Sequence[pb.Record]) -> list[tuple[pb.Record, Record]]:
    """Return what walbatch accepts, with the message, and check how it refuses the rest."""
    tried = [(message, built(message)) for message in messages]
    for _, outcome in tried:
        if isinstance(outcome, InvalidRecord):
            assert outcome.field
            assert outcome.reason in REASONS
            assert outcome.description.strip()
    return [(message, outcome) for message, outcome in tried if isinstance(outcome, Record)]


def built(message: pb.Record) -> Record | InvalidRecord:
    """Return the record of a message, or why there is none."""
    try:
        return wire.record(message, NOW_MS)
    except InvalidRecord as error:
        return error


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(messages=st.lists(records, min_size=1, max_size=12), simplified=st.booleans())
def test_what_is_accepted_comes_out_as_it_went_in(way: Way, *, messages: list[pb.Record], simplified: bool) -> None:
    """Nothing is accepted that Mixpanel refuses, and nothing is changed on the way but what the guide says."""
    accepted = [one for one in accepted_of(messages) if suits(one[1], simplified=simplified)]
    data = way.deliver([record for _, record in accepted], simplified=simplified)
    events = [exported(one.event, record, simplified=simplified) for one, record in accepted if is_event(record)]
    assert way.export() == list(map(spelled, events))
    linked = [(one.event, one.first, one.second) for one in data.identities.links if one.event in {*LINKS, "$merge"}]
    by_ids = [device_link(one) for one in events]  # a Simplified project links a user and a device by any event
    wanted = [pair(message) for message, record in accepted if is_link(record)]
    assert [one for one in linked if one not in by_ids] == [one for one in wanted if one not in by_ids]
    updates = [updated(message, record) for message, record in accepted if record.kind is not Kind.EVENT]
    for target in dict(updates):
        mine = [sent for one, sent in updates if one == target]
        assert [spelled(one.sent) for one in data.updates(target)] == list(map(spelled, mine))
        if len(mine) == 1 and "$set" in mine[0]:
            profile = data.groups[target] if isinstance(target, tuple) else data.profiles[target]
            assert spelled(profile.properties) == spelled(mine[0]["$set"])


def suits(record: Record, *, simplified: bool) -> bool:
    """Say whether a record is for a project of this mode: an `$identify` has the pair, or a distinct_id."""
    if record.name != "$identify":
        return True
    properties = json.loads(record.payload)["properties"]
    return bool(record.distinct_id) if simplified else {"$identified_id", "$anon_id"} <= properties.keys()


def is_event(record: Record) -> bool:
    """Say whether a record is an event that is exported."""
    return record.kind is Kind.EVENT and not is_link(record)


def is_link(record: Record) -> bool:
    """Say whether a record links ids: an event of such a name without the ids is one like any other."""
    if record.kind is not Kind.EVENT or record.name not in {*LINKS, "$merge"}:
        return False
    properties = json.loads(record.payload)["properties"]
    return record.name == "$merge" or all(key in properties for key in LINKS[record.name])


def device_link(event: dict[str, Any]) -> tuple[str, str, str]:
    """Return what an event with both ids links in a Simplified project."""
    properties = event["properties"]
    return event["event"], properties.get("$user_id", ""), f"$device:{properties.get('$device_id', '')}"


def pair(message: pb.Record) -> tuple[str, str, str]:
    """Return what a link links, and by which event."""
    link = message.identity_link
    if message.WhichOneof("kind") == "event":
        name, properties = (
            message.event.name,
            given_properties(message.event) | {"distinct_id": message.event.distinct_id},
        )
        first, second = (
            properties["$distinct_ids"] if name == "$merge" else [properties.get(key) for key in LINKS[name]]
        )
        return name, str(first), str(second)
    if link.identified_id:
        return "$identify", link.identified_id, link.anonymous_id
    if link.merged_ids:
        return "$merge", link.merged_ids[0], link.merged_ids[1]
    return "$create_alias", link.distinct_id, link.alias


def exported(message: pb.Event, record: Record, *, simplified: bool) -> dict[str, Any]:
    """Return the line of an export that an event should make."""
    given_ones = given_properties(message)
    user = message.user_id or as_text(given_ones.get("$user_id"))
    device = message.device_id or as_text(given_ones.get("$device_id"))
    who = message.distinct_id or user or (device and f"$device:{device}")
    if simplified and (user or device):
        who = user or f"$device:{device}"
    properties = given_ones | {key: one for key, one in (("$user_id", user), ("$device_id", device)) if one}
    insert_id = event_id = message.event_id or record.event_id
    if not re.fullmatch(r"[A-Za-z0-9-]{1,36}", event_id) or event_id.lower() in PLACEHOLDERS:
        insert_id = hashlib.sha256(event_id.encode()).hexdigest()[:36]
        properties = {"walbatch_event_id": event_id} | properties
    properties.pop("ip", None)
    time_ms = min(milliseconds(message, "event_time"), NOW_MS)
    time_ms -= time_ms % 1000 if time_ms < 100_000_000_000 else 0
    own = {"time": time_ms, "distinct_id": who[:255], "$insert_id": insert_id}
    return {"event": message.name, "properties": cut(properties) | own}


def updated(message: pb.Record, record: Record) -> tuple[str | tuple[str, str], dict[str, Any]]:
    """Return whose an update is, and the JSON that should arrive."""
    update = message.profile_update if record.kind is Kind.PROFILE else message.group_update
    sent: dict[str, Any] = {"$token": TOKEN, "$time": min(milliseconds(update, "update_time"), NOW_MS) / 1000}
    operation = update.WhichOneof("operation") or ""
    match getattr(update, operation):
        case pb.Properties() as properties:
            sent["$" + operation] = given_properties(properties)
        case pb.PropertyNames(names=names):
            sent["$" + operation] = [*names]
        case _:
            sent["$" + operation] = ""
    if isinstance(update, pb.GroupUpdate):
        key = update.group_key, update.group_id
        return key, sent | {"$group_key": key[0], "$group_id": key[1]}
    switches = {"$ignore_time": update.ignore_time, "$ignore_alias": update.delete.ignore_alias}
    sent |= {name: True for name, on in switches.items() if on}
    return update.distinct_id, sent | {"$distinct_id": update.distinct_id, "$ip": update.ip or "0"}


def given_properties(message: pb.Event | pb.Properties) -> dict[str, Any]:
    """Return the properties that a message holds, in whichever spelling."""
    text = message.properties_json if isinstance(message, pb.Event) else message.json
    if text:
        properties: dict[str, Any] = json.loads(text)
        return properties
    struct = message.properties if isinstance(message, pb.Event) else message.struct
    return {key: of_struct(value) for key, value in struct.fields.items()}


def of_struct(value: Value) -> Any:
    """Return a value of a Struct, with whole numbers as integers."""
    match getattr(value, value.WhichOneof("kind") or "null_value"):
        case bool() | str() as one:
            return one
        case float() as number:
            return int(number) if number.is_integer() and abs(number) <= 2**53 else number
        case Struct() as struct:
            return {key: of_struct(inner) for key, inner in struct.fields.items()}
        case int():  # of null
            return None
        case values:
            return [of_struct(inner) for inner in values.values]


def as_text(value: Any) -> str:
    """Return an id that stands among the properties; a number is a text."""
    return "" if value is None else str(value)


def cut(value: Any) -> Any:
    """Return a value as Mixpanel keeps it, with at most 255 characters of a text or a name."""
    if isinstance(value, str):
        return value[:255]
    if isinstance(value, dict):
        return {key[:255]: cut(one) for key, one in value.items()}
    return [cut(one) for one in value] if isinstance(value, list) else value


def milliseconds(message: pb.Event | pb.ProfileUpdate | pb.GroupUpdate, field: str) -> int:
    """Return the time of a message; the present if it has none."""
    if not message.HasField(field):
        return NOW_MS
    time: Timestamp = getattr(message, field)
    return time.seconds * 1000 + time.nanos // 1_000_000


AT: dict[str, Any] = {
    "properties": lambda n: as_event({f"k{i}": i for i in range(n)}),
    "keys of an inner object": lambda n: as_event({"inner": {f"k{i}": i for i in range(n)}}),
    "elements": lambda n: as_event({"list": [0] * n}),
    "levels": lambda n: as_event({"a": json.loads("[" * n + "]" * n)}),
    "levels of objects": lambda n: as_event({"a": json.loads('{"a":' * n + "1" + "}" * n)}),
    "length of a property's name": lambda n: as_event({"k" * n: 1}),
    "length of an event's name": lambda n: as_event({}, name="🦆" * n),
    "length of a distinct_id": lambda n: as_event({}, distinct_id="é" * n),
    "length of a device's id": lambda n: as_event({}, distinct_id="", device_id="d" * n),
    "length of an event's id": lambda n: as_event({}, event_id="i" * n),
    "length of an address": lambda n: as_event({}, ip="1" * n),
    "bytes of an event": lambda n: as_event(filled(n, as_event({"big": ""}))),
    "time": lambda n: as_event({}, event_time=Timestamp(seconds=n // 1000, nanos=n % 1000 * 1_000_000)),
    "integer": lambda n: as_event({"n": n}),
    "properties of a profile": lambda n: as_profile({f"k{i}": i for i in range(n)}),
    "bytes of a profile": lambda n: as_profile(filled(n, as_profile({"big": ""}))),
    "bytes of a group": lambda n: as_group(filled(n, as_group({"big": ""}))),
    "names to unset": lambda n: pb.Record(profile_update=pb.ProfileUpdate(distinct_id="u1", unset=names_to(n))),
    "integer of a profile": lambda n: as_profile({"n": n}),
    "time of an update": lambda n: as_profile({}, update_time=Timestamp(seconds=n // 1000, nanos=n % 1000 * 1_000_000)),
}
"""Records that reach so far, by what is limited."""

MOST: list[tuple[str, int, int]] = [
    ("properties", 247, 1),
    ("keys of an inner object", 254, 1),
    ("elements", 254, 1),
    ("levels", 3, 1),
    ("levels of objects", 3, 1),
    ("length of a property's name", 255, 1),
    ("length of an event's name", 255, 1),
    ("length of a distinct_id", 255, 1),
    ("length of a device's id", 247, 1),
    ("length of an event's id", 255, 1),
    ("length of an address", 45, 1),
    ("bytes of an event", 999_999, 1),
    ("time", NOW_MS + 3_600_000, 1),
    ("time", 31_536_000_000, -1),
    ("integer", 2**64 - 1, 1),
    ("integer", -(2**63), -1),
    ("properties of a profile", 2000, 1),
    ("bytes of a profile", 998_999, 1),
    ("bytes of a group", 998_999, 1),
    ("names to unset", 2000, 1),
    ("integer of a profile", 2**64 - 1, 1),
    ("integer of a profile", -(2**63), -1),
    ("time of an update", NOW_MS + 3_600_000, 1),
    ("time of an update", 31_536_000_000, -1),
]
"""The furthest that is accepted, and in which direction it would be too far."""


@pytest.mark.parametrize(("what", "most", "step"), MOST, ids=[f"{what} {most}" for what, most, _ in MOST])
def test_what_is_just_within_a_limit_is_accepted_by_both(way: Way, what: str, most: int, step: int) -> None:
    """The last value that fits is taken by both; the next one is refused by walbatch already."""
    message = AT[what](most)
    ((_, record),) = accepted_of([message])
    way.deliver([record])
    assert accepted_of([AT[what](most + step)]) == []


def as_event(properties: dict[str, Any], **fields: Any) -> pb.Record:
    """Build the record of an event."""
    return pb.Record(
        event=pb.Event(**{"name": "E", "distinct_id": "u1", "properties_json": json.dumps(properties)} | fields)
    )


def as_profile(properties: dict[str, Any], **fields: Any) -> pb.Record:
    """Build the record of an update of a profile."""
    return pb.Record(
        profile_update=pb.ProfileUpdate(distinct_id="u1", set=pb.Properties(json=json.dumps(properties)), **fields)
    )


def as_group(properties: dict[str, Any]) -> pb.Record:
    """Build the record of an update of a group."""
    return pb.Record(
        group_update=pb.GroupUpdate(group_key="k", group_id="g", set=pb.Properties(json=json.dumps(properties)))
    )


def names_to(count: int) -> pb.PropertyNames:
    """Return so many names."""
    return pb.PropertyNames(names=[f"k{n}" for n in range(count)])


def filled(size: int, empty: pb.Record) -> dict[str, Any]:
    """Return properties that make the payload of a record so many bytes long, given it with an empty text."""
    return {"big": "x" * (size - len(wire.record(empty, NOW_MS).payload))}
