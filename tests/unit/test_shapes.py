"""Mixpanel's own shapes, as messages."""

from __future__ import annotations

from typing import Any

import pytest

from walbatch import wire
from walbatch.errors import InvalidRecord
from walbatch.event import GROUP_OPERATIONS, PROFILE_OPERATIONS
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.shapes import shaped

NOW_S = 1_700_000_000.25
NOW_MS = 1_700_000_000_250

VALUES: dict[str, Any] = {
    "$set": {"plan": "pro"},
    "$set_once": {"plan": "pro"},
    "$add": {"coins": 5},
    "$append": {"items": "a"},
    "$union": {"items": ["a", "b"]},
    "$remove": {"items": "a"},
    "$unset": ["plan"],
    "$delete": "",
}
"""What the official Python SDK (5.4) puts under each operation."""


def record(**found: Any) -> pb.Record:
    """Return the record of an object."""
    return shaped(found)


def event(**properties: Any) -> pb.Event:
    """Return the event that these properties make."""
    return record(event="E", properties=properties).event


def profile(**fields: Any) -> pb.ProfileUpdate:
    """Return the profile update that these keys make."""
    return record(**{"$distinct_id": "u1"} | {f"${key}": value for key, value in fields.items()}).profile_update


def group(**fields: Any) -> pb.GroupUpdate:
    """Return the group update that these keys make."""
    known = {"$group_key": "company", "$group_id": "acme"}
    return record(**known | {f"${key}": value for key, value in fields.items()}).group_update


def test_an_event_in_mixpanels_shape_fills_the_fields() -> None:
    """Properties that have a field of their own move there; the others travel as the text of one JSON object."""
    made = event(
        distinct_id="u1", time=1517966773840, plan="Größe M",
        **{"$insert_id": "a-1", "$user_id": "u1", "$device_id": "d1", "ip": "192.0.2.1"},
    )  # fmt: skip
    assert (made.name, made.event_id, made.distinct_id) == ("E", "a-1", "u1")
    assert (made.user_id, made.device_id, made.ip) == ("u1", "d1", "192.0.2.1")
    assert made.event_time.ToMilliseconds() == 1517966773840
    assert made.properties_json == '{"plan":"Größe M"}'


@pytest.mark.parametrize("time", [1517966773840, 1517966773840.0, 1517966773.84])
def test_time_is_milliseconds_or_seconds(time: float) -> None:
    """A time that would be in 1970 as milliseconds counts seconds."""
    assert event(time=time).event_time.ToMilliseconds() == 1517966773840
    assert profile(time=time, set={}).update_time.ToMilliseconds() == 1517966773840
    assert group(time=time, set={}).update_time.ToMilliseconds() == 1517966773840


def test_a_missing_time_stays_missing() -> None:
    """Then it is the server that says when it was."""
    assert not event().HasField("event_time")
    assert not event(time=None).HasField("event_time")
    assert not profile(set={}).HasField("update_time")


def test_a_missing_id_is_made() -> None:
    """Each record gets an id before it is sent, so that a repetition is recognised."""
    made = [event().event_id, event().event_id, profile(set={}).update_id, group(set={}).update_id]
    assert all(len(event_id) == 36 for event_id in made)
    assert len(set(made)) == 4


def test_whole_numbers_are_ids_too() -> None:
    """Systems that count their users write numbers."""
    assert event(distinct_id=42, **{"$user_id": 42}).distinct_id == "42"
    assert group(group_id=42, set={}).group_id == "42"


def test_tokens_are_dropped() -> None:
    """The server has its own; they are not sent, whichever way they are spelt."""
    made = record(event="E", token="t", properties={"token": "t", "$token": "t", "a": 1}).event
    assert made.properties_json == '{"a":1}'
    assert profile(token="t", set={"a": 1}).set.json == '{"a":1}'
    assert group(token="t", set={"a": 1}).set.json == '{"a":1}'


