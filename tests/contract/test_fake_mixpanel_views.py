"""What the fake Mixpanel holds after all: copies and what is left of them, profiles, groups."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
from fake_requests import EVENT, NOW_MS, UPDATE, client_of, event

from walbatch.testing.clock import FakeClock
from walbatch.testing.exchange import Spelling
from walbatch.testing.mixpanel import FakeMixpanel

STRICT = "/import?strict=1"
NOON_MS = 1_763_899_200_000
"""2025-11-23 12:00 UTC."""


async def test_copies_of_an_event(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """All copies are in the raw view; the same four parts make one event, of which the latest is left."""
    others = [event("F"), event(time=NOW_MS - 1), event(distinct_id="u2"), event(**{"$insert_id": "i-9"})]
    for sent in (EVENT, *others, event(plan="late")):
        assert (await http.post(STRICT, json=[sent])).status_code == 200
    data = fake.data()
    assert len(data.events()) == 6
    assert [one.properties().get("plan") for one in data.deduplicated()] == ["late", None, None, None, None]


async def test_compaction_looks_at_the_day_only(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """An id that is used again within a UTC day costs an event some weeks later; the day after it does not."""
    for hours in (0, 11, 12):
        await http.post(STRICT, json=[event(time=NOON_MS + hours * 3_600_000)])
    data = fake.data()
    assert len(data.deduplicated()) == 3
    assert [one.time_ms for one in data.compacted()] == [NOON_MS + 11 * 3_600_000, NOON_MS + 12 * 3_600_000]


OPERATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "set": ({"$set": {"n": 5, "new": "x"}}, {"n": 5, "list": [1, 2, 1], "text": "t", "new": "x"}),
    "set_once": ({"$set_once": {"n": 5, "new": "x"}}, {"n": 1, "list": [1, 2, 1], "text": "t", "new": "x"}),
    "add": ({"$add": {"n": -3, "new": 2.5, "text": 1}}, {"n": -2, "list": [1, 2, 1], "text": "t", "new": 2.5}),
    "append": ({"$append": {"list": 1, "new": 1}}, {"n": 1, "list": [1, 2, 1, 1], "text": "t", "new": [1]}),
    "union": ({"$union": {"list": [2, 3, 3], "new": [1]}}, {"n": 1, "list": [1, 2, 1, 3], "text": "t", "new": [1]}),
    "remove": ({"$remove": {"list": 1, "text": "t", "none": 1}}, {"n": 1, "list": [2, 1], "text": "t"}),
    "unset": ({"$unset": ["n", "none"]}, {"list": [1, 2, 1], "text": "t"}),
    "two at once": ({"$set": {"n": 5}, "$add": {"n": 1}}, {"n": 6, "list": [1, 2, 1], "text": "t"}),
}
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "profile": ("/engage", {"$token": "T", "$distinct_id": "u1"}),
    "group": ("/groups/", {"$token": "T", "$group_key": "Company", "$group_id": "M"}),
}


@pytest.mark.parametrize(("path", "head"), TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("operation", "left"), OPERATIONS.values(), ids=OPERATIONS)
async def test_operations(
    fake: FakeMixpanel,
    http: httpx.AsyncClient,
    *,
    path: str,
    head: dict[str, Any],
    operation: dict[str, Any],
    left: dict[str, Any],
) -> None:
    """Each operation does to a profile, and to a group, what is documented; what does not suit a value leaves it."""
    start = head | {"$set": {"n": 1, "list": [1, 2, 1], "text": "t"}}
    assert (await http.post(path, json=[start, head | operation])).text == "1"
    data = fake.data()
    profile = data.profiles["u1"] if path == "/engage" else data.groups["Company", "M"]
    assert profile.properties == left


@pytest.mark.parametrize("value", ["null", "", None])
async def test_delete(fake: FakeMixpanel, http: httpx.AsyncClient, value: object) -> None:
    """The profile is gone, whatever stands beside the operation, and its log remains."""
    gone = {"$token": "T", "$distinct_id": "u1", "$delete": value, "$ignore_alias": True}
    assert (await http.post("/engage", json=[UPDATE, gone])).text == "1"
    assert fake.data().profiles == {}
    assert [one.sent for one in fake.data().updates("u1")] == [UPDATE, gone]


async def test_the_order_of_updates_is_kept_for_each_id(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The log of an id has its updates in the order in which they came, and nobody else's."""
    for number in range(3):
        sent = [{"$token": "T", "$distinct_id": one, "$set": {"n": number}} for one in ("u1", "u2")]
        await http.post("/engage", json=sent)
    group = {"$token": "T", "$group_key": "Company", "$group_id": 7, "$set": {"n": 1}}
    await http.post("/groups", json=group)
    data = fake.data()
    assert [update.sent["$set"]["n"] for update in data.updates("u1")] == [0, 1, 2]
    assert [update.sent for update in data.updates(("Company", "7"))] == [group]
    assert data.updates("nobody") == []


