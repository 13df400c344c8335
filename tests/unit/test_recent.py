"""Which repeated id is a duplicate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.event import Offset, Record, profile_update, track
from walbatch.wal.recent import Key, RecentIds, key_of

NOW_MS = 1_700_000_000_000


def event(**fields: Any) -> Record:
    """An event with the id e; the given fields are different."""
    known: dict[str, Any] = {"name": "n", "distinct_id": "u1", "event_id": "e", "properties": {}, "now_ms": NOW_MS}
    return track(**known | fields)


def key(record: Record) -> Key:
    """What it is recognised by."""
    return key_of(record.event_id, record.name, record.distinct_id)


def remember(recent: RecentIds, record: Record, offset: int) -> None:
    """Add a record as the log does after its commit."""
    recent.remember(key(record), record.time_ms, Offset(offset))


def find(recent: RecentIds, record: Record) -> Offset | None:
    """Look for a record."""
    return recent.find(key(record), record)


def test_a_repeat_is_found_where_it_was_stored() -> None:
    """The same request again, a moment later, is the same record."""
    recent = RecentIds()
    assert find(recent, event()) is None
    remember(recent, event(), 7)
    assert find(recent, event(now_ms=NOW_MS + 5000)) == 7


def test_other_properties_make_no_other_record() -> None:
    """What Mixpanel would overwrite is a repeat here as well."""
    recent = RecentIds()
    remember(recent, event(), 7)
    assert find(recent, event(properties={"n": 1})) == 7


@pytest.mark.parametrize("other", [{"name": "m"}, {"distinct_id": "u2"}, {"time_ms": NOW_MS - 1}, {"event_id": "f"}])
def test_another_name_user_time_or_id_is_another_record(other: dict[str, Any]) -> None:
    """Nothing is dropped that Mixpanel would keep."""
    recent = RecentIds()
    remember(recent, event(), 7)
    assert find(recent, event(**other)) is None


def test_a_time_that_is_given_must_be_the_same() -> None:
    """A sender that freezes its time is recognised by it; without one any time matches."""
    recent = RecentIds()
    remember(recent, event(time_ms=NOW_MS - 9), 7)
    assert find(recent, event(time_ms=NOW_MS - 9)) == 7
    assert find(recent, event(time_ms=NOW_MS - 8)) is None
    assert find(recent, event()) == 7


def test_a_replay_is_never_a_duplicate() -> None:
    """A repetition on purpose is always stored."""
    recent = RecentIds()
    remember(recent, event(), 7)
    assert find(recent, event()._replace(replay_of=Offset(7))) is None


def test_profile_updates_are_known_by_their_id() -> None:
    """An update has no time of its own; its operation is its name."""
    recent = RecentIds()
    fields: dict[str, Any] = {"distinct_id": "u1", "properties": {}, "update_id": "e"}
    remember(recent, profile_update(**fields, operation="$set", now_ms=NOW_MS), 7)
    assert find(recent, profile_update(**fields, operation="$set", now_ms=NOW_MS + 1)) == 7
    assert find(recent, profile_update(**fields, operation="$set_once", now_ms=NOW_MS)) is None


def test_two_records_may_share_an_id() -> None:
    """An id that is used for two things finds each of them again."""
    recent = RecentIds()
    remember(recent, event(name="a"), 1)
    remember(recent, event(name="b"), 2)
    assert find(recent, event(name="b")) == 2
    assert find(recent, event(name="a")) == 1


@given(st.lists(st.integers(0, 8), max_size=40), st.integers(1, 5))
def test_the_window_holds_the_newest(numbers: list[int], window: int) -> None:
    """Exactly the newest ids are known, however often each of them came."""
    recent = RecentIds(window)
    newest: dict[int, int] = {}
    for offset, number in enumerate(numbers):
        remember(recent, event(event_id=f"e{number}"), offset)
        newest.pop(number, None)
        newest[number] = offset
    known = dict(list(newest.items())[-window:])
    for number in range(9):
        assert find(recent, event(event_id=f"e{number}")) == known.get(number)
