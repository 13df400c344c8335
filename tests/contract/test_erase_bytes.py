"""What is left in the files after an erasure: no byte, or the receipt says where."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from log_records import ELSEWHERE, EVENTS, counts_of, deliver, event, executed, open_log, settlement
from long_reader import reading
from person_log import erased, fill, refused
from traces import files_with

from walbatch import dead
from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, RETRY, Outcome
from walbatch.erasure import SCRUB_S
from walbatch.testing.clock import FakeClock
from walbatch.wal import driver, gaps
from walbatch.wal.dead_letters import Choice
from walbatch.wal.sqlite import SqliteLog

pytestmark = pytest.mark.usefixtures("small_slices")


def without_secure_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted rows keep their bytes."""
    monkeypatch.setitem(driver._WRITER_PRAGMAS, "secure_delete", 0)


def without_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's log keeps the pages of before."""

    async def scrub(_: SqliteLog) -> bool:
        return True

    monkeypatch.setattr(SqliteLog, "scrub", scrub)


@pytest.mark.parametrize("left_out", [without_secure_delete, without_checkpoint])
async def test_the_search_finds_what_a_careless_deletion_leaves(
    directory: Path,
    clock: FakeClock,
    who: str,
    monkeypatch: pytest.MonkeyPatch,
    left_out: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Negative control: with one of the two left out, the receipt is the same and the bytes are still there."""
    left_out(monkeypatch)
    async with open_log(directory, clock) as log:
        await fill(log, clock, who)
        assert (await erased(log, clock, who)).complete
        assert files_with(directory, who)


async def test_somebody_who_reads_is_named(directory: Path, clock: FakeClock, who: str) -> None:
    """Their view of the database keeps SQLite's log; the receipt says who it is, and the next run finishes it."""
    async with open_log(directory, clock) as log:
        await log.append([event("a", clock, distinct_id=who)])
        with reading(log.path) as pid:
            running = asyncio.create_task(erased(log, clock, who))
            await clock.sleeper()
            await clock.advance(SCRUB_S)
            receipt = await running
            assert (receipt.scrubbed, receipt.readers, receipt.complete) == (False, [pid], False)
            assert files_with(directory, who)
        assert (await erased(log, clock, who)).complete
        assert files_with(directory, who) == []


async def test_copies_in_the_directory_are_named_or_deleted(directory: Path, clock: FakeClock, who: str) -> None:
    """Whatever looks like a database; a link is named, and neither followed nor deleted."""
    async with open_log(directory, clock) as log:
        await log.append([event("a", clock, distinct_id=who)])
        copies = [directory / "backups" / "monday.db", directory / "events.db.before-v3", directory / "rescued.db-wal"]
        copies[0].parent.mkdir()
        for path in copies:
            path.write_text(who)
        elsewhere = directory.parent / "elsewhere.db"
        elsewhere.write_text(who)
        (directory / "link.db").symlink_to(elsewhere)
        receipt = await erased(log, clock, who)
        assert receipt.copies == sorted(map(str, [*copies, directory / "link.db"]))
        assert (receipt.complete, receipt.copies_deleted) == (False, [])
        receipt = await erased(log, clock, who, delete_copies=True)
        assert receipt.copies_deleted == sorted(map(str, copies))
        assert (receipt.complete, receipt.copies) == (False, [str(directory / "link.db")])
        assert files_with(directory, who) == []
        assert elsewhere.read_text() == who


async def live(directory: Path, clock: FakeClock, who: str, seed: int) -> None:
    """Give a log a history: payloads of all sizes, letters, copies, purges and restarts move rows between pages."""
    chance = random.Random(seed)
    for life in range(3):
        async with open_log(directory, clock, "there", "elsewhere") as log:
            for step in range(12):
                records = []
                for n in range(chance.randrange(1, 40)):
                    distinct_id = who if chance.random() < 0.3 else f"u{n}"
                    text = f"{distinct_id} " * chance.choice([1, 3, 20, 60, 400])
                    records.append(event(f"{life}-{step}-{n}", clock, distinct_id=distinct_id, properties={"t": text}))
                await log.append(records)
                await clock.advance(1)
                for lane in (EVENTS, ELSEWHERE):
                    batch = await log.fetch(lane, BatchPolicy(max_size=chance.randrange(1, 60)).at_once())
                    answers: list[Outcome] = [DELIVERED, DELIVERED, refused(who), RETRY]
                    outcomes = [chance.choice(answers) for _ in batch.offsets]
                    await log.settle(settlement(batch, outcomes))
                if chance.random() < 0.3:
                    async for _ in dead.replay(log, clock, "there", Choice(limit=5)):
                        pass
                if chance.random() < 0.3:
                    await log.purge(clock.wall_ms() - 3000, 50)


@pytest.mark.parametrize("seed", [2, 3, 4])
async def test_no_bytes_are_left_in_a_log_with_a_history(
    directory: Path, clock: FakeClock, who: str, seed: int
) -> None:
    """Nothing is left in the gaps of pages either, and what is written afterwards does not bring it back."""
    await live(directory, clock, who, seed)
    async with open_log(directory, clock, "there", "elsewhere") as log:
        assert files_with(directory, who)
        assert (await erased(log, clock, who)).complete
        assert files_with(directory, who) == []
        check = await log.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        assert check == [("ok",)]
        await write_every_page(log)
        await log.append([event(f"later-{n}", clock) for n in range(50)])
        for lane in (EVENTS, ELSEWHERE):
            await deliver(log, lane=lane)
            await counts_of(log, lane)
    assert files_with(directory, who) == []


async def write_every_page(log: SqliteLog) -> None:
    """Change something in each row, and nothing in its length: its page is written as the writer has it in memory."""
    for change in (
        "UPDATE events SET received_at_ms = received_at_ms - 1",
        "UPDATE dead_letters SET at_ms = at_ms - 1",
    ):
        await executed(log, change)


@pytest.mark.parametrize("seed", [2, 3, 4])
async def test_pages_that_are_written_meanwhile_are_cleaned_as_well(
    directory: Path, clock: FakeClock, who: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in SQLite's log by the time the file was searched comes into the file with its old gaps."""
    await live(directory, clock, who, seed)
    loop = asyncio.get_running_loop()
    async with open_log(directory, clock, "there", "elsewhere") as log:

        def find(_: int) -> list[int]:
            asyncio.run_coroutine_threadsafe(write_every_page(log), loop).result(30)
            return []

        monkeypatch.setattr(gaps, "find", find)
        assert (await erased(log, clock, who)).complete
    assert files_with(directory, who) == []


@pytest.mark.parametrize("seed", [2, 3, 4])
async def test_rows_that_moved_leave_copies(
    directory: Path, clock: FakeClock, who: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with secure_delete and a checkpoint, but without the gaps, the same search finds them."""
    monkeypatch.setattr(gaps, "clean", lambda *_: 0)
    await live(directory, clock, who, seed)
    async with open_log(directory, clock, "there", "elsewhere") as log:
        assert (await erased(log, clock, who)).complete
        assert files_with(directory, who) == ["events.db"]
