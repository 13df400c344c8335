"""Nobody comes back after an erasure: late records, repeated ids, replays and corrections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from log_records import deliver, event, ids, insert_ids, open_log
from person_log import erased, refused

from walbatch import dead, replay
from walbatch.dead import Corrections
from walbatch.delivery import DELIVERED
from walbatch.errors import InvalidRecord
from walbatch.testing.clock import FakeClock
from walbatch.wal.dead_letters import Choice
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

pytestmark = pytest.mark.usefixtures("small_slices")


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
    assert insert_ids((await deliver(gone)).payloads) == ["other", "back"]


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
