"""Scripts of faults against the fake Mixpanel, on real sockets: what the sender sees, and what was accepted."""

from __future__ import annotations

import asyncio
import json
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_requests import EVENT, NOW_MS, UPDATE, client_of

from walbatch.errors import ConfigurationError
from walbatch.testing.clock import FakeClock
from walbatch.testing.mixpanel import FakeMixpanel
from walbatch.testing.script import Script, load_script

STRICT = "/import?strict=1"
DAY = {"from_date": "2020-01-01", "to_date": "2100-01-01"}


def playing(*steps: dict[str, Any], clock: FakeClock | None = None) -> FakeMixpanel:
    """Return a fake that plays these steps."""
    return FakeMixpanel(faults=Script.model_validate(list(steps)), clock=clock)


async def answers(http: httpx.AsyncClient, times: int) -> list[httpx.Response]:
    """Send the same event some times."""
    return [await http.post(STRICT, json=[EVENT]) for _ in range(times)]


REPLIES: dict[str, tuple[dict[str, Any], int, dict[str, str], str]] = {
    "JSON of Mixpanel": (
        {"fault": "status", "status": 401},
        401,
        {"content-type": "application/json"},
        '{"code":401,"error":"Invalid credentials","status":"Unauthorized"}',
    ),
    "400 without names": (
        {"fault": "status", "status": 400},
        400,
        {},
        '{"code":400,"error":"some data points in the request failed validation","status":"Bad Request"}',
    ),
    "429 with seconds": (
        {"fault": "status", "status": 429, "retry_after": 3},
        429,
        {"retry-after": "3"},
        "rate limits",
    ),
    "429 with nonsense": (
        {"fault": "status", "status": 429, "retry_after": "soon"},
        429,
        {"retry-after": "soon"},
        "rate limits",
    ),
    "own text": ({"fault": "status", "status": 503, "body": "busy"}, 503, {"content-type": "text/plain"}, "busy"),
    "own JSON": ({"fault": "status", "status": 418, "body": {"a": 1}}, 418, {}, '{"a":1}'),
    "own headers": ({"fault": "status", "status": 500, "headers": {"X-A": "b"}}, 500, {"x-a": "b"}, "<html>"),
    "page with success": ({"fault": "page"}, 200, {"content-type": "text/html"}, "<html><title>200 OK"),
    "page 413": ({"fault": "page", "status": 413}, 413, {"content-type": "text/html"}, "<html><title>413"),
    "page 414": ({"fault": "page", "status": 414}, 414, {"content-type": "text/html"}, "<html><title>414"),
    "page 502": ({"fault": "page", "status": 502}, 502, {"content-type": "text/html"}, "<html><title>502"),
    "redirect": ({"fault": "redirect", "location": "http://x/"}, 307, {"location": "http://x/"}, ""),
    "nothing changed": ({"fault": "status", "status": 304}, 304, {}, ""),
}


@pytest.mark.parametrize(("step", "status", "headers", "text"), REPLIES.values(), ids=REPLIES)
async def test_answers_of_all_kinds(step: dict[str, Any], status: int, headers: dict[str, str], text: str) -> None:
    """The step's answer comes once, nothing of that request is accepted, and the next one is served."""
    fake = playing(step)
    async with client_of(fake) as http:
        first, second = await answers(http, 2)
    assert (first.status_code, second.status_code) == (status, 200)
    assert {name: first.headers[name] for name in headers} == headers
    assert text in first.text
    assert len(fake.records) == 1
    assert dict(fake.answers) == ({status: 1, 200: 1} if status != 200 else {200: 2})


async def test_a_429_without_a_wish() -> None:
    """As documented, the header is left out unless the step has it."""
    async with client_of(playing({"fault": "status", "status": 429})) as http:
        [answer] = await answers(http, 1)
    assert "retry-after" not in answer.headers


async def test_a_wish_as_a_date() -> None:
    """The date is so far from the moment of the answer."""
    fake = playing({"fault": "status", "status": 429, "retry_after_date": "30s"}, clock=FakeClock(NOW_MS))
    async with client_of(fake) as http:
        [answer] = await answers(http, 1)
    assert parsedate_to_datetime(answer.headers["retry-after"]).timestamp() == NOW_MS // 1000 + 30


@pytest.mark.parametrize("fault", [{"fault": "status", "status": 503}, {"fault": "page", "status": 502}])
async def test_a_failure_after_the_commit(fault: dict[str, Any]) -> None:
    """With `commit` the records are accepted all the same: the sender's second attempt makes copies."""
    fake = playing(fault | {"commit": True})
    async with client_of(fake) as http:
        first, second = await answers(http, 2)
    assert (first.status_code >= 500, second.status_code) == (True, 200)
    assert (len(fake.data().events()), len(fake.data().deduplicated())) == (2, 1)


