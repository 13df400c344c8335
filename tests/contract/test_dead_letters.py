"""Dead letters: how they are grouped and chosen, and what becomes of them when they are sent again or given up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from log_records import BAD, EVENTS, NOW, counts_of, deliver, event, events, ids, open_log, settlement

from walbatch import dead
from walbatch import replay as replaying
from walbatch.dead import Changed, Corrections, Refusal, merged
from walbatch.delivery import DELIVERED, Rejected, Unknown
from walbatch.errors import BacklogFull
from walbatch.event import Kind, profile_update
from walbatch.testing.clock import FakeClock
from walbatch.wal import Lane, dead_letters
from walbatch.wal.dead_letters import Choice, Letter
from walbatch.wal.selection import Selection
from walbatch.wal.sqlite import SqliteLog

HELD = Unknown("no answer after 30 s")
ALL = Choice()


@pytest.fixture
async def log(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """A log whose events a, c and d were refused, a and d for the same reason; b was sent and e is held."""
    async with open_log(tmp_path / "data", clock) as log:
        for name, user in zip("abcde", ("u1", "u2", "u1", "u2", "u1"), strict=True):
            await log.append([event(name, clock, distinct_id=user, properties={"n": 1})])
        await deliver(log, [BAD, DELIVERED, Rejected(400, "event", "Is Blank"), BAD, HELD])
        yield log


async def chosen(log: SqliteLog, choice: Choice = ALL) -> str:
    """Return the ids of the letters that a choice has, in order."""
    return "".join(one.stored.event_id for one in await letters(log, choice))


async def letters(log: SqliteLog, choice: Choice = ALL) -> list[Letter]:
    """Return the letters that a choice has."""
    return await log.read(lambda connection: list(dead.chosen(connection, choice)))


async def replay(
    log: SqliteLog, clock: FakeClock, choice: Choice = ALL, corrections: Corrections = dead.UNCHANGED
) -> tuple[int, list[Refusal]]:
    """Send letters again, and return how many were, and what was refused."""
    done: int = 0
    refused: list[Refusal] = []
    async for progress in dead.replay(log, clock, "there", choice, corrections):
        done = progress.replayed
        refused += progress.refused
    return done, refused


async def payloads(log: SqliteLog, outcomes: Sequence[Any] = ()) -> list[str]:
    """Deliver what waits, and return its bytes."""
    return list((await deliver(log, outcomes)).payloads)


async def test_letters_that_say_the_same_are_one_group(log: SqliteLog) -> None:
    """A group has what its letters say, how many they are, and an example; what is held is apart."""
    groups = await log.read(dead_letters.groups)
    found = {(g.key.code, g.key.field, g.key.reason, g.key.held): (g.count, g.example) for g in groups}
    assert found == {
        (400, "properties.time", "is invalid", 0): (2, 1),
        (400, "event", "Is Blank", 0): (1, 3),
        (0, "", "no answer after 30 s", 1): (1, 5),
    }
    assert {(g.key.destination, g.key.lane, g.first_ms, g.last_ms) for g in groups} == {("there", "events", 2, 2)}


async def test_the_group_seen_last_is_first_and_its_id_stays(log: SqliteLog, clock: FakeClock) -> None:
    """A new letter moves its group to the front and counts; the id is that of what the letters say."""
    before = {g.key: g.key.id for g in await log.read(dead_letters.groups)}
    await log.append(events("f", clock))
    batch = await log.fetch(EVENTS, NOW)
    await log.settle(replace(settlement(batch, [Rejected(400, "event", "Is Blank")]), finished_at_ms=9))
    first, *_ = await log.read(dead_letters.groups)
    assert (first.key.reason, first.count, first.first_ms, first.last_ms) == ("Is Blank", 2, 2, 9)
    assert first.key.id == before[first.key]
    assert len(set(before.values())) == 3
    assert all(name.startswith("g") and len(name) == 9 for name in before.values())


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), "acde"),
        (Choice(numbers=[4, 1]), "ad"),
        (Choice(numbers=[2, 99]), ""),
        (Choice(reason="is BLANK"), "c"),
        (Choice(reason="%"), ""),
        (Choice(event="d"), "d"),
        (Choice(distinct_id="u1"), "ace"),
        (Choice(distinct_id="u1", held=False), "ac"),
        (Choice(held=True), "e"),
        (Choice(since_ms=2, until_ms=3), "acde"),
        (Choice(since_ms=3), ""),
        (Choice(until_ms=2), ""),
        (Choice(limit=2), "ac"),
        (Choice(destination="there"), "acde"),
        (Choice(destination="elsewhere"), ""),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
async def test_what_a_choice_covers(log: SqliteLog, choice: Choice, wanted: str) -> None:
    """Reading and counting agree, oldest first; what was sent is never chosen."""
    assert await chosen(log, choice) == wanted
    plan = await log.read(dead_letters.plan, choice)
    assert (plan.count, plan.held) == (len(wanted), wanted.count("e"))


async def test_groups_are_chosen_by_their_ids(log: SqliteLog) -> None:
    """A group's letters and those of single numbers are chosen together; ids of nothing are told."""
    of = {g.key.reason: g.key.id for g in await log.read(dead_letters.groups)}
    assert await chosen(log, Choice(groups=[of["is invalid"]])) == "ad"
    assert await chosen(log, Choice(groups=[of["is invalid"]], numbers=[3])) == "acd"
    assert await chosen(log, Choice(groups=["g00000000"])) == ""
    mixed = Choice(groups=["g00000000", of["Is Blank"]], numbers=[1, 2])
    assert await log.read(dead_letters.unknown, mixed) == ["2", "g00000000"]


