"""The dashboard's paths on a real port: what they answer, to whom, and what never is in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from log_records import BAD, EVENTS, NOW, deliver, event, events, open_log

from walbatch import admin, http_server
from walbatch.admin import Admin
from walbatch.dashboard import dead, page
from walbatch.dashboard.headers import HEADERS
from walbatch.dashboard.routes import LIVE_S
from walbatch.dashboard.watch import Watch
from walbatch.delivery import RETRY, Answered, Rejected
from walbatch.errors import WalbatchError
from walbatch.metrics.exposition import Metrics
from walbatch.retry import Condition, State
from walbatch.testing.clock import FakeClock
from walbatch.wal import Settlement
from walbatch.wal.sqlite import SqliteLog

CANARY = "canary-77aa01"
ANSWERED = Answered("there", "events", 1_700_000_000_000, 2, 2, 0, 0, 0, 600, 1, "200", 0.0521, "delivered", {}, 0)
READ = ["/", "/stats", "/api/history", "/api/batches", "/api/dead", "/static/dashboard.js", "/static/dashboard.css"]


class Rig:
    """An admin port on a socket, over an empty log."""

    def __init__(self, log: SqliteLog, clock: FakeClock) -> None:
        self.log = log
        self.clock = clock
        self.watch = Watch(log, clock)
        metrics = Metrics(["there"], backlog_limit_bytes=0)
        self.admin = Admin(log, clock, lambda: True, "token", metrics=metrics, ask_now=lambda _: None, watch=self.watch)
        self.client = httpx.AsyncClient()

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask."""
        return await self.client.get(path, **options)

    async def json(self, path: str) -> Any:
        """Return the JSON that is answered."""
        return (await self.get(path)).json()


@pytest.fixture
async def rig(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Rig]:
    """A port over a log for one destination."""
    async with open_log(tmp_path / "data", clock) as log:
        made = Rig(log, clock)
        listener = admin.listen("127.0.0.1:0")
        async with (
            http_server.serve(admin.check_host(made.admin.app, listener), listener),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as made.client,
        ):
            yield made
            made.admin.close()


class Events:
    """The data of a stream of server-sent events, one after the other."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        """Return the next event's data."""
        async for line in self._lines:
            if line.startswith("data: "):
                data: dict[str, Any] = orjson.loads(line.removeprefix("data: "))
                return data
        raise EOFError

    async def rest(self) -> list[str]:
        """Return what comes until the end."""
        return [line async for line in self._lines if line]


async def test_the_page_is_readable_without_javascript(rig: Rig) -> None:
    """The sentence, the numbers and the footer are in what the server sends, and nothing of the template is left."""
    await rig.log.append(events("abc", rig.clock))
    text = (await rig.get("/")).text
    document = await rig.json("/stats")
    assert document["summary"]
    assert f">{document['summary']}<" in text
    assert re.search(r'data-shown="pending">3<', text)
    assert f"{document['engine']} {document['sqlite_version']}" in text
    assert "<noscript>" in text
    assert "$" not in text


async def test_what_a_destination_says_is_no_markup(rig: Rig) -> None:
    """An answer that looks like HTML is shown as it is."""
    await rig.log.append(events("a", rig.clock))
    condition = Condition(State.RETRYING, 1, rig.clock.wall_ms(), "<script>alert(1)</script>")
    await rig.log.settle(Settlement(await rig.log.fetch(EVENTS, NOW), [RETRY], condition, "", 1, 2))
    text = (await rig.get("/")).text
    assert "alert(1)" in text
    assert "<script>" not in text


@pytest.mark.parametrize("path", [*READ, "/readyz", "/static/missing", "/missing"])
async def test_every_answer_has_the_headers(rig: Rig, path: str) -> None:
    """A browser runs only our files, talks only to this port, keeps nothing, and shows the page in no frame."""
    headers = (await rig.get(path)).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "unsafe" not in headers["content-security-policy"]


async def test_a_page_of_others_is_not_let_in(rig: Rig) -> None:
    """No answer allows another origin, and a page that was led here by its own name gets nothing."""
    for path in (*READ, "/api/live"):
        answer = await rig.get(path, headers={"Host": "evil.example", "Origin": "http://evil.example"})
        assert answer.status_code == 421
    assert "access-control-allow-origin" not in (await rig.get("/", headers={"Origin": "http://evil.example"})).headers


