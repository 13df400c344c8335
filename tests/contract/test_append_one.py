"""Records that are made when their group is stored: one caller's mistake is no other caller's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from leftovers import left_by
from log_records import EVENTS, NOW, deliver, event, events, ids, open_log

from walbatch.errors import InvalidRecord
from walbatch.event import Record
from walbatch.testing.clock import FakeClock
from walbatch.wal import EventLog
from walbatch.wal.memory import MemoryLog
from walbatch.wal.sqlite import SqliteLog

INVALID = InvalidRecord("event.name", "REQUIRED", "is empty")


@pytest.fixture(params=["memory", "sqlite"])
async def any_log(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    """An open, empty log of each engine."""
    async with MemoryLog(["there"], clock) if request.param == "memory" else open_log(tmp_path, clock) as log:
        yield log


def failing(error: Exception) -> Callable[[], Record]:
    """What makes no record."""

    def make() -> Record:
        raise error

    return make


async def test_it_answers_the_record_and_where_it_is(any_log: EventLog, clock: FakeClock) -> None:
    """It is stored like one that was appended, and a repetition is told."""
    make = partial(event, "a", clock)
    record, first = await any_log.append_one(make, 100)
    again, second = await any_log.append_one(make, 100)
    assert record == again == event("a", clock)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.offset == second.offset
    assert ids(await any_log.fetch(EVENTS, NOW)) == "a"


@pytest.mark.parametrize("error", [INVALID, ZeroDivisionError("a mistake of ours")])
async def test_an_error_reaches_its_caller_only(any_log: EventLog, clock: FakeClock, error: Exception) -> None:
    """Whatever one record raises while it is made, the others of the group are stored, and so are later ones."""
    for names in "ab", "cd":
        answers = await asyncio.gather(
            any_log.append_one(partial(event, names[0], clock), 100),
            any_log.append_one(failing(error), 100),
            any_log.append(events(names[1], clock)),
            return_exceptions=True,
        )
        assert answers[1] is error
    assert ids(await any_log.fetch(EVENTS, NOW)) == "abcd"


async def test_what_an_erased_person_did_before_is_refused(any_log: EventLog, clock: FakeClock) -> None:
    """A record that is made after the erasure, of a time before it, is not stored."""
    assert isinstance(any_log, MemoryLog | SqliteLog)
    make = partial(event, "a", clock, distinct_id="gone", time_ms=clock.wall_ms() - 1)
    await any_log.bury(["gone"])
    with pytest.raises(InvalidRecord, match="erased") as caught:
        await any_log.append_one(make, 100)
    assert caught.value.reason == "ERASED"
    assert not (await any_log.fetch(EVENTS, NOW, wait=False)).offsets


async def test_what_was_stored_is_not_kept_in_memory(log: SqliteLog, clock: FakeClock) -> None:
    """No record, no batch and no group is left in a cycle, where it would stay until Python looks for cycles."""
    names = iter("abcdef")

    async def work() -> None:
        await log.append_one(partial(event, next(names), clock), 100)
        await log.append(events(next(names) + next(names), clock))
        await deliver(log)

    assert await left_by(work) == set()


async def test_a_group_is_not_kept_for_one_that_could_not_be_made(log: SqliteLog, clock: FakeClock) -> None:
    """An error that is one of its answers keeps nothing of it."""

    async def work() -> None:
        await asyncio.gather(
            log.append(events("ab", clock)),
            log.append_one(partial(event, "", clock), 100),
            log.append(events("cd", clock)),
            return_exceptions=True,
        )

    assert await left_by(work) == set()
