"""The finer of Mixpanel's rules for events, as the fake keeps them: what is cut, made up, dropped or lost."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_requests import EVENT, NOW_MS, client_of, event

from walbatch.testing.clock import FakeClock
from walbatch.testing.exchange import Spelling
from walbatch.testing.mixpanel import FakeMixpanel

STRICT = "/import?strict=1"
UTF8 = "string should be valid utf8"

UNSPEAKABLE: dict[str, tuple[bytes, str, str]] = {
    "in a value": (rb'"utm_source":"\ud800"', "properties.utm_source", f"properties.utm_source is invalid: {UTF8}"),
    "inside a value": (rb'"a":[{"b":"x\udfff"}]', "properties.a", f"properties.a is invalid: {UTF8}"),
    "in a name": (rb'"\ud800":1', "properties", f"properties is invalid: {UTF8}"),
    "over 64 bits": (b'"n":18446744073709551616', "properties.n", "'properties.n' is invalid: must be a number of 64"),
    "under 64 bits": (b'"n":-9223372036854775809', "properties.n", "'properties.n' is invalid: must be a number of 64"),
    "beyond a double": (b'"n":1e999', "properties.n", "'properties.n' is invalid: must be a number of 64"),
}


@pytest.mark.parametrize(("pair", "field", "message"), UNSPEAKABLE.values(), ids=UNSPEAKABLE)
async def test_texts_and_numbers_that_nobody_can_store(
    fake: FakeMixpanel, http: httpx.AsyncClient, pair: bytes, field: str, message: str
) -> None:
    """Half a surrogate and more than 64 bits are one event's failure; the others of the batch are taken."""
    bad = json.dumps(EVENT).encode().replace(b'"$insert_id"', pair + b', "$insert_id"')
    answer = await http.post(STRICT, content=b"[" + bad + b"," + json.dumps(EVENT).encode() + b"]")
    [failed] = answer.json()["failed_records"]
    assert (answer.status_code, failed["index"], failed["field"]) == (400, 0, field)
    assert failed["message"].startswith(message)
    assert fake.records == [("/import", EVENT)]


@pytest.mark.parametrize("path", ["/track", "/engage"])
async def test_half_a_surrogate_is_a_problem_everywhere(fake: FakeMixpanel, http: httpx.AsyncClient, path: str) -> None:
    """The lax endpoints drop such a record, and say so if asked."""
    record = (
        rb'{"event":"E","properties":{"token":"T","x":"\ud800"},"$token":"T","$distinct_id":"u","$set":{"x":"\ud800"}}'
    )
    answer = await http.post(f"{path}?verbose=1", content=record)
    assert answer.json()["status"] == 0
    assert UTF8 in answer.json()["error"]
    assert fake.records == []


