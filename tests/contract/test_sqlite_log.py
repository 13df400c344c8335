"""What only the log on disk has to keep: through purges and restarts."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from log_records import (
    BAD,
    ELSEWHERE,
    EVENTS,
    NOW,
    copied,
    counts_of,
    deliver,
    event,
    events,
    executed,
    ids,
    open_log,
    settlement,
)

from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, RETRY
from walbatch.event import Kind, Record, profile_update
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, store
from walbatch.wal.driver import Connection
from walbatch.wal.purge import Purged
from walbatch.wal.sqlite import SqliteLog
from walbatch.wal.transaction import Purge

SOME = {"text": "x" * 300}


async def statuses(log: SqliteLog, destination: str = "there") -> dict[str, str]:
    """What the view for people says of each event, by its id; a copy has its offset in its name."""

    def ask(connection: Connection) -> dict[str, str]:
        rows = connection.execute(
            "SELECT event_id || CASE WHEN replay_of IS NULL THEN '' ELSE '+' END, status FROM record_status"
            " WHERE destination = ? ORDER BY seq",
            (destination,),
        )
        return dict(rows.fetchall())

    return await log.read(ask)


async def test_a_purge_keeps_what_is_owed_and_what_is_dead(tmp_path: Path, clock: FakeClock) -> None:
    """Only what every destination has, and what is old, is deleted; every count is still right."""
    async with open_log(tmp_path, clock, "there", "elsewhere") as log:
        await log.append(events("abcd", clock))
        await deliver(log, [DELIVERED, BAD, DELIVERED, DELIVERED])
        await deliver(log, [DELIVERED, DELIVERED, RETRY, DELIVERED], ELSEWHERE)
        await clock.advance(100)
        await log.append(events("e", clock))
        assert await log.purge(clock.wall_ms() - 100_000, 1000) == 0
        assert await log.purge(clock.wall_ms(), 1000) == 1
        assert await log.purge(clock.wall_ms(), 1000) == 0
        assert set(await statuses(log)) == set("bcde")
        there, elsewhere = await counts_of(log), await counts_of(log, ELSEWHERE)
        assert (there.sent, there.purged, there.dead, there.pending) == (2, 1, 1, 1)
        assert (elsewhere.sent, elsewhere.purged, elsewhere.dead, elsewhere.pending) == (2, 1, 0, 2)
        assert ids(await deliver(log, [DELIVERED], ELSEWHERE)) == "c"


async def test_a_purge_goes_in_slices(log: SqliteLog, clock: FakeClock) -> None:
    """Each transaction deletes a limited number, oldest first."""
    await log.append(events("abcde", clock))
    await deliver(log)
    await clock.advance(1)
    assert [await log.purge(clock.wall_ms(), 2) for _ in range(2)] == [5, 0]
    counts = await counts_of(log)
    assert (counts.sent, counts.purged, counts.accepted) == (0, 5, 5)


async def purged_beside(log: SqliteLog, clock: FakeClock, new: int) -> tuple[int, int]:
    """Store new records, and within their transaction purge some of 1,000 that are settled.

    Returns how many were purged, and by how many pages the database grew.
    """
    await log.append([event(f"old-{number}", clock, properties=SOME) for number in range(1000)])
    while (await counts_of(log)).pending:
        await deliver(log)
    await clock.advance(1)
    ((before,),) = await executed(log, "PRAGMA page_count")

    async def purge_once() -> Purged:
        return cast(Purged, await log._commits.submit(Purge(clock.wall_ms(), 0, 1000)))

    records = [event(f"new-{number}", clock, properties=SOME) for number in range(new)]
    purged, _ = await asyncio.gather(purge_once(), log.append(records))
    ((pages,),) = await executed(log, "PRAGMA page_count")
    return purged.deleted, pages - before


@pytest.mark.parametrize(("new", "deleted"), [(1, 129), (100, 228), (990, 1000)])
async def test_beside_new_records_about_as_many_are_purged(
    log: SqliteLog, clock: FakeClock, new: int, deleted: int
) -> None:
    """Some more, and no more than it was told."""
    assert (await purged_beside(log, clock, new))[0] == deleted


async def test_new_records_take_the_pages_of_what_is_purged_beside_them(log: SqliteLog, clock: FakeClock) -> None:
    """Within their transaction, so that each of these pages is written once."""
    deleted, grown = await purged_beside(log, clock, 500)
    assert (deleted, grown) == (628, 0)


async def test_a_dead_letter_is_purged_once_it_is_dealt_with(log: SqliteLog, clock: FakeClock) -> None:
    """After its copy was delivered both go, and the dead letter still counts as resolved."""
    record = event("a", clock)
    ((offset, _),) = await log.append([record])
    await deliver(log, [BAD])
    await log.append([record._replace(replay_of=offset)])
    await deliver(log)
    await clock.advance(1)
    assert await log.purge(clock.wall_ms(), 1000) == 2
    counts = await counts_of(log)
    assert (counts.accepted, counts.purged, counts.resolved, counts.dead) == (2, 1, 1, 0)


async def test_a_destination_that_is_not_served_now_keeps_its_counts(tmp_path: Path, clock: FakeClock) -> None:
    """A purge while it is away leaves it with counts that make sense, whatever it had settled out of order."""
    async with open_log(tmp_path, clock, "there", "elsewhere") as log:
        await log.append(events("ab", clock))
        one = BatchPolicy(size=1, max_size=1)
        await log.fetch(ELSEWHERE, one)
        await log.settle(settlement(await log.fetch(ELSEWHERE, one), [DELIVERED]))
    async with open_log(tmp_path, clock) as log:
        await deliver(log)
        await clock.advance(1)
        await log.purge(clock.wall_ms(), 1000)
    async with open_log(tmp_path, clock, "there", "elsewhere") as log:
        counts = await counts_of(log, ELSEWHERE)
        batch = await log.fetch(ELSEWHERE, NOW, wait=False)
        assert counts.pending == len(batch.offsets)


async def test_an_offset_is_never_used_again(tmp_path: Path, clock: FakeClock) -> None:
    """An emptied log goes on counting after a restart; new records are above the cursor and are delivered."""
    async with open_log(tmp_path, clock) as log:
        last = (await log.append(events("abc", clock)))[-1].offset
        await deliver(log)
        await clock.advance(1)
        assert await log.purge(clock.wall_ms(), 1000) == 3
    async with open_log(tmp_path, clock) as log:
        ((offset, _),) = await log.append(events("d", clock))
        assert offset > last
        assert ids(await log.fetch(EVENTS, NOW)) == "d"


async def test_a_repeat_is_known_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    """A client that got no answer may ask the next process: with a time of its own, without one, or for a profile."""

    def request() -> list[Record]:
        now_ms = clock.wall_ms()
        update = profile_update(distinct_id="u", operation="$set", properties={}, update_id="p", now_ms=now_ms)
        return [event("timed", clock, time_ms=1_600_000_000_000), event("untimed", clock), update]

    async with open_log(tmp_path, clock) as log:
        first = await log.append(request())
    await clock.advance(60)
    async with open_log(tmp_path, clock) as log:
        assert await log.append(request()) == [appended._replace(duplicate=True) for appended in first]
        ((_, duplicate),) = await log.append([event("timed", clock, time_ms=1_600_000_000_001)])
        assert not duplicate


async def test_only_the_newest_ids_are_known_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    """The window is the same before and after."""
    async with open_log(tmp_path, clock, recent_window=2) as log:
        await log.append(events("abc", clock))
    async with open_log(tmp_path, clock, recent_window=2) as log:
        assert [appended.duplicate for appended in await log.append(events("cba", clock))] == [True, True, False]


async def test_after_a_restart_the_oldest_id_is_forgotten_first(tmp_path: Path, clock: FakeClock) -> None:
    """The window is in the order of the log, and a copy takes no place in it."""
    async with open_log(tmp_path, clock, recent_window=2) as log:
        *_, (offset, _) = await log.append(events("abc", clock))
        await log.append([event("c", clock)._replace(replay_of=offset, destination="there")])
    async with open_log(tmp_path, clock, recent_window=2) as log:
        known = [
            appended.duplicate for text in ("b", "d", "c", "b") for appended in await log.append(events(text, clock))
        ]
        assert known == [True, False, True, False]


async def test_the_view_for_people_tells_what_became_of_each_record(tmp_path: Path, clock: FakeClock) -> None:
    """Sent below the cursor and above it, pending, dead and replayed: each destination has its own answer."""
    async with open_log(tmp_path, clock, "there", "elsewhere") as log:
        records = events("abcde", clock)
        offsets = [offset for offset, _ in await log.append(records)]
        two = BatchPolicy(size=1, max_size=2)
        first, second = await log.fetch(EVENTS, two), await log.fetch(EVENTS, two)
        await log.settle(settlement(second, [DELIVERED, BAD]))
        assert "".join(await statuses(log)) == "abcde"
        assert list((await statuses(log)).values()) == ["pending", "pending", "sent", "dead", "pending"]
        await log.settle(settlement(first, [DELIVERED, RETRY]))
        await log.append([records[3]._replace(replay_of=offsets[3])])
        assert await statuses(log) == {
            "a": "sent",
            "b": "pending",
            "c": "sent",
            "d": "replayed",
            "e": "pending",
            "d+": "pending",
        }
        assert set((await statuses(log, "elsewhere")).values()) == {"pending"}


@pytest.fixture
async def patchwork(tmp_path: Path, clock: FakeClock) -> Path:
    """A stopped log with a pending, b and c sent, and between these two a record of another lane."""
    update = profile_update(distinct_id="u", operation="$set", properties={}, now_ms=clock.wall_ms())
    async with open_log(tmp_path, clock) as log:
        await log.append([*events("ab", clock), update, *events("c", clock)])
        one = BatchPolicy(size=1, max_size=1)
        _, second, third = [await log.fetch(EVENTS, one) for _ in range(3)]
        for batch in (second, third):
            await log.settle(settlement(batch, [DELIVERED]))
    await clock.advance(60)
    return tmp_path


async def test_what_was_settled_out_of_order_is_not_the_oldest_that_waits(patchwork: Path, clock: FakeClock) -> None:
    """After a restart the oldest pending record is one that is owed, never one that was sent."""
    async with open_log(patchwork, clock) as log:
        assert ids(await deliver(log)) == "a"
        await log.append(events("d", clock))
        assert (await counts_of(log)).oldest_pending_at_ms == clock.wall_ms()


async def test_what_was_settled_out_of_order_can_be_purged(patchwork: Path, clock: FakeClock) -> None:
    """Once all before it is settled too, nothing keeps it, although no new record comes."""
    async with open_log(patchwork, clock) as log:
        await deliver(log)
        assert await log.purge(clock.wall_ms(), 1000) == 3


async def test_a_backlog_is_asked_for_while_a_batch_is_settled(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts that are read while memory moves on never say that something waits which is settled already."""
    await log.append(events("ab", clock))
    batch = await log.fetch(EVENTS, NOW)
    reading, settled = threading.Event(), threading.Event()
    original = store.condition_of

    def slowly(connection: Connection, destination: str) -> Any:
        reading.set()
        settled.wait(10)
        return original(connection, destination)

    monkeypatch.setattr(store, "condition_of", slowly)
    asked = asyncio.create_task(log.backlog())
    await asyncio.to_thread(reading.wait, 10)
    await log.settle(settlement(batch, [DELIVERED] * 2))
    settled.set()
    counts = (await asked).destinations[0].lanes[0]
    assert (counts.pending, counts.in_flight) == (2, 2)


