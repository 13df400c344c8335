"""Whose a record is, and which records of an erased person are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from walbatch.event import (
    Kind,
    Offset,
    Record,
    group_update,
    identity_alias,
    identity_link,
    identity_merge,
    profile_update,
    track,
)
from walbatch.person import named
from walbatch.wal.tombstones import KEY_BYTES, Tombstones

NOW_MS = 1_700_000_000_000
OTHER_KEY = b"\x01" * KEY_BYTES


def event(**fields: Any) -> Record:
    """A small event; the given fields are different."""
    known: dict[str, Any] = {"name": "n", "properties": {}, "now_ms": NOW_MS}
    return track(**known | fields)


def update(time_ms: int = NOW_MS, distinct_id: str = "u1") -> Record:
    """A profile update."""
    return profile_update(
        distinct_id=distinct_id, operation="$set", properties={}, time_ms=time_ms, now_ms=max(NOW_MS, time_ms)
    )


def ids(record: Record) -> set[str]:
    """Whom a record is about."""
    return set(named(record.kind, orjson.loads(record.payload)))


def erased(*people: str, key: bytes = bytes(KEY_BYTES)) -> Tombstones:
    """The tombstones of people who were erased at NOW_MS."""
    stones = Tombstones(key)
    stones.add(people, NOW_MS)
    return stones


@pytest.mark.parametrize(
    ("record", "people"),
    [
        (event(distinct_id="u1"), {"u1"}),
        (event(distinct_id="u1", user_id="u2", device_id="d1"), {"u1", "u2", "d1"}),
        (event(device_id="d1"), {"d1"}),
        (event(distinct_id="$device:d1"), {"d1"}),
        (event(properties={"$user_id": "u2", "$device_id": "d1", "friend": "u9"}), {"u2", "d1"}),
        (event(properties={"$anon_id": "u9", "alias": "u8", "$distinct_ids": ["u7", "u6"]}), set()),
        (identity_link(identified_id="u1", anonymous_id="$device:a1", now_ms=NOW_MS), {"u1", "a1"}),
        (identity_merge(merged_ids=["u1", "u2"], now_ms=NOW_MS), {"u1", "u2"}),
        (identity_alias(alias="a1", distinct_id="u1", now_ms=NOW_MS), {"a1", "u1"}),
        (update(), {"u1"}),
        (
            group_update(group_key="g", group_id="u1", operation="$set", properties={"x": "u1"}, now_ms=NOW_MS),
            set(),
        ),
    ],
)
def test_whom_a_record_is_about(record: Record, people: set[str]) -> None:
    """An id counts where it stands for a person: not in any other property, not in an update of a group."""
    assert ids(record) == people


@pytest.mark.parametrize("late_ms", [NOW_MS, NOW_MS - 1, NOW_MS - 10**9])
def test_what_happened_up_to_the_erasure_is_refused(late_ms: int) -> None:
    """With a reason, the field that names the person, and not the id itself."""
    stones = erased("u1")
    refusal = stones.refusal(event(distinct_id="x", user_id="u1", time_ms=late_ms))
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("ERASED", "event.user_id")
    assert "u1" not in str(refusal)
    assert stones.refusal(update(late_ms)) is not None


def test_the_person_may_come_back() -> None:
    """What has a later time is taken, and so is everything of others."""
    stones = erased("u1")
    assert stones.refusal(event(distinct_id="u1", time_ms=NOW_MS + 1, now_ms=NOW_MS + 1)) is None
    assert stones.refusal(update(NOW_MS + 1)) is None
    assert stones.refusal(event(distinct_id="u2", time_ms=NOW_MS - 5)) is None


def test_a_copy_has_the_time_of_its_original() -> None:
    """A replay, which is received now, brings nobody back; nor does one of an update that has no time at all."""
    stones = erased("u1")
    for record in (event(distinct_id="u1"), update()):
        assert stones.refusal(record._replace(time_ms=NOW_MS + 10**6, replay_of=Offset(1))) is not None
    old = update(NOW_MS + 1)._replace(payload='{"$distinct_id":"u1","$set":{}}', replay_of=Offset(1))
    assert stones.refusal(old) is not None


def test_either_spelling_of_a_device_is_the_same_person() -> None:
    """`$device:d1` was erased: so was the device d1, and the other way round."""
    assert erased("$device:d1").refusal(event(device_id="d1")) is not None
    assert erased("d1").refusal(event(distinct_id="$device:d1")) is not None


def test_without_tombstones_and_for_what_is_new_nothing_is_looked_into() -> None:
    """The payload is not even read: this one could not be."""
    unreadable = event(distinct_id="u1", time_ms=NOW_MS)._replace(payload="{")
    assert Tombstones(bytes(KEY_BYTES)).refusal(unreadable) is None
    assert erased("u1").refusal(unreadable._replace(time_ms=NOW_MS + 1)) is None
    with pytest.raises(orjson.JSONDecodeError):
        erased("u1").refusal(unreadable)


def test_the_later_of_two_erasures_counts_and_each_log_has_its_own_hashes() -> None:
    """A clock that was set back takes nothing away from a tombstone; the same id has another hash under another key."""
    stones = erased("u1")
    (earlier,) = stones.add(["u1"], NOW_MS - 10**6)
    assert earlier.erased_at_ms == NOW_MS
    (later,) = stones.add(["u1"], NOW_MS + 5)
    assert stones.refusal(event(distinct_id="u1", time_ms=NOW_MS + 5, now_ms=NOW_MS + 5)) is not None
    (elsewhere,) = erased("u2", key=OTHER_KEY).add(["u1"], NOW_MS)
    assert later.id_hash != elsewhere.id_hash
    assert b"u1" not in later.id_hash


def test_a_group_is_no_person() -> None:
    """An update of a group is taken, whatever its id."""
    record = group_update(group_key="company", group_id="u1", operation="$set", properties={}, now_ms=NOW_MS)
    assert record.kind is Kind.GROUP
    assert erased("u1", "company", "company:u1").refusal(record) is None