async def test_letters_are_sent_again_with_the_same_bytes_in_order(log: SqliteLog, clock: FakeClock) -> None:
    """Each copy knows its original, whose letter is closed by the commit that stores the copy."""
    before = [one.stored.payload for one in await letters(log)]
    assert await replay(log, clock) == (4, [])
    counts = await counts_of(log)
    assert (counts.dead, counts.held, counts.resolved, counts.pending) == (0, 0, 4, 4)
    assert await payloads(log) == before
    links = await log.read(lambda c: c.execute("SELECT replay_of FROM events WHERE seq > 5 ORDER BY seq").fetchall())
    assert links == [(1,), (3,), (4,), (5,)]
    assert await replay(log, clock) == (0, [])


async def test_updates_of_a_user_keep_their_order(tmp_path: Path, clock: FakeClock) -> None:
    """The kinds go through their own lanes, oldest first."""
    lane = Lane("there", Kind.PROFILE)
    async with open_log(tmp_path / "data", clock) as log:
        for n in range(3):
            record = profile_update(distinct_id="u1", operation="$set", properties={"n": n}, now_ms=clock.wall_ms())
            await log.append([record])
        before = list((await deliver(log, [BAD] * 3, lane)).payloads)
        assert await replay(log, clock) == (3, [])
        assert list((await deliver(log, lane=lane)).payloads) == before


async def test_a_patch_corrects_what_it_names(log: SqliteLog, clock: FakeClock) -> None:
    """The rest of the record stays, its ids and its time above all; the copy is linked to the original."""
    before = orjson.loads((await letters(log))[0].stored.payload)
    patch = {"event": "Signup", "properties": {"n": None, "plan": {"name": "pro"}}}
    assert await replay(log, clock, Choice(numbers=[1]), Corrections(patch)) == (1, [])
    batch = await log.fetch(EVENTS, NOW)
    (after,) = map(orjson.loads, batch.payloads)
    assert ids(batch) == "a"
    assert after["event"] == "Signup"
    assert after["properties"].pop("plan") == {"name": "pro"}
    assert after["properties"] == {key: value for key, value in before["properties"].items() if key != "n"}
    (original,) = await log.read(dead_letters.of_record, 1)
    assert original.resolution == "replayed"
    assert await log.read(dead_letters.copies, original) == [(batch.offsets[0], "pending")]


