"""The admin port: who may ask what, and what is answered."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from log_records import BAD, counts_of, deliver, events

from walbatch import admin, http_server
from walbatch.admin import TOKEN_FILE, Admin
from walbatch.batching import BatchPolicy
from walbatch.dashboard.watch import Watch
from walbatch.delivery import DELIVERED
from walbatch.errors import BacklogFull, ConfigurationError
from walbatch.event import Kind, Record, track
from walbatch.metrics.exposition import Metrics
from walbatch.retry import Condition
from walbatch.testing.clock import FakeClock
from walbatch.wal import Appended, Lane, Settlement
from walbatch.wal.sqlite import SqliteLog

TOKEN = "the-token-of-this-run"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


class Rig:
    """An admin port on a socket, over a log that is given."""

    def __init__(self, log: SqliteLog, clock: FakeClock) -> None:
        self.log = log
        self.ready = True
        self.asked: list[str] = []
        metrics = Metrics(["there"], backlog_limit_bytes=0)
        watch = Watch(log, clock)
        self.admin = Admin(
            log, clock, lambda: self.ready, TOKEN, metrics=metrics, ask_now=self.asked.append, watch=watch
        )
        self.client = httpx.AsyncClient()

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask."""
        return await self.client.get(path, **options)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        """Ask for something to be done, with the token."""
        return await self.client.post(path, json=body, headers=AUTHORISED)


@pytest.fixture
async def rig(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Rig]:
    """A log that has delivered three events, and its admin port."""
    async with SqliteLog(tmp_path / "data", ["there"], clock, allow_affected_sqlite=True) as log:
        names = ("Tick", "Tick", "Tock")
        await log.append([track(name=name, properties={}, now_ms=clock.wall_ms()) for name in names])
        batch = await log.fetch(Lane("there", Kind.EVENT), BatchPolicy().at_once())
        await log.settle(Settlement(batch, [DELIVERED] * 3, Condition(), "200", 1, 2))
        made = Rig(log, clock)
        listener = admin.listen("127.0.0.1:0")
        async with (
            http_server.serve(admin.check_host(made.admin.app, listener), listener),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as made.client,
        ):
            yield made


