"""The fake Mixpanel as a command, and the server's reaction to what it can be told to answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.request import urlopen

import canary
import pytest
from programs import eventually, site

pytestmark = pytest.mark.e2e

GOOD = json.dumps({"event": "Good", "properties": {"distinct_id": canary.PERSON, "$insert_id": "good"}}) + "\n"


def test_it_says_what_came_and_ends_with_0(tmp_path: Path) -> None:
    """The records are in the file, the counts in the summary."""
    with site(tmp_path) as here:
        fake = here.sink()
        here.serve()
        here.run("send", "-", text=GOOD + '{"$distinct_id": "u1", "$set": {"plan": "pro"}}\n')
        here.drained()
        assert fake.stop() == 0
        assert "records accepted: 1 to /engage, 1 to /import" in fake.output()
        endpoints = {json.loads(line)["endpoint"] for line in here.delivered_lines()}
        assert endpoints == {"/import", "/engage"}


@pytest.mark.parametrize(("status", "state"), [(401, "paused"), (403, "paused"), (429, "retrying"), (503, "retrying")])
def test_a_failing_destination_holds_everything_until_it_works(tmp_path: Path, status: int, state: str) -> None:
    """Credentials that are refused pause the delivery, anything else backs off; both keep the event, and both heal."""
    with site(tmp_path, retry_base="50ms", retry_max="300ms", retry_attempts=60) as here:
        failing = here.sink("--fail-rate", "1", "--status", str(status))
        here.serve()
        here.run("send", "-", text=GOOD)
        held = eventually(lambda: (d := here.stats()["destinations"][0])["failures"] and d, "a failure")
        assert held["state"] == state
        assert held["last_error"].startswith(str(status))
        text = here.run("stats").stdout
        assert text.startswith(f"mixpanel answers {status} since ")
        assert ("a person is needed" in text) == (state == "paused")
        assert "nothing is lost" in text
        failing.stop()
        here.sink()
        assert here.drained()["sent"] == 1


def test_wrong_credentials_are_told_from_right_ones(tmp_path: Path) -> None:
    """With --token the fake refuses every other project, as Mixpanel does."""
    with site(tmp_path, retry_max="1s") as here:
        here.sink("--token", "another-token")
        here.serve()
        here.run("send", "-", text=GOOD)
        held = eventually(lambda: (d := here.stats()["destinations"][0])["failures"] and d, "a failure")
        assert held["state"] == "paused"
        assert canary.SECRET not in json.dumps(held)


def test_a_script_of_faults_loses_nothing(tmp_path: Path) -> None:
    """Whatever the script does to the connection, each event arrives; the export shows the copies that it cost."""
    script = tmp_path / "script.json"
    faults = [
        {"fault": "reset"},
        {"fault": "reset", "commit": True},
        {"fault": "status", "status": 429, "retry_after": 1},
        {"fault": "half"},
        {"fault": "page"},
    ]
    script.write_text(json.dumps(faults))
    with site(tmp_path, retry_base="50ms", retry_max="300ms") as here:
        fake = here.sink("--script", str(script), "--keep", "--insert-id-key", "$insert_id")
        here.serve()
        here.run("send", "-", text=GOOD)
        assert here.drained()["sent"] == 1
        url = f"http://127.0.0.1:{here.sink_port}/api/2.0/export?from_date=2020-01-01&to_date=2100-01-01"
        with urlopen(url) as answer:
            exported = [json.loads(line) for line in answer]
        assert [event["properties"]["$insert_id"] for event in exported] == ["good"] * 3
        assert here.delivered()[0] == here.delivered()[2]
        assert fake.stop() == 0
        assert "records accepted: 3 to /import" in fake.output()


def test_projects_and_regions(tmp_path: Path) -> None:
    """The edge of another region refuses events, as Mixpanel does, and loses profile updates behind a success."""
    projects = tmp_path / "projects.json"
    projects.write_text(json.dumps([{"id": 1, "token": canary.SECRET, "region": "eu"}]))
    with site(tmp_path, retry_max="1s") as here:
        wrong = here.sink("--projects", str(projects), "--region", "us")
        here.serve()
        here.run("send", "-", text='{"$distinct_id": "u1", "$set": {"plan": "pro"}}\n')
        assert here.drained()["sent"] == 1
        here.run("send", "-", text=GOOD)
        held = eventually(lambda: (d := here.stats()["destinations"][0])["failures"] and d, "a failure")
        assert held["state"] == "paused"
        wrong.stop()
        assert "lost behind a success: 1 to /engage" in wrong.output()
        here.sink("--projects", str(projects), "--region", "eu")
        assert here.drained()["sent"] == 2
        assert [record["event"] for record in here.delivered()] == ["Good"]


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (["--script", "none.json"], 78, "none.json: No such file or directory"),
        (["--projects", "none.json"], 78, "none.json: No such file or directory"),
        (["--projects", "none.json", "--token", "t"], 2, "leave out --token"),
        (["--max-bytes", "10 parsecs"], 2, "--max-bytes: '10 parsecs' is not a size"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str], code: int, error: str) -> None:
    """The exit code and the text say whose mistake it is."""
    with site(tmp_path) as here:
        ended = here.run("sink", *options, check=False)
    assert ended.returncode == code
    assert error in " ".join(ended.stderr.replace("│", " ").split())


def test_an_event_that_mixpanel_refuses_is_a_dead_letter_with_its_reason(tmp_path: Path) -> None:
    """The others of its batch arrive. Replayed once Mixpanel takes it, it arrives as well."""
    poison = '{"event": "Poison", "properties": {"distinct_id": "u1", "$insert_id": "poison"}}\n'
    with site(tmp_path, flush_interval="300ms") as here:
        fake = here.start(*refusing_sink(here.sink_port, here.out))
        eventually(lambda: "listening" in fake.output(), "the fake Mixpanel listens")
        here.serve()
        here.run("send", "-", text=GOOD + poison)
        numbers = here.drained()
        assert (numbers["sent"], numbers["dead"]) == (1, 1)
        assert [r["event"] for r in here.delivered()] == ["Good"]
        fake.kill()
        here.sink()
        here.run("replay", "--status", "dead", "--yes")
        numbers = here.drained()
        assert (numbers["sent"], numbers["dead"], numbers["resolved"]) == (2, 0, 1)
        assert [r["event"] for r in here.delivered()] == ["Good", "Poison"]


def refusing_sink(port: int, out: Path) -> list[str]:
    """Return the command of a fake Mixpanel that refuses events named Poison."""
    return [sys.executable, str(Path(__file__).parent.parent / "support" / "refusing_sink.py"), str(port), str(out)]