@pytest.mark.parametrize("commit", [False, True])
async def test_a_reset_connection(*, commit: bool) -> None:
    """The sender sees a broken connection; whether the records were accepted is for the step to say."""
    fake = playing({"fault": "reset", "commit": commit})
    async with client_of(fake) as http:
        with pytest.raises(httpx.ReadError):  # not an orderly end, which is a RemoteProtocolError
            await http.post(STRICT, json=[EVENT])
        assert (len(fake.records), dict(fake.answers)) == (int(commit), {})
        assert (await http.post(STRICT, json=[EVENT])).status_code == 200


async def test_half_an_answer() -> None:
    """The announced body ends too early, after the records were accepted."""
    fake = playing({"fault": "half"})
    async with client_of(fake) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await http.post(STRICT, json=[EVENT])
        assert len(fake.records) == 1
        assert (await http.post(STRICT, json=[EVENT])).status_code == 200


async def test_a_connection_that_is_not_there_cannot_be_broken(fake: FakeMixpanel, http: httpx.AsyncClient) -> None:
    """A client that calls the application directly gets an error, not silence."""
    fake.play(Script.model_validate([{"fault": "reset"}]))
    assert (await http.post(STRICT, json=[EVENT])).status_code == 500


async def test_a_body_in_drops() -> None:
    """Each byte waits for its turn; in the end the answer is whole."""
    clock = FakeClock(NOW_MS)
    fake = playing({"fault": "drip", "delay": "1s"}, clock=clock)
    async with client_of(fake) as http:
        sending = asyncio.create_task(http.post("/import", json=[EVENT]))
        await clock.sleeper()
        assert (len(fake.records), sending.done()) == (1, False)
        await clock.advance(1.0)
        assert (await sending).text == "1"


@pytest.mark.parametrize(("fault", "accepted"), [("late", 0), ("slow", 1)])
async def test_waiting_before_and_after_the_commit(fault: str, accepted: int) -> None:
    """`late` holds the request back, `slow` the first byte of the answer."""
    clock = FakeClock(NOW_MS)
    fake = playing({"fault": fault, "delay": 5}, clock=clock)
    async with client_of(fake) as http:
        sending = asyncio.create_task(http.post(STRICT, json=[EVENT]))
        assert await clock.sleeper() == 5.0
        assert len(fake.records) == accepted
        await clock.advance(5.0)
        assert (await sending).status_code == 200
    assert len(fake.records) == 1


async def test_a_wrong_count() -> None:
    """All records are accepted, and fewer are counted: never less than none."""
    fake = playing({"fault": "miscount", "by": 3, "times": 3})
    async with client_of(fake) as http:
        many = await http.post(STRICT, json=[EVENT] * 5)
        one = await http.post(STRICT, json=[EVENT])
        plain = await http.post("/import", json=[EVENT])
    assert (many.json()["num_records_imported"], one.json()["num_records_imported"], plain.text) == (2, 0, "1")
    assert len(fake.records) == 7


async def test_an_export_that_breaks_off() -> None:
    """Half of the lines, then one that is no JSON, under 200; the next export is whole."""
    fake = playing({"fault": "terminated_early"})
    async with client_of(fake) as http:
        await http.post(STRICT, json=[EVENT] * 20)
        broken, whole = [await http.get("/api/2.0/export", params=DAY) for _ in range(2)]
    assert broken.status_code == 200
    assert len(broken.text.splitlines()) == 11
    assert broken.text.endswith("export terminated early\n")
    assert len(whole.text.splitlines()) == 20


async def test_a_refused_export_cannot_break_off() -> None:
    """The step is played, and the refusal stays what it is."""
    async with client_of(playing({"fault": "terminated_early"})) as http:
        answer = await http.get("/api/2.0/export")
    assert (answer.status_code, answer.text) == (400, "from_date must be a date as 2026-11-23")


async def test_steps_in_their_order() -> None:
    """Steps follow each other, each as often as it says; `ok` lets requests pass in between."""
    fake = playing(
        {"fault": "status", "status": 401, "times": 2}, {"fault": "ok"}, {"fault": "status", "status": 502, "times": 1}
    )
    async with client_of(fake) as http:
        assert [answer.status_code for answer in await answers(http, 5)] == [401, 401, 200, 502, 200]


async def test_steps_for_one_endpoint() -> None:
    """A step waits for its endpoint and holds nobody else up; an export is hit by steps that name it only."""
    fake = playing(
        {"fault": "status", "status": 503, "endpoint": "/engage"},
        {"fault": "status", "status": 502, "times": 2},
        {"fault": "status", "status": 500, "endpoint": "/api/2.0/export"},
    )
    async with client_of(fake) as http:
        assert (await http.post(STRICT, json=[EVENT])).status_code == 502
        assert [(await http.post("/engage/", json=UPDATE)).status_code for _ in range(3)] == [503, 502, 200]
        assert [(await http.get("/api/2.0/export", params=DAY)).status_code for _ in range(2)] == [500, 200]