async def test_ready_follows_the_server_and_live_does_not(rig: Rig) -> None:
    """While it drains, the server is alive and not ready."""
    assert [(await rig.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
    rig.ready = False
    assert [(await rig.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 503]


async def test_stats_are_those_of_the_log(rig: Rig) -> None:
    """The document has the totals, the lanes, and what an acknowledgement means."""
    document = (await rig.get("/stats")).json()
    assert (document["accepted"], document["sent"], document["pending"]) == (3, 3, 0)
    assert (document["serving"], document["durability"], document["engine"]) == (True, "fsynced", "sqlite")
    (destination,) = document["destinations"]
    assert (destination["name"], destination["state"], destination["retry_at"]) == ("there", "ok", None)
    assert [lane["name"] for lane in destination["lanes"]] == ["events", "profiles", "groups"]


async def test_a_dry_run_counts_and_changes_nothing(rig: Rig) -> None:
    """The plan has the count by outcome and the span."""
    plan = (await rig.post("/replay", selection={"event": "Tick"})).json()
    assert (plan["count"], plan["sent"], plan["dead"]) == (2, 2, 0)
    assert (await rig.log.backlog()).accepted == 3


async def test_a_replay_reports_as_it_goes(rig: Rig) -> None:
    """Each line has the count so far; the records are in the log again."""
    answer = await rig.post("/replay", selection={"event": "Tick"}, dry_run=False)
    assert answer.text == '{"replayed":2}\n'
    assert (await rig.log.backlog()).accepted == 5


async def test_a_replay_that_cannot_go_on_says_why(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line has the reason, for the person who waits."""

    async def full(*_: object) -> None:
        raise BacklogFull("the disk is full")

    monkeypatch.setattr(rig.log, "append", full)
    answer = await rig.post("/replay", selection={}, dry_run=False)
    assert answer.text == '{"error":"the disk is full"}\n'


@pytest.mark.parametrize("path", ["/replay", "/dead/replay", "/dead/discard", "/pause", "/resume", "/flush"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer é"}],
    ids=["no token", "a wrong token", "another scheme", "not even ASCII"],
)
async def test_nothing_is_done_without_the_token(rig: Rig, headers: dict[str, str], path: str) -> None:
    """Without the token of the data directory nothing is planned, repeated or discarded."""
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    body = {"destination": "there", "choice": {}, "selection": {}, "dry_run": False, "expected": 0}
    answer = await rig.client.post(path, json=body, headers=encoded)
    assert answer.status_code == 401
    assert TOKEN_FILE in answer.json()["error"]
    backlog = await rig.log.backlog()
    assert (backlog.accepted, backlog.destinations[0].paused_at_ms, rig.asked) == (3, None, [])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/replay", {"selection": {"status": "everything"}}, "selection.status"),
        ("/replay", {"selection": {"evnt": "Tick"}}, "selection.evnt"),
        ("/replay", {"selection": {}, "dryrun": False}, "dryrun"),
        ("/replay", {}, "selection"),
        ("/dead/replay", {"choice": {}}, "destination"),
        ("/dead/replay", {"destination": "there", "choice": {"number": [1]}}, "choice.number"),
        ("/dead/replay", {"destination": "there", "choice": {}, "documents": {"first": "{}"}}, "documents.first"),
        ("/dead/discard", {"destination": "there", "choice": {}}, "expected"),
        ("/pause", {"destinations": "there"}, "destinations"),
        ("/resume", {"destination": 1}, "destination"),
        ("/flush", {"all": True}, "all"),
    ],
)
async def test_a_malformed_request_names_the_field(rig: Rig, path: str, body: dict[str, Any], field: str) -> None:
    """A typing error never becomes a replay of everything."""
    answer = await rig.post(path, **body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]


async def test_a_destination_that_is_not_there_is_told_with_those_that_are(rig: Rig) -> None:
    """The last line has the names to choose from."""
    for path, body in (
        ("/replay", {"selection": {}}),
        ("/dead/replay", {"choice": {}}),
        ("/dead/discard", {"choice": {}, "expected": 0}),
        ("/pause", {}),
        ("/resume", {}),
        ("/flush", {}),
    ):
        answer = await rig.post(path, destination="elsewhere", **body)
        assert "it has there" in answer.json()["error"]


async def test_dead_letters_are_replayed_and_discarded(rig: Rig, clock: FakeClock) -> None:
    """Each page is told with what was refused in it; the letters are closed."""
    await rig.log.append(events("abc", clock))
    await deliver(rig.log, [BAD] * 3)
    documents = {"5": '{"event": ""}'}
    answer = await rig.post("/dead/replay", destination="there", choice={"numbers": [4, 5]}, documents=documents)
    (report,) = [orjson.loads(line) for line in answer.text.splitlines()]
    assert (report["replayed"], [one["number"] for one in report["refused"]]) == (1, [5])
    answer = await rig.post("/dead/discard", destination="there", choice={"numbers": [6]}, expected=1)
    assert answer.text == '{"discarded":1}\n'
    counts = await counts_of(rig.log)
    assert (counts.dead, counts.resolved, counts.pending) == (1, 2, 1)


async def test_a_patch_that_is_no_object_is_refused(rig: Rig) -> None:
    """Nothing is sent instead of being corrected."""
    answer = await rig.post("/dead/replay", destination="there", choice={}, patch="[]")
    assert "patch" in answer.json()["error"]


async def test_one_thing_is_done_at_a_time(rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people who mean the same letters do not send them twice; the second is told to wait."""
    await rig.log.append(events("a", clock))
    await deliver(rig.log, [BAD])
    append, begun, goes_on = rig.log.append, asyncio.Event(), asyncio.Event()

    async def slow(records: Sequence[Record]) -> list[Appended]:
        begun.set()
        await goes_on.wait()
        return await append(records)

    monkeypatch.setattr(rig.log, "append", slow)
    first = asyncio.create_task(rig.post("/dead/replay", destination="there", choice={}))
    await begun.wait()
    second = await rig.post("/dead/replay", destination="there", choice={})
    goes_on.set()
    assert "try again" in second.json()["error"]
    assert (await first).json()["replayed"] == 1
    third = await rig.post("/dead/replay", destination="there", choice={})
    assert third.text == ""


async def test_delivery_is_paused_and_resumed(rig: Rig, clock: FakeClock) -> None:
    """The answer has since when, and whether that changed anything; /stats has it as well."""
    first = (await rig.post("/pause", destination="there")).json()
    now = "2023-11-14T22:13:20.000Z"
    assert first == {"destination": "there", "state": "ok", "paused_at": now, "pending": 0, "changed": True}
    await clock.advance(5)
    assert (await rig.post("/pause")).json() == first | {"changed": False}
    document = (await rig.get("/stats")).json()
    assert document["destinations"][0]["paused_at"] == now
    assert document["summary"].startswith("there is paused by a person since 22:13 UTC")
    await rig.log.append(events("ab", clock))
    resumed = {"destination": "there", "state": "ok", "paused_at": None, "pending": 2}
    assert (await rig.post("/resume")).json() == resumed | {"changed": True}
    assert (await rig.post("/resume", destination="there")).json() == resumed | {"changed": False}
    assert rig.asked == []


async def test_a_flush_says_what_is_due_and_asks_the_destination(rig: Rig, clock: FakeClock) -> None:
    """What waits is due although neither its number nor its age makes it so."""
    await rig.log.append(events("ab", clock))
    answer = (await rig.post("/flush")).json()
    assert answer == {"destination": "there", "state": "ok", "paused_at": None, "pending": 2, "due": 2}
    assert rig.asked == ["there"]
    assert len((await rig.log.fetch(Lane("there", Kind.EVENT), BatchPolicy(), wait=False)).offsets) == 2


async def test_a_pause_does_not_wait_for_a_replay(rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is wanted most while something is going wrong."""
    begun, goes_on = asyncio.Event(), asyncio.Event()
    append = rig.log.append

    async def slow(records: Sequence[Record]) -> list[Appended]:
        begun.set()
        await goes_on.wait()
        return await append(records)

    monkeypatch.setattr(rig.log, "append", slow)
    replaying = asyncio.create_task(rig.post("/replay", selection={}, dry_run=False))
    await begun.wait()
    for path in ("/pause", "/flush", "/resume"):
        assert (await rig.post(path)).json()["destination"] == "there"
    goes_on.set()
    assert (await replaying).json()["replayed"] == 3


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("localhost:1", 200), ("127.0.0.1", 200)])
async def test_a_page_that_was_led_here_by_its_own_name_gets_nothing(rig: Rig, host: str, status: int) -> None:
    """On loopback only names of this machine are answered."""
    assert (await rig.get("/stats", headers={"Host": host})).status_code == status


def test_the_token_is_new_for_each_run_and_for_its_owner_only(tmp_path: Path) -> None:
    """Whoever may not read the data directory's secrets does not get the token."""
    first, second = admin.write_token(tmp_path), admin.write_token(tmp_path)
    assert first != second
    assert (tmp_path / TOKEN_FILE).read_text() == second
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_a_port_in_use_is_an_error_of_the_configuration() -> None:
    """The message names the setting."""
    with admin.listen("127.0.0.1:0") as listener:
        listener.listen()
        with pytest.raises(ConfigurationError, match="WALBATCH_ADMIN_LISTEN"):
            admin.listen(f"127.0.0.1:{listener.getsockname()[1]}")
