"""What a person on call does: pause, resume, flush; with the server up and down, over stops and starts."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import WALBATCH, Site, eventually, site
from terminal import terminal

pytestmark = pytest.mark.e2e

EVENT = ("send", "--event", "Tick", "--distinct-id", "user-4711")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A site with a fake Mixpanel that takes everything."""
    with site(tmp_path) as made:
        made.sink()
        yield made


def only(document: dict[str, Any]) -> dict[str, Any]:
    """The one destination of a document."""
    (found,) = document["destinations"]
    assert isinstance(found, dict)
    return found


def test_a_pause_outlives_stops_and_kills(here: Site) -> None:
    """What comes is accepted; neither a last flush nor a new start sends it; the resume does."""
    server = here.serve()
    assert here.run("pause").stdout == "mixpanel: paused, 0 records pending; `walbatch resume` lets it go on\n"
    for round_ in (1, 2):
        here.run(*EVENT)
        if round_ == 1:
            assert server.stop() == 0
        else:
            server.kill()
        assert here.delivered() == []
        assert here.stats()["pending"] == round_
        server = here.serve()
        assert "service.destination_paused" in server.output()
        assert here.stats()["summary"].startswith("mixpanel is paused by a person since ")
    assert here.run("resume").stdout == "mixpanel: resumed, 2 records pending\n"
    assert here.drained()["sent"] == 2
    assert only(here.stats())["paused_at"] is None
    assert here.run("resume").stdout == "mixpanel: was not paused, 0 records pending\n"


def test_a_pause_and_its_end_while_nobody_serves(here: Site) -> None:
    """They are noted, and hold from the next start on."""
    here.serve().stop()
    assert json.loads(here.run("pause", "--destination", "mixpanel", "--json").stdout)["changed"]
    server = here.serve()
    here.run(*EVENT)
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert here.delivered() == []
    assert "Not serving. 1 pending" in here.run("stats").stdout
    report = json.loads(here.run("resume", "--json").stdout)
    assert (report["destination"], report["paused_at"], report["pending"]) == ("mixpanel", None, 1)
    here.serve()
    assert here.drained()["sent"] == 1


def test_a_second_pause_says_since_when(here: Site) -> None:
    """And changes nothing."""
    here.serve()
    first = json.loads(here.run("pause", "--json").stdout)
    assert here.run("pause").stdout.startswith(f"mixpanel: paused since {first['paused_at']}, ")


def test_a_flush_sends_what_waits(here: Site) -> None:
    """At once, although the next batch would be due in an hour; what comes after it waits again."""
    here.settings["flush_interval"] = "1h"
    server = here.serve()
    here.run(*EVENT)
    assert here.run("flush").stdout == "mixpanel: 1 record due now\n"
    assert here.drained()["sent"] == 1
    here.run(*EVENT)
    assert json.loads(here.run("flush", "--json").stdout)["due"] == 1
    assert here.drained()["sent"] == 2
    assert "maintenance.flushed" in server.output()
    assert "user-4711" not in server.output()


def test_a_flush_asks_a_destination_that_is_backing_off(tmp_path: Path) -> None:
    """Whoever has mended it does not wait for the rest of the backoff."""
    with site(tmp_path, retry_base="1h", retry_max="1h") as here:
        here.serve()
        here.run(*EVENT)
        eventually(lambda: only(here.stats())["failures"], "a failure")
        down = here.stats()
        assert "mixpanel fails since " in down["summary"]
        assert "next try in 59 min; nothing is lost, 1 record buffered" in down["summary"]
        assert only(down)["failing_since"][:10] == down["at"][:10]
        here.sink()
        assert here.run("flush").stdout == "mixpanel: 1 record due now, and it is asked at once\n"
        assert only(here.drained())["failing_since"] is None


def test_a_flush_of_what_is_paused_says_so(here: Site) -> None:
    """Nothing goes out, and the exit code has it."""
    server = here.serve()
    here.run("pause")
    here.run(*EVENT)
    flushed = here.run("flush", check=False)
    assert flushed.returncode == 1
    assert "nothing goes out; `walbatch resume` lets it go on" in flushed.stdout
    assert server.stop() == 0
    assert here.delivered() == []


def test_a_flush_needs_a_server(here: Site) -> None:
    """Exit 4, and what delivers instead."""
    for command, code in (("flush", 4), ("pause", 78), ("resume", 78)):
        result = here.run(command, check=False)
        assert (command, result.returncode) == (command, code)
        assert "walbatch serve" in result.stderr
    assert not (here.data / "events.db").exists()


def test_a_destination_that_is_not_there_is_told_with_those_that_are(here: Site) -> None:
    """With the server up and down."""
    server = here.serve()
    commands = [(name, "--destination", "elsewhere") for name in ("pause", "resume", "flush")]
    for command in commands:
        result = here.run(*command, check=False)
        assert result.returncode == 1
        assert "it has mixpanel" in result.stderr
    server.stop()
    for command in commands[:2]:
        result = here.run(*command, check=False)
        assert result.returncode == 2
        assert "it has mixpanel" in result.stderr