async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(rig: Rig) -> None:
    """What the policy forbids is not there, and whatever the page names is served with its type."""
    text = (await rig.get("/")).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    named = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', text)
    assert named == ["static/dashboard.css", "static/dashboard.js"]
    for name, file in page.static().items():
        answer = await rig.get(f"/static/{name}")
        assert answer.content == file.content
        assert answer.headers["content-type"] == f"{file.media_type}; charset=utf-8"
        code = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|@import|url\(", code)


@pytest.mark.parametrize(
    "path", ["/static/page.html", "/static/..%2Fpage.py", "/static/../page.py", "/static/", "/api/"]
)
async def test_no_other_file_is_served(rig: Rig, path: str) -> None:
    """A name leads to one of the files of the page, or nowhere."""
    assert (await rig.get(path)).status_code == 404


@pytest.mark.parametrize("path", [*READ, "/api/live"])
async def test_reading_changes_nothing(rig: Rig, path: str) -> None:
    """What needs no token takes no other method than GET."""
    assert (await rig.client.post(path, json={})).status_code == 405


async def test_the_history_has_the_samples_of_the_hour(rig: Rig) -> None:
    """Each with its time by the clock of now, also if that was set since."""
    await rig.watch.sample()
    await rig.log.append(events("ab", rig.clock))
    await rig.clock.advance(10)
    rig.watch.observe(ANSWERED)
    await rig.watch.sample()
    rig.clock.wall_jump_ms = 3_600_000
    history = await rig.json("/api/history")
    assert history["interval_s"] == 10
    assert [{k: v for k, v in sample.items() if k != "at"} for sample in history["samples"]] == [
        {"number": 1, "accepted": 0, "sent": 0, "pending": 0},
        {"number": 2, "accepted": 2, "sent": 2, "pending": 2},
    ]
    assert [sample["at"] for sample in history["samples"]] == ["2023-11-14T23:13:20.000Z", "2023-11-14T23:13:30.000Z"]


async def test_samples_are_taken_by_themselves(rig: Rig) -> None:
    """One at the start, and one each ten seconds."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.watch.run())
        for count in (1, 2, 3):
            assert await rig.clock.sleeper(5.0) == 10.0
            assert len(rig.watch.samples()) == count
            await rig.clock.advance(10.0)
        running.cancel()


async def test_the_batches_are_what_was_answered(rig: Rig) -> None:
    """With everything that the flusher told, the oldest first."""
    assert await rig.json("/api/batches") == {"batches": []}
    rig.watch.observe(ANSWERED)
    rig.watch.observe(
        ANSWERED._replace(attempt=3, answer="503 Service Unavailable: sorry", outcome="failed", sent=0, pending=2)
    )
    first, second = (await rig.json("/api/batches"))["batches"]
    assert (first["number"], first["destination"], first["lane"], first["events"]) == (1, "there", "events", 2)
    assert (first["finished_at"], first["payload_bytes"], first["duration_s"]) == (
        "2023-11-14T22:13:20.000Z",
        600,
        0.052,
    )
    assert (second["attempt"], second["answer"], second["pending"]) == (3, "503 Service Unavailable", 2)


async def test_dead_letters_are_shown_without_what_is_in_them(rig: Rig) -> None:
    """In groups, with names and types of one record: whoever reaches the port may look, and no value is there."""
    properties = {"mail": f"{CANARY}@example.com", "n": 12345678, "deep": {CANARY: CANARY}}
    records = [event(f"{CANARY}-{n}", rig.clock, properties=properties, distinct_id=f"{CANARY}-id") for n in range(3)]
    await rig.log.append(records)
    quoting = Rejected(400, "properties.mail", f"no mail address: {CANARY}@example.com in 12345678")
    await deliver(rig.log, [BAD, BAD, quoting])
    answer = await rig.get("/api/dead")
    assert CANARY not in answer.text
    assert "12345678" not in answer.text
    groups = {group["reason"]: group for group in answer.json()["groups"]}
    assert {reason: group["count"] for reason, group in groups.items()} == {
        "is invalid": 2,
        "no mail address: … in …": 1,
    }
    group = groups["is invalid"]
    assert (group["destination"], group["lane"], group["code"], group["field"]) == (
        "there",
        "events",
        400,
        "properties.time",
    )
    assert group["sample"]["event"] == "text"
    assert group["sample"]["properties"] == {
        "distinct_id": "text",
        "ip": "text",
        "mail": "text",
        "n": "number",
        "deep": "object",
        "$insert_id": "text",
        "time": "number",
    }


async def test_many_groups_are_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest are shown, and how many there are besides."""
    monkeypatch.setattr(dead, "GROUPS", 2)
    await rig.log.append(events("abcde", rig.clock))
    await deliver(rig.log, [Rejected(400, f"field-{n}", "is invalid") for n in range(5)])
    document = await rig.json("/api/dead")
    assert (len(document["groups"]), document["more"]) == (2, 3)


async def test_whoever_watches_gets_all_of_it_and_then_what_is_new(rig: Rig) -> None:
    """The first event has what is remembered, those after it, a second apart, the numbers and what has come since."""
    await rig.watch.sample()
    rig.watch.observe(ANSWERED)
    async with rig.client.stream("GET", "/api/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        live = Events(answer.aiter_lines())
        first = await live.next()
        assert first["stats"]["accepted"] == 0
        assert (len(first["samples"]), len(first["batches"])) == (1, 1)
        assert first["words"] == {"there": "delivering"}
        assert first["shown"]["sentence"] == first["stats"]["summary"]
        await rig.log.append(events("ab", rig.clock))
        rig.watch.observe(ANSWERED)
        assert await rig.clock.sleeper() == LIVE_S
        await rig.clock.advance(LIVE_S)
        second = await live.next()
        assert (second["stats"]["accepted"], second["shown"]["pending"]) == (2, "2")
        assert [batch["number"] for batch in second["batches"]] == [2]
        assert second["samples"] == []


async def test_a_stream_ends_when_the_server_does(rig: Rig) -> None:
    """Whoever watches is let go at once, in the middle of the second, and nobody is let in any more."""
    async with rig.client.stream("GET", "/api/live") as answer:
        live = Events(answer.aiter_lines())
        await live.next()
        rig.admin.close()
        assert await live.rest() == []
    assert "data" not in (await rig.get("/api/live")).text


async def test_a_log_that_cannot_be_read_ends_the_stream(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends without an error: the browser says that it is not connected, and comes again."""

    async def unreadable() -> None:
        raise WalbatchError("the disk hangs")

    async with rig.client.stream("GET", "/api/live") as answer:
        live = Events(answer.aiter_lines())
        await live.next()
        monkeypatch.setattr(rig.log, "backlog", unreadable)
        await rig.clock.sleeper()
        await rig.clock.advance(LIVE_S)
        assert await live.rest() == []


@pytest.mark.parametrize("path", ["/", "/stats", "/api/dead"])
async def test_a_log_that_cannot_be_read_is_an_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Whoever asks is told why, and not that the server is broken."""

    async def unreadable(*_: object) -> None:
        raise WalbatchError("the disk hangs")

    for name in ("backlog", "read"):
        monkeypatch.setattr(rig.log, name, unreadable)
    answer = await rig.get(path)
    assert (answer.status_code, answer.json()) == (503, {"error": "the disk hangs"})


async def test_a_log_that_cannot_be_read_leaves_a_gap(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes on, and so do the samples as soon as they can."""
    backlog = rig.log.backlog

    async def unreadable() -> None:
        raise WalbatchError("the disk hangs")

    async with asyncio.TaskGroup() as tasks:
        monkeypatch.setattr(rig.log, "backlog", unreadable)
        running = tasks.create_task(rig.watch.run())
        await rig.clock.sleeper(5.0)
        assert rig.watch.samples() == []
        monkeypatch.setattr(rig.log, "backlog", backlog)
        await rig.clock.advance(10.0)
        await rig.clock.sleeper(5.0)
        assert len(rig.watch.samples()) == 1
        running.cancel()