async def test_sizes_are_those_of_the_files(log: SqliteLog, clock: FakeClock) -> None:
    """What is committed is in the write-ahead log until it is checkpointed."""
    before, _ = log.sizes()
    await log.append(events("abc", clock))
    database, wal = log.sizes()
    assert database == before > 0
    assert wal > 0


async def test_what_was_noted_and_not_settled_is_held_at_the_next_start(
    tmp_path: Path, directory: Path, clock: FakeClock
) -> None:
    """After a crash in between, updates that count twice wait for a person; the others of the batch are owed again."""
    lane = Lane("there", Kind.PROFILE)
    operations = {"a": "$set", "b": "$add", "c": "$append", "d": "$unset", "e": "$add"}
    async with open_log(directory, clock) as log:
        for name, operation in operations.items():
            values: Any = ["n"] if operation == "$unset" else {"n": 1}
            fields = {"operation": operation, "properties": values, "update_id": name, "now_ms": clock.wall_ms()}
            await log.append([profile_update(distinct_id="u1", **fields)])
        first = await log.fetch(lane, replace(NOW, max_size=4))
        await log.intend(first)
        crashed = copied(log.path, tmp_path / "crashed")
        await log.settle(settlement(first, [DELIVERED] * 4))
        settled = copied(log.path, tmp_path / "settled")
    async with open_log(crashed.parent, clock) as log:
        counts = await counts_of(log, lane)
        assert (counts.pending, counts.sent, counts.dead, counts.held) == (3, 0, 2, 2)
        assert (await log.fetch(lane, NOW)).offsets == [1]
        assert (await log.fetch(lane, NOW)).offsets == [4, 5]
    async with open_log(settled.parent, clock) as log:
        counts = await counts_of(log, lane)
        assert (counts.pending, counts.sent, counts.held) == (1, 4, 0)
    async with open_log(crashed.parent, clock) as log:
        assert (await counts_of(log, lane)).held == 2


async def test_a_fetch_is_woken_only_when_its_batch_is_due_sooner(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first record, which begins its wait, and by the fiftieth; a look in between would delay each answer."""
    looks = 0
    next_due = log._progress.next_due

    def counted(*about: Any) -> tuple[float | None, bool]:
        nonlocal looks
        looks += 1
        return next_due(*about)

    monkeypatch.setattr(log._progress, "next_due", counted)
    fetching = asyncio.create_task(log.fetch(EVENTS, BatchPolicy()))
    for number in range(50):
        assert not fetching.done()
        await log.append([event(f"e{number}", clock)])
    assert len((await fetching).offsets) == 50
    assert looks == 3