def test_one_of_two_is_paused(tmp_path: Path) -> None:
    """The other one gets everything; a flush of both is done in part."""
    with site(tmp_path, mixpanel_token="", mixpanel_url="", destinations_file=tmp_path / "destinations.toml") as here:
        text = '[destinations.{0}]\ntype = "ndjson"\ndirectory = "{0}"\n'
        (tmp_path / "destinations.toml").write_text(text.format("one") + text.format("other"))
        server = here.serve()
        here.run("pause", "--destination", "one")
        here.run(*EVENT)
        eventually(lambda: here.stats()["sent"] == 1, "the other one has it")
        assert here.stats()["summary"].startswith("Delivering to 1 of 2 destinations; one is paused by a person since")
        flushed = here.run("flush", check=False)
        assert flushed.returncode == 3
        assert [line.split(":")[0] for line in flushed.stdout.splitlines()] == ["one", "other"]
        assert server.stop() == 0
        assert {d["name"]: d["lanes"][0]["pending"] for d in here.stats()["destinations"]} == {"one": 1, "other": 0}


def check(here: Site, *options: str) -> tuple[int, str]:
    """What a monitor gets: the exit code and the line."""
    result = here.run("stats", "--check", *options, check=False)
    (line,) = result.stdout.splitlines()
    return result.returncode, line


def test_a_monitor_gets_a_line_and_a_code(here: Site) -> None:
    """0 while all is well, 1 when a person should look, 2 beyond a limit or without a server, 3 without a log."""
    code, line = check(here)
    assert (code, line.partition(" - ")[0]) == (3, "UNKNOWN")
    server = here.serve()
    code, line = check(here, "--max-age", "5m", "--max-pending", "100000")
    assert code == 0
    assert line.startswith(
        "OK - Delivering. Nothing is pending. | pending=0;;100000;0; oldest_pending_age=0.000s;;300;0;"
    )
    here.run("pause")
    here.run(*EVENT)
    code, line = check(here)
    assert (code, line.partition(" - ")[0]) == (1, "WARNING")
    assert "paused by a person" in line
    code, line = check(here, "--max-pending", "0")
    assert (code, line.partition(".")[0]) == (2, "CRITICAL - 1 are pending, more than 0")
    server.stop()
    code, line = check(here)
    assert (code, line.partition(".")[0]) == (2, "CRITICAL - Not serving")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--check", "--max-age", "soon"], 3, "UNKNOWN - --max-age: 'soon' is not a duration"),
        (["--check", "--json"], 2, "leave out"),
        (["--max-age", "5m"], 2, "--check"),
        (["--watch", "--interval", "1ms"], 2, "100ms"),
    ],
)
def test_options_that_make_no_sense(here: Site, options: list[str], code: int, says: str) -> None:
    """A monitor is told that it is not known; a person what to leave out."""
    result = here.run("stats", *options, check=False)
    assert result.returncode == code
    assert says in " ".join((result.stdout + result.stderr).split())


def test_a_watch_in_a_pipe_is_a_line_each_time(here: Site) -> None:
    """With rates from the second on; it goes on while the server is away, and an interrupt is no failure."""
    server = here.serve()
    watching = here.start(WALBATCH, "stats", "--watch", "--interval", "100ms")
    eventually(lambda: "In 0/s, out 0/s." in watching.output(), "rates")
    here.run(*EVENT)
    eventually(lambda: "Z Delivering. 1 pending" in watching.output(), "the event")
    server.stop()
    eventually(lambda: "Z Not serving. " in watching.output(), "the stop")
    before = watching.output().count("Delivering. Nothing")
    here.serve()
    eventually(lambda: watching.output().count("Delivering. Nothing") > before, "the start")
    watching.signal(signal.SIGINT)
    assert watching.wait(1) == 0
    assert "\x1b" not in watching.output()


def test_a_watch_as_json_is_a_document_each_time(here: Site) -> None:
    """One a line, as NDJSON."""
    here.serve()
    watching = here.start(WALBATCH, "stats", "--watch", "--json", "--interval", "100ms")
    eventually(lambda: watching.output().count("\n") >= 3, "three documents")
    watching.signal(signal.SIGINT)
    assert watching.wait(1) == 0
    for line in watching.output().splitlines():
        assert json.loads(line).keys() >= {"summary", "at", "accepted", "destinations", "max_backlog_bytes"}


def test_a_watch_on_a_terminal_is_live(here: Site) -> None:
    """The sentence and a row for each destination, drawn anew; Ctrl-C ends it at once, and the cursor is back."""
    here.settings["flush_interval"] = "1h"
    here.serve()
    with terminal(here, "stats", "--watch", "--interval", "100ms") as shown:
        eventually(lambda: shown.shows("to state in/s out/s pending in flight oldest dead"), "the table")
        eventually(lambda: shown.shows("mixpanel ok 0 0 0 0 0"), "rates")
        here.run(*EVENT)
        eventually(lambda: shown.shows("Delivering. 1 pending, oldest"), "the event")
        here.run("pause")
        eventually(lambda: shown.shows("mixpanel paused"), "the pause")
        code, seconds = shown.interrupt()
        assert (code, seconds < 1) == (0, True)
        assert shown.written.endswith(b"\x1b[?25h")


def test_a_watch_on_a_dumb_terminal_is_a_line_each_time(here: Site) -> None:
    """Where nothing can be drawn over."""
    here.serve()
    with terminal(here, "stats", "--watch", "--interval", "100ms", TERM="dumb") as shown:
        eventually(lambda: shown.shows("In 0/s, out 0/s."), "a line with rates")
        assert b"\x1b" not in shown.written
        assert shown.interrupt()[0] == 0
