"""One suite for every engine: what `EventLog` promises. An engine has no private semantics."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from log_records import EVENTS, NOW, PROFILES, counts_of, event, ids_of, settle_all, settlement, update

from walbatch.batching import BatchPolicy
from walbatch.delivery import DELIVERED, RETRY, Rejected, Unknown
from walbatch.event import Kind, profile_update
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import EventLog, Lane


@pytest.fixture
def log(either: EventLog) -> EventLog:
    """Each engine in turn."""
    return either


async def test_records_come_back_in_order_with_their_exact_payload(log: EventLog, clock: FakeClock) -> None:
    """What was appended is handed out oldest first, byte for byte."""
    records = [event(f"e{n}", clock, properties={"n": n, "text": "Ærøskøbing 🌋"}) for n in range(5)]
    appended = await log.append(records[:2]) + await log.append(records[2:])
    batch = await log.fetch(EVENTS, NOW)
    assert list(batch.payloads) == [record.payload for record in records]
    assert list(batch.offsets) == [a.offset for a in appended]
    assert sorted({a.offset for a in appended}) == [a.offset for a in appended]


async def test_a_repeated_id_is_stored_once(log: EventLog, clock: FakeClock) -> None:
    """The second append of an id answers with the first one's offset, also within one call."""
    first, twin = await log.append([event("e", clock), event("e", clock)])
    await clock.advance(3)
    (again,) = await log.append([event("e", clock)])
    assert (first.duplicate, twin.duplicate, again.duplicate) == (False, True, True)
    assert first.offset == twin.offset == again.offset
    assert (await counts_of(log, EVENTS)).accepted == 1


async def test_a_repeat_by_a_sender_whose_clock_is_ahead_is_a_duplicate(log: EventLog, clock: FakeClock) -> None:
    """A time ahead becomes the time of acceptance, which differs each time; the repeat is recognised all the same."""
    ahead = clock.wall_ms() + 60_000
    (first,) = await log.append([event("e", clock, time_ms=ahead)])
    await clock.advance(3)
    (again,) = await log.append([event("e", clock, time_ms=ahead)])
    assert again.duplicate
    assert again.offset == first.offset


@pytest.mark.parametrize(
    "other",
    [{"name": "other"}, {"distinct_id": "u2"}, {"time_ms": 1_600_000_000_000}],
    ids=["another name", "another user", "another time"],
)
async def test_the_same_id_for_something_else_is_kept(
    log: EventLog, clock: FakeClock, other: dict[str, object]
) -> None:
    """An id that is used again for another event never hides that event."""
    await log.append([event("e", clock)])
    (second,) = await log.append(
        [event(str(other.get("name", "e")), clock, event_id="e", **{k: v for k, v in other.items() if k != "name"})]
    )
    assert not second.duplicate
    assert (await counts_of(log, EVENTS)).accepted == 2


async def test_a_batch_tells_when_its_oldest_record_was_received(log: EventLog, clock: FakeClock) -> None:
    """Also when that was given back and is handed out again."""
    received_at_ms = clock.wall_ms()
    await log.append([event("a", clock)])
    await clock.advance(5)
    await log.append([event("b", clock)])
    for _ in range(2):
        batch = await log.fetch(EVENTS, NOW)
        assert (ids_of(batch), batch.oldest_at_ms) == (["a", "b"], received_at_ms)
        log.release(batch)
    assert (await log.fetch(PROFILES, NOW, wait=False)).oldest_at_ms == 0


async def test_a_batch_is_due_at_its_size(log: EventLog, clock: FakeClock) -> None:
    """The last record of a full batch makes it due, without any wait."""
    policy = BatchPolicy(size=3)
    fetch = asyncio.ensure_future(log.fetch(EVENTS, policy))
    await log.append([event("a", clock), event("b", clock)])
    await clock.sleeper(policy.max_age_s)
    assert not fetch.done()
    await log.append([event("c", clock)])
    assert ids_of(await fetch) == ["a", "b", "c"]


