"""The fake Mixpanel for clients that are no servers: browsers and the classic SDKs."""

from __future__ import annotations

import base64
import gzip
import json

import httpx
import pytest
from fake_requests import BAD, EVENT, UPDATE, event

from walbatch.testing.exchange import PIXEL, Spelling
from walbatch.testing.mixpanel import FakeMixpanel

TRACKED = event(token="T", text="??>>~~ñ")
BASE64 = base64.b64encode(json.dumps(TRACKED).encode()).decode()
ORIGIN = {"Origin": "http://app.example.test"}


@pytest.mark.parametrize("path", ["/track", "/track/", "/api/2.0/export", "/record/", "/healthz"])
async def test_every_answer_can_be_read_by_a_page(http: httpx.AsyncClient, path: str) -> None:
    """The page's origin is echoed, never a star, since browsers send cookies along; so is what it asks for."""
    for answer in (
        await http.get(path, headers=ORIGIN),
        await http.options(path, headers=ORIGIN | {"Access-Control-Request-Headers": "x-a, x-b"}),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"


async def test_a_question_before_the_request(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """OPTIONS is answered without a body and is no request for data; without an origin there is nothing to echo."""
    answer = await http.options("/import", headers=ORIGIN)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    assert "access-control-allow-origin" not in (await http.options("/import")).headers
    assert not fake.requests


async def test_routes_that_are_none(http: httpx.AsyncClient) -> None:
    """A browser's recordings and flags get a 404, other methods a 405."""
    assert (await http.post("/record/", content=b"\x1f\x8b\x00")).status_code == 404
    assert (await http.get("/flags/")).status_code == 404
    assert (await http.put("/import", json=[EVENT])).status_code == 405


@pytest.mark.parametrize("data", [BASE64, BASE64.replace("+", "-").replace("/", "_").rstrip("="), json.dumps(TRACKED)])
async def test_tracking_by_get(fake: FakeMixpanel, http: httpx.AsyncClient, data: str) -> None:
    """The record is in the query: as JSON, in base64, or in the alphabet for URLs."""
    assert (await http.get("/track", params={"data": data, "ip": "0", "verbose": "0"})).text == "1"
    assert fake.records == [("/track", TRACKED)]


async def test_verbose_in_the_form(http: httpx.AsyncClient) -> None:
    """Options count wherever they stand, also if the data cannot be read, and in any order."""
    good = await http.post("/track", data={"verbose": "1", "data": json.dumps(TRACKED)})
    bad = await http.post("/track", data={"data": "%%%", "verbose": "2"})
    assert good.json() == {"error": None, "status": 1}
    assert bad.json() == {"error": "data, missing or empty", "status": 0}


async def test_json_that_calls_itself_a_form(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """That is what curl sends if it is not told otherwise."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await http.post("/import?strict=1", content=json.dumps([EVENT]), headers=headers)).status_code == 200
    assert fake.records == [("/import", EVENT)]


async def test_lines_are_for_imports_only(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The other endpoints do not know NDJSON."""
    lines = f"{json.dumps(TRACKED)}\n{json.dumps(TRACKED)}\n".encode()
    headers = {"Content-Type": "application/x-ndjson"}
    assert (await http.post("/track", content=lines, headers=headers)).text == "0"
    assert (await http.post("/import?strict=1", content=lines, headers=headers)).json()["num_records_imported"] == 2
    assert fake.accepted["/track"] == 0


async def test_an_image_and_a_script(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """`img` gets a transparent point, `callback` a call; a name that is no name is not called."""
    image = await http.get("/track", params={"data": BASE64, "img": "1"})
    script = await http.get("/track", params={"data": BASE64, "callback": "a.b", "verbose": "1"})
    unsafe = await http.get("/track", params={"data": BASE64, "callback": "alert(1)//"})
    assert (image.content, image.headers["content-type"]) == (PIXEL, "image/gif")
    assert (script.text, script.headers["content-type"]) == ('a.b({"error":null,"status":1});', "text/javascript")
    assert unsafe.text == "1"
    assert len(fake.records) == 3


@pytest.mark.parametrize("path", ["/engage", "/groups"])
async def test_gzip_of_updates_can_be_switched_on(fake: FakeMixpanel, http: httpx.AsyncClient, path: str) -> None:
    """The documentation says that these endpoints do not know it; some clients use it all the same."""
    update = UPDATE if path == "/engage" else {"$token": "T", "$group_key": "k", "$group_id": "g", "$set": {}}
    body = gzip.compress(json.dumps([update]).encode())
    answers = []
    for known in (False, True):
        fake.gzip_updates = known
        answers.append((await http.post(path, content=body, headers={"Content-Encoding": "gzip"})).text)
    assert answers == ["0", "1"]
    assert fake.records == [(path, update)]


async def test_the_spellings_of_an_import(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """The key of the id and the type of `status` are as Mixpanel's other pages have them, if the fake is told so."""
    fake.spelling = Spelling(insert_id_key="$insert_id", integer_status=True)
    bad = (await http.post("/import?strict=1", json=[BAD])).json()
    good = (await http.post("/import?strict=1", json=[EVENT])).json()
    assert (bad["status"], bad["failed_records"][0]["$insert_id"]) == (0, "i-2")
    assert "insert_id" not in bad["failed_records"][0]
    assert good == {"code": 200, "num_records_imported": 1, "status": 1}
