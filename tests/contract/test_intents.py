"""What must not be sent twice, noted before it is sent: after crashes, renames and purges in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from log_records import NOW, copied, counts_of, deliver, open_log, settlement

from walbatch.delivery import DELIVERED
from walbatch.event import Kind, Record, profile_update
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane

A, B = Lane("a", Kind.PROFILE), Lane("b", Kind.PROFILE)


def update(operation: str, name: str, clock: FakeClock) -> Record:
    """An update of one profile; its id is its name."""
    values: Any = ["n"] if operation == "$unset" else {"n": 1}
    return profile_update(
        distinct_id="u1", operation=operation, properties=values, update_id=name, now_ms=clock.wall_ms()
    )


@pytest.fixture
async def crashed(tmp_path: Path, directory: Path, clock: FakeClock) -> Path:
    """The directory of a log that was killed while b was sent x ($set), y ($add) and z ($add); a has them all."""
    async with open_log(directory, clock, "a", "b") as log:
        await log.append([update("$set", "x", clock), update("$add", "y", clock), update("$add", "z", clock)])
        await deliver(log, lane=A)
        await log.intend(await log.fetch(B, NOW))
        return copied(log.path, tmp_path / "crashed").parent


async def test_a_renamed_destination_holds_what_it_was_being_sent(crashed: Path, clock: FakeClock) -> None:
    """The note goes with the name, and the former name is free for something that has nothing to do with it."""
    async with open_log(crashed, clock, "a", "c", formerly={"c": "b"}) as log:
        counts = await counts_of(log, Lane("c", Kind.PROFILE))
        assert (counts.pending, counts.held) == (1, 2)
    async with open_log(crashed, clock, "a", "b", "c") as log:
        counts = await counts_of(log, B)
        assert (counts.accepted, counts.pending, counts.held) == (0, 0, 0)


async def test_notes_of_what_was_purged_are_forgotten(crashed: Path, clock: FakeClock) -> None:
    """A destination that was away while its records were deleted comes back, at every start, with nothing held."""
    async with open_log(crashed, clock, "a") as log:
        await clock.advance(10)
        assert await log.purge(clock.wall_ms(), 2) == 3
    for _ in range(2):
        async with open_log(crashed, clock, "a", "b") as log:
            counts = await counts_of(log, B)
            assert (counts.pending, counts.held, counts.purged) == (0, 0, 3)


async def test_what_is_held_can_be_told_from_what_is_sent_again(crashed: Path, clock: FakeClock) -> None:
    """What can be repeated is; the next start finds no note any more."""
    for _ in range(2):
        async with open_log(crashed, clock, "a", "b") as log:
            counts = await counts_of(log, B)
            assert (counts.pending, counts.held) == (1, 2)
            batch = await log.fetch(B, NOW)
            assert batch.offsets == [1]
    async with open_log(crashed, clock, "a", "b") as log:
        batch = await log.fetch(B, NOW)
        await log.settle(settlement(batch, [DELIVERED]))
        assert (await counts_of(log, B)).pending == 0
