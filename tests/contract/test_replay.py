"""Repeating stored records: what a selection covers, and what becomes of the originals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from log_records import BAD, EVENTS, NOW, counts_of, deliver, event, events, ids, open_log, settlement

from walbatch import replay as replaying
from walbatch.delivery import DELIVERED, RETRY
from walbatch.event import Kind, profile_update
from walbatch.replay import WhichDestination, destination_of
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane
from walbatch.wal.selection import Plan, Selection
from walbatch.wal.sqlite import SqliteLog


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """A log with a and c sent, b dead and d pending, each received a second after the one before."""
    async with open_log(tmp_path / "data", clock) as log:
        for name, user in (("a", "u1"), ("b", "u2"), ("c", "u1"), ("d", "u2")):
            await log.append([event(name, clock, distinct_id=user, properties={"n": 1})])
            await clock.advance(1)
        await deliver(log, [DELIVERED, BAD, DELIVERED, RETRY])
        yield log


ALL = Selection()


async def replay(log: SqliteLog, clock: FakeClock, selection: Selection = ALL) -> list[int]:
    """Replay a selection, and return the count after each page."""
    return [done async for done in replaying.replay(log, "there", selection, clock)]


async def delivered(log: SqliteLog) -> str:
    """Deliver all that waits, and return its ids."""
    found = ""
    while (batch := await log.fetch(EVENTS, NOW, wait=False)).offsets:
        await log.settle(settlement(batch, [DELIVERED] * len(batch.offsets)))
        found += ids(batch)
    return found


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), "abc"),
        (Selection(status="sent"), "ac"),
        (Selection(status="dead"), "b"),
        (Selection(distinct_id="u1"), "ac"),
        (Selection(event="b"), "b"),
        (Selection(event="b", distinct_id="u1"), ""),
        (Selection(since_ms=1_700_000_001_000), "bc"),
        (Selection(until_ms=1_700_000_001_000), "a"),
        (Selection(since_ms=1_700_000_001_000, until_ms=1_700_000_002_000), "b"),
        (Selection(limit=2), "ab"),
        (Selection(limit=0), ""),
        (Selection(through=1), "a"),
        (Selection(event="d"), ""),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
async def test_what_a_selection_covers(log: SqliteLog, clock: FakeClock, selection: Selection, wanted: str) -> None:
    """The plan counts exactly what the replay repeats, oldest first; what is pending is never repeated."""
    plan = await replaying.plan(log, "there", selection)
    assert (plan.count, plan.dead) == (len(wanted), wanted.count("b"))
    assert ids(await log.fetch(EVENTS, NOW)) == "d"
    assert await replay(log, clock, selection) == ([len(wanted)] if wanted else [])
    assert await delivered(log) == wanted


async def test_a_plan_changes_nothing(log: SqliteLog) -> None:
    """It tells counts and times, and where the log ended."""
    before = await counts_of(log)
    plan = await replaying.plan(log, "there", Selection())
    assert plan == Plan(count=3, sent=2, dead=1, first_ms=1_700_000_000_000, last_ms=1_700_000_002_000, through=4)
    assert await counts_of(log) == before
    nothing = await replaying.plan(log, "there", Selection(event="z"))
    assert (nothing.count, nothing.first_ms, nothing.last_ms) == (0, None, None)


async def test_a_replay_sends_the_same_bytes(log: SqliteLog, clock: FakeClock) -> None:
    """Time and `$insert_id` are those of the first time; the copy knows its original."""
    await delivered(log)
    first = await log.read(lambda c: c.execute("SELECT seq, payload FROM events WHERE event_id = 'a'").fetchone())
    await clock.advance(3600)
    await replay(log, clock, Selection(event="a"))
    batch = await log.fetch(EVENTS, NOW)
    assert batch.payloads == [first[1]]
    copies = await log.read(
        lambda c: c.execute(
            "SELECT seq, replay_of, event_id, received_at_ms FROM events WHERE replay_of > 0"
        ).fetchall()
    )
    assert copies == [(*batch.offsets, first[0], "a", clock.wall_ms())]


async def test_a_replay_goes_page_by_page(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each page the count so far is told; a limit may end in the middle of a page."""
    monkeypatch.setattr(replaying, "PAGE", 3)
    async with open_log(tmp_path / "data", clock) as log:
        await log.append(events("abcdefgh", clock))
        await deliver(log)
        assert await replay(log, clock) == [3, 6, 8]
        assert await replay(log, clock, Selection(limit=4)) == [3, 4]
        assert await delivered(log) == "abcdefghabcd"