async def test_a_later_arrival_does_not_restart_the_wait_of_the_oldest(log: EventLog, clock: FakeClock) -> None:
    """A batch is due ten seconds after its oldest record, whatever comes meanwhile."""
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    await log.append([event("a", clock)])
    assert await clock.sleeper(5) == pytest.approx(10)
    await clock.advance(9)
    await log.append([event("b", clock)])
    assert await clock.sleeper(0.5) == pytest.approx(1)
    await clock.advance(1)
    assert ids_of(await fetch) == ["a", "b"]


async def test_the_next_batch_waits_from_its_own_oldest(log: EventLog, clock: FakeClock) -> None:
    """What a full fetch left behind is due ten seconds after it arrived itself."""
    await log.append([event("a", clock)])
    await clock.advance(4)
    await log.append([event("b", clock)])
    await log.fetch(EVENTS, BatchPolicy(size=1, max_size=1))
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    assert await clock.sleeper(5) == pytest.approx(10)
    await clock.advance(10)
    assert ids_of(await fetch) == ["b"]


async def test_a_batch_grows_with_what_waits_up_to_its_limits(log: EventLog, clock: FakeClock) -> None:
    """When delivery is behind, a batch takes all that waits, but neither too many records nor too many bytes."""
    await log.append([event(f"e{n}", clock) for n in range(9)])
    assert ids_of(await log.fetch(EVENTS, BatchPolicy(size=2, max_size=5))) == ["e0", "e1", "e2", "e3", "e4"]
    two = 2 * (len(event("e0", clock).payload) + 1)
    assert ids_of(await log.fetch(EVENTS, BatchPolicy(size=2, max_bytes=two + 1))) == ["e5", "e6"]
    assert ids_of(await log.fetch(EVENTS, BatchPolicy(size=1, max_bytes=1))) == ["e7"]


@pytest.mark.parametrize("text", ["", "æøå", "🌋🌋"])
async def test_a_batch_is_measured_in_bytes(log: EventLog, clock: FakeClock, text: str) -> None:
    """A text that takes more bytes than it has characters fills a request sooner; the next batch is what was left."""
    records = [event(f"e{n}", clock, properties={"text": text}) for n in range(9)]
    await log.append(records)
    sizes = [len(record.payload.encode()) for record in records]
    limit = sum(sizes[:4]) + 4
    found = [await log.fetch(EVENTS, BatchPolicy(size=1, max_bytes=limit + more)) for more in (0, 1, 9999)]
    assert [len(batch.offsets) for batch in found] == [3, 4, 2]  # of the brackets only one is counted as a comma
    assert [size for batch in found for size in batch.sizes] == sizes


async def test_what_is_in_flight_is_not_handed_out_again(log: EventLog, clock: FakeClock) -> None:
    """Two fetches without a settle between them share nothing."""
    await log.append([event("a", clock), event("b", clock)])
    first = await log.fetch(EVENTS, BatchPolicy(size=1, max_size=1))
    second = await log.fetch(EVENTS, BatchPolicy(size=1, max_size=1))
    assert ids_of(first) + ids_of(second) == ["a", "b"]
    assert (await counts_of(log, EVENTS)).in_flight == 2


async def test_what_is_given_back_is_handed_out_again_first_and_at_once(log: EventLog, clock: FakeClock) -> None:
    """After `Retry` the oldest records come again, without a new wait, before newer ones."""
    await log.append([event("a", clock), event("b", clock)])
    batch = await log.fetch(EVENTS, NOW)
    await log.append([event("c", clock)])
    await log.settle(settlement(batch, [RETRY, RETRY]))
    again = await log.fetch(EVENTS, BatchPolicy())
    assert ids_of(again)[:2] == ["a", "b"]
    assert again.payloads[:2] == batch.payloads


async def test_a_batch_can_be_settled_in_part(log: EventLog, clock: FakeClock) -> None:
    """Delivered and rejected records are done with; exactly the others come again."""
    await log.append([event(name, clock) for name in "abcde"])
    batch = await log.fetch(EVENTS, NOW)
    bad = Rejected(400, "properties.time", "'properties.time' is invalid")
    await log.settle(settlement(batch, [DELIVERED, RETRY, bad, RETRY, DELIVERED]))
    counts = await counts_of(log, EVENTS)
    assert (counts.sent, counts.dead, counts.pending, counts.in_flight) == (2, 1, 2, 0)
    again: list[str] = []
    while len(again) < 2:
        batch = await log.fetch(EVENTS, NOW)
        again += ids_of(batch)
        await settle_all(log, batch)
    assert again == ["b", "d"]
    assert (await counts_of(log, EVENTS)).sent == 4