async def test_a_step_for_a_while() -> None:
    """The time runs from the step's first request on."""
    clock = FakeClock(NOW_MS)
    fake = playing({"fault": "status", "status": 503, "for": "10s"}, clock=clock)
    async with client_of(fake) as http:
        statuses = []
        await clock.advance(60.0)
        for wait_s in (0.0, 9.9, 0.1):
            await clock.advance(wait_s)
            statuses += [answer.status_code for answer in await answers(http, 1)]
    assert statuses == [503, 503, 200]


async def test_chance_repeats_with_its_seed() -> None:
    """The same seed, rate and weights give the same faults; what is heavy comes more often, and steps come first."""
    script = {
        "steps": [{"fault": "status", "status": 418}],
        "seed": 7,
        "rate": 0.5,
        "faults": [{"fault": "page", "status": 502, "weight": 9}, {"fault": "status", "status": 503, "commit": True}],
    }
    runs = []
    for _ in range(2):
        fake = FakeMixpanel(faults=Script.model_validate(script))
        async with client_of(fake) as http:
            runs.append([answer.status_code for answer in await answers(http, 60)])
    assert runs[0] == runs[1]
    assert runs[0][0] == 418
    assert runs[0].count(502) > runs[0].count(503) > 0
    assert 15 < runs[0].count(200) < 45
    assert len(fake.records) == runs[0].count(200) + runs[0].count(503)


async def test_a_script_can_be_changed_while_it_runs() -> None:
    """Playing another one drops what is left of the first."""
    fake = playing({"fault": "status", "status": 503, "times": 1000})
    async with client_of(fake) as http:
        before = await answers(http, 1)
        fake.play(Script())
        after = await answers(http, 1)
    assert [one.status_code for one in before + after] == [503, 200]


WRONG: dict[str, tuple[str, str]] = {
    "no file": ("", "No such file"),
    "no JSON": ("[{]", "Invalid JSON"),
    "neither array nor object": ("7", "Input should be an object"),
    "no kind": ('[{"fault": "ok"}, {"status": 503}]', r"steps\[1\]: Unable to extract tag using discriminator 'fault'"),
    "unknown kind": ('[{"fault": "fire"}]', r"steps\[0\]: Input tag 'fire' found using 'fault'"),
    "unknown key": ('[{"fault": "ok", "statsu": 1}]', r"steps\[0\].ok.statsu: Extra inputs"),
    "status out of range": (
        '[{"fault": "status", "status": 99}]',
        r"steps\[0\].status.status: Input should be greater",
    ),
    "no delay": ('[{"fault": "slow"}]', r"steps\[0\].slow.delay: Field required"),
    "duration": (
        '[{"fault": "ok"}, {"fault": "slow", "delay": "5x"}]',
        r"steps\[1\].slow.delay: '5x' is not a duration; write",
    ),
    "duration as a truth value": ('[{"fault": "ok", "for": true}]', r"steps\[0\].ok.for: write a duration"),
    "times and for": ('[{"fault": "ok", "times": 1, "for": "1s"}]', r"steps\[0\].ok: 'times' and 'for' exclude"),
    "endpoint": ('[{"fault": "ok", "endpoint": "/x"}]', r"steps\[0\].ok.endpoint: Input should be '/import'"),
    "weight of a step": ('[{"fault": "ok", "weight": 2}]', r"steps\[0\].weight: only 'faults' are weighted"),
    "times of a chance": (
        '{"rate": 0.1, "faults": [{"fault": "ok", "times": 2}]}',
        r"faults\[0\]: 'times' and 'for' belong to steps",
    ),
    "rate without faults": ('{"rate": 0.1}', "'rate' and 'faults' need each other"),
    "rate over one": ('{"rate": 1.1, "faults": [{"fault": "ok"}]}', "rate: Input should be less than or equal to 1"),
    "unknown part": ('{"stepz": []}', "stepz: Extra inputs"),
}


@pytest.mark.parametrize(("text", "error"), WRONG.values(), ids=WRONG)
def test_a_wrong_script(tmp_path: Path, text: str, error: str) -> None:
    """The error names the file, the step and the key."""
    path = tmp_path / "script.json"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=error) as raised:
        load_script(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_script_comes_from_a_file(tmp_path: Path) -> None:
    """An array is a list of steps, an object has its parts."""
    path = tmp_path / "script.json"
    steps = [{"fault": "drip", "delay": "50ms", "for": 2.5}]
    path.write_text(json.dumps(steps))
    [step] = load_script(path).steps
    assert (step.between_s, step.for_s) == (0.05, 2.5)
    path.write_text(json.dumps({"steps": steps}))
    assert load_script(path).steps == (step,)
