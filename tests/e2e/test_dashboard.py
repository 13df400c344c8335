"""The dashboard of a running server: where it is, what it costs, how it ends. What it looks like: tests/browser."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from programs import Program, Site, eventually, site

pytestmark = pytest.mark.e2e

CANARY = "canary-0d4e77"
EVENT = ("send", "--event", "Tick", "--distinct-id", "u1")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A place for a server, with a fake Mixpanel."""
    with site(tmp_path) as made:
        made.sink()
        yield made


def test_the_command_prints_where_it_is(here: Site) -> None:
    """With the token only if asked for; without a server it says so."""
    assert here.run("dashboard", check=False).returncode == 4
    server = here.serve()
    url = here.run("dashboard").stdout.strip()
    assert url == f"http://{here.lock()['admin']}/"
    assert "Delivering. Nothing is pending." in here.admin_get("/")[1]
    token = (here.data / "admin.token").read_text()
    assert here.run("dashboard", "--with-token").stdout.strip() == f"{url}#token={token}"
    assert json.loads(here.run("dashboard", "--json").stdout) == {"url": url}
    server.stop()
    gone = here.run("dashboard", check=False)
    assert (gone.returncode, gone.stdout) == (4, "")


def test_what_is_delivered_is_told_as_it_happens(here: Site) -> None:
    """A batch is in the stream with its answer, and the numbers move."""
    here.serve()
    with closing(HTTPConnection(here.lock()["admin"], timeout=10)) as connection:
        connection.request("GET", "/api/live")
        stream = connection.getresponse()
        first = _next(stream)
        assert (first["batches"], first["stats"]["accepted"]) == ([], 0)
        here.run(*EVENT)
        batches = eventually(lambda: _next(stream)["batches"], "a batch is told")
    assert (batches[0]["destination"], batches[0]["events"], batches[0]["answer"]) == ("mixpanel", 1, "200")
    assert json.loads(here.admin_get("/api/batches")[1])["batches"] == batches
    samples = json.loads(here.admin_get("/api/history")[1])["samples"]
    assert samples[0]["accepted"] == 0


def test_who_watches_does_not_hold_up_the_end(here: Site) -> None:
    """The stream is ended by the server, in order, and nothing is cancelled or complained about."""
    server = here.serve()
    with closing(HTTPConnection(here.lock()["admin"], timeout=10)) as connection:
        connection.request("GET", "/api/live")
        stream = connection.getresponse()
        _next(stream)
        assert server.stop() == 0
        while stream.readline():  # to the end, which is a proper one: a stream that was cut off raises
            pass
    assert "error" not in server.output().lower()


def test_an_idle_server_does_not_spin(here: Site) -> None:
    """Whoever waits at rest waits for something. What that takes is a figure of `make bench`: a third of a percent."""
    server = here.serve()
    here.run(*EVENT)
    here.drained()
    before = _cpu_s(server)
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(3)
    assert _cpu_s(server) - before < 0.25 * 3


def test_nothing_of_a_record_is_shown_to_whoever_asks(tmp_path: Path) -> None:
    """Of what Mixpanel refuses neither an id nor a value is on any page that needs no token."""
    properties = {"distinct_id": f"{CANARY}-id", "plan": f"{CANARY}-plan", "mail": CANARY}
    line = json.dumps({"event": "E", "properties": properties}) + "\n"
    body = {"code": 400, "num_records_imported": 0, "error": "some data points in the request failed validation"}
    failed = [{"index": 0, "field": "properties.mail", "message": f"'{CANARY}' is no mail address"}]
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"fault": "status", "status": 400, "body": body | {"failed_records": failed}}]))
    with site(tmp_path, mixpanel_token=f"{CANARY}-token") as here:
        here.sink("--script", str(script))
        here.serve()
        here.run("send", "-", text=line)
        eventually(lambda: here.stats()["dead"], "a dead letter")
        paths = ("/", "/stats", "/api/history", "/api/batches", "/api/dead")
        shown = [here.admin_get(path)[1] for path in paths]
    assert json.loads(shown[-1])["groups"][0]["sample"]["properties"]["plan"] == "text"
    assert CANARY not in "".join(shown)


def _next(stream: Any) -> dict[str, Any]:
    while not (line := stream.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    data: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return data


def _cpu_s(server: Program) -> float:
    """Return the time that a process has been computing."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