async def test_settling_twice_changes_nothing(log: EventLog, clock: FakeClock) -> None:
    """A settlement whose first answer was lost can be repeated."""
    await log.append([event("a", clock)])
    batch = await log.fetch(EVENTS, NOW)
    await settle_all(log, batch)
    await settle_all(log, batch)
    counts = await counts_of(log, EVENTS)
    assert (counts.sent, counts.pending) == (1, 0)


async def test_batches_can_be_settled_in_any_order(log: EventLog, clock: FakeClock) -> None:
    """A later batch that is answered first does not settle an earlier one."""
    await log.append([event(name, clock) for name in "abcd"])
    first = await log.fetch(EVENTS, BatchPolicy(size=1, max_size=2))
    second = await log.fetch(EVENTS, BatchPolicy(size=1, max_size=2))
    await settle_all(log, second)
    await log.settle(settlement(first, [RETRY, RETRY]))
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["a", "b"]


async def test_lanes_do_not_see_each_other(log: EventLog, clock: FakeClock) -> None:
    """Each kind and each destination has its own progress."""
    profile = profile_update(distinct_id="u1", operation="$set", properties={"a": 1}, now_ms=clock.wall_ms())
    await log.append([event("a", clock), profile, event("b", clock)])
    assert len((await log.fetch(PROFILES, NOW)).offsets) == 1
    batch = await log.fetch(EVENTS, NOW)
    assert ids_of(batch) == ["a", "b"]
    await settle_all(log, batch)
    assert ids_of(await log.fetch(Lane("elsewhere", Kind.EVENT), NOW)) == ["a", "b"]
    assert (await counts_of(log, Lane("elsewhere", Kind.EVENT))).sent == 0


async def test_a_fetch_that_does_not_wait_returns_what_is_due_or_nothing(log: EventLog, clock: FakeClock) -> None:
    """It neither waits for a batch to become due nor for records that are in flight."""
    assert not (await log.fetch(EVENTS, NOW, wait=False)).offsets
    await log.append([event("a", clock)])
    assert not (await log.fetch(EVENTS, BatchPolicy(), wait=False)).offsets
    assert ids_of(await log.fetch(EVENTS, NOW, wait=False)) == ["a"]
    assert not (await log.fetch(EVENTS, NOW, wait=False)).offsets


async def test_a_cancelled_fetch_hands_out_nothing(log: EventLog, clock: FakeClock) -> None:
    """Cancelling a fetch that waits leaves every record to the next one."""
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    await log.append([event("a", clock)])
    await clock.sleeper(5)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["a"]


async def test_the_condition_of_a_destination_is_kept(log: EventLog, clock: FakeClock) -> None:
    """The backlog tells the condition of the last settlement, also when the batch was given back whole."""
    await log.append([event("a", clock)])
    condition = Condition(State.RETRYING, 3, 123_456, "503 Service Unavailable", 120_000)
    await log.settle(settlement(await log.fetch(EVENTS, NOW), [RETRY], condition))
    backlog = await log.backlog()
    assert {d.name: d.condition for d in backlog.destinations} == {"there": condition, "elsewhere": Condition()}


async def test_the_backlog_tells_bytes_and_the_oldest(log: EventLog, clock: FakeClock) -> None:
    """Pending bytes are those of the destination furthest behind; the oldest pending record has its time."""
    records = [event("ä", clock), event("b", clock)]
    await log.append(records[:1])
    await clock.advance(5)
    await log.append([event("b", clock)])
    await settle_all(log, await log.fetch(EVENTS, BatchPolicy(size=1, max_size=1)))
    backlog = await log.backlog()
    assert backlog.pending_bytes == sum(len(r.payload.encode()) for r in records)
    assert (await counts_of(log, EVENTS)).oldest_pending_at_ms == clock.wall_ms()