def test_what_tells_how_an_update_was_made_is_carried_over() -> None:
    """Address, time and switches are part of the update."""
    update = profile(ip=0, time=NOW_S, ignore_time=True, set={})
    assert (update.ip, update.update_time.ToMilliseconds(), update.ignore_time) == ("0", NOW_MS, True)
    assert profile(delete="", ignore_alias=True).delete.ignore_alias
    assert not profile(delete=None, ignore_alias=False).delete.ignore_alias


@pytest.mark.parametrize("operation", PROFILE_OPERATIONS)
def test_every_operation_of_the_sdk_on_a_profile_is_taken(operation: str) -> None:
    """What the SDK would have sent to Mixpanel can be sent here, and is accepted."""
    found = {"$token": "t", "$time": NOW_S, "$distinct_id": "u1", operation: VALUES[operation]}
    stored = wire.record(shaped(found), NOW_MS + 5)
    assert (stored.name, stored.time_ms) == (operation, NOW_MS)


@pytest.mark.parametrize("operation", GROUP_OPERATIONS)
def test_every_operation_of_the_sdk_on_a_group_is_taken(operation: str) -> None:
    """The same for groups."""
    found = {"$token": "t", "$time": NOW_S, "$group_key": "k", "$group_id": "g", operation: VALUES[operation]}
    stored = wire.record(shaped(found), NOW_MS + 5)
    assert (stored.name, stored.distinct_id, stored.time_ms) == (operation, "k:g", NOW_MS)


def test_an_event_of_the_sdk_keeps_its_insert_id() -> None:
    """The id that the SDK made is the id here, and so is its time."""
    properties = {"token": "t", "distinct_id": "u1", "time": NOW_S, "$insert_id": "5d" * 16, "mp_lib": "python"}
    stored = wire.record(shaped({"event": "E", "properties": properties}), NOW_MS + 5)
    assert (stored.event_id, stored.time_ms, stored.time_given) == ("5d" * 16, NOW_MS, True)
    assert '"$insert_id":"5d5d' in stored.payload


@pytest.mark.parametrize(
    ("name", "properties", "link"),
    [
        (
            "$identify",
            {"$identified_id": "u1", "$anon_id": 7, "$insert_id": "i1"},
            pb.IdentityLink(link_id="i1", identified_id="u1", anonymous_id="7"),
        ),
        ("$merge", {"$distinct_ids": ["a", 5]}, pb.IdentityLink(merged_ids=["a", "5"])),
        ("$create_alias", {"distinct_id": "orig", "alias": "new"}, pb.IdentityLink(alias="new", distinct_id="orig")),
    ],
)
def test_an_event_that_only_links_is_a_link(name: str, properties: dict[str, Any], link: pb.IdentityLink) -> None:
    """Without an id of its own it gets one that is derived from the two, so that a repeat is stored once."""
    assert shaped({"event": name, "properties": properties | {"token": "t"}}).identity_link == link


def test_an_event_that_says_more_than_a_link_stays_an_event() -> None:
    """Nothing of it is lost."""
    properties = {"$identified_id": "u1", "$anon_id": "a1", "distinct_id": "u1", "time": NOW_S, "$browser": "x"}
    made = shaped({"event": "$identify", "properties": properties}).event
    assert (made.name, made.distinct_id, made.event_time.ToMilliseconds()) == ("$identify", "u1", NOW_MS)
    assert made.properties_json == '{"$identified_id":"u1","$anon_id":"a1","$browser":"x"}'


