"""Looking at records: a live sample of them, and the whole life of one."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from programs import DEADLINE_S, WALBATCH, Site, environment, eventually, site

pytestmark = pytest.mark.e2e

CANARY = "canary-9d2f41"
LINES = "".join(
    f'{{"event": "{name}", "properties":'
    f' {{"distinct_id": "{CANARY}", "$insert_id": "{name}-{n}", "note": "{CANARY}"}}}}\n'
    for name in ("Tick", "Tock")
    for n in range(6)
)
GONE = "not in the log (sent and older than the retention, or never accepted)"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A running server and fake Mixpanel that have delivered six Ticks and six Tocks."""
    with site(tmp_path) as made:
        made.sink()
        made.serve()
        made.run("send", "-", text=LINES)
        made.drained()
        yield made


class Tapping:
    """A tap under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended, and return the exit code and what was still to be read of stderr."""
        code = self.process.wait(DEADLINE_S)
        return code, self.stderr.read().decode()


@contextmanager
def tapping(here: Site, *options: str) -> Iterator[Tapping]:
    """Start a tap, and go on once it follows the log."""
    with subprocess.Popen(
        [WALBATCH, "tap", "--interval", "50ms", *options],
        env=environment(**here.settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        tap = Tapping(process)
        try:
            assert b"Ctrl-C ends it" in tap.stderr.readline()
            yield tap
        finally:
            process.kill()


def test_a_tap_shows_what_comes(here: Site) -> None:
    """Each record once, as it comes, until there are enough; values and users are hidden, names are not."""
    with tapping(here, "--json", "--limit", "3", "--event", "Tick") as tap:
        here.run("send", "--event", "Tick", "--distinct-id", CANARY, "-p", f"note={CANARY}", "-p", "n=5")
        first = json.loads(tap.stdout.readline())
        here.run("send", "-", text=LINES.replace("-", "+"))
        rest = [json.loads(line) for line in tap.stdout]
        assert tap.ended() == (0, "")
    assert (first["seq"], first["kind"], first["name"], first["bytes"] > 100) == (13, "event", "Tick", True)
    assert {"note": "string", "n": "number"}.items() <= first["properties"].items()
    assert [one["seq"] for one in rest] == [14, 15]
    assert {one["distinct_id"] for one in rest} == {rest[0]["distinct_id"]}
    assert CANARY not in json.dumps([first, rest])


FORMS = [
    ([], ["event Tick of", f"note: {CANARY}"]),
    (["--format", "text"], ["event Tick of", f"note: {CANARY}"]),
    (["--format", "logfmt"], ["kind=event name=Tick", f"properties.note={CANARY}"]),
    (["--format", "json"], ['"name": "Tick"', f'"note": "{CANARY}"']),
    (["--json"], ['"name": "Tick"', f'"note": "{CANARY}"']),
]


def test_a_tap_can_begin_earlier_and_reveal(here: Site) -> None:
    """In every format: only with --reveal the values and ids are there, and it is said that they are personal."""
    for form, expected in FORMS:
        options = ["tap", "--since", "1h", "--limit", "12", *form]
        hidden, revealed = here.run(*options), here.run(*options, "--reveal")
        assert len(hidden.stdout.splitlines()) == len(revealed.stdout.splitlines()) == 12
        assert expected[0] in hidden.stdout
        assert CANARY not in hidden.stdout + hidden.stderr
        assert "values are hidden" in hidden.stderr
        assert all(text in revealed.stdout for text in expected)
        assert "personal data" in revealed.stderr
        assert CANARY not in revealed.stderr


def test_a_tap_shows_a_sample_and_says_so(here: Site) -> None:
    """What is left out is counted on stderr."""
    result = here.run("tap", "--since", "1h", "--sample", "2", "--limit", "2", "--json")
    assert len(result.stdout.splitlines()) == 2
    assert "10 of 12 are left out" in result.stderr


def test_a_tap_works_without_a_server_and_beside_one_that_comes(here: Site) -> None:
    """It says that nothing comes, and shows what comes when one serves again."""
    here.close()
    with tapping(here, "--limit", "1") as tap:
        here.serve()
        here.run("send", "--event", "Later")
        assert b"event Later" in tap.stdout.readline()
        assert tap.ended() == (0, "")
    here.close()
    assert "no server is running" in here.run("tap", "--since", "1h", "--limit", "1").stderr


def test_ctrl_c_ends_a_tap(here: Site) -> None:
    """At once, with 130, and without a traceback."""
    with tapping(here, "--interval", "10m") as tap:
        tap.process.send_signal(signal.SIGINT)
        assert tap.ended() == (130, "")


def test_a_tap_ends_when_nobody_reads_it(here: Site) -> None:
    """Also while nothing comes; that is no error."""
    with tapping(here, "--interval", "10m") as tap:
        tap.stdout.close()
        assert tap.ended() == (0, "")
    script = f"set -o pipefail; {WALBATCH} tap --since 1h | head -n 1"
    result = subprocess.run(
        ["bash", "-c", script], env=environment(**here.settings), capture_output=True, text=True, check=False
    )
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 1)
    assert len(result.stderr.splitlines()) == 1


def test_a_tap_on_a_terminal(here: Site) -> None:
    """The same lines, without colours."""
    code, shown = here.on_terminal("tap", "--since", "1h", "--limit", "12", answers="")
    assert code == 0
    assert shown.count("event Tick of ~") == 6
    assert "\x1b" not in shown


REFUSED = [
    (["tap", "--interval", "1ms"], 2, "is less than 0.05s"),
    (["tap", "--interval", "soon"], 2, "is not a duration"),
    (["tap", "--since", "yesterday"], 2, "is not a time"),
    (["tap", "--sample", "0"], 2, "--sample"),
    (["tap", "--data-dir", "nowhere"], 78, "WALBATCH_DATA_DIR"),
    (["inspect", "Tick-0", "--data-dir", "nowhere"], 78, "WALBATCH_DATA_DIR"),
    (["inspect", "Tick-9"], 1, f"Tick-9: {GONE}"),
    (["inspect", "999"], 1, f"999: {GONE}"),
    (["inspect", "1", "--id"], 1, f"1: {GONE}"),
    (["inspect", "019b2d00-0000-7000-8000-000000000000"], 1, GONE),
]


def test_what_cannot_be_shown_is_said(here: Site) -> None:
    """On stderr, with the exit code of its sort, and without a traceback."""
    for arguments, code, says in REFUSED:
        result = here.run(*arguments, check=False)
        assert (arguments, result.returncode, result.stdout) == (arguments, code, "")
        assert says in " ".join(result.stderr.replace("│", " ").split())
        assert "Traceback" not in result.stderr


def inspected(here: Site, *arguments: str) -> dict[str, Any]:
    """Return the one record of an inspection."""
    (record,) = json.loads(here.run("inspect", *arguments, "--json").stdout)["records"]
    assert isinstance(record, dict)
    return record


def test_the_life_of_a_delivered_record(here: Site) -> None:
    """By its id, and by its number, with the server up and down; the record itself only if it is asked for."""
    text = here.run("inspect", "Tick-3").stdout
    for part in ("record    4, event Tick", "id        Tick-3", "accepted  20", "mixpanel  sent at 20", "11 others"):
        assert part in text
    assert CANARY not in text
    assert f'"note": "{CANARY}"' in here.run("inspect", "4", "--reveal").stdout
    up = inspected(here, "Tick-3")
    (there,) = up["destinations"]
    assert (up["seq"], up["name"], up["event_id"], up["record"]) == (4, "Tick", "Tick-3", None)
    assert (there["status"], there["delivery"]["answer"], there["delivery"]["sent"]) == ("sent", "200", 12)
    assert inspected(here, "4", "--reveal")["record"]["properties"]["note"] == CANARY
    here.close()
    assert inspected(here, "4") == inspected(here, "Tick-3") == up


def test_an_id_that_walbatch_made_is_found(here: Site) -> None:
    """Whoever made it: the server, or the command that sent it."""
    here.run("send", "--event", "Made")
    here.run("send", "-", text='{"$distinct_id": "u1", "$set": {"a": 1}}\n')
    here.drained()
    for number in ("13", "14"):
        made = inspected(here, number)["event_id"]
        assert len(made) == 36
        found = json.loads(here.run("inspect", made, "--json").stdout)
        assert ([str(one["seq"]) for one in found["records"]], found["searched"]) == ([number], "part")


def test_more_records_with_an_id_are_found_everywhere(here: Site) -> None:
    """One that was stored again, because it had another time, and copies that were replayed."""
    here.run("send", "--event", "Tick", "--event-id", "Tick-0", "--distinct-id", CANARY, "--time", "2026-01-01")
    here.run("replay", "--event", "Tock", "--limit", "1", "--yes")
    here.drained()
    for options in ([], ["--everywhere"]):
        found = json.loads(here.run("inspect", "Tick-0", "--json", *options).stdout)
        assert ([one["seq"] for one in found["records"]], found["searched"]) == ([1, 13], "all")
    found = json.loads(here.run("inspect", "1", "--json", "--everywhere").stdout)
    assert [one["seq"] for one in found["records"]] == [1, 13]
    shown = here.run("inspect", "7").stdout
    assert "repeated by record 14, which is sent" in shown
    assert "repeats   record 7" in shown


def test_what_holds_a_record_back_is_said(tmp_path: Path) -> None:
    """The destination's condition and its next try; or that nobody serves."""
    with site(tmp_path) as here:
        here.serve()
        here.run("send", "--event", "E", "--event-id", "e-1")
        eventually(lambda: here.stats()["destinations"][0]["failures"], "a failure")
        shown = here.run("inspect", "e-1").stdout
        assert "mixpanel  pending: the destination is" in shown
        assert "next try at 20" in shown
        assert "cannot connect" in shown
        here.close()
        assert "pending: no server is running" in here.run("inspect", "e-1").stdout
        found = json.loads(here.run("inspect", "e-1", "--json").stdout)
        assert (found["serving"], found["records"][0]["destinations"][0]["status"]) == (False, "pending")


def test_an_inspection_on_a_terminal(here: Site) -> None:
    """The answer is the same; the bar of a search is gone at the end."""
    code, shown = here.on_terminal("inspect", "Tock-0", answers="")
    assert code == 0
    assert "record 7, event Tock" in shown
    code, shown = here.on_terminal("inspect", "missing", answers="")
    assert code == 1
    assert GONE in shown
