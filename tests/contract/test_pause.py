"""A pause on disk: it outlives the process, and nothing that is owed is lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from log_records import EVENTS, NOW, counts_of, deliver, event, events, ids, open_log, settlement
from structlog.testing import capture_logs

from walbatch.delivery import RETRY
from walbatch.retry import Condition, State
from walbatch.service import _tell_waiting
from walbatch.testing.clock import FakeClock
from walbatch.wal.admission import Limits
from walbatch.wal.sqlite import SqliteLog


async def test_it_is_kept_over_a_restart(directory: Path, clock: FakeClock) -> None:
    """With its beginning, beside the destination's condition; whoever starts the server does not start delivery."""
    condition = Condition(State.OPEN, 7, clock.wall_ms(), "503", clock.wall_ms() - 5000)
    async with open_log(directory, clock) as log:
        await log.append(events("ab", clock))
        await log.settle(settlement(await log.fetch(EVENTS, NOW), [RETRY, RETRY], condition))
        await log.pause("there", 5)
    for _ in range(2):
        async with open_log(directory, clock) as log:
            (there,) = (await log.backlog()).destinations
            assert (there.paused_at_ms, there.condition) == (5, condition)
            assert not (await log.fetch(EVENTS, NOW, wait=False)).offsets
    async with open_log(directory, clock) as log:
        await log.pause("there", None)
        assert ids(await deliver(log)) == "ab"


async def test_what_is_owed_to_a_paused_destination_is_not_purged(directory: Path, clock: FakeClock) -> None:
    """However old it gets; what the other one has had goes once both have."""
    async with open_log(directory, clock, "there", "elsewhere") as log:
        await log.pause("there", 5)
        await log.append(events("abc", clock))
        await deliver(log, lane=EVENTS._replace(destination="elsewhere"))
        await clock.advance(10_000_000)
        assert await log.purge(clock.wall_ms(), 10) == 0
        await log.pause("there", None)
        assert ids(await deliver(log)) == "abc"
        assert await log.purge(clock.wall_ms(), 10) == 3


async def test_intake_goes_on_up_to_the_limit_of_the_backlog(directory: Path, clock: FakeClock) -> None:
    """The limit is that of any backlog, and ends with it."""
    async with open_log(directory, clock, limits=Limits(max_backlog_bytes=1000)) as log:
        await log.pause("there", 5)
        while log.refusing() is None:
            await log.append([event(str((await counts_of(log)).accepted), clock)])
        assert (await counts_of(log)).pending > 5
        await log.pause("there", None)
        await deliver(log)
        assert log.refusing() is None


async def test_a_read_under_way_is_held_by_a_pause(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the pause has been answered nothing more is handed out, not even what was being read at that moment."""
    await log.append(events("ab", clock))
    ask = log._fetching._ask

    async def paused_meanwhile(*args: object) -> object:
        found: object = await ask(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(log._fetching, "_ask", ask)
        await log.pause("there", 5)
        return found

    monkeypatch.setattr(log._fetching, "_ask", paused_meanwhile)
    assert not (await log.fetch(EVENTS, NOW, wait=False)).offsets
    assert (await counts_of(log)).in_flight == 0
    await log.pause("there", None)
    assert ids(await deliver(log)) == "ab"


async def test_a_read_under_way_and_a_flush_hand_out_nothing_twice(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being read goes out, and what comes behind it is due as well."""
    await log.append(events("ab", clock))
    ask = log._fetching._ask

    async def flushed_meanwhile(*args: object) -> object:
        found: object = await ask(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(log._fetching, "_ask", ask)
        await log.append(events("c", clock))
        assert log.make_due("there") == 3
        return found

    monkeypatch.setattr(log._fetching, "_ask", flushed_meanwhile)
    assert ids(await deliver(log)) == "ab"
    assert ids(await deliver(log)) == "c"
    counts = await counts_of(log)
    assert (counts.sent, counts.pending) == (3, 0)


async def test_a_start_tells_of_a_pause(log: SqliteLog, clock: FakeClock) -> None:
    """Whoever reads the server's log learns why nothing goes out."""
    await log.append(events("a", clock))
    await log.pause("there", clock.wall_ms())
    with capture_logs() as lines:
        await _tell_waiting(log, {"there": None})  # type: ignore[dict-item]
    (line,) = lines
    assert (line["event"], line["destination"], line["pending"]) == ("service.destination_paused", "there", 1)
    assert line["since"] == "2023-11-14T22:13:20.000Z"
