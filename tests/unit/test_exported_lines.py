"""A stored record as a line, and the record that `walbatch send` makes of that line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from record_strategies import NOW_MS, records

from walbatch import wire
from walbatch.errors import InvalidRecord
from walbatch.event import (
    GROUP_OPERATIONS,
    PROFILE_OPERATIONS,
    Offset,
    Record,
    group_update,
    identity_alias,
    identity_link,
    identity_merge,
    profile_update,
    track,
)
from walbatch.export import line
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.rules import MAX_PROPERTIES
from walbatch.wal.extract import Extracted

intake: Any = import_module("walbatch.cli.intake")  # by name, as the entry point does: the product never imports it

LATER_MS = NOW_MS + 86_400_000
FULL = {f"p{n}": n for n in range(MAX_PROPERTIES)}
VALUES: dict[str, Any] = {"$add": {"n": 1}, "$union": {"p": [1]}, "$unset": ["p"]}

STORED: dict[str, Record] = {
    "of nobody": track(name="E", properties={}, now_ms=NOW_MS),
    "long ago": track(name="E", properties={}, time_ms=86_400_000 * 366, now_ms=NOW_MS),
    "numbers": track(name="E", properties={"a": 2**64 - 1, "b": 1.0, "c": -0.0, "d": 1e300, "e": None}, now_ms=NOW_MS),
    "text": track(name="Größe 🦆", properties={"a\n": "\x00\x7f\u2028"}, now_ms=NOW_MS),
    "another id": track(name="E", event_id="order/5", distinct_id="u1", properties={"a": 1}, now_ms=NOW_MS),
    "as much as fits": track(
        name="E", event_id="order/5", properties=FULL, user_id="u1", device_id="d1", ip="192.0.2.1", now_ms=NOW_MS
    ),
    "ids among the properties": track(
        name="E", event_id="order/5", properties={"$user_id": 7, "a": 1, "$device_id": "d1", "b": 2}, now_ms=NOW_MS
    ),
    "one id of each sort": track(name="E", properties={"$user_id": "u1", "a": 1}, device_id="d1", now_ms=NOW_MS),
    "no ids": track(name="E", properties={"a": 1, "$user_id": None, "$device_id": ""}, now_ms=NOW_MS),
    "its own walbatch_event_id": track(
        name="E", event_id="e-1", properties={"walbatch_event_id": "e-1"}, now_ms=NOW_MS
    ),
    "link": identity_link(identified_id="u1", anonymous_id="$device:a1", link_id="l/1", now_ms=NOW_MS),
    "merge": identity_merge(merged_ids=["a", "b"], now_ms=NOW_MS),
    "alias": identity_alias(alias="new", distinct_id="orig", now_ms=NOW_MS),
    "deletion": profile_update(distinct_id="u1", operation="$delete", ignore_alias=True, now_ms=NOW_MS),
    "quiet": profile_update(
        distinct_id="u1",
        operation="$set",
        properties={},
        ip="192.0.2.1",
        ignore_time=True,
        update_id="ü/1",
        now_ms=NOW_MS,
    ),
}
for name in PROFILE_OPERATIONS:
    STORED[f"profile {name}"] = profile_update(
        distinct_id="u1", operation=name, properties=VALUES.get(name, {"p": {"a": [1]}}), now_ms=NOW_MS
    )
for name in GROUP_OPERATIONS:
    STORED[f"group {name}"] = group_update(
        group_key="k", group_id="g", operation=name, properties=VALUES.get(name, {"p": {"a": [1]}}), now_ms=NOW_MS
    )


def exported(stored: Record) -> bytes:
    """Return the line of a record."""
    return line(Extracted(Offset(1), stored.kind, stored.event_id, stored.payload))


def made_again(stored: Record) -> Record:
    """Return what another server stores when it is sent a record's line."""
    return wire.record(intake.record(exported(stored).removesuffix(b"\n")), LATER_MS)


def check(stored: Record) -> None:
    """Compare a record with the one that its line makes."""
    again = made_again(stored)
    assert again.payload == stored.payload
    assert (again.kind, again.event_id, again.name) == (stored.kind, stored.event_id, stored.name)
    assert (again.distinct_id, again.time_ms, again.time_given) == (stored.distinct_id, stored.time_ms, True)


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_a_line_makes_the_same_record_again(stored: Record) -> None:
    """The payload is the same byte for byte, and so are the id and the time; only the acceptance is another one."""
    check(stored)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(records)
def test_the_line_of_any_record_makes_it_again(message: pb.Record) -> None:
    """Whatever was accepted can be moved."""
    try:
        stored = wire.record(message, NOW_MS)
    except InvalidRecord:
        assume(False)
    else:
        check(stored)


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_a_line_is_what_mixpanel_gets(stored: Record) -> None:
    """One line, with nothing else than the stored record; an update has its id besides."""
    text = exported(stored)
    assert text.count(b"\n") == 1
    found = orjson.loads(text)
    if stored.kind:
        assert found.pop("walbatch_event_id") == stored.event_id
    assert found == orjson.loads(stored.payload)


def test_what_is_not_from_a_log_keeps_its_meaning() -> None:
    """Where the ids stand says something in a stored event only: elsewhere they are those of the event."""
    shape = {"event": "E", "properties": {"$user_id": "u1", "a": 1, "$device_id": None, "walbatch_event_id": "x/1"}}
    made = intake.record(orjson.dumps(shape)).event
    assert (made.user_id, made.device_id) == ("u1", "")
    assert made.properties_json == '{"a":1,"walbatch_event_id":"x/1"}'
    assert made.event_id != "x/1"
