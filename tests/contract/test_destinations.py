"""Several destinations in one log: what each is owed, from when on, under which name, and what is kept for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from log_records import BAD, NOW, counts_of, deliver, event, events, ids, insert_ids, open_log, settlement

from walbatch import replay
from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, RETRY
from walbatch.errors import BacklogFull, ConfigurationError
from walbatch.event import Kind, group_update, profile_update
from walbatch.retry import Condition, State
from walbatch.routing import EVERYTHING, Filter, Router
from walbatch.testing.clock import FakeClock
from walbatch.wal import EventLog, Lane
from walbatch.wal.admission import Limits
from walbatch.wal.memory import MemoryLog
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

A, B, C, D = (Lane(name, Kind.EVENT) for name in "abcd")
FILTERED = Router({"a": EVERYTHING, "b": Filter(only=["b*"]), "c": Filter(kinds=frozenset({Kind.PROFILE}))})
PICKY = Router({"a": Filter(never=["n"]), "b": Filter(only=["x"], kinds=frozenset({Kind.EVENT}))})

Make = Callable[[Path, FakeClock, Router, str], EventLog]
ENGINES: dict[str, Make] = {
    "memory": lambda _, clock, router, names: MemoryLog([*names], clock, router=router),
    "sqlite": lambda path, clock, router, names: open_log(path, clock, *names, router=router),
}


@pytest.fixture(params=ENGINES)
async def filtered(request: pytest.FixtureRequest, directory: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    """A log of each engine: a wants everything, b events whose names begin with b, c profiles."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(ENGINES[request.param](directory, clock, FILTERED, "abc"))


