"""The raw export of the fake Mixpanel: what it shows of the events, and to whom."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_requests import client_of, event

from walbatch.testing.clock import FakeClock
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.projects import Project, ServiceAccount

STRICT = "/import?strict=1"
NOON_MS = 1_763_899_200_123
"""2025-11-23 12:00 UTC and some."""
DAY_MS = 86_400_000
DAY = {"from_date": "2025-11-23", "to_date": "2025-11-23"}
EXPORT = "/api/2.0/export"


@pytest.fixture
def fake() -> FakeMixpanel:
    """Return a fake whose clock stands still."""
    return FakeMixpanel(clock=FakeClock(NOON_MS))


async def exported(http: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    """Return the lines of an export."""
    answer = await http.get(EXPORT, params=DAY | params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_exported_event(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Token and address are gone, the server's own properties are there, and the time is in seconds."""
    await http.post(STRICT, json=[event(time=NOON_MS, token="T", ip="1.2.3.4", plan="pro")])
    made = {
        "$import": True,
        "$mp_api_endpoint": "api.mixpanel.com",
        "$mp_api_timestamp_ms": NOON_MS,
        "mp_processing_time_ms": NOON_MS,
    }
    own = {"time": NOON_MS // 1000, "distinct_id": "u1", "$insert_id": "i-1", "plan": "pro"}
    assert await exported(http) == [{"event": "E", "properties": own | made}]
    [in_ms] = await exported(http, time_in_ms="true")
    assert in_ms["properties"]["time"] == NOON_MS


async def test_copies_and_tracked_events_are_exported(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Nothing is deduplicated; what came by /track is not marked as imported, and links of ids are no events."""
    fake.region = "eu"
    sent = event(time=NOON_MS, token="T")
    link = {"event": "$identify", "properties": {"$identified_id": "u", "$anon_id": "d", "token": "T"}}
    await http.post(STRICT, json=[sent, sent])
    await http.post("/track", json=[sent, link])
    lines = [line["properties"] for line in await exported(http)]
    assert [properties.get("$import") for properties in lines] == [True, True, None]
    assert {properties["$mp_api_endpoint"] for properties in lines} == {"api-eu.mixpanel.com"}


async def test_what_can_be_asked_for(http: httpx.AsyncClient) -> None:
    """Both dates belong to the range, names are a JSON array, and a limit cuts the list."""
    for days, name in ((-1, "A"), (0, "A"), (0, "B")):
        await http.post(STRICT, json=[event(name, time=NOON_MS + days * DAY_MS)])
    assert len(await exported(http)) == 2
    assert len(await exported(http, from_date="2025-11-22")) == 3
    assert [line["event"] for line in await exported(http, event='["B","C"]')] == ["B"]
    assert [line["event"] for line in await exported(http, limit=1)] == ["A"]


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "no date": ({"from_date": ""}, "from_date must be a date as 2026-11-23"),
    "no such date": ({"to_date": "2025-11-31"}, "to_date must be a date as 2026-11-23"),
    "backwards": ({"from_date": "2025-11-24"}, "from_date must not be after to_date"),
    "limit too high": ({"limit": "100001"}, "limit must be from 1 to 100000"),
    "limit of nothing": ({"limit": "0"}, "limit must be from 1 to 100000"),
    "name without an array": ({"event": "A"}, "event must be a JSON array of names"),
    "array of numbers": ({"event": "[1]"}, "event must be a JSON array of names"),
    "filter": ({"where": "true"}, "where is not known to the fake Mixpanel; filter what it returns"),
}


@pytest.mark.parametrize(("params", "error"), WRONG.values(), ids=WRONG)
async def test_a_wrong_question(http: httpx.AsyncClient, params: dict[str, str], error: str) -> None:
    """The answer is a 400 in plain text that names the parameter."""
    answer = await http.get(EXPORT, params=DAY | params)
    assert (answer.status_code, answer.text) == (400, error)
    assert answer.headers["content-type"] == "text/plain"


async def test_a_long_export_is_packed_if_asked(http: httpx.AsyncClient) -> None:
    """Only clients that know gzip get it, and only for more than 1400 bytes."""
    await http.post(STRICT, json=[event(time=NOON_MS)])
    short = await http.get(EXPORT, params=DAY)
    await http.post(STRICT, json=[event(time=NOON_MS)] * 10)
    long = await http.get(EXPORT, params=DAY)
    plain = await http.get(EXPORT, params=DAY, headers={"Accept-Encoding": "identity"})
    assert [one.headers.get("content-encoding") for one in (short, long, plain)] == [None, "gzip", None]
    assert long.text == plain.text


async def test_who_may_export() -> None:
    """The secret, or any service account with its project; the token only where there is neither."""
    shop = Project(1, "t", "s", (ServiceAccount("reader", "r", "consumer"),))
    fake = FakeMixpanel(projects=(shop, Project(2, "bare")))
    attempts = [
        ("1", "reader", "r"),
        ("1", "s", ""),
        ("1", "t", ""),
        ("1", "reader", "x"),
        ("2", "bare", ""),
        ("3", "", ""),
    ]
    async with client_of(fake) as http:
        answers = [
            await http.get(EXPORT, params=DAY | {"project_id": number}, auth=httpx.BasicAuth(user, password))
            for number, user, password in attempts
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401, 200, 401]
    assert answers[-1].text == "Invalid credentials"


async def test_without_keep_there_is_nothing_to_export() -> None:
    """The answer says what to change, rather than that there were no events."""
    async with client_of(FakeMixpanel(keep=False)) as http:
        answer = await http.get(EXPORT, params=DAY)
    assert answer.status_code == 400
    assert "--keep" in answer.text