async def test_a_patch_that_changes_nothing_sends_the_same_bytes(log: SqliteLog, clock: FakeClock) -> None:
    """What is left alone is not written anew, not even by a patch that says what is there already."""
    before = [one.stored.payload for one in await letters(log)]
    assert await replay(log, clock, ALL, Corrections({"properties": {"n": 1, "m": None}})) == (4, [])
    assert await payloads(log) == before


async def test_true_in_place_of_1_is_a_change(log: SqliteLog, clock: FakeClock) -> None:
    """Values that Python calls equal are told apart as JSON does."""
    await replay(log, clock, Choice(numbers=[1]), Corrections({"properties": {"n": True}}))
    (payload,) = await payloads(log)
    assert '"n":true' in payload


async def test_a_correction_that_breaks_a_rule_is_named_and_its_letter_stays(log: SqliteLog, clock: FakeClock) -> None:
    """The others go; nothing of the record is in what is told about it."""
    documents = {1: '{"event": "", "properties": {}}', 3: "[]"}
    foretold = await log.read(dead.refusals, ALL, Corrections(documents=documents), clock.wall_ms())
    assert (await counts_of(log)).dead == 4
    done, refused = await replay(log, clock, ALL, Corrections(documents=documents))
    assert (done, refused) == (2, foretold)
    assert [(one.number, one.field, one.reason) for one in refused] == [
        (1, "event.name", "REQUIRED"),
        (3, "record", "NOT_AN_OBJECT"),
    ]
    assert await chosen(log) == "ac"


async def test_a_document_takes_the_place_of_its_record_only(log: SqliteLog, clock: FakeClock) -> None:
    """Letters without a document keep their bytes."""
    first, second = [one.stored.payload for one in await letters(log, Choice(numbers=[1, 3]))]
    document = orjson.loads(first) | {"event": "Corrected"}
    await replay(log, clock, Choice(numbers=[1, 3]), Corrections(documents={1: json.dumps(document)}))
    corrected, same = await payloads(log)
    assert orjson.loads(corrected) == document
    assert same == second


async def test_a_corrected_copy_that_is_refused_can_be_corrected_again(log: SqliteLog, clock: FakeClock) -> None:
    """The copy has a letter of its own, and its own copies."""
    await replay(log, clock, Choice(numbers=[1]), Corrections({"event": "x"}))
    await payloads(log, [BAD])
    copy = (await letters(log, Choice(event="x")))[0]
    assert copy.replay_of == 1
    assert await replay(log, clock, Choice(numbers=[copy.stored.number]), Corrections({"event": "y"})) == (1, [])
    (payload,) = await payloads(log)
    assert orjson.loads(payload)["event"] == "y"
    assert await log.read(dead_letters.copies, copy) == [(copy.stored.number + 1, "sent")]


async def test_a_replay_repeats_the_corrected_copy_and_not_the_refused_original(
    log: SqliteLog, clock: FakeClock
) -> None:
    """`walbatch replay` sends what the destination took: each record once."""
    await replay(log, clock, ALL, Corrections({"event": "Corrected"}))
    await deliver(log)
    assert (await replaying.plan(log, "there", Selection())).count == 5
    async for _ in replaying.replay(log, "there", Selection(), clock):
        pass
    assert sorted(orjson.loads(one)["event"] for one in await payloads(log)) == ["Corrected"] * 4 + ["b"]


async def test_what_is_held_is_never_picked_by_a_replay(log: SqliteLog, clock: FakeClock) -> None:
    """Whether it goes again is decided by name, through the choice of dead letters alone."""
    assert (await replaying.plan(log, "there", Selection(event="e"))).count == 0
    assert (await replaying.plan(log, "there", Selection(status="dead"))).count == 3
    assert await replay(log, clock, Choice(held=True)) == (1, [])
    counts = await counts_of(log)
    assert (counts.dead, counts.held, counts.resolved) == (3, 0, 1)