async def test_a_replay_is_stored_again_and_resolves_the_dead_letter(log: EventLog, clock: FakeClock) -> None:
    """A copy with `replay_of` is no duplicate; the dead letter that it repeats is dealt with."""
    record = event("a", clock)
    (original,) = await log.append([record])
    await log.settle(settlement(await log.fetch(EVENTS, NOW), [Rejected(400, "f", "r")]))
    copy = record._replace(replay_of=original.offset)
    (again,) = await log.append([copy])
    assert not again.duplicate
    assert again.offset > original.offset
    counts = await counts_of(log, EVENTS)
    assert (counts.dead, counts.resolved, counts.pending) == (0, 1, 1)
    assert (await log.fetch(EVENTS, NOW)).payloads[0] == record.payload


async def test_concurrent_appends_all_get_their_own_offset(log: EventLog, clock: FakeClock) -> None:
    """A hundred callers at once are all answered, each with its own record."""
    groups = await asyncio.gather(*(log.append([event(f"e{n}", clock)]) for n in range(100)))
    offsets = {f"e{n}": group[0].offset for n, group in enumerate(groups)}
    batch = await log.fetch(EVENTS, NOW)
    assert dict(zip(ids_of(batch), batch.offsets, strict=True)) == offsets


async def test_of_many_who_send_the_same_one_is_the_first(log: EventLog, clock: FakeClock) -> None:
    """An id that comes from many callers at the same moment is stored once, and all are told where."""
    groups = await asyncio.gather(*(log.append([event("e", clock)]) for _ in range(20)))
    assert len({appended.offset for (appended,) in groups}) == 1
    assert sum(not appended.duplicate for (appended,) in groups) == 1


async def test_appending_nothing_stores_nothing(log: EventLog) -> None:
    """A request of which every record was refused is fine."""
    assert await log.append([]) == []
    assert (await log.backlog()).accepted == 0


async def test_a_caller_that_is_cancelled_does_not_cancel_its_append(log: EventLog, clock: FakeClock) -> None:
    """What was handed over is stored although nobody waits for the answer any more."""
    append = asyncio.ensure_future(log.append([event("a", clock)]))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.wait([append])
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["a"]


async def test_a_fetch_that_waits_is_woken_by_what_is_given_back(log: EventLog, clock: FakeClock) -> None:
    """Neither time nor a new record is needed."""
    await log.append([event("a", clock)])
    batch = await log.fetch(EVENTS, NOW)
    fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
    await log.settle(settlement(batch, [RETRY]))
    assert ids_of(await fetch) == ["a"]


@pytest.mark.parametrize("one", [BatchPolicy(max_size=1), BatchPolicy(max_bytes=1), BatchPolicy(max_bytes=10**6)])
async def test_everything_that_was_given_back_is_due_at_once(log: EventLog, clock: FakeClock, one: BatchPolicy) -> None:
    """Also what did not fit into the first batch after it, be it for a record that is larger than a batch may be."""
    await log.append([event(name, clock) for name in "abc"])
    await log.settle(settlement(await log.fetch(EVENTS, NOW), [RETRY] * 3))
    found = [ids_of(await log.fetch(EVENTS, one, wait=False)) for _ in range(4)]
    assert [name for names in found for name in names] == ["a", "b", "c"]
    assert max(map(len, found)) == (3 if one.max_bytes == 10**6 else 1)


async def test_what_is_given_back_does_not_restart_the_wait_of_others(log: EventLog, clock: FakeClock) -> None:
    """A record is due ten seconds after it came, whatever went out and came back meanwhile."""
    await log.append([event("a", clock)])
    batch = await log.fetch(EVENTS, NOW)
    await log.append([event("b", clock)])
    await clock.advance(9)
    await log.settle(settlement(batch, [RETRY]))
    got = ids_of(await log.fetch(EVENTS, BatchPolicy()))
    if got == ["a"]:
        fetch = asyncio.ensure_future(log.fetch(EVENTS, BatchPolicy()))
        assert await clock.sleeper(0.5) == pytest.approx(1)
        await clock.advance(1)
        got += ids_of(await fetch)
    assert got == ["a", "b"]


