"""The life of one record: found by its id, and told for each destination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from log_records import BAD, EVENTS, NOW, deliver, event, events, executed, open_log, settlement

from walbatch import dead, life
from walbatch import replay as replaying
from walbatch.delivery import DELIVERED, RETRY, Unknown
from walbatch.event import Kind, Offset, new_event_id, profile_update
from walbatch.life import Life, lives, search
from walbatch.retry import Condition, State
from walbatch.routing import Filter, Router
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane
from walbatch.wal.dead_letters import Choice
from walbatch.wal.driver import Connection
from walbatch.wal.fates import Delivery
from walbatch.wal.reading import reading
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

HELD = Unknown("no answer")
ROWS = 300_000
STEP_MS = 10
MANY = f"""
INSERT INTO events (kind, event_id, payload, received_at_ms)
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {ROWS}),
               t (i, ms) AS (SELECT i, 1700000000000 + i * {STEP_MS} FROM n)
SELECT 0, printf('%08x-%04x-7000-8000-%012x', ms >> 16, ms & 65535, i), '{{"event":"E","properties":{{}}}}', ms FROM t
"""  # noqa: S608  constants


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """An open log for two destinations: `there` takes everything, `elsewhere` no event that is called c."""
    router = Router({"elsewhere": Filter(never=["c"])})
    async with open_log(tmp_path / "data", clock, "there", "elsewhere", router=router) as log:
        yield log


async def life_of(log: SqliteLog, number: int) -> Life:
    """Return the life of one record."""
    found = await log.read(lives, [Offset(number)])
    return next(one for one in found if one.row.offset == number)


async def statuses(log: SqliteLog, number: int) -> dict[str, str]:
    """Return the status of one record at each destination."""
    return {fate.destination: fate.status for fate in (await life_of(log, number)).fates}


async def test_each_destination_has_its_own_word(log: SqliteLog, clock: FakeClock) -> None:
    """Sent, refused, held, waiting, and not wanted."""
    await log.append(events("abcd", clock))
    await deliver(log, [DELIVERED, BAD, HELD, RETRY])
    assert [(await statuses(log, n))["there"] for n in range(1, 5)] == ["sent", "dead", "held", "pending"]
    assert [(await statuses(log, n))["elsewhere"] for n in range(1, 5)] == ["pending", "pending", "filtered", "pending"]


async def test_a_destination_that_was_added_later_has_no_older_records(tmp_path: Path, clock: FakeClock) -> None:
    """That is told apart from a filter."""
    async with open_log(tmp_path / "data", clock, "there") as log:
        await log.append(events("a", clock))
    async with open_log(tmp_path / "data", clock, "there", "elsewhere") as log:
        await log.append(events("b", clock))
        assert await statuses(log, 1) == {"there": "pending", "elsewhere": "older"}
        assert await statuses(log, 2) == {"there": "pending", "elsewhere": "pending"}


async def test_the_delivery_is_told(log: SqliteLog, clock: FakeClock) -> None:
    """When, with how many others, and what the answer was; of the run that had the record in it, and of no other."""
    await log.append(events("ab", clock))
    batch = await log.fetch(EVENTS, NOW)
    done = replace(settlement(batch, [DELIVERED, BAD]), note="400: refused 1 of 2", started_at_ms=5, finished_at_ms=9)
    await log.settle(done)
    await log.append(events("d", clock))
    told = Delivery(1, 1, sum(batch.sizes), "400: refused 1 of 2", 5, 9)
    assert [fate.delivery for fate in (await life_of(log, 1)).fates] == [told, None]
    assert [fate.delivery for fate in (await life_of(log, 2)).fates] == [told, None]
    assert [fate.delivery for fate in (await life_of(log, 3)).fates] == [None, None]


async def test_what_holds_a_record_is_told(log: SqliteLog, clock: FakeClock) -> None:
    """The destination's condition, with its next try."""
    await log.append(events("a", clock))
    condition = Condition(State.OPEN, 7, 1_700_000_060_000, "503 Service Unavailable")
    batch = await log.fetch(EVENTS, NOW)
    await log.settle(settlement(batch, [RETRY], condition))
    there, elsewhere = (await life_of(log, 1)).fates
    assert (there.status, there.condition) == ("pending", condition)
    assert elsewhere.condition == Condition()


async def test_a_persons_pause_is_told(log: SqliteLog, clock: FakeClock) -> None:
    """Since when it holds what is owed to that destination, and not to the other."""
    await log.append(events("a", clock))
    await log.pause("there", clock.wall_ms())
    assert [fate.paused_at_ms for fate in (await life_of(log, 1)).fates] == [clock.wall_ms(), None]


async def test_an_update_that_is_about_to_be_sent_is_told(log: SqliteLog, clock: FakeClock) -> None:
    """Only under the policy that notes it; the note ends with the answer."""
    lane = Lane("there", Kind.PROFILE)
    await log.append([profile_update(distinct_id="u", operation="$add", properties={"n": 1}, now_ms=clock.wall_ms())])
    batch = await log.fetch(lane, NOW)
    await log.intend(batch)
    assert [fate.is_intended for fate in (await life_of(log, 1)).fates] == [True, False]
    await log.settle(settlement(batch, [DELIVERED]))
    assert [fate.is_intended for fate in (await life_of(log, 1)).fates] == [False, False]