@pytest.fixture(params=ENGINES)
async def picky(request: pytest.FixtureRequest, directory: Path, clock: FakeClock) -> AsyncIterator[EventLog]:
    """A log of each engine in which nobody wants the event n."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(ENGINES[request.param](directory, clock, PICKY, "ab"))


async def pending(log: EventLog, lane: Lane) -> int:
    """Return what is owed to a lane."""
    return (await counts_of(log, lane)).pending


async def test_a_record_is_owed_to_those_that_want_it(filtered: EventLog, clock: FakeClock) -> None:
    """What a filter keeps back is neither counted nor handed out there, and does not hold up what comes after it."""
    names = ["x1", "b1", "x2", "x3", "b2", "x4"]
    await filtered.append([event(name, clock) for name in names])
    assert insert_ids((await deliver(filtered, lane=A)).payloads) == names
    assert insert_ids((await deliver(filtered, lane=B)).payloads) == ["b1", "b2"]
    assert not (await filtered.fetch(C, NOW, wait=False)).offsets
    a, b, c = [await counts_of(filtered, lane) for lane in (A, B, C)]
    assert [(lane.accepted, lane.sent, lane.pending) for lane in (a, b, c)] == [(6, 6, 0), (2, 2, 0), (0, 0, 0)]
    assert (await filtered.backlog()).accepted == 6


async def test_kinds_go_where_they_are_wanted(filtered: EventLog, clock: FakeClock) -> None:
    """An update is for those that take its kind, whatever they say about the names of events."""
    now_ms = clock.wall_ms()
    await filtered.append(
        [
            profile_update(distinct_id="u", operation="$set", properties={}, now_ms=now_ms),
            group_update(group_key="k", group_id="g", operation="$set", properties={}, now_ms=now_ms),
        ]
    )
    owed = {
        (name, kind) for name in "abc" for kind in Kind if (await counts_of(filtered, Lane(name, kind))).pending == 1
    }
    everything = {("a", Kind.PROFILE), ("a", Kind.GROUP), ("b", Kind.PROFILE), ("b", Kind.GROUP)}
    assert owed == everything | {("c", Kind.PROFILE)}


async def test_a_batch_is_due_by_what_is_wanted(filtered: EventLog, clock: FakeClock) -> None:
    """Neither the number nor the age of what is kept back makes a batch due."""
    policy = BatchPolicy(size=2, max_age_s=10)
    await filtered.append([event(f"x{n}", clock) for n in range(5)])
    await clock.advance(9)
    await filtered.append([event("b1", clock)])
    await clock.advance(9)
    assert not (await filtered.fetch(B, policy, wait=False)).offsets
    await clock.advance(1)
    assert insert_ids((await filtered.fetch(B, policy, wait=False)).payloads) == ["b1"]


async def test_bytes_are_those_of_the_destination_furthest_behind(filtered: EventLog, clock: FakeClock) -> None:
    """A record is stored once: what waits is not the sum over those that wait for it."""
    records = [event("b1", clock), event("x1", clock)]
    await filtered.append(records)
    assert (await filtered.backlog()).pending_bytes == sum(len(record.payload) for record in records)
    await deliver(filtered, lane=A)
    assert (await filtered.backlog()).pending_bytes == len(records[0].payload)
    await deliver(filtered, lane=B)
    assert (await filtered.backlog()).pending_bytes == 0


async def test_what_nobody_wants_is_stored_and_a_repeat_is_known(picky: EventLog, clock: FakeClock) -> None:
    """It is acknowledged and counted like any other record, and owed to nobody."""
    (first,) = await picky.append([event("n", clock)])
    (again,) = await picky.append([event("n", clock)])
    assert (again.offset, again.duplicate) == (first.offset, True)
    backlog = await picky.backlog()
    assert (backlog.accepted, backlog.pending_bytes) == (1, 0)
    assert all(lane.accepted == 0 for destination in backlog.destinations for lane in destination.lanes)


async def test_what_nobody_wants_is_purged_by_age(directory: Path, clock: FakeClock) -> None:
    """It needs no delivery to be deleted, and what is deleted counts for nobody."""
    async with open_log(directory, clock, "a", "b", router=PICKY) as log:
        await log.append([event(name, clock) for name in ("n", "x")])
        assert await log.purge(clock.wall_ms(), 10) == 0
        await clock.advance(1)
        assert await log.purge(clock.wall_ms(), 10) == 1
        assert (await counts_of(log, A)).purged == (await counts_of(log, B)).purged == 0
        assert (await log.backlog()).accepted == 2
        assert ids(await log.fetch(A, NOW)) == ids(await log.fetch(B, NOW)) == "x"


async def test_filters_hold_over_a_restart(directory: Path, clock: FakeClock) -> None:
    """A filter counts when a record is accepted: a later one changes nothing about what is in the log."""
    async with open_log(directory, clock, "a", "b", router=PICKY) as log:
        await log.append(events("nx", clock))
    turned = Router({"a": Filter(only=["n"]), "b": EVERYTHING})
    async with open_log(directory, clock, "a", "b", router=turned) as log:
        await log.append(events("y", clock))
        assert ids(await deliver(log, lane=A)) == "x"
        assert ids(await deliver(log, lane=B)) == "xy"
        assert not (await log.fetch(A, NOW, wait=False)).offsets


async def test_a_new_destination_begins_at_the_end_of_the_log(directory: Path, clock: FakeClock) -> None:
    """It is owed what is accepted from then on; what is older is none of its business, not even for a replay."""
    async with open_log(directory, clock, "a") as log:
        await log.append(events("xyz", clock))
        await deliver(log, [DELIVERED, BAD, RETRY], lane=A)
    for _ in range(2):
        async with open_log(directory, clock, "a", "b") as log:
            assert (await pending(log, A), await pending(log, B)) == (1, 0)
            assert (await replay.plan(log, "b", Selection())).count == 0
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("n", clock))
        assert ids(await deliver(log, lane=B)) == "n"
        assert ids(await deliver(log, lane=A)) == "zn"
        assert ((await counts_of(log, B)).accepted, (await counts_of(log, A)).accepted) == (1, 4)


async def test_a_new_destination_of_an_emptied_log_gets_what_comes(directory: Path, clock: FakeClock) -> None:
    """The end of a log of which everything was deleted is where it goes on, not where it began."""
    async with open_log(directory, clock, "a") as log:
        await log.append(events("xyz", clock))
        await deliver(log, lane=A)
        await clock.advance(1)
        assert await log.purge(clock.wall_ms(), 10) == 3
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("n", clock))
        assert ids(await deliver(log, lane=B)) == ids(await deliver(log, lane=A)) == "n"
        assert ((await counts_of(log, B)).accepted, (await counts_of(log, A)).accepted) == (1, 4)


async def test_a_renamed_destination_goes_on_where_it_was(directory: Path, clock: FakeClock) -> None:
    """Counts, what is owed, what was settled out of order, dead letters and the backoff go on under the new name."""
    held = Condition(State.OPEN, 7, clock.wall_ms() + 60_000, "503", clock.wall_ms())
    one = BatchPolicy(size=1, max_size=1)
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("uvwxyz", clock))
        await deliver(log, lane=B)
        await log.settle(settlement(await log.fetch(A, one), [DELIVERED]))
        await log.settle(settlement(await log.fetch(A, one), [BAD]))
        await log.fetch(A, one)
        await log.settle(settlement(await log.fetch(A, one), [DELIVERED], held))
    for _ in range(2):  # the second time the former name is one that the log does not know
        async with open_log(directory, clock, "c", "b", formerly={"c": "a"}) as log:
            counts = await counts_of(log, C)
            assert (counts.accepted, counts.sent, counts.dead, counts.pending) == (6, 2, 1, 3)
            conditions = {found.name: found.condition for found in (await log.backlog()).destinations}
            assert conditions == {"c": held, "b": Condition()}
            assert (await replay.plan(log, "c", Selection(status="dead"))).count == 1
    async with open_log(directory, clock, "c", "b") as log:
        assert ids(await deliver(log, lane=C)) == "w"  # the gap, then the end of the log
        assert ids(await deliver(log, lane=C)) == "yz"
        assert (await counts_of(log, C)).sent == 5


async def test_a_pause_goes_on_under_a_new_name(directory: Path, clock: FakeClock) -> None:
    """Whoever renames a destination does not start it by that."""
    async with open_log(directory, clock, "a") as log:
        await log.append(events("x", clock))
        await log.pause("a", 5)
    async with open_log(directory, clock, "c", formerly={"c": "a"}) as log:
        assert not (await log.fetch(C, NOW, wait=False)).offsets
        await log.pause("c", None)
        assert ids(await deliver(log, lane=C)) == "x"


async def test_a_former_name_that_is_not_known_is_no_matter(directory: Path, clock: FakeClock) -> None:
    """A new log, or one in which the name was taken over long ago: the key may stay in the file."""
    async with open_log(directory, clock, "c", formerly={"c": "a"}) as log:
        await log.append(events("x", clock))
        assert ids(await deliver(log, lane=C)) == "x"
    async with open_log(directory, clock, "c", "a") as log:
        assert (await counts_of(log, A)).accepted == 0
    async with open_log(directory, clock, "c", formerly={"c": "a"}) as log:
        assert (await counts_of(log, C)).sent == 1


async def test_a_destination_that_comes_back_gets_what_it_is_owed(directory: Path, clock: FakeClock) -> None:
    """What waited for it when it went, and what was accepted for all in between, is still there."""
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("xy", clock))
        await deliver(log, [DELIVERED, RETRY], lane=B)
    async with open_log(directory, clock, "a") as log:
        await log.append(events("z", clock))
        assert ids(await deliver(log, lane=A)) == "xyz"
    async with open_log(directory, clock, "a", "b") as log:
        assert await pending(log, B) == 2
        assert ids(await deliver(log, lane=B)) == "yz"
        counts = await counts_of(log, B)
        assert (counts.accepted, counts.sent, counts.pending) == (3, 3, 0)


async def test_what_others_filter_is_still_owed_to_one_that_is_away(directory: Path, clock: FakeClock) -> None:
    """A filter is about its own destination: who is not configured at the moment gets everything later."""
    async with open_log(directory, clock, "a", "b"):
        pass
    router = Router({"a": EVERYTHING, "c": Filter(never=["x"])})
    async with open_log(directory, clock, "a", "c", router=router) as log:
        await log.append(events("xyz", clock))
        assert ids(await deliver(log, lane=C)) == "yz"
    async with open_log(directory, clock, "a", "b") as log:
        assert ids(await deliver(log, lane=B)) == "xyz"


async def test_a_destination_that_comes_back_too_late_has_no_debts(directory: Path, clock: FakeClock) -> None:
    """The retention does not wait for who is not served: what was deleted counts as purged, and nothing is stuck."""
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("xy", clock))
        await deliver(log, [BAD, RETRY], lane=B)
    async with open_log(directory, clock, "a") as log:
        await log.append(events("z", clock))
        await deliver(log, lane=A)
        await clock.advance(1)
        assert await log.purge(clock.wall_ms(), 10) == 2, "the record with the dead letter stays"
        await log.append(events("n", clock))
    async with open_log(directory, clock, "a", "b", limits=Limits(max_backlog_bytes=1000)) as log:
        counts = await counts_of(log, B)
        assert (counts.accepted, counts.purged, counts.dead, counts.pending) == (4, 2, 1, 1)
        assert ids(await deliver(log, lane=B)) == "n"
        await deliver(log, lane=A)
        assert (await log.backlog()).pending_bytes == 0


async def test_nothing_is_purged_that_one_still_needs(directory: Path, clock: FakeClock) -> None:
    """One that is down keeps what it is owed for as long as it takes; once it has caught up, it goes."""
    async with open_log(directory, clock, "a", "b", "c", router=FILTERED) as log:
        await log.append([event(name, clock) for name in ("b1", "x1", "b2")])
        await deliver(log, lane=A)
        await deliver(log, [RETRY, RETRY], lane=B)
        await clock.advance(1_000_000)
        assert await log.purge(clock.wall_ms(), 10) == 1, "b does not want x1"
        assert await pending(log, B) == 2
        await deliver(log, [DELIVERED, RETRY], lane=B)
        assert await log.purge(clock.wall_ms(), 10) == 1
        await deliver(log, lane=B)
        assert await log.purge(clock.wall_ms(), 10) == 1
        a, b = await counts_of(log, A), await counts_of(log, B)
        assert (a.accepted, a.purged, b.accepted, b.purged) == (3, 3, 2, 2)


async def test_an_open_dead_letter_of_one_keeps_the_record(directory: Path, clock: FakeClock) -> None:
    """Whoever has to decide finds the record, however long the others have had it."""
    async with open_log(directory, clock, "a", "b") as log:
        ((offset, _),) = await log.append(events("x", clock))
        await deliver(log, lane=A)
        await deliver(log, [BAD], lane=B)
        await clock.advance(1_000_000)
        assert await log.purge(clock.wall_ms(), 10) == 0
        assert await log.discard("a", [offset]) == 0
        assert await log.discard("b", [offset]) == 1
        assert await log.purge(clock.wall_ms(), 10) == 1
        assert (await counts_of(log, A)).purged == (await counts_of(log, B)).resolved == 1


async def test_the_limit_is_for_the_one_furthest_behind(directory: Path, clock: FakeClock) -> None:
    """Three that wait for the same record need room for one; who is behind is named, over a restart too."""
    size = len(event("x", clock).payload)
    limits = Limits(max_backlog_bytes=2 * size)
    async with open_log(directory, clock, "a", "b", "c", limits=limits) as log:
        await log.append(events("x", clock))
        await log.append(events("y", clock))
        await deliver(log, lane=A)
        await deliver(log, lane=C)
        with pytest.raises(BacklogFull, match=f"{2 * size}B wait for delivery to b; the limit is {2 * size}B"):
            await log.append(events("z", clock))
    async with open_log(directory, clock, "a", "b", "c", limits=limits) as log:
        with pytest.raises(BacklogFull, match="to b"):
            await log.append(events("z", clock))
        await deliver(log, lane=B)
        await log.append(events("z", clock))
    async with open_log(directory, clock, "a", "c", limits=Limits(max_backlog_bytes=size)) as log:
        await deliver(log, lane=A)
        with pytest.raises(BacklogFull, match="to c"):
            await log.append(events("n", clock))
    async with open_log(directory, clock, "a", limits=Limits(max_backlog_bytes=size)) as log:
        await log.append(events("n", clock))
        assert await pending(log, A) == 1, "who was taken out of the file refuses nothing"


async def test_what_is_kept_back_needs_no_room(directory: Path, clock: FakeClock) -> None:
    """A destination that is down is not pushed to the limit by what it does not want."""
    limits = Limits(max_backlog_bytes=len(event("b1", clock).payload) + 1)
    async with open_log(directory, clock, "a", "b", "c", router=FILTERED, limits=limits) as log:
        await log.append([event("b1", clock)])
        for n in range(5):
            await deliver(log, lane=A)
            await log.append([event(f"x{n}", clock)])
        assert await pending(log, B) == 1


async def test_a_log_has_63_destinations_at_most(directory: Path, clock: FakeClock) -> None:
    """The last one gets its own records like the first; one more is refused, and the log goes on without it."""
    names = [f"d{n}" for n in range(63)]
    chosen = Router({name: Filter(only=[name]) for name in names})
    async with open_log(directory, clock, *names[:62]):
        pass
    async with open_log(directory, clock, *names, router=chosen) as log:
        await log.append([event(name, clock) for name in names])
        for name in names:
            batch = await deliver(log, lane=Lane(name, Kind.EVENT))
            assert insert_ids(batch.payloads) == [name]
        await clock.advance(1)
        assert await log.purge(clock.wall_ms(), 100) == 63
    with pytest.raises(ConfigurationError, match="new: this log has had 63 destinations, which is"):
        await open_log(directory, clock, "new").__aenter__()
    async with open_log(directory, clock, "new", formerly={"new": "d62"}) as log:
        assert (await counts_of(log, Lane("new", Kind.EVENT))).purged == 1


async def test_a_refusal_changes_nothing(directory: Path, clock: FakeClock) -> None:
    """Of several new destinations of which one is too many, none is added."""
    async with open_log(directory, clock, *[f"d{n}" for n in range(62)]):
        pass
    with pytest.raises(ConfigurationError):
        await open_log(directory, clock, "new1", "new2").__aenter__()
    async with open_log(directory, clock, "new2") as log:
        assert [found.name for found in (await log.backlog()).destinations] == ["new2"]


async def test_a_copy_goes_to_one_alone(directory: Path, clock: FakeClock) -> None:
    """A replay at one destination is owed and counted there and nowhere else, whatever the filters say by then."""
    async with open_log(directory, clock, "a", "b") as log:
        await log.append(events("xy", clock))
        for lane in (A, B):
            await deliver(log, lane=lane)
    async with open_log(directory, clock, "a", "b", router=Router({"a": EVERYTHING, "b": Filter(never=["*"])})) as log:
        assert [done async for done in replay.replay(log, "b", Selection(event="y"), clock)] == [1]
        assert (await pending(log, A), await pending(log, B)) == (0, 1)
        assert ids(await deliver(log, lane=B)) == "y"
        assert ((await counts_of(log, A)).accepted, (await counts_of(log, B)).accepted) == (2, 3)


async def test_one_that_waits_keeps_nobody_waiting(directory: Path, clock: FakeClock) -> None:
    """What one has in flight, or gave back, is handed out to the others as ever."""
    log: SqliteLog
    async with open_log(directory, clock, "a", "b", "d") as log:
        await log.append(events("xy", clock))
        await log.fetch(A, NOW)
        await deliver(log, [RETRY, RETRY], lane=B)
        assert ids(await deliver(log, lane=D)) == "xy"
        await log.append(events("z", clock))
        assert ids(await deliver(log, lane=D)) == "z"
        assert [await pending(log, lane) for lane in (A, B, D)] == [3, 3, 0]


async def test_a_lane_does_not_read_what_is_for_others(directory: Path, clock: FakeClock) -> None:
    """Its position moves on with the log, so a rare record is found at once, and nothing is held back from a purge."""
    router = Router({"a": EVERYTHING, "b": Filter(only=["rare"])})
    async with open_log(directory, clock, "a", "b", router=router) as log:
        await log.append([event(f"x{n}", clock) for n in range(50)])
        await log.append([event("rare", clock)])
        assert log._progress.states[B].position.watermark == 50
        assert ids(await deliver(log, lane=B)) == "rare"
        await log.append([event(f"y{n}", clock) for n in range(50)])
    async with open_log(directory, clock, "a", "b", router=router) as log:
        assert log._progress.states[B].position.watermark == 101


async def test_a_copy_stands_for_nothing_else(directory: Path, clock: FakeClock) -> None:
    """A new record with the id of a copy in the same commit is stored: the copy may be for one destination only."""
    async with open_log(directory, clock, "a", "b", recent_window=1) as log:
        (first,) = await log.append([event("x", clock)])
        await log.append([event("other", clock)])
        copy = event("x", clock)._replace(replay_of=first.offset, destination="a")
        answers = await asyncio.gather(log.append([copy]), log.append([event("x", clock)]))
        assert [one.duplicate for (one,) in answers] == [False, False]
        assert insert_ids((await log.fetch(B, NOW)).payloads) == ["x", "other", "x"]