REFUSED: list[tuple[Any, str, str]] = [
    (["event"], "", "NOT_AN_OBJECT"),
    ({"name": "secret"}, "", "UNKNOWN"),
    ({"event": 5}, "event.name", "NOT_TEXT"),
    ({"event": "E", "time": 5}, "event.time", "UNKNOWN"),
    ({"event": "E", "properties": ["secret"]}, "event.properties", "NOT_AN_OBJECT"),
    ({"event": "E", "properties": {"distinct_id": True}}, "event.distinct_id", "NOT_TEXT"),
    ({"event": "E", "properties": {"$insert_id": ["secret"]}}, "event.event_id", "NOT_TEXT"),
    ({"event": "E", "properties": {"time": "secret"}}, "event.event_time", "NOT_A_NUMBER"),
    ({"event": "E", "properties": {"time": True}}, "event.event_time", "NOT_A_NUMBER"),
    ({"event": "E", "properties": {"time": 1e300}}, "event.event_time", "IN_THE_FUTURE"),
    ({"event": "E", "properties": {"time": float("nan")}}, "event.event_time", "IN_THE_FUTURE"),
    ({"event": "E", "properties": {"a": float("nan")}}, "event.properties", "NOT_FINITE"),
    ({"event": "E", "properties": {"a": 2**64}}, "event.properties", "INTEGER_TOO_LARGE"),
    ({"event": "E", "properties": {"a": "\udcff"}}, "event.properties", "NOT_UNICODE"),
    ({"event": "\udcff"}, "", "NOT_UNICODE"),
    ({"event": "$merge", "properties": {"$distinct_ids": "ab"}}, "identity_link.merged_ids", "NOT_AN_ARRAY"),
    ({"event": "$merge", "properties": {"$distinct_ids": [[]]}}, "identity_link.merged_ids", "NOT_TEXT"),
    ({"$distinct_id": "u"}, "profile_update.operation", "REQUIRED"),
    ({"$distinct_id": "u", "$set": {}, "$set_once": {}}, "profile_update.operation", "CONFLICT"),
    ({"$distinct_id": "u", "$push": {"n": 1}}, "profile_update.$push", "UNKNOWN"),
    ({"$distinct_id": "u", "$set": "secret"}, "profile_update.set", "NOT_AN_OBJECT"),
    ({"$distinct_id": "u", "$unset": "secret"}, "profile_update.unset", "NOT_AN_ARRAY"),
    ({"$distinct_id": "u", "$unset": [5]}, "profile_update.unset", "NOT_TEXT"),
    ({"$distinct_id": "u", "$set": {}, "$ignore_time": "secret"}, "profile_update.ignore_time", "NOT_A_BOOLEAN"),
    ({"$distinct_id": "u", "$set": {}, "$ignore_alias": True}, "profile_update.$ignore_alias", "UNKNOWN"),
    ({"$distinct_id": "u", "$set": {}, "$time": "secret"}, "profile_update.update_time", "NOT_A_NUMBER"),
    ({"$group_key": "k", "$group_id": "g"}, "group_update.operation", "REQUIRED"),
    ({"$group_key": "k", "$group_id": "g", "$add": {"n": 1}}, "group_update.$add", "UNKNOWN"),
    ({"$group_key": 5, "$group_id": "g", "$set": {}}, "group_update.group_key", "NOT_TEXT"),
    ({"$group_key": "k", "$distinct_id": "u", "$set": {}}, "group_update.$distinct_id", "UNKNOWN"),
    ({"event": "E", "properties": {"a": "x" * 2**20}}, "", "TOO_LARGE"),
]


@pytest.mark.parametrize(("found", "field", "reason"), REFUSED, ids=[f"{n}-{row[2]}" for n, row in enumerate(REFUSED)])
def test_what_is_no_record_is_refused(found: Any, field: str, reason: str) -> None:
    """A refusal names the field, and its text holds nothing of what was sent."""
    with pytest.raises(InvalidRecord) as caught:
        shaped(found)
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert "secret" not in str(caught.value)


def test_what_is_nested_too_deeply_to_be_written_is_refused() -> None:
    """No document makes anything else than a refusal."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(InvalidRecord) as caught:
        event(a=deep)
    assert (caught.value.field, caught.value.reason) == ("event.properties", "TOO_DEEP")