async def test_a_replay_does_not_repeat_itself(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that are delivered while it runs, and those of earlier replays, are not copied."""
    monkeypatch.setattr(replaying, "PAGE", 1)
    await delivered(log)
    counts = []
    async for done in replaying.replay(log, "there", Selection(), clock):
        counts.append(done)
        await delivered(log)
    assert counts == [1, 2, 3, 4]
    assert (await replaying.plan(log, "there", Selection())).count == 4


async def test_a_replayed_dead_letter_is_resolved(log: SqliteLog, clock: FakeClock) -> None:
    """Its second chance is a record of its own; repeating dead letters again repeats nothing."""
    assert await replay(log, clock, Selection(status="dead")) == [1]
    counts = await counts_of(log)
    assert (counts.dead, counts.resolved, counts.pending) == (0, 1, 2)
    assert await replay(log, clock, Selection(status="dead")) == []
    assert await delivered(log) == "db"


async def test_a_copy_that_is_refused_can_be_replayed_again(log: SqliteLog, clock: FakeClock) -> None:
    """A dead letter is never out of reach, however often its record was refused."""
    await delivered(log)
    for _ in range(3):
        assert await replay(log, clock, Selection(status="dead")) == [1]
        assert ids(await deliver(log, [BAD])) == "b"
        assert (await counts_of(log)).dead == 1
    assert await replay(log, clock, Selection(status="dead")) == [1]
    assert await delivered(log) == "b"
    counts = await counts_of(log)
    assert (counts.dead, counts.resolved) == (0, 4)


async def test_profiles_can_be_replayed(log: SqliteLog, clock: FakeClock) -> None:
    """An update is found by its user, and goes out through its own lane."""
    profiles = Lane("there", Kind.PROFILE)
    update = profile_update(distinct_id="u9", operation="$set", properties={"n": 1}, now_ms=clock.wall_ms())
    await log.append([update])
    await deliver(log, lane=profiles)
    assert await replay(log, clock, Selection(distinct_id="u9")) == [1]
    (payload,) = (await log.fetch(profiles, NOW)).payloads
    assert payload == update.payload
    assert orjson.loads(payload)["$distinct_id"] == "u9"


async def test_a_replay_is_for_the_destination_that_was_named(tmp_path: Path, clock: FakeClock) -> None:
    """What is sent there may be pending elsewhere: the selection asks about the one, not the other."""
    async with open_log(tmp_path / "data", clock, "there", "elsewhere") as log:
        await log.append(events("a", clock))
        await deliver(log)
        assert (await replaying.plan(log, "there", Selection())).count == 1
        assert (await replaying.plan(log, "elsewhere", Selection())).count == 0


async def test_a_copy_goes_to_the_destination_that_was_named_alone(tmp_path: Path, clock: FakeClock) -> None:
    """The other had the record, and does not get it twice; its own letter of the record stays open."""
    elsewhere = Lane("elsewhere", Kind.EVENT)
    async with open_log(tmp_path / "data", clock, "there", "elsewhere") as log:
        await log.append(events("abc", clock))
        await deliver(log, [DELIVERED, BAD, BAD])
        await deliver(log, [DELIVERED, DELIVERED, BAD], elsewhere)
        assert await replay(log, clock) == [3]
        assert await delivered(log) == "abc"
        assert not (await log.fetch(elsewhere, NOW, wait=False)).offsets
        assert (await counts_of(log)).dead == 0
        assert (await counts_of(log, elsewhere)).dead == 1


async def test_a_copy_is_repeated_once_its_original_is_deleted(tmp_path: Path, clock: FakeClock) -> None:
    """What was sent and is stored can be repeated, however it came into the log."""
    async with open_log(tmp_path / "data", clock) as log:
        await log.append(events("a", clock))
        await deliver(log)
        await clock.advance(10)
        await replay(log, clock)
        await delivered(log)
        assert (await replaying.plan(log, "there", Selection())).count == 1
        assert await log.purge(clock.wall_ms(), 10) == 1
        assert (await replaying.plan(log, "there", Selection())).count == 1


def test_the_destination_is_the_only_one_or_the_named_one() -> None:
    """Where several come into question the error lists them."""
    assert destination_of({"there": 0}, None) == "there"
    assert destination_of({"there": 0, "elsewhere": 1}, "elsewhere") == "elsewhere"
    with pytest.raises(WhichDestination, match="there are elsewhere, there"):
        destination_of({"there": 0, "elsewhere": 1}, None)
    with pytest.raises(WhichDestination, match="'nowhere' is none of this log's; it has there"):
        destination_of({"there": 0}, "nowhere")
    with pytest.raises(WhichDestination, match="walbatch serve"):
        destination_of({}, None)
