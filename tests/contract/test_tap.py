"""A live sample of a log: what is looked at, how much is shown, and what is hidden."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from log_records import event, events, open_log

from walbatch import tap
from walbatch.errors import ConfigurationError
from walbatch.event import Record, group_update, identity_link, profile_update
from walbatch.tap import Look, Shown, Tap, Viewer, Wanted
from walbatch.testing.clock import FakeClock
from walbatch.wal.sqlite import SqliteLog

CANARY = "canary-77aa10"


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """An open log with the events a and b, the second one a minute after the first."""
    async with open_log(tmp_path / "data", clock) as log:
        await log.append(events("a", clock))
        await clock.advance(60)
        await log.append(events("b", clock))
        yield log


def directory(log: SqliteLog) -> Path:
    """Return where a log is."""
    return log.path.parent


def look(tap: Tap, most: int = 100, seed: int = 1) -> tuple[str, int]:
    """Return the ids that a look shows, and how many are left out."""
    found: Look = tap.look(most, Random(seed))
    return "".join(row.event_id for row in found.rows), found.left_out


async def test_it_begins_at_the_end_and_shows_each_record_once(log: SqliteLog, clock: FakeClock) -> None:
    """What was there before is not shown, and nothing a second time."""
    tap = Tap(directory(log))
    assert look(tap) == ("", 0)
    await log.append(events("cd", clock))
    assert look(tap) == ("cd", 0)
    assert look(tap) == ("", 0)
    await log.append(events("e", clock))
    assert look(tap) == ("e", 0)


@pytest.mark.parametrize(("since", "names"), [(0, "ab"), (1, "b"), (60_000, "b"), (60_001, "")])
async def test_it_can_begin_earlier(log: SqliteLog, clock: FakeClock, since: int, names: str) -> None:
    """At the first record from a time on; what comes then follows."""
    tap = Tap(directory(log), since_ms=1_700_000_000_000 + since)
    assert look(tap) == (names, 0)
    await log.append(events("c", clock))
    assert look(tap) == ("c", 0)


async def test_it_shows_what_is_wanted(log: SqliteLog, clock: FakeClock) -> None:
    """By the name of the event, by the user, or by both; an operation is no name of an event."""
    wanted = [Wanted("x"), Wanted(distinct_id="u2"), Wanted("y", "u1"), Wanted("$set"), Wanted(distinct_id="k:g")]
    taps = [Tap(directory(log), one) for one in wanted]
    now_ms = clock.wall_ms()
    await log.append(
        [
            event("x", clock, event_id="1"),
            event("x", clock, event_id="2", distinct_id="u2"),
            event("y", clock, event_id="3"),
            profile_update(distinct_id="u2", operation="$set", properties={}, update_id="4", now_ms=now_ms),
            group_update(group_key="k", group_id="g", operation="$set", properties={}, update_id="5", now_ms=now_ms),
        ]
    )
    assert [look(tap) for tap in taps] == [("12", 0), ("24", 0), ("3", 0), ("", 0), ("5", 0)]


async def test_of_many_it_shows_some(log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as likely as any other, in their order, and it says how many it left out of those that were wanted."""
    monkeypatch.setattr(tap, "PAGE", 3)
    shown: Counter[str] = Counter()
    since_ms = clock.wall_ms() + 1
    await clock.advance(1)
    await log.append(events("klmnopqrst", clock))
    for seed in range(300):
        names, left_out = look(Tap(directory(log), since_ms=since_ms), 3, seed)
        assert (len(names), left_out) == (3, 7)
        assert names == "".join(sorted(names))
        shown.update(names)
    assert all(60 < shown[name] < 120 for name in "klmnopqrst")
    assert look(Tap(directory(log), Wanted("m"), since_ms=since_ms), 3) == ("m", 0)


async def test_it_holds_no_transaction_between_two_looks(log: SqliteLog, clock: FakeClock) -> None:
    """SQLite's log can be emptied, as an erasure needs it."""
    tap = Tap(directory(log))
    await log.append(events("c", clock))
    assert look(tap) == ("c", 0)
    assert await log.scrub()


