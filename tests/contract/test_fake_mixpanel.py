"""The fake Mixpanel keeps Mixpanel's contract, and its own: on disk before the answer."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from fake_requests import BAD, EVENT, NOW_MS, TIME_MESSAGE, UPDATE, event

from walbatch.testing.mixpanel import FakeMixpanel

ALL_GOOD = {
    "strict": ("strict=1", 200, {"code": 200, "num_records_imported": 2, "status": "OK"}),
    "strict and verbose": ("strict=1&verbose=1", 200, {"code": 200, "num_records_imported": 2, "status": 1}),
    "verbose": ("verbose=2", 200, {"code": 200, "error": None, "num_records_imported": 2, "status": 1}),
    "neither": ("strict=0", 200, 1),
}


@pytest.mark.parametrize(("query", "status", "body"), ALL_GOOD.values(), ids=ALL_GOOD)
async def test_import_of_good_events(http: httpx.AsyncClient, query: str, status: int, body: object) -> None:
    """The shape of a success depends on `strict` and `verbose`."""
    answer = await http.post(f"/import?{query}", json=[EVENT, EVENT])
    assert (answer.status_code, answer.json()) == (status, body)


SOME_BAD: dict[str, tuple[str, int, object]] = {
    "strict": (
        "strict=1",
        400,
        {
            "code": 400,
            "error": "some data points in the request failed validation",
            "status": "Bad Request",
            "num_records_imported": 1,
            "failed_records": [
                {"index": 1, "insert_id": "i-2", "field": "properties.time", "message": TIME_MESSAGE},
            ],
        },
    ),
    "verbose": (
        "verbose=1",
        200,
        {
            "code": 200,
            "error": "some data points in the request failed validation",
            "num_records_imported": 1,
            "status": 0,
        },
    ),
    "neither": ("", 200, 1),
}


@pytest.mark.parametrize(("query", "status", "body"), SOME_BAD.values(), ids=SOME_BAD)
async def test_import_of_some_bad_events(
    fake: FakeMixpanel, http: httpx.AsyncClient, query: str, status: int, body: object
) -> None:
    """The good events of a batch are taken, whatever the answer; only a strict one says which were not."""
    answer = await http.post(f"/import?{query}", json=[EVENT, BAD])
    assert (answer.status_code, answer.json()) == (status, body)
    assert fake.records == [("/import", EVENT)]
    assert fake.accepted["/import"] == 1


HOUR_MS = 3_600_000
JUDGED: dict[str, tuple[Any, str, str]] = {
    "no event": ({"properties": {}}, "event", "'event' must not be missing or blank"),
    "blank event": (event(" "), "event", "'event' must not be missing or blank"),
    "no object": (7, "event", "'event' must not be missing or blank"),
    "no properties": ({"event": "E"}, "properties", "'properties' is invalid: must be an object"),
    "no time": (event(without="time"), "properties.time", "'properties.time' is invalid: must not be missing"),
    "time before 1971": (event(time=31_535_999), "properties.time", TIME_MESSAGE),
    "time as a text": (event(time="1795000000"), "properties.time", TIME_MESSAGE),
    "time with a fraction": (event(time=1.5e9), "properties.time", TIME_MESSAGE),
    "time as a truth value": (event(time=True), "properties.time", TIME_MESSAGE),
    "time two hours ahead": (
        event(time=NOW_MS + 2 * HOUR_MS),
        "properties.time",
        "'properties.time' is invalid: must not be in the future",
    ),
    "time two hours ahead in seconds": (
        event(time=NOW_MS // 1000 + 7200),
        "properties.time",
        "'properties.time' is invalid: must not be in the future",
    ),
    "no distinct_id": (
        event(without="distinct_id"),
        "properties.distinct_id",
        "'properties.distinct_id' is invalid: must not be missing",
    ),
    "placeholder as distinct_id": (
        event(distinct_id="Undefined"),
        "properties.distinct_id",
        "'properties.distinct_id' is invalid: must not be a placeholder",
    ),
    "null as distinct_id": (
        event(distinct_id=None),
        "properties.distinct_id",
        "'properties.distinct_id' is invalid: must be a string",
    ),
    "no insert_id": (event(without="$insert_id"), "$insert_id", "'$insert_id' is invalid: must not be missing"),
    "insert_id with other characters": (
        event(**{"$insert_id": "a_b"}),
        "$insert_id",
        "'$insert_id' is invalid: must only contain alphanumeric or hyphen '-' characters",
    ),
    "insert_id too long": (
        event(**{"$insert_id": "a" * 37}),
        "$insert_id",
        "'$insert_id' is invalid: must have at most 36 bytes",
    ),
    "placeholder as insert_id": (
        event(**{"$insert_id": "NULL"}),
        "$insert_id",
        "'$insert_id' is invalid: must not be a placeholder",
    ),
    "255 properties": (
        event(**{f"p{i}": i for i in range(252)}),
        "properties",
        "'properties' is invalid: must have at most 254 keys",
    ),
    "array of 255": (
        event(list=[0] * 255),
        "properties.list",
        "'properties.list' is invalid: must have at most 254 elements",
    ),
    "four levels": (
        event(deep={"a": [{"b": {}}]}),
        "properties.deep",
        "'properties.deep' is invalid: must be nested at most 3 levels deep",
    ),
    "a megabyte": (event(text="x" * 1_000_000), "event", "'event' is invalid: must be smaller than 1000000 bytes"),
}


@pytest.mark.parametrize(("sent", "field", "message"), JUDGED.values(), ids=JUDGED)
async def test_a_bad_event_is_named_with_its_reason(
    fake: FakeMixpanel, http: httpx.AsyncClient, sent: object, field: str, message: str
) -> None:
    """A strict import says which field is wrong, and keeps nothing of the event."""
    answer = await http.post("/import?strict=1", json=[sent])
    [failed] = answer.json()["failed_records"]
    assert (answer.status_code, failed["field"], failed["message"]) == (400, field, message)
    assert fake.records == []


FINE: dict[str, dict[str, Any]] = {
    "time in seconds": event(time=NOW_MS // 1000),
    "time half an hour ahead": event(time=NOW_MS + HOUR_MS // 2),
    "nobody": event(distinct_id=""),
    "a number as distinct_id": event(distinct_id=17),
    "254 properties": event(**{f"p{i}": i for i in range(251)}),
    "array of 254": event(list=[0] * 254),
    "the largest numbers": event(most=2**64 - 1, least=-(2**63), double=1.5e300),
    "characters beyond the first plane": event(text="\U0001f600"),
    "three levels": event(deep={"a": [{"b": 1}]}),
    "merge, which has no ids": {"event": "$merge", "properties": {"$distinct_ids": ["a", "b"]}},
}


@pytest.mark.parametrize("sent", FINE.values(), ids=FINE)
async def test_what_mixpanel_takes_is_taken(fake: FakeMixpanel, http: httpx.AsyncClient, sent: dict[str, Any]) -> None:
    """The edges of each rule are on the side where Mixpanel has them."""
    assert (await http.post("/import?strict=1", json=[sent])).status_code == 200
    assert fake.records == [("/import", sent)]


TEXT = json.dumps([EVENT])
BASE64 = base64.b64encode(json.dumps([event(text="??>>~~ñ")]).encode()).decode()
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ENCODINGS: dict[str, tuple[bytes, dict[str, str]]] = {
    "array": (TEXT.encode(), {"Content-Type": "application/json"}),
    "single object": (json.dumps(EVENT).encode(), {"Content-Type": "application/json"}),
    "gzip": (gzip.compress(TEXT.encode()), {"Content-Encoding": "gzip"}),
    "lines": (f"{json.dumps(EVENT)}\n\n".encode(), {"Content-Type": "application/x-ndjson"}),
    "form": (urlencode({"data": TEXT, "ip": "0"}).encode(), FORM),
    "form in base64": (f"data={quote(BASE64, safe='')}".encode(), FORM),
    "form in unescaped base64": (f"data={BASE64}".encode(), FORM),
    "form of a beacon": (f"data={quote(BASE64)}".encode(), {"Content-Type": "text/plain;charset=UTF-8"}),
}


@pytest.mark.parametrize(("body", "headers"), ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("path", ["/import", "/import/"])
async def test_each_way_to_send_one_event(
    fake: FakeMixpanel, http: httpx.AsyncClient, path: str, body: bytes, headers: dict[str, str]
) -> None:
    """Every encoding that Mixpanel's own clients use is understood, with and without a slash at the end."""
    assert (await http.post(f"{path}?strict=1", content=body, headers=headers)).status_code == 200
    assert len(fake.records) == 1


