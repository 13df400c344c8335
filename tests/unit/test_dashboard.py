"""What the dashboard remembers, leaves out and says, without a log and without a server."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walbatch.dashboard import view
from walbatch.dashboard.deliveries import Deliveries, in_brief
from walbatch.dashboard.history import INTERVAL_S, KEPT_S, History, Pace
from walbatch.dashboard.redaction import LONGEST_NAME, NAMES, outline, without_values
from walbatch.delivery import Answered
from walbatch.testing.clock import FakeClock

ANSWERED = Answered("there", "events", 0, 50, 50, 0, 0, 0, 16_000, 1, "200", 0.05, "delivered", {}, 0)

DOCUMENT: dict[str, Any] = {
    "summary": "Delivering to there. 1,200 pending.",
    "pending": 1200,
    "in_flight": 50,
    "dead": 3,
    "oldest_pending_age_s": 1.4,
    "engine": "sqlite",
    "sqlite_version": "3.53.4",
    "durability": "fsynced",
    "database_bytes": 2**20,
    "wal_bytes": 2**15,
    "storage": {"accepting": True},
    "destinations": [{"name": "there", "state": "ok", "paused_at": None}],
}


async def filled(hours: float) -> tuple[History, FakeClock]:
    """A history in which ten records are accepted, and nine sent, each second."""
    clock = FakeClock()
    history = History(clock)
    for n in range(round(hours * KEPT_S / INTERVAL_S) + 1):
        history.add(n * 100, n * 90, n * 10)
        await clock.advance(INTERVAL_S)
    return history, clock


async def test_an_hour_is_kept_and_no_more() -> None:
    """The ring holds what is at most an hour old at the newest sample, however long the server runs."""
    history, clock = await filled(2.5)
    samples = history.after(0)
    assert len(samples) == KEPT_S / INTERVAL_S + 1
    assert clock.monotonic_s() - samples[0].at_s == KEPT_S + INTERVAL_S
    assert [b.number - a.number for a, b in pairwise(samples)] == [1] * (len(samples) - 1)


async def test_only_what_is_new_is_returned() -> None:
    """Whoever has seen a sample does not get it again."""
    history, _ = await filled(0.1)
    newest = history.after(0)[-1].number
    assert history.after(newest) == []
    assert [sample.number for sample in history.after(newest - 2)] == [newest - 1, newest]


async def test_the_pace_is_that_of_the_last_seconds() -> None:
    """It is measured from a sample that is at least five seconds old: one moment says nothing."""
    history, clock = await filled(0.1)
    newest = history.after(0)[-1]
    assert history.pace(newest.accepted + 100, newest.sent + 90) == Pace(10.0, 9.0)
    history.add(newest.accepted + 100, newest.sent + 90, 0)
    await clock.advance(1.0)
    assert history.pace(newest.accepted + 110, newest.sent + 99) == Pace(10.0, 9.0)


async def test_the_pace_of_a_server_that_has_just_started_is_no_accident() -> None:
    """Without a sample, or at its very moment, it is zero; a second later it is what came since."""
    clock = FakeClock()
    history = History(clock)
    assert history.pace(5, 5) == Pace(0.0, 0.0)
    history.add(5, 0, 5)
    assert history.pace(5, 0) == Pace(0.0, 0.0)
    await clock.advance(2.0)
    assert history.pace(25, 10) == Pace(10.0, 5.0)


async def test_a_wall_clock_that_jumps_changes_no_pace() -> None:
    """An operator who sets the time does not make a day's events out of a minute's."""
    history, clock = await filled(0.1)
    newest = history.after(0)[-1]
    clock.wall_jump_ms -= 86_400_000
    assert history.pace(newest.accepted + 100, newest.sent + 90) == Pace(10.0, 9.0)


def test_the_last_fifty_batches_are_kept() -> None:
    """Older ones are forgotten, and all that was sent is counted."""
    deliveries = Deliveries()
    for _ in range(60):
        deliveries.observe(ANSWERED)
    assert [delivery.number for delivery in deliveries.after(0)] == [*range(11, 61)]
    assert [delivery.number for delivery in deliveries.after(58)] == [59, 60]
    assert deliveries.sent == 3000


@pytest.mark.parametrize(
    ("outcome", "answer", "shown"),
    [
        ("delivered", "200", "200"),
        ("delivered", "written", "written"),
        ("delivered", "200: imported 9 of 10, which ones is not said", "200: imported 9 of 10, which ones is not said"),
        ("partial", "400: refused 2 of 50", "400: refused 2 of 50"),
        ("partial", "anna is not welcome", "refused"),
        ("partial", "123 is anna's number", "refused"),
        ("failed", "503 Service Unavailable: sorry, anna", "503 Service Unavailable"),
        ("failed", "no complete answer within 30 s", "no complete answer within 30 s"),
        ("failed", "connection failed: [Errno 111]", "connection failed: [Errno 111]"),
        ("throttled", "429 Too Many Requests: slow down, anna", "429 Too Many Requests"),
        (
            "paused",
            "401 Unauthorized, check the project token: who is anna",
            "401 Unauthorized, check the project token",
        ),
    ],
)
def test_an_answer_is_shown_without_the_words_of_the_destination(outcome: str, answer: str, shown: str) -> None:
    """They may quote a record; the status and our own remark stay."""
    assert in_brief(ANSWERED._replace(outcome=outcome, answer=answer, dead=int(outcome == "partial"))) == shown


def test_an_answer_that_leaves_everything_open_says_so() -> None:
    """Where updates are held, nobody knows what became of them."""
    assert in_brief(ANSWERED._replace(outcome="partial", answer="anna is not welcome", held=50)) == "not known"


def test_an_outline_has_names_and_types_only() -> None:
    """Of a record's properties there are the names, of what is deeper not even those: they may be ids."""
    properties = {"plan": "pro", "n": 1, "x": 1.5, "on": True, "no": None, "tags": ["a"], "cart": {"anna": 1}}
    assert outline({"event": "Signup", "properties": properties}) == {
        "event": "text",
        "properties": {
            "plan": "text",
            "n": "number",
            "x": "number",
            "on": "boolean",
            "no": "null",
            "tags": "list",
            "cart": "object",
        },
    }


