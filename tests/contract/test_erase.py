"""Erasing a person: what goes, what stays, and that nothing of it is in any file afterwards."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from log_records import EVENTS, NOW, counts_of, deliver, event, executed, ids, open_log, settlement
from person_log import MINE, fill, refused, update
from traces import files_with, secret_id

from walbatch import dead, replay
from walbatch.batching import BatchPolicy
from walbatch.clock import Clock, SystemClock
from walbatch.dead import Corrections
from walbatch.delivery import DELIVERED, RETRY, Outcome, Rejected
from walbatch.erasure import SCRUB_S, WAIT_S, Receipt, erase, plan
from walbatch.errors import BacklogFull, InvalidRecord
from walbatch.event import Kind, Offset, group_update, identity_link
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, dead_letters, driver, erasure, gaps, store
from walbatch.wal.admission import Limits
from walbatch.wal.dead_letters import Choice
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

PROFILES = Lane("there", Kind.PROFILE)
ELSEWHERE = Lane("elsewhere", Kind.EVENT)
ONE = BatchPolicy(size=1, max_size=1)


@pytest.fixture
def who() -> str:
    """The person to erase."""
    return secret_id()


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are so small that most erasures have several."""
    monkeypatch.setattr(erasure, "SLICE", 3)
    monkeypatch.setattr("walbatch.erasure.SLICE", 3)


async def erased(log: SqliteLog, clock: Clock, *people: str, delete_copies: bool = False) -> Receipt:
    """Erase people, and return the receipt."""
    receipt = Receipt(0)
    async for receipt in erase(log, clock, people, delete_copies=delete_copies):  # noqa: B007  the last one counts
        pass
    return receipt


async def test_every_trace_goes_and_the_rest_stays(directory: Path, clock: FakeClock, who: str) -> None:
    """Sent, dead, replayed, held, pending and long records go; counts add up, also after a restart; others go out."""
    async with open_log(directory, clock) as log:
        await fill(log, clock, who)
        assert files_with(directory, who)
        receipt = await erased(log, clock, who)
        assert files_with(directory, who) == []
        assert receipt.complete
        assert receipt.records == {"events": MINE - 1, "profiles": 1, "groups": 0}
        (share,) = receipt.destinations
        assert (share.sent, share.dead, share.held, share.resolved, share.pending) == (1, 2, 1, 1, 4)
        assert receipt.dead_letters == 3
        for _ in range(2):
            assert (await counts_of(log)).erased == MINE - 1
            assert (await counts_of(log, PROFILES)).erased == 1
        backlog = await log.backlog()
        assert backlog.pending_bytes == sum(log._admission.owed_bytes.values())
    assert files_with(directory, who) == []
    async with open_log(directory, clock) as log:
        assert await log.backlog() == backlog
        assert log._admission.owed_bytes["there"] == backlog.pending_bytes
        assert ids(await deliver(log)) == "i"
        assert len((await deliver(log, lane=PROFILES)).entries) == 1
        counts = await counts_of(log)
        assert (counts.pending, counts.sent, counts.dead, counts.held) == (0, 4, 0, 0)


async def test_what_is_not_of_the_person_stays(log: SqliteLog, clock: FakeClock) -> None:
    """Another property with the id, a longer id, and an update of a group stay; each spelling and link goes."""
    now_ms = clock.wall_ms()
    mine = [
        event("device", clock, distinct_id="", device_id="u1"),
        event("user", clock, distinct_id="x", user_id="u1"),
        identity_link(identified_id="y", anonymous_id="$device:u1", now_ms=now_ms),
        update("u1", clock),
    ]
    others = [
        event("friend", clock, distinct_id="u2", properties={"friend": "u1"}),
        event("longer", clock, distinct_id="u11"),
        group_update(group_key="company", group_id="u1", operation="$set", properties={}, now_ms=now_ms),
    ]
    await log.append(mine + others)
    assert (await plan(log, {"u1"})).erased == len(mine)
    receipt = await erased(log, clock, "u1")
    assert (receipt.erased, receipt.records) == (4, {"events": 3, "profiles": 1, "groups": 0})
    assert [entry.payload for entry in (await deliver(log)).entries] == [one.payload for one in others[:2]]
    assert len((await deliver(log, lane=Lane("there", Kind.GROUP))).entries) == 1


async def test_several_people_and_text_that_json_escapes(log: SqliteLog, clock: FakeClock) -> None:
    """Ids of any characters are found, in one pass for all of them; erasing twice is harmless."""
    people = ['say "hi"', "back\\slash", "Ünïcödé 人", "tab\tin"]
    await log.append([event(str(n), clock, distinct_id=one) for n, one in enumerate(people)])
    await log.append([event("other", clock, distinct_id="slash")])
    assert (await erased(log, clock, *people)).erased == len(people)
    again = await erased(log, clock, *people)
    assert (again.erased, again.complete) == (0, True)
    assert ids(await deliver(log)) == "other"


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


