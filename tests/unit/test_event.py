"""What a record may be, and what is frozen when it is accepted."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch import rules
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Record, insert_id, track

NOW_MS = 1_700_000_000_000

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
names = st.text(max_size=12).filter(lambda name: name not in rules.SPECIAL - rules.RESERVED)
json_objects = st.dictionaries(names, values, max_size=8)


def event(**fields: Any) -> Record:
    """An event that is fine but for the given fields."""
    known: dict[str, Any] = {
        "name": "Signed Up",
        "distinct_id": "u1",
        "event_id": "e-1",
        "properties": {},
        "now_ms": NOW_MS,
    }
    return track(**known | fields)


def properties_of(record: Record) -> dict[str, Any]:
    """The properties of an event as they are sent."""
    found: dict[str, Any] = orjson.loads(record.payload)["properties"]
    return found


def nested(levels: int) -> Any:
    """A value with that many objects round it."""
    return {"in": nested(levels - 1)} if levels else 1


REFUSED_EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"name": ""}, "event.name", "REQUIRED"),
    "blank name": ({"name": " \t"}, "event.name", "REQUIRED"),
    "long name": ({"name": "n" * 256}, "event.name", "TOO_LONG"),
    "blank id": ({"event_id": " "}, "event.event_id", "REQUIRED"),
    "long id": ({"event_id": "i" * 256}, "event.event_id", "TOO_LONG"),
    "long user": ({"distinct_id": "u" * 256}, "event.distinct_id", "TOO_LONG"),
    "nobody in particular": ({"distinct_id": "undefined"}, "event.distinct_id", "BAD_ID"),
    "nobody in capitals": ({"distinct_id": "NULL"}, "event.distinct_id", "BAD_ID"),
    "bad device": ({"device_id": "0"}, "event.device_id", "BAD_ID"),
    "bad user id": ({"user_id": "00000000-0000-0000-0000-000000000000"}, "event.user_id", "BAD_ID"),
    "long address": ({"ip": "1" * 46}, "event.ip", "TOO_LONG"),
    "time in seconds": ({"time_ms": NOW_MS // 1000}, "event.event_time", "TOO_EARLY"),
    "negative time": ({"time_ms": -1}, "event.event_time", "TOO_EARLY"),
    "far future": ({"time_ms": NOW_MS + 3_600_001}, "event.event_time", "IN_THE_FUTURE"),
    "many properties": ({"properties": {f"p{n}": n for n in range(251)}}, "event.properties", "TOO_MANY"),
    "nameless property": ({"properties": {"": 1}}, "event.properties", "BAD_NAME"),
    "long property name": ({"properties": {"p" * 256: 1}}, "event.properties", "BAD_NAME"),
    "deep object": ({"properties": {"p": nested(4)}}, "event.properties.p", "TOO_DEEP"),
    "deep list": ({"properties": {"p": [[[[]]]]}}, "event.properties.p", "TOO_DEEP"),
    "long list": ({"properties": {"p": [0] * 255}}, "event.properties.p", "TOO_MANY"),
    "long inner list": ({"properties": {"p": {"q": [0] * 255}}}, "event.properties.p", "TOO_MANY"),
    "wide object": ({"properties": {"p": {str(n): n for n in range(255)}}}, "event.properties.p", "TOO_MANY"),
    "large": ({"properties": {"p": "x" * 1_000_000}}, "event.properties", "TOO_LARGE"),
    "half a character": ({"properties": {"p": "\ud800"}}, "event.properties", "NOT_UNICODE"),
    "half a character deep down": ({"properties": {"p": [{"q": "\ud800"}]}}, "event.properties", "NOT_UNICODE"),
    "half a character in a property's name": ({"properties": {"\ud800": 1}}, "event.properties", "NOT_UNICODE"),
    "half a character in the name": ({"name": "\ud800"}, "event.name", "NOT_UNICODE"),
    "half a character in the id": ({"event_id": "\ud800"}, "event.event_id", "NOT_UNICODE"),
    "half a character in the user": ({"distinct_id": "\ud800"}, "event.distinct_id", "NOT_UNICODE"),
    "half a character in the device": ({"device_id": "\ud800"}, "event.device_id", "NOT_UNICODE"),
    "half a character in the address": ({"ip": "\ud800"}, "event.ip", "NOT_UNICODE"),
    "huge number": ({"properties": {"p": 2**64}}, "event.properties", "INTEGER_TOO_LARGE"),
    "huge negative number": ({"properties": {"p": [-(2**63) - 1]}}, "event.properties", "INTEGER_TOO_LARGE"),
    "no number": ({"properties": {"p": float("nan")}}, "event.properties.p", "NOT_FINITE"),
    "no number deep down": ({"properties": {"p": {"q": [float("-inf")]}}}, "event.properties.p", "NOT_FINITE"),
    "no JSON": ({"properties": {"p": object()}}, "event.properties", "NOT_JSON"),
    "address of another kind": ({"properties": {"ip": ["1.2.3.4"]}}, "event.properties.ip", "NOT_TEXT"),
    "two addresses": ({"ip": "1.2.3.4", "properties": {"ip": "4.3.2.1"}}, "event.properties.ip", "CONFLICT"),
    "two users": ({"user_id": "u1", "properties": {"$user_id": "u2"}}, "event.properties.$user_id", "CONFLICT"),
    "two devices": ({"device_id": "d1", "properties": {"$device_id": 1}}, "event.properties.$device_id", "CONFLICT"),
}


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED_EVENTS.values(), ids=REFUSED_EVENTS)
def test_an_event_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Each refusal names the field and a stable reason."""
    with pytest.raises(InvalidRecord) as refusal:
        event(**fields)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)
    assert str(refusal.value).startswith(f"{field}: ")


