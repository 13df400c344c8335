"""Links between ids: $identify, $merge and $create_alias."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest

from walbatch import rules
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Record, identity_alias, identity_link, identity_merge, track

NOW_MS = 1_700_000_000_000


def link(**fields: Any) -> Record:
    """An identity link that is fine but for the given fields."""
    known: dict[str, Any] = {"identified_id": "u1", "anonymous_id": "a1", "now_ms": NOW_MS}
    return identity_link(**known | fields)


def merge(*ids: Any, **fields: Any) -> Record:
    """A merge of these ids, or of two."""
    return identity_merge(merged_ids=ids or ("a", "b"), now_ms=NOW_MS, **fields)


def alias(**fields: Any) -> Record:
    """An alias that is fine but for the given fields."""
    known: dict[str, Any] = {"alias": "new", "distinct_id": "orig", "now_ms": NOW_MS}
    return identity_alias(**known | fields)


def properties_of(record: Record) -> dict[str, Any]:
    """The properties of an event as they are sent."""
    found: dict[str, Any] = orjson.loads(record.payload)["properties"]
    return found


REFUSED_LINKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody": ({"identified_id": ""}, "identified_id", "REQUIRED"),
    "no visitor": ({"anonymous_id": " "}, "anonymous_id", "REQUIRED"),
    "long visitor": ({"anonymous_id": "a" * 256}, "anonymous_id", "TOO_LONG"),
    "bad visitor": ({"anonymous_id": "unknown"}, "anonymous_id", "BAD_ID"),
    "bad device": ({"anonymous_id": "$device:null"}, "anonymous_id", "BAD_ID"),
    "the user's own id": ({"anonymous_id": "u1"}, "anonymous_id", "CONFLICT"),
    "blank id": ({"link_id": " "}, "link_id", "REQUIRED"),
    "long id": ({"link_id": "i" * 256}, "link_id", "TOO_LONG"),
    "half a character": ({"anonymous_id": "\ud800"}, "anonymous_id", "NOT_UNICODE"),
}


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED_LINKS.values(), ids=REFUSED_LINKS)
def test_a_link_that_mixpanel_would_refuse_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    """Each refusal names a field of the link, not of the event that it becomes."""
    with pytest.raises(InvalidRecord) as refusal:
        link(**fields)
    assert (refusal.value.field, refusal.value.reason) == (f"identity_link.{field}", reason)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (("a",), "REQUIRED"),
        (("a", "b", "c"), "REQUIRED"),
        (("a", "a"), "CONFLICT"),
        (("a", ""), "REQUIRED"),
        (("a", "null"), "BAD_ID"),
        (("a", 1), "NOT_TEXT"),
    ],
)
def test_a_merge_has_two_different_ids(ids: tuple[Any, ...], reason: str) -> None:
    """Anything else would be refused, or would merge everybody with nobody."""
    with pytest.raises(InvalidRecord) as refusal:
        merge(*ids)
    assert (refusal.value.field, refusal.value.reason) == ("identity_link.merged_ids", reason)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"alias": ""}, "alias", "REQUIRED"),
        ({"alias": "anonymous"}, "alias", "BAD_ID"),
        ({"distinct_id": ""}, "distinct_id", "REQUIRED"),
        ({"distinct_id": "0"}, "distinct_id", "BAD_ID"),
        ({"alias": "orig"}, "alias", "CONFLICT"),
    ],
)
def test_an_alias_is_another_name_of_an_id(fields: dict[str, Any], field: str, reason: str) -> None:
    """Both are ids, and two different ones."""
    with pytest.raises(InvalidRecord) as refusal:
        alias(**fields)
    assert (refusal.value.field, refusal.value.reason) == (f"identity_link.{field}", reason)


@pytest.mark.parametrize("bad", sorted(rules.BAD_IDS))
def test_nobody_is_linked_with_anybody(bad: str) -> None:
    """Ids that stand for no one are refused in every place, in capitals too."""
    for spelled in (bad, bad.upper()):
        for build in (
            partial(link, identified_id=spelled),
            partial(link, anonymous_id=spelled),
            partial(merge, "a", spelled),
            partial(alias, alias=spelled),
            partial(alias, distinct_id=spelled),
        ):
            with pytest.raises(InvalidRecord) as refusal:
                build()
            assert refusal.value.reason == "BAD_ID"


def test_a_link_is_spelled_for_both_ways_of_merging() -> None:
    """A link is an `$identify` event with the pair as Original and as Simplified ID Merge want it."""
    record = link(anonymous_id="$device:d1")
    properties = properties_of(record)
    assert (record.kind, record.name, record.distinct_id) == (Kind.EVENT, "$identify", "u1")
    assert (properties["$identified_id"], properties["$anon_id"]) == ("u1", "$device:d1")
    assert (properties["distinct_id"], properties["$user_id"], properties["$device_id"]) == ("u1", "u1", "d1")


def test_a_merge_is_an_event_like_any_other() -> None:
    """It has a time, an $insert_id and a user as well, so that a check of ordinary events lets it pass."""
    record = merge(link_id="m-1")
    assert (record.kind, record.name, record.distinct_id, record.event_id) == (Kind.EVENT, "$merge", "a", "m-1")
    assert properties_of(record) == {
        "time": NOW_MS,
        "distinct_id": "a",
        "$insert_id": "m-1",
        "ip": "0",
        "$distinct_ids": ["a", "b"],
    }


def test_an_alias_is_an_event_of_the_id_that_it_stands_for() -> None:
    """Mixpanel remaps from the alias to the distinct_id."""
    record = alias(link_id="c-1")
    assert (record.kind, record.name, record.distinct_id, record.event_id) == (
        Kind.EVENT,
        "$create_alias",
        "orig",
        "c-1",
    )
    assert properties_of(record) == {
        "time": NOW_MS,
        "distinct_id": "orig",
        "$insert_id": "c-1",
        "ip": "0",
        "alias": "new",
    }


def test_the_same_link_has_the_same_id() -> None:
    """Without an id a link's is derived from the ids, so that a repeat is known as one."""
    first = link()
    assert link(now_ms=NOW_MS + 1).event_id == first.event_id
    assert properties_of(first)["$insert_id"] == first.event_id
    assert merge().event_id == merge().event_id
    assert alias().event_id == alias().event_id
    others = [link(anonymous_id="a2"), link(identified_id="u2"), link(identified_id="a1", anonymous_id="u1")]
    others += [merge(), merge("b", "a"), alias(), alias(alias="orig", distinct_id="new")]
    assert len({first.event_id, *(other.event_id for other in others)}) == 8
    assert link(link_id="mine").event_id == "mine"