async def test_a_letter_and_what_became_of_it_are_told(log: SqliteLog, clock: FakeClock) -> None:
    """Code, field and reason; when it was closed and how; and the record in its place."""
    await log.append(events("ab", clock))
    await deliver(log, [BAD, BAD])
    await clock.advance(60)
    async for _ in dead.replay(log, clock, "there", Choice(numbers=[1])):
        pass
    await log.discard("there", [Offset(2)])
    there = (await life_of(log, 1)).fates[0]
    assert there.letter is not None
    assert (there.status, there.letter.key[2:5]) == ("replayed", (400, "properties.time", "is invalid"))
    assert (there.letter.resolution, there.letter.resolved_at_ms) == ("replayed", clock.wall_ms())
    assert there.copies == [(3, "pending")]
    assert (await life_of(log, 1)).fates[1].copies == []
    assert (await life_of(log, 2)).fates[0].status == "discarded"


async def test_the_family_of_a_record_is_told_with_it(log: SqliteLog, clock: FakeClock) -> None:
    """Whichever is asked for: the original, its copies, and theirs."""
    await log.append(events("ax", clock))
    for destination in ("there", "elsewhere"):
        await deliver(log, lane=Lane(destination, Kind.EVENT))
        async for _ in replaying.replay(log, destination, Selection(event="a"), clock):
            pass
    for number in (1, 3, 4):
        found = await log.read(lives, [Offset(number)])
        assert [(one.row.offset, one.row.replay_of) for one in found] == [(1, None), (3, 1), (4, 1)]
    first = (await life_of(log, 1)).fates
    assert [fate.copies for fate in first] == [[(3, "pending")], [(4, "pending")]]
    assert await statuses(log, 3) == {"there": "pending", "elsewhere": "filtered"}


async def test_an_id_is_found_newest_first(log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest page that has it is enough, unless all are wanted; how far it is, is told."""
    monkeypatch.setattr(life, "PAGE", 2)
    for name in "abcab":
        await clock.advance(1)
        await log.append([event(name, clock, time_ms=clock.wall_ms())])  # another time: it is stored again
    told: list[tuple[int, int]] = []

    def found(name: str, *, everywhere: bool = False) -> Any:
        told.clear()
        return log.read(lambda c: search(c, name, everywhere=everywhere, progress=lambda *at: told.append(at)))

    assert await found("b") == ([5], False)
    assert told == [(2, 5)]
    assert await found("b", everywhere=True) == ([2, 5], True)
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert await found("c") == ([3], False)
    assert await found("z") == ([], True)


async def test_what_is_gone_is_not_found(tmp_path: Path, clock: FakeClock) -> None:
    """Purged records, and those that never were; an empty log has none."""
    async with open_log(tmp_path / "data", clock) as log:
        assert await log.read(lambda c: search(c, "a", everywhere=False)) == ([], True)
        await log.append(events("ab", clock))
        await deliver(log)
        await log.purge(clock.wall_ms() + 1, 10, patience_s=0)
        assert await log.read(lambda c: search(c, "a", everywhere=False)) == ([], True)
        assert await log.read(lives, [Offset(1)]) == []


async def test_an_id_of_walbatch_is_found_whatever_the_clock_did(log: SqliteLog, clock: FakeClock) -> None:
    """It tells another time than that of the acceptance: then all of the log is looked at."""
    made = new_event_id()
    await log.append([event("a", clock, event_id=made), *events("bd", clock)])
    assert await log.read(lambda c: search(c, made, everywhere=False)) == ([1], True)


@contextmanager
def counted(connection: Connection, steps: list[int]) -> Iterator[None]:
    """Count what SQLite does in a block: hundreds of steps of its virtual machine."""

    def another() -> int:
        steps.append(100)
        return 0

    connection.set_progress_handler(another, 100)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


@pytest.fixture
async def large(tmp_path: Path, clock: FakeClock) -> Path:
    """The directory of a log with 300,000 records, one every 10 ms; the ids are those that walbatch would make."""
    async with open_log(tmp_path / "data", clock) as log:
        await executed(log, MANY)
        await executed(log, "DELETE FROM events WHERE seq BETWEEN 100001 AND 200000")  # as an erasure may
        await executed(log, "INSERT INTO events (kind, event_id, payload, received_at_ms)"
                            " SELECT 0, 'own', payload, received_at_ms FROM events WHERE seq = 300000")  # fmt: skip
    return tmp_path / "data"


def test_an_id_of_walbatch_is_found_by_few_reads(large: Path) -> None:
    """In a log of 300,000 records it takes a hundredth of what another id takes; so does the way to a time."""
    for index in (0, 1, 77_777, 99_999, 200_000, 299_999):
        ms = 1_700_000_000_000 + index * STEP_MS
        made = f"{ms >> 16:08x}-{ms & 65535:04x}-7000-8000-{index:012x}"
        steps: list[int] = []
        with reading(large) as connection, counted(connection, steps):
            assert search(connection, made, everywhere=False) == ([index + 1], False)
        assert sum(steps) < 5_000
    steps = []
    with reading(large) as connection, counted(connection, steps):
        assert search(connection, "not-there", everywhere=False) == ([], True)
    assert sum(steps) > 500_000
    with reading(large) as connection:
        assert search(connection, "own", everywhere=False) == ([300_001], False)


def test_the_life_of_a_record_is_told_by_few_reads(large: Path) -> None:
    """Its copies, its deliveries and its letters have indexes."""
    steps: list[int] = []
    with reading(large) as connection, counted(connection, steps):
        assert [one.row.offset for one in lives(connection, [Offset(77_777)])] == [77_777]
    assert sum(steps) < 5_000
