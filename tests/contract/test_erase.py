"""Erasing a person: what goes, what stays, and what is awaited."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from log_records import ELSEWHERE, EVENTS, NOW, counts_of, deliver, event, ids, insert_ids, open_log, settlement
from person_log import MINE, erased, fill, refused, update
from traces import files_with

from walbatch.batching import BatchPolicy
from walbatch.clock import SystemClock
from walbatch.delivery import DELIVERED, RETRY, Rejected
from walbatch.erasure import WAIT_S, plan
from walbatch.errors import BacklogFull
from walbatch.event import Kind, Offset, group_update, identity_link
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, dead_letters, driver, store
from walbatch.wal.admission import Limits
from walbatch.wal.sqlite import SqliteLog

pytestmark = pytest.mark.usefixtures("small_slices")

PROFILES = Lane("there", Kind.PROFILE)
ONE = BatchPolicy(size=1, max_size=1)


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
        assert len((await deliver(log, lane=PROFILES)).offsets) == 1
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
    assert list((await deliver(log)).payloads) == [one.payload for one in others[:2]]
    assert len((await deliver(log, lane=Lane("there", Kind.GROUP))).offsets) == 1


async def test_several_people_and_text_that_json_escapes(log: SqliteLog, clock: FakeClock) -> None:
    """Ids of any characters are found, in one pass for all of them; erasing twice is harmless."""
    people = ['say "hi"', "back\\slash", "Ünïcödé 人", "tab\tin"]
    await log.append([event(str(n), clock, distinct_id=one) for n, one in enumerate(people)])
    await log.append([event("other", clock, distinct_id="slash")])
    assert (await erased(log, clock, *people)).erased == len(people)
    again = await erased(log, clock, *people)
    assert (again.erased, again.complete) == (0, True)
    assert ids(await deliver(log)) == "other"


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
        reads.append(len(result[0].offsets))
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
        assert there.condition == replace(condition, last_error=store.BLANK)
        reasons = [one.reason for one in await log.read(reasons_of)]
        assert reasons == [store.BLANK, f"x{who}x"]
        assert (await counts_of(log)).dead == 2


async def test_what_was_blanked_does_not_come_back_with_a_late_answer(
    directory: Path, clock: FakeClock, who: str
) -> None:
    """A request that was under way before the failure settles with what its breaker knew; the next failure counts."""
    condition = Condition(State.RETRYING, 1, None, f"500: {who}")
    async with open_log(directory, clock) as log:
        await log.append([event(name, clock, distinct_id="u2") for name in "abc"])
        batches = [await log.fetch(EVENTS, ONE) for _ in range(3)]
        await log.settle(settlement(batches[0], [RETRY], condition))
        assert (await erased(log, clock, who)).blanked == 1
        await log.settle(settlement(batches[1], [DELIVERED], condition))
        (there,) = (await log.backlog()).destinations
        assert there.condition == replace(condition, last_error=store.BLANK)
        later = replace(condition, failures=2, last_error="503")
        await log.settle(settlement(batches[2], [RETRY], later))
        (there,) = (await log.backlog()).destinations
        assert there.condition == later


def reasons_of(connection: driver.Connection) -> list[Any]:
    """The open letters."""
    return [one.key for one in dead_letters.letters(connection, "there", [1, 2])]


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
            went_out += sum(one.startswith("u2") for one in insert_ids(batch.payloads))
            await log.settle(settlement(batch, [DELIVERED] * len(batch.offsets)))
        assert (await running).complete
        assert accepted > 0
        assert (await counts_of(log)).erased == 200
        while (await counts_of(log)).pending:
            went_out += len((await deliver(log)).offsets)
        assert went_out == accepted
        check = await log.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        assert check == [("ok",)]
        assert files_with(directory, who) == []