def test_an_outline_stays_short() -> None:
    """Hundreds of properties, and names that are novels, do not fill the screen."""
    found = outline({"properties": {f"{n:03}" + "x" * 200: n for n in range(NAMES + 5)}})["properties"]
    assert found.pop("…") == "5 more"
    assert len(found) == NAMES
    assert {len(name) for name in found} == {LONGEST_NAME}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_an_outline_has_no_value_whatever_the_record(record: dict[str, Any]) -> None:
    """Its leaves are the six types, or how many more there are."""
    types = {"text", "number", "boolean", "null", "list", "object"}
    for kind in outline(record).values():
        assert (set(kind.values()) if isinstance(kind, dict) else {kind}) <= types


def test_what_a_destination_quotes_is_left_out() -> None:
    """Its words stay, the record's values in them go, the longest first."""
    record = {
        "event": "Signup",
        "properties": {"distinct_id": "anna@example.com", "to": ["anna"], "n": 1234567, "a": "is"},
    }
    said = "'distinct_id' is invalid: anna@example.com (anna), 1234567"
    assert without_values(said, record) == "'distinct_id' is invalid: … (…), …"


@pytest.mark.parametrize(
    ("states", "paused", "accepting", "expected"),
    [
        (["ok", "ok"], None, True, "delivering"),
        (["ok", "retrying"], None, True, "retrying"),
        (["retrying", "open"], None, True, "not answering"),
        (["open", "paused"], None, True, "needs a person"),
        (["ok", "ok"], "2026-11-23T08:30:00Z", True, "paused"),
        (["ok", "ok"], None, False, "refusing new records"),
        ([], None, True, "delivering"),
    ],
)
def test_the_word_is_of_what_needs_somebody_most(
    *, states: list[str], paused: str | None, accepting: bool, expected: str
) -> None:
    """One destination in trouble is not hidden by the others."""
    destinations = [{"name": str(n), "state": state, "paused_at": None} for n, state in enumerate(states)]
    destinations += [{"name": "paused", "state": "ok", "paused_at": paused}] if paused else []
    document = DOCUMENT | {"storage": {"accepting": accepting}, "destinations": destinations}
    assert view.overall(document) == expected


def test_numbers_are_written_for_people() -> None:
    """With thousands, units, and the digits that mean something."""
    texts = view.shown(DOCUMENT, Pace(3.25, 12_345.6), version="1.2.3", uptime_s=3661.7)
    assert texts["sentence"] == DOCUMENT["summary"]
    assert (texts["received"], texts["sent"], texts["pending"], texts["oldest"]) == ("3.2", "12,346", "1,200", "1.4 s")
    assert (texts["version"], texts["uptime"], texts["database"]) == ("1.2.3", "1 h 1 min", "1MiB + 32KiB")
    assert view.shown(DOCUMENT | {"pending": 0}, Pace(0.0, 0.0), version="", uptime_s=0)["oldest"] == "none"
    assert json.dumps(texts)
