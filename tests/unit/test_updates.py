"""Updates of profiles and groups: what may be done, and what is frozen."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch import rules
from walbatch.errors import InvalidRecord
from walbatch.event import (
    GROUP_OPERATIONS,
    PROFILE_OPERATIONS,
    Kind,
    Record,
    described,
    group_update,
    profile_update,
    repeatable,
    track,
)

NOW_MS = 1_700_000_000_123
NAN = float("nan")

VALUES: dict[str, Any] = {
    "$set": {"plan": "pro"},
    "$set_once": {"plan": "pro"},
    "$add": {"coins": -1.5, "logins": 1},
    "$append": {"items": {"sku": "a"}},
    "$union": {"items": ["a", "b"]},
    "$remove": {"items": "a"},
    "$unset": ["plan"],
    "$delete": {},
}
"""Something to do with each operation."""


def update(operation: str = "$set", properties: Any = None, **fields: Any) -> Record:
    """A profile update that is fine but for the given fields."""
    value = VALUES.get(operation, {}) if properties is None else properties
    known: dict[str, Any] = {"distinct_id": "u1", "operation": operation, "properties": value, "now_ms": NOW_MS}
    return profile_update(**known | fields)


def group(operation: str = "$set", properties: Any = None, **fields: Any) -> Record:
    """A group update that is fine but for the given fields."""
    value = VALUES.get(operation, {}) if properties is None else properties
    known: dict[str, Any] = {"group_key": "company", "group_id": "acme", "operation": operation, "properties": value}
    return group_update(**known | {"now_ms": NOW_MS} | fields)


def refusal(build: Any, *args: Any, **fields: Any) -> tuple[str, str]:
    """Field and reason of a refusal."""
    with pytest.raises(InvalidRecord) as caught:
        build(*args, **fields)
    return caught.value.field, caught.value.reason


@pytest.mark.parametrize("operation", PROFILE_OPERATIONS)
def test_a_profile_update_is_one_operation(operation: str) -> None:
    """The payload is what /engage takes: no token, not this server's place, and the time of acceptance."""
    record = update(operation, update_id="x1")
    assert record.payload.startswith('{"$distinct_id"')
    assert orjson.loads(record.payload) == {
        "$distinct_id": "u1",
        "$ip": "0",
        "$time": 1_700_000_000.123,
        operation: "" if operation == "$delete" else VALUES[operation],
    }
    assert (record.kind, record.event_id, record.name, record.distinct_id) == (Kind.PROFILE, "x1", operation, "u1")
    assert (record.time_ms, record.time_given, record.received_at_ms) == (NOW_MS, False, NOW_MS)


@pytest.mark.parametrize("operation", GROUP_OPERATIONS)
def test_a_group_update_is_one_operation(operation: str) -> None:
    """The payload is what /groups takes, and has no $distinct_id, with which Mixpanel refuses it."""
    record = group(operation, update_id="x1")
    assert record.payload.startswith('{"$group_key"')
    assert orjson.loads(record.payload) == {
        "$group_key": "company",
        "$group_id": "acme",
        "$time": 1_700_000_000.123,
        operation: "" if operation == "$delete" else VALUES[operation],
    }
    assert (record.kind, record.event_id, record.name, record.distinct_id) == (
        Kind.GROUP,
        "x1",
        operation,
        "company:acme",
    )


def test_what_is_told_besides_the_operation_arrives() -> None:
    """Address, time and the two switches are part of the payload."""
    record = update(ip="192.0.2.1", time_ms=NOW_MS - 9, ignore_time=True)
    sent = orjson.loads(record.payload)
    assert (sent["$ip"], sent["$time"], sent["$ignore_time"]) == ("192.0.2.1", 1_700_000_000.114, True)
    assert (record.time_ms, record.time_given) == (NOW_MS - 9, True)
    assert orjson.loads(update("$delete", ignore_alias=True).payload)["$ignore_alias"] is True
    assert "$ignore_alias" not in update(ignore_alias=True).payload
    assert orjson.loads(group(time_ms=NOW_MS - 9).payload)["$time"] == 1_700_000_000.114


@pytest.mark.parametrize("build", [update, group])
def test_a_time_slightly_ahead_becomes_now(build: Any) -> None:
    """Then it is not the sender's any more, and a repeat is known whatever time it has."""
    record = build(time_ms=NOW_MS + 5)
    assert (record.time_ms, record.time_given) == (NOW_MS, False)