def test_without_a_log_it_says_so(tmp_path: Path) -> None:
    """As every command does."""
    with pytest.raises(ConfigurationError, match="WALBATCH_DATA_DIR"):
        Tap(tmp_path)


VALUES: dict[str, Any] = {
    "text": CANARY,
    "count": 7_654_321,
    "half": 0.765,
    "yes": True,
    "none": None,
    "list": [CANARY],
    "object": {CANARY: CANARY},
}


def records(now_ms: int) -> list[Record]:
    """Records of every kind that have the same secret wherever they can."""
    more: dict[str, Any] = {"ip": CANARY, "user_id": CANARY, "device_id": CANARY}
    return [
        event("E", FakeClock(now_ms), distinct_id=CANARY, properties=VALUES, **more),
        profile_update(distinct_id=CANARY, operation="$append", properties=VALUES, ip=CANARY, now_ms=now_ms),
        profile_update(distinct_id=CANARY, operation="$unset", properties=["plan"], now_ms=now_ms),
        profile_update(distinct_id=CANARY, operation="$delete", now_ms=now_ms),
        group_update(group_key="company", group_id=CANARY, operation="$set", properties=VALUES, now_ms=now_ms),
        identity_link(identified_id=CANARY, anonymous_id=f"{CANARY}-2", now_ms=now_ms),
    ]


async def shown(log: SqliteLog, clock: FakeClock, *, reveal: bool) -> list[Shown]:
    """Return what is shown of records of every kind."""
    tap = Tap(directory(log))
    await log.append(records(clock.wall_ms()))
    viewer = Viewer(reveal=reveal)
    return [viewer.shown(row) for row in tap.look(100, Random(1)).rows]


async def test_values_and_users_are_hidden(log: SqliteLog, clock: FakeClock) -> None:
    """Names and types remain; a user has the same mark everywhere, and another one in another tap."""
    found = await shown(log, clock, reveal=False)
    text = json.dumps([one._asdict() for one in found])
    assert not any(secret in text for secret in (CANARY, "7654321", "0.765"))
    types = {"text": "string", "count": "number", "half": "number", "yes": "boolean", "none": "null"}
    types |= {"list": "array", "object": "object"}
    own = {"time": "number", "ip": "string", "$device_id": "string", "$user_id": "string"}
    assert dict(found[0].properties) == types | own
    assert [(one.kind, one.name) for one in found] == [
        *(("event", "E"), ("profile", "$append"), ("profile", "$unset")),
        *(("profile", "$delete"), ("group", "$set"), ("event", "$identify")),
    ]
    assert [dict(one.properties) for one in found[2:4]] == [{"plan": "null"}, {}]
    marks = {one.distinct_id for one in found if one.kind != "group"}
    assert len(marks) == 1
    assert all(mark.startswith("~") and len(mark) == 9 for mark in marks)
    assert found[4].distinct_id not in marks
    again = Viewer(reveal=False).shown(Tap(directory(log), since_ms=0).look(100, Random(1)).rows[2])
    assert again.distinct_id not in marks


async def test_a_record_of_nobody_has_no_mark(log: SqliteLog, clock: FakeClock) -> None:
    """There is nobody to hide."""
    tap = Tap(directory(log))
    await log.append([event("c", clock, distinct_id="")])
    (row,) = tap.look(1, Random(1)).rows
    assert Viewer(reveal=False).shown(row).distinct_id == ""


async def test_what_is_revealed_is_the_record(log: SqliteLog, clock: FakeClock) -> None:
    """The properties with their values, and the id of the user."""
    found = await shown(log, clock, reveal=True)
    assert [one.distinct_id for one in found] == [CANARY] * 4 + [f"company:{CANARY}", CANARY]
    assert VALUES.items() <= dict(found[0].properties).items()
    assert found[1].properties == found[4].properties == VALUES
    assert dict(found[2].properties) == {"plan": None}
    stored = records(clock.wall_ms())
    assert [one.bytes for one in found] == [len(record.payload.encode()) for record in stored]
    assert orjson.loads(stored[0].payload)["properties"]["$insert_id"] not in found[0].properties