@pytest.mark.parametrize(
    ("name", "fields", "field", "reason"),
    [
        ("$merge", {}, "event.properties.$distinct_ids", "REQUIRED"),
        ("$merge", {"$distinct_ids": "ab"}, "event.properties.$distinct_ids", "REQUIRED"),
        ("$merge", {"$distinct_ids": ["a", "a"]}, "event.properties.$distinct_ids", "CONFLICT"),
        ("$create_alias", {}, "event.properties.alias", "REQUIRED"),
        ("$create_alias", {"alias": 5}, "event.properties.alias", "NOT_TEXT"),
        ("$create_alias", {"alias": "u1"}, "event.properties.alias", "CONFLICT"),
        ("$identify", {"$anon_id": "null"}, "event.properties.$anon_id", "BAD_ID"),
        ("$identify", {"$identified_id": None}, "event.properties.$identified_id", "NOT_TEXT"),
        ("$identify", {"$identified_id": "u1", "$anon_id": "u1"}, "event.properties.$anon_id", "CONFLICT"),
    ],
)
def test_an_event_that_is_a_link_is_checked_as_one(name: str, fields: dict[str, Any], field: str, reason: str) -> None:
    """Whoever sends a link as an event hears of what would not link anything."""
    with pytest.raises(InvalidRecord) as refusal:
        track(name=name, distinct_id="u1", properties=fields, now_ms=NOW_MS)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)


def test_an_alias_without_the_id_that_it_stands_for_is_refused() -> None:
    """It would be another name of nobody."""
    with pytest.raises(InvalidRecord) as refusal:
        track(name="$create_alias", properties={"alias": "new"}, now_ms=NOW_MS)
    assert (refusal.value.field, refusal.value.reason) == ("event.distinct_id", "REQUIRED")