@pytest.mark.parametrize("name", sorted(rules.RESERVED))
def test_what_the_server_writes_is_not_the_senders_to_set(name: str) -> None:
    """Properties with a meaning of their own to Mixpanel come from the record's fields only."""
    with pytest.raises(InvalidRecord) as refusal:
        event(properties={name: "x"})
    assert (refusal.value.field, refusal.value.reason) == (f"event.properties.{name}", "RESERVED")


@pytest.mark.parametrize("bad", sorted(rules.BAD_IDS))
@pytest.mark.parametrize("argument", ["distinct_id", "user_id", "device_id"])
def test_ids_that_stand_for_nobody_are_refused(argument: str, bad: str) -> None:
    """No event is stored under an id that Mixpanel refuses, in small letters or capitals."""
    for spelled in (bad, bad.upper()):
        with pytest.raises(InvalidRecord, match="stands for no one") as refusal:
            event(**{argument: spelled})
        assert refusal.value.reason == "BAD_ID"


@pytest.mark.parametrize("key", ["$user_id", "$device_id"])
def test_a_bad_id_among_the_properties_is_refused_too(key: str) -> None:
    """Mixpanel would make the distinct_id of it."""
    with pytest.raises(InvalidRecord) as refusal:
        event(properties={key: "undefined"})
    assert (refusal.value.field, refusal.value.reason) == (f"event.{key[1:]}", "BAD_ID")


@pytest.mark.parametrize("ignore", [True, "yes", "false", 1])
def test_what_mixpanel_would_drop_with_a_success_is_refused(ignore: object) -> None:
    """An event that says to be ignored is refused here, where the sender hears of it."""
    with pytest.raises(InvalidRecord) as refusal:
        event(properties={"$ignore": ignore})
    assert (refusal.value.field, refusal.value.reason) == ("event.properties.$ignore", "DROPPED")


@pytest.mark.parametrize("ignore", [False, "", None])
def test_an_event_that_is_not_to_be_ignored_is_taken(ignore: object) -> None:
    """Mixpanel keeps it, and so it is sent as it is."""
    assert properties_of(event(properties={"$ignore": ignore}))["$ignore"] == ignore


