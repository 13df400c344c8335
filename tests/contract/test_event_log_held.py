"""What `EventLog` promises of pauses and flushes, for every engine."""

from __future__ import annotations

import asyncio

import pytest
from log_records import EVENTS, NOW, PROFILES, counts_of, event, ids_of, settle_all, settlement, update

from walbatch.batching import BatchPolicy
from walbatch.delivery import RETRY
from walbatch.event import Kind
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import EventLog, Lane


@pytest.fixture
def log(either: EventLog) -> EventLog:
    """Each engine in turn."""
    return either


async def paused_at(log: EventLog) -> dict[str, int | None]:
    """Since when each destination is paused."""
    return {d.name: d.paused_at_ms for d in (await log.backlog()).destinations}


async def test_a_paused_destination_is_handed_nothing(log: EventLog, clock: FakeClock) -> None:
    """Not of what waited, nor of what comes, in no lane; the other destination gets everything, and nothing is lost."""
    await log.append([event("a", clock), update(Kind.PROFILE, "p", clock)])
    assert await log.pause("there", 5)
    await log.append([event("b", clock)])
    for lane in (EVENTS, PROFILES):
        assert not (await log.fetch(lane, NOW, wait=False)).offsets
    assert ids_of(await log.fetch(Lane("elsewhere", Kind.EVENT), NOW)) == ["a", "b"]
    assert await paused_at(log) == {"there": 5, "elsewhere": None}
    assert (await counts_of(log, EVENTS)).pending == 2
    assert await log.pause("there", None)
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["a", "b"]
    assert await paused_at(log) == {"there": None, "elsewhere": None}


async def test_a_second_pause_leaves_the_time_of_the_first(log: EventLog) -> None:
    """Since when it is so is what a person wants to know; the answers say whether anything changed."""
    changed = [await log.pause("there", at_ms) for at_ms in (None, 5, 6, None, None)]
    assert changed == [False, True, False, True, False]
    await log.pause("there", 7)
    await log.pause("there", 8)
    assert (await paused_at(log))["there"] == 7


async def test_a_fetch_that_waits_is_held_by_a_pause_and_woken_by_its_end(log: EventLog, clock: FakeClock) -> None:
    """What became due meanwhile is handed out at once, without a further wait."""
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    await log.append([event("a", clock)])
    await clock.sleeper(5)
    await log.pause("there", 5)
    await clock.advance(60)
    assert not fetch.done()
    await log.pause("there", None)
    assert ids_of(await asyncio.wait_for(fetch, 10)) == ["a"]


async def test_what_is_in_flight_is_settled_during_a_pause(log: EventLog, clock: FakeClock) -> None:
    """A request under way comes to its end, whatever it is; what is given back waits for the resume."""
    await log.append([event("a", clock), event("b", clock)])
    first, second = [await log.fetch(EVENTS, BatchPolicy(max_size=1).at_once()) for _ in range(2)]
    await log.pause("there", 5)
    await settle_all(log, first)
    condition = Condition(State.RETRYING, 1, 9, "503", 8)
    await log.settle(settlement(second, [RETRY], condition))
    assert not (await log.fetch(EVENTS, NOW, wait=False)).offsets
    assert (await log.backlog()).destinations[0].condition == condition
    assert await paused_at(log) == {"there": 5, "elsewhere": None}
    await log.pause("there", None)
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["b"]


async def test_what_waits_can_be_made_due_once(log: EventLog, clock: FakeClock) -> None:
    """Of every lane of that destination, what is in flight apart; what comes later waits as ever."""
    await log.append([event("a", clock)])
    await log.fetch(EVENTS, NOW)
    await log.append([event("b", clock), event("c", clock), update(Kind.PROFILE, "p", clock)])
    assert log.make_due("there") == 3
    assert ids_of(await log.fetch(EVENTS, BatchPolicy(), wait=False)) == ["b", "c"]
    assert len((await log.fetch(PROFILES, BatchPolicy(), wait=False)).offsets) == 1
    assert not (await log.fetch(Lane("elsewhere", Kind.EVENT), BatchPolicy(), wait=False)).offsets
    await log.append([event("d", clock)])
    assert not (await log.fetch(EVENTS, BatchPolicy(), wait=False)).offsets
    assert log.make_due("there") == 1


async def test_making_nothing_due_does_not_hurry_what_comes(log: EventLog, clock: FakeClock) -> None:
    """It is for what waits at that moment."""
    assert log.make_due("there") == 0
    assert not (await log.fetch(EVENTS, BatchPolicy(), wait=False)).offsets
    await log.append([event("a", clock)])
    assert not (await log.fetch(EVENTS, BatchPolicy(), wait=False)).offsets


async def test_a_fetch_that_waits_is_woken_when_it_is_made_due(log: EventLog, clock: FakeClock) -> None:
    """Nobody waits for the rest of the interval."""
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    await log.append([event("a", clock)])
    await clock.sleeper(5)
    assert log.make_due("there") == 1
    assert ids_of(await asyncio.wait_for(fetch, 10)) == ["a"]


async def test_what_is_made_due_during_a_pause_is_due_after_it(log: EventLog, clock: FakeClock) -> None:
    """A flush does not break a pause."""
    await log.append([event("a", clock)])
    await log.pause("there", 5)
    assert log.make_due("there") == 1
    assert not (await log.fetch(EVENTS, BatchPolicy(), wait=False)).offsets
    await log.pause("there", None)
    assert ids_of(await log.fetch(EVENTS, BatchPolicy(), wait=False)) == ["a"]
