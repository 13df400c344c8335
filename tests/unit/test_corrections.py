"""What a person made of a stored record, as a record."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from walbatch.corrections import corrected
from walbatch.errors import InvalidRecord
from walbatch.event import (
    GROUP_OPERATIONS,
    PROFILE_OPERATIONS,
    Kind,
    Record,
    group_update,
    identity_alias,
    identity_link,
    identity_merge,
    profile_update,
    track,
)
from walbatch.rules import MAX_PROPERTIES

NOW_MS = 1_700_000_000_000
THEN_MS = NOW_MS - 86_400_001

VALUES: dict[str, Any] = {"$add": {"n": 1}, "$union": {"p": [1]}, "$unset": ["p"]}
FULL = {f"p{n}": n for n in range(MAX_PROPERTIES)}

STORED: dict[str, Record] = {
    "event": track(name="E", distinct_id="u1", event_id="e-1", properties={"n": 1}, ip="192.0.2.1", now_ms=THEN_MS),
    "event of nobody": track(name="E", properties={}, now_ms=THEN_MS),
    "full event": track(
        name="E", event_id="a/b", properties=FULL, user_id="u1", device_id="d1", ip="192.0.2.1", now_ms=THEN_MS
    ),
    "link": identity_link(identified_id="u1", anonymous_id="a1", link_id="l/1", now_ms=THEN_MS),
    "merge": identity_merge(merged_ids=["a", "b"], now_ms=THEN_MS),
    "alias": identity_alias(alias="new", distinct_id="orig", now_ms=THEN_MS),
    "deletion": profile_update(distinct_id="u1", operation="$delete", ignore_alias=True, now_ms=THEN_MS),
    "quiet": profile_update(
        distinct_id="u1", operation="$set", properties={}, ip="192.0.2.1", ignore_time=True, now_ms=THEN_MS
    ),
}
for name in PROFILE_OPERATIONS:
    STORED[f"profile {name}"] = profile_update(
        distinct_id="u1", operation=name, properties=VALUES.get(name, {"p": "a"}), now_ms=THEN_MS
    )
for name in GROUP_OPERATIONS:
    STORED[f"group {name}"] = group_update(
        group_key="k", group_id="g", operation=name, properties=VALUES.get(name, {"p": "a"}), now_ms=THEN_MS
    )


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_what_was_left_alone_stays(stored: Record) -> None:
    """A record that was edited back to what it was says what it said, with its id, its time and its user."""
    again = corrected(stored.kind, orjson.loads(stored.payload), event_id=stored.event_id, now_ms=NOW_MS)
    assert orjson.loads(again.payload) == orjson.loads(stored.payload)
    assert (again.kind, again.event_id, again.name) == (stored.kind, stored.event_id, stored.name)
    assert (again.distinct_id, again.time_ms, again.received_at_ms) == (stored.distinct_id, stored.time_ms, NOW_MS)


def test_a_correction_arrives() -> None:
    """What the person changed is in the new record, and Mixpanel knows it by the old $insert_id."""
    document = orjson.loads(STORED["event"].payload)
    document["event"] = "Better"
    document["properties"] |= {"n": 2, "time": THEN_MS - 5}
    record = corrected(Kind.EVENT, document, event_id="e-1", now_ms=NOW_MS)
    sent = orjson.loads(record.payload)
    assert (sent["event"], sent["properties"]["n"], sent["properties"]["time"]) == ("Better", 2, THEN_MS - 5)
    assert (record.event_id, sent["properties"]["$insert_id"]) == ("e-1", "e-1")


def test_without_an_insert_id_it_is_made_of_the_records_id() -> None:
    """As when the record was accepted."""
    for properties in ({}, {"walbatch_event_id": "a/b"}):
        record = corrected(Kind.EVENT, {"event": "E", "properties": properties}, event_id="a/b", now_ms=NOW_MS)
        sent = orjson.loads(record.payload)["properties"]
        assert (record.event_id, sent["walbatch_event_id"]) == ("a/b", "a/b")
        assert sent["$insert_id"] == orjson.loads(STORED["full event"].payload)["properties"]["$insert_id"]


@pytest.mark.parametrize(
    ("kind", "document", "field", "reason"),
    [
        (Kind.EVENT, {"event": "E", "properties": {}, "time": 1}, "event.time", "UNKNOWN"),
        (Kind.EVENT, {"event": "E", "properties": []}, "event.properties", "NOT_AN_OBJECT"),
        (Kind.EVENT, {"event": "", "properties": {}}, "event.name", "REQUIRED"),
        (Kind.EVENT, {"event": "E", "properties": {"$insert_id": "a/b"}}, "event.properties.$insert_id", "BAD_ID"),
        (Kind.EVENT, {"event": "E", "properties": {"$insert_id": None}}, "event.properties.$insert_id", "BAD_ID"),
        (Kind.EVENT, {"event": "E", "properties": {"distinct_id": "null"}}, "event.distinct_id", "BAD_ID"),
        (Kind.EVENT, {"event": "E", "properties": {"time": 5}}, "event.event_time", "TOO_EARLY"),
        (Kind.EVENT, {"event": "E", "properties": {"n": float("nan")}}, "event.properties", "NOT_FINITE"),
        (Kind.EVENT, {"$distinct_id": "u1", "$set": {}}, "profile_update", "OTHER_KIND"),
        (Kind.PROFILE, {"event": "E"}, "event", "OTHER_KIND"),
        (Kind.PROFILE, {"$distinct_id": "u1", "$set": {}, "name": "x"}, "profile_update.name", "UNKNOWN"),
        (Kind.PROFILE, {"$distinct_id": "u1", "$add": {"n": "x"}}, "profile_update.add.n", "NOT_A_NUMBER"),
        (Kind.GROUP, {"$group_key": "k", "$group_id": "", "$set": {}}, "group_update.group_id", "REQUIRED"),
        (Kind.GROUP, {}, "", "UNKNOWN"),
    ],
)
def test_a_correction_obeys_the_same_rules(kind: Kind, document: dict[str, Any], field: str, reason: str) -> None:
    """What could not have been accepted cannot be stored by editing either."""
    with pytest.raises(InvalidRecord) as refused:
        corrected(kind, document, event_id="e-1", now_ms=NOW_MS)
    assert (refused.value.field, refused.value.reason) == (field, reason)