REFUSED_UPDATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody": ({"distinct_id": ""}, "distinct_id", "REQUIRED"),
    "nobody in particular": ({"distinct_id": "NULL"}, "distinct_id", "BAD_ID"),
    "long user": ({"distinct_id": "u" * 256}, "distinct_id", "TOO_LONG"),
    "blank id": ({"update_id": " "}, "update_id", "REQUIRED"),
    "long address": ({"ip": "1" * 46}, "ip", "TOO_LONG"),
    "many": ({"properties": {f"p{n}": n for n in range(2001)}}, "set", "TOO_MANY"),
    "deep": ({"operation": "$set_once", "properties": {"p": {"a": {"b": {"c": {}}}}}}, "set_once.p", "TOO_DEEP"),
    "wide": ({"properties": {"p": {str(n): n for n in range(255)}}}, "set.p", "TOO_MANY"),
    "large": ({"properties": {"p": "x" * 1_000_000}}, "set", "TOO_LARGE"),
    "time in seconds": ({"time_ms": NOW_MS // 1000}, "update_time", "TOO_EARLY"),
    "far future": ({"time_ms": NOW_MS + 3_600_001}, "update_time", "IN_THE_FUTURE"),
    "no operation": ({"operation": "$push"}, "operation", "UNKNOWN"),
    "no object": ({"properties": ["plan"]}, "set", "NOT_AN_OBJECT"),
    "no number": ({"properties": {"p": NAN}}, "set.p", "NOT_FINITE"),
    "text to add": ({"operation": "$add", "properties": {"n": "1"}}, "add.n", "NOT_A_NUMBER"),
    "truth to add": ({"operation": "$add", "properties": {"n": True}}, "add.n", "NOT_A_NUMBER"),
    "infinity to add": ({"operation": "$add", "properties": {"n": -1e999}}, "add.n", "NOT_FINITE"),
    "too much to add": ({"operation": "$add", "properties": {"n": 2**64}}, "add", "INTEGER_TOO_LARGE"),
    "text to unite": ({"operation": "$union", "properties": {"p": "a"}}, "union.p", "NOT_AN_ARRAY"),
    "nothing to unset": ({"operation": "$unset", "properties": []}, "unset", "REQUIRED"),
    "too much to unset": ({"operation": "$unset", "properties": ["p"] * 2001}, "unset", "TOO_MANY"),
    "no name to unset": ({"operation": "$unset", "properties": [""]}, "unset", "BAD_NAME"),
    "long name to unset": ({"operation": "$unset", "properties": ["p" * 256]}, "unset", "BAD_NAME"),
    "number to unset": ({"operation": "$unset", "properties": [1]}, "unset", "NOT_TEXT"),
    "half a character to unset": ({"operation": "$unset", "properties": ["\ud800"]}, "unset", "NOT_UNICODE"),
}


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED_UPDATES.values(), ids=REFUSED_UPDATES)
def test_an_update_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Each refusal names the operation's own field."""
    assert refusal(update, **fields) == (f"profile_update.{field}", reason)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"group_key": ""}, "group_key", "REQUIRED"),
        ({"group_key": "null"}, "group_key", "BAD_ID"),
        ({"group_id": " "}, "group_id", "REQUIRED"),
        ({"group_id": "undefined"}, "group_id", "BAD_ID"),
        ({"group_id": "g" * 256}, "group_id", "TOO_LONG"),
        ({"update_id": "i" * 256}, "update_id", "TOO_LONG"),
        ({"time_ms": -1}, "update_time", "TOO_EARLY"),
        ({"operation": "$add", "properties": {"n": 1}}, "operation", "UNKNOWN"),
        ({"operation": "$append", "properties": {"n": 1}}, "operation", "UNKNOWN"),
        ({"operation": "$union", "properties": {"n": 1}}, "union.n", "NOT_AN_ARRAY"),
    ],
)
def test_a_group_update_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Groups have ids like users, and fewer operations."""
    assert refusal(group, **fields) == (f"group_update.{field}", reason)


@pytest.mark.parametrize("name", sorted(rules.PROFILE_RESERVED))
def test_whose_profile_it_is_is_no_property(name: str) -> None:
    """A token or an id within an operation is refused, also in the list of what to remove."""
    assert refusal(update, properties={name: "x"}) == (f"profile_update.set.{name}", "RESERVED")
    assert refusal(group, properties={name: "x"}) == (f"group_update.set.{name}", "RESERVED")
    assert refusal(update, "$unset", [name]) == (f"profile_update.unset.{name}", "RESERVED")


def test_a_profile_may_hold_long_arrays() -> None:
    """The limit of 254 elements is documented for events; a profile's list may be longer."""
    tags = [f"tag {n}" for n in range(1000)]
    assert orjson.loads(update("$union", {"tags": tags}).payload)["$union"] == {"tags": tags}


@pytest.mark.parametrize("operation", PROFILE_OPERATIONS)
def test_what_counts_twice_is_told(operation: str) -> None:
    """Only additions to a number or a list, and removals from a list, are wrong when they arrive twice."""
    counting = operation in {"$add", "$append", "$remove"}
    assert repeatable(Kind.PROFILE, update(operation).payload) is not counting
    if operation in GROUP_OPERATIONS:
        assert repeatable(Kind.GROUP, group(operation).payload) is not counting


def test_an_event_can_always_be_repeated() -> None:
    """Mixpanel knows it again by its $insert_id, whatever its properties are called."""
    assert repeatable(Kind.EVENT, track(name="E", properties={"$add": 1}, now_ms=NOW_MS).payload)


@given(st.sampled_from(PROFILE_OPERATIONS), st.integers(rules.EARLIEST_MS, NOW_MS))
def test_a_stored_payload_tells_what_the_record_was(operation: str, time_ms: int) -> None:
    """Name, user and time can be read back, so that a repeat is known after a restart as well."""
    records = [update(operation, time_ms=time_ms), track(name="E", distinct_id="u", properties={}, now_ms=time_ms)]
    if operation in GROUP_OPERATIONS:
        records.append(group(operation, time_ms=time_ms))
    for record in records:
        told = described(record.kind, orjson.loads(record.payload))
        assert told == (record.name, record.distinct_id, record.time_ms)


def test_an_update_of_an_earlier_version_has_no_time() -> None:
    """Payloads that were stored before updates had a time can still be read."""
    assert described(Kind.PROFILE, {"$distinct_id": "u1", "$ip": "0", "$set": {}}) == ("$set", "u1", 0)