NONSENSE = {
    "nothing": b"",
    "no JSON": b"hello",
    "not a number": b'[{"event":"E","properties":{"x":NaN}}]',
    "infinity": b'[{"event":"E","properties":{"x":-Infinity}}]',
    "not UTF-8": b'[{"event":"\xff"}]',
    "two arrays": b"[1],[2]",
    "empty array": b"[]",
    "very deep": b"[" * 1010 + b"]" * 1010,
    "form without JSON": b"data=%%%",
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
async def test_what_is_no_json_is_refused_as_a_whole(http: httpx.AsyncClient, body: bytes) -> None:
    """A request that cannot be read is a 400 without `failed_records`."""
    answer = await http.post("/import?strict=1", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "data, missing or empty")
    assert "failed_records" not in answer.json()


async def test_broken_gzip_is_refused(http: httpx.AsyncClient) -> None:
    """Neither garbage nor a truncated stream is taken for an empty one."""
    for body in (b"garbage", gzip.compress(TEXT.encode())[:-9]):
        assert (await http.post("/import", content=body, headers={"Content-Encoding": "gzip"})).status_code == 400


async def test_a_request_over_the_limit(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The uncompressed size counts, and the answer names the limit."""
    fake.max_bytes = 2_097_152
    body = gzip.compress(json.dumps([event(text="x" * 700_000)] * 3).encode())
    answer = await http.post("/import?strict=1", content=body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert answer.json()["error"] == "request exceeds max limit of 2097152 bytes"


async def test_more_than_two_thousand_events(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """Two thousand pass, one more is refused as a whole."""
    assert (await http.post("/import?strict=1", json=[EVENT] * 2000)).status_code == 200
    assert (await http.post("/import?strict=1", json=[EVENT] * 2001)).status_code == 400
    assert len(fake.records) == 2000


async def test_imports_need_the_configured_credentials(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The token as the user, or the service account with a project; nothing else."""
    fake.token, fake.service_account = "T", "bot:secret"
    attempts: list[tuple[str, httpx.Auth]] = [
        ("/import", httpx.BasicAuth("T", "")),
        ("/import?project_id=1", httpx.BasicAuth("bot", "secret")),
        ("/import", httpx.BasicAuth("bot", "secret")),
        ("/import?project_id=1", httpx.BasicAuth("bot", "wrong")),
        ("/import", httpx.BasicAuth("t", "")),
        ("/import", httpx.Auth()),
    ]
    answers = [await http.post(path, json=[EVENT], auth=auth) for path, auth in attempts]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401, 401, 401]
    assert answers[-1].json() == {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"}


UPDATES: dict[str, tuple[Any, str | None]] = {
    "good": (UPDATE, None),
    "no token": (UPDATE | {"$token": ""}, "$token, missing or empty"),
    "no distinct_id": (UPDATE | {"$distinct_id": ""}, "$distinct_id, missing or empty"),
    "no operation": ({"$token": "T", "$distinct_id": "u1"}, "operation, missing or unknown"),
    "no object": (7, "data, missing or empty"),
}


@pytest.mark.parametrize(("sent", "error"), UPDATES.values(), ids=UPDATES)
async def test_profile_updates(fake: FakeMixpanel, http: httpx.AsyncClient, sent: object, error: str | None) -> None:
    """Profile updates are answered 200 in any case; the error stands in the body, if asked for."""
    verbose = await http.post("/engage?verbose=1", json=[sent])
    plain = await http.post("/engage/", json=[sent])
    assert (verbose.status_code, verbose.json()) == (200, {"error": error, "status": 0 if error else 1})
    assert (plain.status_code, plain.text) == (200, "0" if error else "1")
    assert len(fake.records) == (0 if error else 2)


async def test_profile_updates_do_not_know_gzip(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """What events may be, profile updates may not."""
    body = gzip.compress(json.dumps([UPDATE]).encode())
    answer = await http.post("/engage?verbose=1", content=body, headers={"Content-Encoding": "gzip"})
    assert answer.json() == {"error": "data, missing or empty", "status": 0}
    assert fake.records == []


async def test_track_loses_old_events_and_says_nothing(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The lax endpoint answers success for an event of last week, and keeps only the new one."""
    old = event(token="T", time=NOW_MS - 7 * 86_400_000)
    new = event(token="T")
    for sent in (old, new):
        assert (await http.get("/track", params={"data": json.dumps(sent)})).text == "1"
    assert fake.records == [("/track", new)]
    assert (await http.post("/track?verbose=1", json=[EVENT])).json()["error"] == "token, missing or empty"


async def test_probes_are_answered(http: httpx.AsyncClient) -> None:
    """A script can wait for it without sending a record."""
    assert [(await http.get(path)).status_code for path in ("/", "/healthz")] == [200, 200]