async def test_when_a_user_was_last_seen() -> None:
    """The arrival counts, or `$time`; an update that says `$ignore_time` leaves it."""
    clock = FakeClock(NOW_MS)
    fake = FakeMixpanel(clock=clock)
    seen = []
    async with client_of(fake) as http:
        for more in ({"$ignore_time": True}, {}, {"$ignore_time": True}, {"$time": NOW_MS / 1000 - 5}):
            await http.post("/engage", json=UPDATE | more)
            seen.append(fake.data().profiles["u1"].last_seen_ms)
    assert seen == [None, NOW_MS, NOW_MS, NOW_MS - 5000]


REFUSED: dict[str, tuple[str, Any, str]] = {
    "group with a distinct_id": (
        "/groups",
        {"$token": "T", "$group_key": "k", "$group_id": "g", "$distinct_id": "u", "$set": {}},
        "$distinct_id, not allowed in a group update",
    ),
    "group without an id": ("/groups", {"$token": "T", "$group_key": "k", "$set": {}}, "$group_id, missing or empty"),
    "group without a key": ("/groups", {"$token": "T", "$group_id": "g", "$set": {}}, "$group_key, missing or empty"),
    "set of a number": ("/engage", UPDATE | {"$set": 1}, "$set, must be an object"),
    "add of a text": ("/engage", UPDATE | {"$add": {"n": "1"}}, "$add, must be an object of numbers"),
    "union of a text": ("/engage", UPDATE | {"$union": {"n": "1"}}, "$union, must be an object of arrays"),
    "unset of an object": ("/engage", UPDATE | {"$unset": {}}, "$unset, must be an array of names"),
    "a megabyte": (
        "/engage",
        UPDATE | {"$set": {"x": "x" * 1_000_000}},
        "update, must be smaller than 1000000 bytes",
    ),
    "2001 properties": (
        "/engage",
        UPDATE | {"$set": {f"p{i}": i for i in range(2001)}},
        "profile, must have at most 2000 properties",
    ),
}


@pytest.mark.parametrize(("path", "sent", "error"), REFUSED.values(), ids=REFUSED)
async def test_updates_that_are_refused(
    fake: FakeMixpanel, http: httpx.AsyncClient, path: str, sent: Any, error: str
) -> None:
    """The answer is a 200 that says no, or with `strict` a 400 that says which; nothing changes."""
    assert (await http.post(f"{path}?verbose=1", json=[sent])).json() == {"error": error, "status": 0}
    strict = await http.post(f"{path}?strict=1", json=[sent])
    assert (strict.status_code, strict.json()["failed_records"][0]["message"]) == (400, error)
    assert (fake.records, fake.data().profiles, fake.data().groups) == ([], {}, {})


async def test_a_full_profile_takes_what_it_has(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """With 2000 properties a profile can still change them, and grow no more."""
    full = UPDATE | {"$set": {f"p{i}": i for i in range(2000)}}
    answers = [
        (await http.post("/engage", json=one)).text
        for one in (full, UPDATE | {"$set": {"p0": 7}}, UPDATE | {"$set_once": {"p2000": 1}})
    ]
    assert answers == ["1", "1", "0"]
    assert fake.data().profiles["u1"].properties["p0"] == 7


async def test_how_many_updates_a_request_may_have(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """2000 of profiles and of groups, or fewer if the fake is told so."""
    group = {"$token": "T", "$group_key": "k", "$group_id": "g", "$set": {}}
    assert (await http.post("/engage", json=[UPDATE] * 2001)).status_code == 400
    assert (await http.post("/groups", json=[group] * 2000)).text == "1"
    fake.max_group_updates = 200
    assert (await http.post("/groups", json=[group] * 201)).status_code == 400
    assert len(fake.data().updates(("k", "g"))) == 2000


async def test_the_spellings_of_answers_to_updates(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Answers count what they took if the fake is told so, and strict ones have the form of an import's."""
    assert (await http.post("/engage?verbose=1", json=UPDATE)).json() == {"error": None, "status": 1}
    fake.spelling = Spelling(num_good_events=True)
    verbose = await http.post("/engage?verbose=2", json=[UPDATE, 7])
    assert verbose.json() == {"error": "data, missing or empty", "status": 0, "num_good_events": 1}
    strict = await http.post("/engage?strict=1", json=[UPDATE])
    assert strict.json() == {"code": 200, "error": None, "status": "OK", "num_good_events": 1}


async def test_two_hundred_thousand_events_fit_into_memory(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """An event costs the views a hundred-odd bytes beside its JSON value, which is kept once."""
    await http.post(STRICT, json=[EVENT, EVENT])
    first, second = fake.data().events()
    assert first.sent is fake.records[0][1]
    assert first.arrival is second.arrival
    assert sys.getsizeof(first) < 200


async def test_without_keep_the_views_are_empty() -> None:
    """Only the counts grow."""
    fake = FakeMixpanel(keep=False)
    async with client_of(fake) as http:
        await http.post(STRICT, json=[EVENT])
        await http.post("/engage", json=[UPDATE])
    assert (fake.data().events(), fake.data().profiles, fake.data().updates("u1")) == ([], {}, [])
    assert dict(fake.accepted) == {"/import": 1, "/engage": 1}