async def test_what_is_in_flight_is_awaited(directory: Path, clock: FakeClock, who: str) -> None:
    """It goes once it is settled, whatever the outcome; what nobody settles is left, and the receipt says so."""
    async with open_log(directory, clock) as log:
        await log.append([event(name, clock, distinct_id=who) for name in "abc"])
        sent, back, stuck = [await log.fetch(EVENTS, ONE) for _ in range(3)]
        running = asyncio.create_task(erased(log, clock, who))
        await clock.sleeper()
        assert (await counts_of(log)).erased == 0
        await log.settle(settlement(sent, [DELIVERED]))
        await log.settle(settlement(back, [RETRY]))
        assert not running.done()
        for _ in range(round(WAIT_S / 10)):
            await clock.sleeper()
            await clock.advance(10)
        receipt = await running
        assert (receipt.erased, receipt.in_flight, receipt.complete) == (2, 1, False)
        assert [(share.sent, share.pending) for share in receipt.destinations] == [(1, 1)]
        assert (await counts_of(log)).in_flight == 1
        log.release(stuck)
        assert (await erased(log, clock, who)).complete
        assert files_with(directory, who) == []
        counts = await counts_of(log)
        assert (counts.erased, counts.pending) == (3, 0)


async def test_a_fetch_under_way_hands_out_nothing_that_is_being_deleted(
    log: SqliteLog, clock: FakeClock, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the rows before they went: it reads again."""
    await log.append([event("a", clock, distinct_id=who), event("b", clock, distinct_id="u2")])
    read, go_on, reads = threading.Event(), threading.Event(), []
    inner = store.read_span

    def slow(*args: Any) -> Any:
        result = inner(*args)
        reads.append(len(result[0]))
        read.set()
        assert go_on.wait(30)
        return result

    monkeypatch.setattr(store, "read_span", slow)
    fetching = asyncio.create_task(log.fetch(EVENTS, NOW))
    await asyncio.to_thread(read.wait)
    deleting = asyncio.create_task(log.erase([Offset(1)]))
    while (await counts_on_disk(log)) == 0:
        pass
    go_on.set()
    await deleting
    assert ids(await fetching) == "b"
    assert reads == [2, 1]
    counts = await counts_of(log)
    assert (counts.pending, counts.in_flight, counts.erased) == (1, 1, 1)


async def counts_on_disk(log: SqliteLog) -> int:
    """How many were erased by what is committed; by a connection that is not busy."""
    return await log.read(lambda connection: store.lane_counts(connection, EVENTS).erased)


@pytest.fixture
async def gone(directory: Path, clock: FakeClock, who: str) -> AsyncIterator[SqliteLog]:
    """A log from which the person was erased, opened once more since then."""
    async with open_log(directory, clock) as log:
        await log.append([event("a", clock, distinct_id=who)])
        await clock.advance(1)
        await erased(log, clock, who)
    async with open_log(directory, clock) as log:
        yield log


async def test_what_comes_late_is_refused_and_what_is_new_is_taken(gone: SqliteLog, clock: FakeClock, who: str) -> None:
    """By the time of the record, after a restart as well; of an append with a late record nothing is stored."""
    late = event("late", clock, distinct_id=who, time_ms=clock.wall_ms() - 10)
    other = event("other", clock, distinct_id="u2", time_ms=clock.wall_ms() - 10)
    for record in (late, event("now", clock, distinct_id="u3", user_id=who)):
        assert gone.refusal(record) is not None
        with pytest.raises(InvalidRecord, match="erased at"):
            await gone.append([other, record])
    await clock.advance(1)
    back = event("back", clock, distinct_id=who)
    await gone.append([other, back])
    assert [entry.event_id for entry in (await deliver(gone)).entries] == ["other", "back"]


async def test_a_repeated_id_is_no_duplicate_of_what_was_erased(log: SqliteLog, clock: FakeClock, who: str) -> None:
    """The record is not there any more, so the answer does not say that it is."""
    (first, kept) = await log.append([event("a", clock, distinct_id=who), event("b", clock)])
    await erased(log, clock, who)
    await clock.advance(1)
    (again, known) = await log.append([event("a", clock, distinct_id=who), event("b", clock)])
    assert (again.duplicate, again.offset > first.offset) == (False, True)
    assert (known.duplicate, known.offset) == (True, kept.offset)


async def test_neither_replay_nor_correction_brings_anybody_back(log: SqliteLog, clock: FakeClock, who: str) -> None:
    """After an erasure that broke off behind its tombstone, copies are left out, and the others go on."""
    await log.append([event("a", clock, distinct_id=who), event("b", clock), event("c", clock, distinct_id=who)])
    await deliver(log, [DELIVERED, DELIVERED, refused(who)])
    await log.bury([who, "patched"])
    assert [done async for done in replay.replay(log, "there", Selection(), clock)] == [1]
    (progress,) = [one async for one in dead.replay(log, clock, "there", Choice())]
    assert (progress.replayed, [one.reason for one in progress.refused]) == (0, ["ERASED"])
    patch = Corrections({"properties": {"distinct_id": "patched"}})
    (progress,) = [one async for one in dead.replay(log, clock, "there", Choice(), patch)]
    assert (progress.replayed, [one.number for one in progress.refused]) == (0, [3])
    assert ids(await deliver(log)) == "b"
    assert (await erased(log, clock, who)).erased == 2


async def test_the_words_of_destinations_are_blanked(directory: Path, clock: FakeClock, who: str) -> None:
    """In the history of deliveries, in a destination's last error, in the letter of somebody else; nothing more."""
    condition = Condition(State.PAUSED, 1, None, f"401: {who} again")
    async with open_log(directory, clock) as log:
        await log.append([event("a", clock, distinct_id="u2"), event("b", clock, distinct_id="u2")])
        batch = await log.fetch(EVENTS, NOW)
        told = settlement(batch, [refused(who), Rejected(400, "f", f"x{who}x")], condition)
        await log.settle(replace(told, note=f"400: see {who}"))
        assert (await erased(log, clock, who)).blanked == 3
        (there,) = (await log.backlog()).destinations
        assert there.condition == replace(condition, last_error=erasure.BLANK)
        reasons = [one.reason for one in await log.read(reasons_of)]
        assert reasons == [erasure.BLANK, f"x{who}x"]
        assert (await counts_of(log)).dead == 2


def reasons_of(connection: driver.Connection) -> list[Any]:
    """The open letters."""
    return [one.key for one in dead_letters.letters(connection, "there", [1, 2])]


READER = """
import sys
from pathlib import Path
from walbatch.wal import driver
connection = driver.open_reader(Path(sys.argv[1]))
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM events").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""


async def test_somebody_who_reads_is_named(directory: Path, clock: FakeClock, who: str) -> None:
    """Their view of the database keeps SQLite's log; the receipt says who it is, and the next run finishes it."""
    async with open_log(directory, clock) as log:
        await log.append([event("a", clock, distinct_id=who)])
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READER, str(log.path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"reading\n"
        running = asyncio.create_task(erased(log, clock, who))
        await clock.sleeper()
        await clock.advance(SCRUB_S)
        receipt = await running
        assert (receipt.scrubbed, receipt.readers, receipt.complete) == (False, [reader.pid], False)
        assert files_with(directory, who)
        await reader.communicate(b"")
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


async def test_erasing_makes_room_below_the_limit(directory: Path, clock: FakeClock, who: str) -> None:
    """What is owed no more does not count, at once and after a restart; of two destinations each has its own counts."""
    size = len(event("a", clock, distinct_id=who).payload)
    limits = Limits(max_backlog_bytes=2 * size)
    async with open_log(directory, clock, "there", "elsewhere", limits=limits) as log:
        await log.append([event("a", clock, distinct_id=who), event("b", clock, distinct_id=who)])
        await deliver(log, [DELIVERED, RETRY], ELSEWHERE)
        with pytest.raises(BacklogFull):
            await log.append([event("c", clock)])
        receipt = await erased(log, clock, who)
        assert {share.name: (share.sent, share.pending) for share in receipt.destinations} == {
            "there": (0, 2),
            "elsewhere": (1, 1),
        }
        await log.append([event("c", clock)])
        owed = dict(log._admission.owed_bytes)
    async with open_log(directory, clock, "there", "elsewhere", limits=limits) as log:
        assert dict(log._admission.owed_bytes) == owed
        for lane in (EVENTS, ELSEWHERE):
            assert ids(await deliver(log, lane=lane)) == "c"
            assert (await counts_of(log, lane)).erased == 2


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
                    outcomes = [chance.choice(answers) for _ in batch.entries]
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


async def test_others_are_served_meanwhile(directory: Path, who: str) -> None:
    """Records of others that come and go out during an erasure are all there, and the database is sound."""
    clock, now = SystemClock(), FakeClock(SystemClock().wall_ms())
    async with SqliteLog(directory, ["there"], clock, allow_affected_sqlite=True) as log:
        await log.append([event(f"mine-{n}", now, distinct_id=who) for n in range(200)])
        running = asyncio.create_task(erased(log, clock, who))
        accepted = went_out = 0
        while not running.done():
            accepted += len(await log.append([event(f"u2-{accepted + n}", now) for n in range(5)]))
            if running.done():
                break
            batch = await log.fetch(EVENTS, BatchPolicy(max_size=3).at_once())
            went_out += sum(entry.event_id.startswith("u2") for entry in batch.entries)
            await log.settle(settlement(batch, [DELIVERED] * len(batch.entries)))
        assert (await running).complete
        assert accepted > 0
        assert (await counts_of(log)).erased == 200
        while (await counts_of(log)).pending:
            went_out += len((await deliver(log)).entries)
        assert went_out == accepted
        check = await log.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        assert check == [("ok",)]
        assert files_with(directory, who) == []