def test_what_is_just_small_enough_is_taken() -> None:
    """The limits themselves are allowed."""
    full = {"p" * 255: 1, "deep": nested(3), "list": [0] * 254, "wide": {str(n): n for n in range(254)}}
    full |= {f"p{n}": n for n in range(rules.MAX_PROPERTIES - len(full))}
    record = event(name="n" * 255, distinct_id="u" * 255, event_id="i" * 255, properties=full)
    assert properties_of(record).items() >= full.items()
    spare = rules.MAX_RECORD_BYTES - 1 - len(event(properties={"p": ""}).payload)
    assert len(event(properties={"p": "x" * spare}).payload) == rules.MAX_RECORD_BYTES - 1


def test_a_full_event_stays_within_mixpanels_limit() -> None:
    """With the sender's most properties and every one of ours, an event has the 254 that Mixpanel takes, no more."""
    most = {f"p{n}": n for n in range(rules.MAX_PROPERTIES)}
    record = event(event_id="not/an/insert_id", device_id="d1", user_id="u1", ip="1.2.3.4", properties=most)
    assert len(properties_of(record)) <= 254


def test_identity_and_time_are_part_of_the_payload() -> None:
    """What Mixpanel deduplicates by is frozen in the text that is stored."""
    record = event(time_ms=NOW_MS - 5, properties={"plan": "pro"})
    assert orjson.loads(record.payload) == {
        "event": "Signed Up",
        "properties": {"time": NOW_MS - 5, "distinct_id": "u1", "$insert_id": "e-1", "ip": "0", "plan": "pro"},
    }
    assert (record.kind, record.event_id, record.name) == (Kind.EVENT, "e-1", "Signed Up")
    assert (record.distinct_id, record.time_ms, record.time_given) == ("u1", NOW_MS - 5, True)
    assert (record.received_at_ms, record.replay_of) == (NOW_MS, None)


@pytest.mark.parametrize("time_ms", [NOW_MS - 5, rules.EARLIEST_MS + 123])
def test_a_time_that_was_given_is_told_from_one_that_was_not(time_ms: int) -> None:
    """Also an early one that loses its fraction of a second: the same id at another time is another event."""
    assert event(time_ms=time_ms).time_given
    assert not event(time_ms=NOW_MS + 5).time_given
    assert not event().time_given


def test_the_same_request_makes_the_same_bytes() -> None:
    """A repeat with the same id and time is byte for byte the first one."""
    fields: dict[str, Any] = {"time_ms": NOW_MS - 5, "event_id": "a/b", "properties": {"z": 1, "a": [1, {"b": None}]}}
    assert event(**fields).payload == event(**fields, now_ms=NOW_MS + 60_000).payload


def test_without_a_time_it_is_that_of_acceptance() -> None:
    """The server's time is frozen, and marked as not the sender's."""
    record = event()
    assert (record.time_ms, record.time_given) == (NOW_MS, False)
    assert properties_of(record)["time"] == NOW_MS


@pytest.mark.parametrize("ahead_ms", [1, 3_600_000])
def test_a_time_slightly_ahead_becomes_now(ahead_ms: int) -> None:
    """Up to an hour of clock skew is cut, because Mixpanel would overwrite such a time at every attempt."""
    record = event(time_ms=NOW_MS + ahead_ms)
    assert record.time_ms == properties_of(record)["time"] == NOW_MS


def test_the_earliest_time_is_1971() -> None:
    """A time at the limit is kept as it is."""
    assert event(time_ms=rules.EARLIEST_MS).time_ms == rules.EARLIEST_MS


@pytest.mark.parametrize(
    ("given_ids", "who"),
    [
        ({"distinct_id": "x", "user_id": "u", "device_id": "d"}, "x"),
        ({"distinct_id": "", "user_id": "u", "device_id": "d"}, "u"),
        ({"distinct_id": "", "device_id": "d"}, "$device:d"),
        ({"distinct_id": ""}, ""),
    ],
)
def test_who_did_it(given_ids: dict[str, str], who: str) -> None:
    """The distinct_id is the given one, else the user, else the device, else nobody, and always sent."""
    record = event(**given_ids)
    assert record.distinct_id == properties_of(record)["distinct_id"] == who
    assert properties_of(record).get("$user_id", "") == given_ids.get("user_id", "")
    assert properties_of(record).get("$device_id", "") == given_ids.get("device_id", "")