async def test_a_discarded_letter_is_closed_for_good(log: SqliteLog, clock: FakeClock) -> None:
    """It is not chosen any more, counts as resolved, and nothing is sent."""
    assert [done async for done in dead.discard(log, "there", Choice(numbers=[1, 5]), 2)] == [2]
    counts = await counts_of(log)
    assert (counts.dead, counts.held, counts.resolved, counts.pending) == (2, 0, 2, 0)
    assert await chosen(log) == "cd"
    assert (await replaying.plan(log, "there", Selection(event="a"))).count == 0
    (letter,) = await log.read(dead_letters.of_record, 1)
    assert (letter.resolution, letter.resolved_at_ms) == ("discarded", clock.wall_ms())


async def test_nothing_is_discarded_if_it_is_not_what_was_counted(log: SqliteLog) -> None:
    """A letter that came in between does not go with the others."""
    with pytest.raises(Changed, match="4 letters match now, not 3"):
        await anext(dead.discard(log, "there", ALL, 3))
    assert (await counts_of(log)).dead == 4


async def test_another_destination_keeps_its_letter_and_gets_no_copy(tmp_path: Path, clock: FakeClock) -> None:
    """What is sent again to one never reaches the other, and closes the one letter only."""
    elsewhere = Lane("elsewhere", Kind.EVENT)
    async with open_log(tmp_path / "data", clock, "there", "elsewhere") as log:
        await log.append(events("ab", clock))
        await deliver(log, [BAD, BAD])
        await deliver(log, [BAD, DELIVERED], elsewhere)
        assert await log.read(dead_letters.destinations, ALL) == ["elsewhere", "there"]
        assert await chosen(log) == "aab"
        assert await replay(log, clock) == (2, [])
        assert ids(await deliver(log)) == "ab"
        assert not (await log.fetch(elsewhere, NOW, wait=False)).offsets
        assert await log.read(dead_letters.destinations, ALL) == ["elsewhere"]
        found = {one.key.destination: one.resolution for one in await log.read(dead_letters.of_record, 1)}
        assert found == {"there": "replayed", "elsewhere": None}
        assert (await counts_of(log, elsewhere)).dead == 1
        assert [done async for done in dead.discard(log, "elsewhere", ALL, 1)] == [1]
        assert await chosen(log) == ""


async def test_a_replay_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages before the end are done; the same request again does the rest, and nothing twice."""
    monkeypatch.setattr(dead, "PAGE", 2)
    async with open_log(tmp_path / "data", clock) as log:
        await log.append(events("abcde", clock))
        await deliver(log, [BAD] * 5)
        progress = await anext(dead.replay(log, clock, "there", ALL))
        assert progress.replayed == 2
    async with open_log(tmp_path / "data", clock) as log:
        assert await chosen(log) == "cde"
        assert await replay(log, clock) == (3, [])
        assert ids(await deliver(log)) == "abcde"
        assert (await counts_of(log)).resolved == 5


async def test_a_replay_without_room_stores_nothing_of_its_page(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letters stay open, to be sent when there is room."""

    async def full(*_: object) -> None:
        raise BacklogFull("the disk is full")

    monkeypatch.setattr(log, "append", full)
    with pytest.raises(BacklogFull):
        await replay(log, clock)
    assert await chosen(log) == "acde"


async def test_copies_that_are_refused_while_it_runs_are_not_sent_again(
    log: SqliteLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is chosen is settled at the beginning, so that it ends."""
    monkeypatch.setattr(dead, "PAGE", 1)
    done = 0
    async for progress in dead.replay(log, clock, "there", Choice(held=False)):
        done = progress.replayed
        await deliver(log, [BAD])
    assert done == 3
    assert await chosen(log, Choice(held=False)) == "acd"


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
    ids=str,
)
def test_a_merge_patch_does_what_the_rfc_says(target: Any, patch: Any, result: Any) -> None:
    """These are the test cases of RFC 7396, appendix A; what is patched is left as it was."""
    before = json.dumps(target)
    assert merged(target, patch) == result
    assert json.dumps(target) == before
