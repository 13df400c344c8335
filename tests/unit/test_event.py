"""What a record may be, and what is frozen when it is accepted."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch import event as rules
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Record, identity_link, insert_id, profile_update, track

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
json_objects = st.dictionaries(st.text(max_size=12), values, max_size=8)


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


def update(**fields: Any) -> Record:
    """A profile update that is fine but for the given fields."""
    known: dict[str, Any] = {"distinct_id": "u1", "operation": "$set", "properties": {}, "now_ms": NOW_MS}
    return profile_update(**known | fields)


def link(**fields: Any) -> Record:
    """An identity link that is fine but for the given fields."""
    known: dict[str, Any] = {"identified_id": "u1", "anonymous_id": "a1", "now_ms": NOW_MS}
    return identity_link(**known | fields)


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
    "long address": ({"ip": "1" * 256}, "event.ip", "TOO_LONG"),
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
    "broken text": ({"properties": {"p": "\ud800"}}, "event.properties", "NOT_JSON"),
    "huge number": ({"properties": {"p": 2**64}}, "event.properties", "NOT_JSON"),
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
    for build, field in ((event, "event.properties"), (update, "profile_update.set")):
        with pytest.raises(InvalidRecord) as refusal:
            build(properties={name: "x"})
        assert (refusal.value.field, refusal.value.reason) == (f"{field}.{name}", "RESERVED")


@pytest.mark.parametrize("bad", sorted(rules.BAD_IDS))
def test_ids_that_stand_for_nobody_are_refused_everywhere(bad: str) -> None:
    """No record is stored under an id that Mixpanel refuses, in small letters or capitals."""
    for spelled in (bad, bad.upper()):
        for build, argument in ((event, "distinct_id"), (update, "distinct_id"), (link, "identified_id")):
            with pytest.raises(InvalidRecord, match="stands for no one") as refusal:
                build(**{argument: spelled})
            assert refusal.value.reason == "BAD_ID"


REFUSED_UPDATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody": ({"distinct_id": ""}, "profile_update.distinct_id", "REQUIRED"),
    "long user": ({"distinct_id": "u" * 256}, "profile_update.distinct_id", "TOO_LONG"),
    "blank id": ({"update_id": " "}, "profile_update.update_id", "REQUIRED"),
    "many": ({"properties": {f"p{n}": n for n in range(2001)}}, "profile_update.set", "TOO_MANY"),
    "deep": ({"operation": "$set_once", "properties": {"p": nested(4)}}, "profile_update.set_once.p", "TOO_DEEP"),
    "large": ({"properties": {"p": "x" * 1_000_000}}, "profile_update.set", "TOO_LARGE"),
}


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED_UPDATES.values(), ids=REFUSED_UPDATES)
def test_an_update_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Each refusal names the operation's own field."""
    with pytest.raises(InvalidRecord) as refusal:
        update(**fields)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)


REFUSED_LINKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody": ({"identified_id": ""}, "identity_link.identified_id", "REQUIRED"),
    "no visitor": ({"anonymous_id": " "}, "identity_link.anonymous_id", "REQUIRED"),
    "long visitor": ({"anonymous_id": "a" * 256}, "identity_link.anonymous_id", "TOO_LONG"),
    "bad visitor": ({"anonymous_id": "unknown"}, "identity_link.anonymous_id", "BAD_ID"),
    "bad device": ({"anonymous_id": "$device:null"}, "identity_link.anonymous_id", "BAD_ID"),
    "blank id": ({"link_id": " "}, "identity_link.link_id", "REQUIRED"),
    "long id": ({"link_id": "i" * 256}, "identity_link.link_id", "TOO_LONG"),
}


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED_LINKS.values(), ids=REFUSED_LINKS)
def test_a_link_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Each refusal names a field of the link, not of the event that it becomes."""
    with pytest.raises(InvalidRecord) as refusal:
        link(**fields)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)


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
        assert refusal.reason in {"BAD_NAME", "RESERVED", "TOO_DEEP", "NOT_JSON"}  # noqa: PT017  either is right
        return
    sent = properties_of(record)
    assert {key: sent[key] for key in properties} == properties


def test_a_profile_update_is_one_operation() -> None:
    """The payload is what /engage takes, without a token and without this server's place."""
    record = update(operation="$set_once", properties={"plan": "pro"}, update_id="x1")
    assert orjson.loads(record.payload) == {"$distinct_id": "u1", "$ip": "0", "$set_once": {"plan": "pro"}}
    assert (record.kind, record.event_id, record.name, record.distinct_id) == (Kind.PROFILE, "x1", "$set_once", "u1")
    assert (record.time_ms, record.time_given) == (NOW_MS, False)


def test_a_link_is_spelled_for_both_ways_of_merging() -> None:
    """A link is an `$identify` event with the pair as Original and as Simplified ID Merge want it."""
    record = link(anonymous_id="$device:d1")
    properties = properties_of(record)
    assert (record.kind, record.name, record.distinct_id) == (Kind.EVENT, "$identify", "u1")
    assert (properties["$identified_id"], properties["$anon_id"]) == ("u1", "$device:d1")
    assert (properties["distinct_id"], properties["$user_id"], properties["$device_id"]) == ("u1", "u1", "d1")


def test_the_same_link_has_the_same_id() -> None:
    """Without an id a link's is derived from the pair, so that a repeat is known as one."""
    first = link()
    assert link(now_ms=NOW_MS + 1).event_id == first.event_id
    assert properties_of(first)["$insert_id"] == first.event_id
    others = [link(anonymous_id="a2"), link(identified_id="u2"), link(identified_id="a1", anonymous_id="u1")]
    assert len({first.event_id, *(other.event_id for other in others)}) == 4
    assert link(link_id="mine").event_id == "mine"


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