def test_without_an_address_there_is_no_geolocation() -> None:
    """Mixpanel must not take this server's place for the user's; an address that was given is kept."""
    assert properties_of(event())["ip"] == "0"
    assert properties_of(event(ip="192.0.2.1"))["ip"] == "192.0.2.1"
    assert properties_of(event(properties={"ip": "192.0.2.2"}))["ip"] == "192.0.2.2"
    assert properties_of(event(ip="192.0.2.3", properties={"ip": "192.0.2.3"}))["ip"] == "192.0.2.3"


@pytest.mark.parametrize("nothing", ["", None, 0, "0"])
def test_an_address_that_is_none_is_no_geolocation(nothing: object) -> None:
    """An empty address among the properties would make Mixpanel take this server's."""
    assert properties_of(event(properties={"ip": nothing}))["ip"] == "0"


@pytest.mark.parametrize(
    ("properties", "who"),
    [
        ({"$user_id": "u", "$device_id": "d"}, "u"),
        ({"$device_id": "d"}, "$device:d"),
        ({"$user_id": 42}, "42"),
        ({"$user_id": None, "$device_id": ""}, ""),
    ],
)
def test_who_did_it_may_stand_among_the_properties(properties: dict[str, Any], who: str) -> None:
    """The distinct_id is derived from them as Mixpanel would, so that both ways of merging see the same person."""
    assert event(distinct_id="", properties=properties).distinct_id == who


def test_without_an_id_one_is_made() -> None:
    """Each record without an id gets its own, which Mixpanel takes as it is."""
    first, second = event(event_id=""), event(event_id="")
    assert first.event_id != second.event_id
    assert properties_of(first)["$insert_id"] == first.event_id
    assert "walbatch_event_id" not in properties_of(first)


@pytest.mark.parametrize("odd", ["order/17", "i" * 37, "ünï", "null", "with space", "a_b"])
def test_an_id_that_mixpanel_would_refuse_becomes_a_hash(odd: str) -> None:
    """The `$insert_id` is then the same for the same id, everywhere and always, and the original goes along."""
    properties = properties_of(event(event_id=odd))
    assert properties["$insert_id"] == hashlib.sha256(odd.encode()).hexdigest()[:36]
    assert properties["walbatch_event_id"] == odd
    assert event(event_id=odd).event_id == odd


@given(st.text(min_size=1))
def test_every_insert_id_is_one_that_mixpanel_takes(event_id: str) -> None:
    """Whatever the id, its `$insert_id` is 1 to 36 letters, digits and hyphens, and the same each time."""
    assert re.fullmatch(r"[A-Za-z0-9-]{1,36}", insert_id(event_id))
    assert insert_id(event_id).lower() not in rules.BAD_IDS
    assert insert_id(event_id) == insert_id(event_id)


@given(json_objects)
def test_accepted_properties_come_out_as_they_went_in(properties: dict[str, Any]) -> None:
    """What is not refused is sent unchanged; what is refused is refused for a reason."""
    try:
        record = event(properties=properties)
    except InvalidRecord as refusal:
        assert refusal.reason in {"BAD_NAME", "RESERVED", "TOO_DEEP"}  # noqa: PT017  either is right
        return
    sent = properties_of(record)
    assert {key: sent[key] for key in properties} == properties


def test_a_device_id_has_to_leave_room_for_its_prefix() -> None:
    """The distinct_id that is made of a device_id stays within what Mixpanel keeps."""
    assert len(track(name="n", properties={}, device_id="d" * 247, now_ms=NOW_MS).distinct_id) == 255
    with pytest.raises(InvalidRecord) as refused:
        track(name="n", properties={}, device_id="d" * 248, now_ms=NOW_MS)
    assert (refused.value.field, refused.value.reason) == ("event.device_id", "TOO_LONG")


def test_an_id_of_blanks_is_refused() -> None:
    """It would be somebody, but nobody in particular."""
    with pytest.raises(InvalidRecord) as refused:
        track(name="n", properties={}, distinct_id="  ", now_ms=NOW_MS)
    assert (refused.value.field, refused.value.reason) == ("event.distinct_id", "BAD_ID")