async def test_long_texts_are_cut_without_a_word(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """255 characters of names and of texts are stored, at any depth; what came stays in `records`."""
    long = "ñ" * 300
    sent = event(long, **{long: [long, {"in": long}]})
    assert (await http.post(STRICT, json=[sent])).status_code == 200
    [stored] = fake.data().events()
    assert stored.event == "ñ" * 255
    assert stored.properties()["ñ" * 255] == ["ñ" * 255, {"in": "ñ" * 255}]
    assert fake.records == [("/import", sent)]


async def test_a_time_slightly_ahead_becomes_the_time_of_arrival() -> None:
    """Up to an hour ahead is taken and stored as now, so that a second attempt is another event; beyond is refused."""
    clock = FakeClock(NOW_MS)
    fake = FakeMixpanel(clock=clock)
    ahead = event(time=NOW_MS + 3_600_000)
    async with client_of(fake) as http:
        assert (await http.post(STRICT, json=[ahead])).status_code == 200
        await clock.advance(1.0)
        assert (await http.post(STRICT, json=[ahead])).status_code == 200
        assert (await http.post(STRICT, json=[event(time=NOW_MS + 3_602_000)])).status_code == 400
    assert [one.time_ms for one in fake.data().deduplicated()] == [NOW_MS, NOW_MS + 1000]


async def test_seconds_and_milliseconds_are_told_apart(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Below 1e11 a time is in seconds; /track takes fractions, and the present where there is no time."""
    second = NOW_MS // 1000
    assert (await http.post(STRICT, json=[event(time=second)])).status_code == 200
    for sent in (event(token="T", time=second + 0.25), event(token="T", without="time")):
        assert (await http.post("/track", json=sent)).text == "1"
    first, fraction, now = fake.data().events()
    assert (first.time_ms, fraction.time_ms) == (second * 1000, second * 1000 + 250)
    assert now.time_ms == now.arrival.at_ms >= NOW_MS


@pytest.mark.parametrize(("value", "kept"), [(True, 0), ("yes", 0), ("", 1), (False, 1)])
async def test_ignored_events_vanish(fake: FakeMixpanel, http: httpx.AsyncClient, value: object, kept: int) -> None:
    """A true `$ignore` drops the event behind a success, and the number of imported events is lower."""
    answer = await http.post(STRICT, json=[event(**{"$ignore": value})])
    assert (answer.status_code, answer.json()["num_records_imported"]) == (200, kept)
    assert (len(fake.records), fake.lost["/import"]) == (kept, 1 - kept)
    fake.spelling = Spelling(count_ignored=True)
    assert (await http.post(STRICT, json=[event(**{"$ignore": value})])).json()["num_records_imported"] == 1


async def test_a_lenient_import_makes_ids_up(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Without `strict` a missing `$insert_id` is 36 letters, new for each copy, and one sender is one user."""
    for _ in range(2):
        await http.post("/import?verbose=1", json=[event(without="$insert_id"), event(without="distinct_id")])
    first, nobody, second, nobody_again = fake.data().events()
    assert len(first.insert_id) == 36
    assert first.insert_id.isalpha()
    assert first.insert_id != second.insert_id
    assert nobody.distinct_id == nobody_again.distinct_id != ""
    assert len(fake.data().deduplicated()) == 3


async def test_the_simplified_mode_derives_the_distinct_id() -> None:
    """`$user_id` wins over what was sent, else the device counts; an event with both links them."""
    fake = FakeMixpanel(id_mode="simplified")
    sent: list[dict[str, Any]] = [
        event(**{"$user_id": "u", "$device_id": "d"}),
        event(without="distinct_id", **{"$device_id": "d"}),
        event(distinct_id="plain"),
    ]
    async with client_of(fake) as http:
        assert (await http.post(STRICT, json=sent)).status_code == 200
        missing = await http.post(STRICT, json=[event(without="distinct_id")])
    assert missing.json()["failed_records"][0]["field"] == "properties.distinct_id"
    data = fake.data()
    assert [one.distinct_id for one in data.events()] == ["u", "$device:d", "plain"]
    assert data.identities.clusters() == [{"u", "$device:d"}]
    assert fake.records[1] == ("/import", sent[1])


async def test_a_device_stays_with_its_first_user() -> None:
    """Two users are never merged through a device that both have used."""
    fake = FakeMixpanel(id_mode="simplified")
    async with client_of(fake) as http:
        for user in ("u1", "u2"):
            await http.post(STRICT, json=[event(**{"$user_id": user, "$device_id": "d"})])
    assert fake.data().identities.clusters() == [{"u1", "$device:d"}]


LINKS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "identify": ("/track", {"$identified_id": "u1", "$anon_id": "d1", "token": "T"}, ["u1", "d1"]),
    "create_alias": ("/track", {"distinct_id": "u1", "alias": "a1", "token": "T"}, ["u1", "a1"]),
    "merge": ("/import?strict=1", {"$distinct_ids": ["u1", "u2"]}, ["u1", "u2"]),
}


@pytest.mark.parametrize("name", LINKS)
async def test_events_that_link_ids(fake: FakeMixpanel, http: httpx.AsyncClient, name: str) -> None:
    """They need neither time nor `$insert_id`, and are links, not events."""
    path, properties, pair = LINKS[name]
    assert (await http.post(path, json=[{"event": f"${name}", "properties": properties}])).status_code == 200
    data = fake.data()
    [link] = data.identities.links
    assert ([link.first, link.second], link.linked) == (pair, True)
    assert data.identities.cluster("u1") == set(pair)
    assert data.events() == []
    assert fake.accepted[path.partition("?")[0]] == 1


BAD_LINKS: dict[str, tuple[str, dict[str, Any]]] = {
    "merge of three": ("$merge", {"$distinct_ids": ["a", "b", "c"]}),
    "merge of one": ("$merge", {"$distinct_ids": ["a"]}),
    "merge with nothing": ("$merge", {"$distinct_ids": ["a", ""]}),
    "merge without ids": ("$merge", {}),
    "identify without the device": ("$identify", {"$identified_id": "u1"}),
    "alias without the user": ("$create_alias", {"alias": "a"}),
}


@pytest.mark.parametrize(("name", "properties"), BAD_LINKS.values(), ids=BAD_LINKS)
async def test_links_that_lack_an_id(
    fake: FakeMixpanel, http: httpx.AsyncClient, name: str, properties: dict[str, Any]
) -> None:
    """Exactly two ids are needed; anything else is refused and links nothing."""
    answer = await http.post(STRICT, json=[{"event": name, "properties": properties}])
    assert (answer.status_code, len(answer.json()["failed_records"])) == (400, 1)
    assert fake.data().identities.links == []


async def test_merge_comes_by_import_only(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """/track refuses it, and links nothing."""
    merge = {"event": "$merge", "properties": {"$distinct_ids": ["a", "b"], "token": "T"}}
    assert (await http.post("/track", json=merge)).text == "0"
    assert fake.data().identities.links == []


async def test_a_cluster_holds_five_hundred_ids(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The link that would make it larger is taken, and has no effect."""
    merges = [{"event": "$merge", "properties": {"$distinct_ids": ["u", f"d{i}"]}} for i in range(500)]
    assert (await http.post(STRICT, json=merges)).status_code == 200
    identities = fake.data().identities
    assert len(identities.cluster("u")) == 500
    assert [link.linked for link in identities.links[-2:]] == [True, False]
    assert identities.cluster("d499") == {"d499"}


async def test_links_mean_nothing_to_a_simplified_project() -> None:
    """`$identify` without a distinct_id is refused in the words of Mixpanel; a complete one has no effect."""
    fake = FakeMixpanel(id_mode="simplified")
    properties = {"$identified_id": "u", "$anon_id": "d", "token": "T"}
    async with client_of(fake) as http:
        bare = await http.post("/track?verbose=1", json={"event": "$identify", "properties": properties})
        full = {"event": "$identify", "properties": properties | {"distinct_id": "u"}}
        assert (await http.post("/track", json=full)).text == "1"
    assert bare.json()["error"] == "distinct_id, missing or empty"
    assert [link.linked for link in fake.data().identities.links] == [False]
    assert fake.data().identities.clusters() == []
