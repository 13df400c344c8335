"""Reading records out of a log to move them elsewhere: which ones, in which pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from log_records import BAD, ELSEWHERE, EVENTS, deliver, event, events, open_log

from walbatch import dead
from walbatch import replay as replaying
from walbatch.delivery import DELIVERED, RETRY, Unknown
from walbatch.event import Kind, profile_update
from walbatch.export import export
from walbatch.routing import Filter, Router
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, extract, lookup, store
from walbatch.wal.dead_letters import Choice
from walbatch.wal.extract import Wanted
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

HELD = Unknown("no answer")
ALL = Wanted()


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """A log with a and c sent, b dead, d held, and e pending, each received a second after the one before."""
    async with open_log(tmp_path / "data", clock) as log:
        for name, user in zip("abcde", ("u1", "u2", "u1", "u2", "u1"), strict=True):
            await log.append([event(name, clock, distinct_id=user, properties={"n": 1})])
            await clock.advance(1)
        await deliver(log, [DELIVERED, BAD, DELIVERED, HELD, RETRY])
        yield log


async def exported(log: SqliteLog, wanted: Wanted = ALL, limit: int | None = None) -> str:
    """Return the names of the events that are exported, in order."""
    through = await log.read(store.last_offset)
    pages = await log.read(lambda connection: list(export(connection, wanted, through, limit)))
    return "".join(orjson.loads(line)["event"] for page in pages for line in page.lines)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), "abcde"),
        (Wanted(status="sent"), "ac"),
        (Wanted(status="dead"), "b"),
        (Wanted(status="held"), "d"),
        (Wanted(status="pending"), "e"),
        (Wanted(distinct_id="u1"), "ace"),
        (Wanted(event="b"), "b"),
        (Wanted(event="b", distinct_id="u1"), ""),
        (Wanted(since_ms=1_700_000_001_000), "bcde"),
        (Wanted(until_ms=1_700_000_001_000), "a"),
        (Wanted(since_ms=1_700_000_001_000, until_ms=1_700_000_003_000, status="sent"), "c"),
        (Wanted(destination="there", status="dead"), "b"),
        (Wanted(destination="elsewhere"), ""),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
async def test_what_is_wanted(log: SqliteLog, wanted: Wanted, names: str) -> None:
    """Every option narrows it; the oldest is first."""
    assert await exported(log, wanted) == names


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_the_pieces_make_the_whole(log: SqliteLog, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """However large they are, and where a limit falls into one."""
    monkeypatch.setattr(extract, "PAGE", size)
    assert await exported(log) == "abcde"
    assert await exported(log, Wanted(status="sent")) == "ac"
    assert [await exported(log, limit=limit) for limit in (1, 2, 3, 9)] == ["a", "ab", "abc", "abcde"]


async def test_large_records_make_small_pieces(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece ends with the record that is beyond the limit, so that memory stays flat."""
    monkeypatch.setattr(extract, "MAX_PAGE_BYTES", 1)
    pages = await log.read(lambda connection: list(export(connection, ALL, 5)))
    assert [(len(page.lines), page.through) for page in pages] == [(1, n) for n in range(1, 6)]


async def test_what_comes_meanwhile_is_left_for_the_next_time(log: SqliteLog, clock: FakeClock) -> None:
    """It ends where the log ended when it began."""
    await log.append(events("f", clock))
    pages = await log.read(lambda connection: list(export(connection, ALL, 5)))
    assert sum(len(page.lines) for page in pages) == 5


async def test_a_copy_stands_for_its_original_only_where_that_is_not_wanted(log: SqliteLog, clock: FakeClock) -> None:
    """Of both it is the original; a copy that is still owed is exported with what is pending."""
    async for _ in replaying.replay(log, "there", Selection(event="a"), clock):
        pass
    assert await exported(log) == "abcde"
    assert await exported(log, Wanted(status="pending")) == "ea"
    assert await exported(log, Wanted(since_ms=1_700_000_004_500)) == "a"


async def test_what_was_sent_again_is_exported_once_and_what_was_given_up_is_not(
    log: SqliteLog, clock: FakeClock
) -> None:
    """The copy of a dead letter takes its place; a discarded one is gone."""
    async for _ in dead.replay(log, clock, "there", Choice(numbers=[2])):
        pass
    await log.discard("there", [(await log.read(lambda c: c.execute("SELECT 4").fetchone()))[0]])
    assert await exported(log) == "aceb"
    assert await exported(log, Wanted(status="dead")) == ""


async def test_the_status_is_that_of_one_destination_or_of_any(tmp_path: Path, clock: FakeClock) -> None:
    """What a filter keeps back from a destination is not exported for it."""
    router = Router({"there": Filter(never=["b"])})
    async with open_log(tmp_path / "data", clock, "there", "elsewhere", router=router) as log:
        await log.append(events("ab", clock))
        await deliver(log, lane=EVENTS)
        await deliver(log, [RETRY, DELIVERED], lane=ELSEWHERE)
        assert await exported(log) == "ab"
        assert await exported(log, Wanted(destination="there")) == "a"
        assert await exported(log, Wanted(status="pending")) == "a"
        assert await exported(log, Wanted(status="pending", destination="there")) == ""
        assert await exported(log, Wanted(status="sent", destination="elsewhere")) == "b"


async def test_updates_have_their_ids(log: SqliteLog, clock: FakeClock) -> None:
    """Mixpanel has no place for them, so that they stand beside what it gets."""
    update = profile_update(
        distinct_id="u1", operation="$set", properties={"a": 1}, update_id="x/1", now_ms=clock.wall_ms()
    )
    await log.append([update])
    await deliver(log, lane=Lane("there", Kind.PROFILE))
    (page,) = await log.read(lambda connection: list(export(connection, replace(ALL, status="sent"), 9)))
    assert orjson.loads(page.lines[-1]) == {"walbatch_event_id": "x/1"} | orjson.loads(update.payload)


async def test_a_bound_by_time_is_found_in_a_few_looks(log: SqliteLog, clock: FakeClock) -> None:
    """The first record at or after a time, where the clock never went back; behind the end there is none."""
    start = 1_700_000_000_000
    found = [await log.read(lookup.first_since, start + ms) for ms in (-5, 0, 1, 999, 1000, 1001, 4000, 4001, 10**9)]
    assert found == [1, 1, 2, 2, 2, 3, 5, 6, 6]
    async with open_log(log.path.parent.parent / "empty", clock) as empty:
        assert await empty.read(lookup.first_since, start) == 0
        assert await empty.read(lookup.extent) is None