async def test_a_copy_does_not_take_the_place_of_its_original(log: EventLog, clock: FakeClock) -> None:
    """After a replay a repeat of the id is still answered with the first offset."""
    record = event("a", clock)
    (original,) = await log.append([record])
    await settle_all(log, await log.fetch(EVENTS, NOW))
    await log.append([record._replace(replay_of=original.offset)])
    assert await log.append([record]) == [(original.offset, True)]


async def test_fresh_records_are_handed_out_in_turns_with_a_backlog(log: EventLog, clock: FakeClock) -> None:
    """Once more than a full batch is overdue, what comes after that does not wait for all of it."""
    policy = BatchPolicy(size=2, max_age_s=10.0, max_size=3)
    await log.append([event(f"old{n}", clock) for n in range(8)])
    await clock.advance(11)
    first = await log.fetch(EVENTS, policy)
    await log.append([event(f"new{n}", clock) for n in range(3)])
    rest = [ids_of(await log.fetch(EVENTS, policy)) for _ in range(3)]
    assert [ids_of(first), *rest] == [
        ["old0", "old1", "old2"],
        ["new0", "new1", "new2"],
        ["old3", "old4", "old5"],
        ["old6", "old7"],
    ]


@pytest.mark.parametrize("kind", [Kind.PROFILE, Kind.GROUP])
async def test_nothing_overtakes_in_an_ordered_lane(log: EventLog, clock: FakeClock, kind: Kind) -> None:
    """Updates come out in the order in which they went in, however far delivery is behind, and after a failure."""
    policy = BatchPolicy(size=2, max_age_s=10.0, max_size=3)
    lane = Lane("there", kind)
    await log.append([update(kind, f"old{n}", clock) for n in range(5)])
    await clock.advance(11)
    failed = await log.fetch(lane, policy)
    await log.settle(settlement(failed, [RETRY] * 3))
    await log.append([update(kind, f"new{n}", clock) for n in range(3)])
    seen = []
    while (batch := await log.fetch(lane, policy.at_once(), wait=False)).offsets:
        await settle_all(log, batch)
        seen += [orjson.loads(payload)["$set"]["name"] for payload in batch.payloads]
    assert seen == [*(f"old{n}" for n in range(5)), *(f"new{n}" for n in range(3))]


async def test_an_update_that_may_have_arrived_is_held(log: EventLog, clock: FakeClock) -> None:
    """It is dead until a person decides, counted apart, and never handed out again by itself."""
    await log.append([update(Kind.PROFILE, name, clock) for name in "ab"])
    batch = await log.fetch(PROFILES, NOW)
    await log.settle(settlement(batch, [Unknown("no answer"), DELIVERED]))
    counts = await counts_of(log, PROFILES)
    assert (counts.pending, counts.sent, counts.dead, counts.held) == (0, 1, 1, 1)
    again = update(Kind.PROFILE, "a", clock)._replace(replay_of=batch.offsets[0], destination="there")
    await log.append([again])
    counts = await counts_of(log, PROFILES)
    assert (counts.pending, counts.dead, counts.held, counts.resolved) == (1, 0, 0, 1)


async def test_a_copy_for_one_destination_reaches_no_other(log: EventLog, clock: FakeClock) -> None:
    """It is owed, counted and handed out there alone, and closes only the dead letter that is there."""
    await log.append([event("a", clock)])
    elsewhere = Lane("elsewhere", Kind.EVENT)
    for lane in (EVENTS, elsewhere):
        batch = await log.fetch(lane, NOW)
        await log.settle(settlement(batch, [Rejected(400, "f", "r")]))
    copy = event("a", clock)._replace(replay_of=batch.offsets[0], destination="there")
    await log.append([copy])
    assert ids_of(await log.fetch(EVENTS, NOW)) == ["a"]
    assert not (await log.fetch(elsewhere, NOW, wait=False)).offsets
    here, there = await counts_of(log, EVENTS), await counts_of(log, elsewhere)
    assert (here.accepted, here.dead, here.resolved) == (2, 0, 1)
    assert (there.accepted, there.dead, there.resolved) == (1, 1, 0)
