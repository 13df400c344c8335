"""Dead letters on the command line: seen, sent again, corrected and given up, with the server up and down."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from log_records import BAD, NOW, settlement
from programs import Site, site

from walbatch.clock import SystemClock
from walbatch.delivery import DELIVERED, Outcome, Rejected, Unknown
from walbatch.event import Kind, Record, profile_update, track
from walbatch.ownership import Ownership
from walbatch.wal import Lane
from walbatch.wal.sqlite import SqliteLog

pytestmark = pytest.mark.e2e

CANARY = "canary-1c7e02"
HELD = Unknown("no answer after 30 s")

Outcomes = Mapping[tuple[str, Kind], Sequence[Outcome]]


def record(name: str) -> Record:
    """An event whose id is its name."""
    now_ms = time.time_ns() // 1_000_000
    return track(name=name, event_id=name, distinct_id="u1", properties={"note": CANARY}, now_ms=now_ms)


def add(name: str) -> Record:
    """An update that counts twice if it arrives twice."""
    now_ms = time.time_ns() // 1_000_000
    return profile_update(distinct_id="u1", operation="$add", properties={"n": 1}, update_id=name, now_ms=now_ms)


async def write(data: Path, records: Sequence[Record], outcomes: Outcomes) -> None:
    """Make a log with these records, and with what became of them at each destination."""
    names = dict.fromkeys(name for name, _ in outcomes)
    async with SqliteLog(data, list(names), SystemClock(), allow_affected_sqlite=True) as log:
        await log.append(records)
        for (name, kind), became in outcomes.items():
            batch = await log.fetch(Lane(name, kind), NOW)
            now_ms = time.time_ns() // 1_000_000
            await log.settle(replace(settlement(batch, became), finished_at_ms=now_ms))


@pytest.fixture
def down(tmp_path: Path) -> Iterator[Site]:
    """A site whose log has the events a and c refused and b sent (1 to 3), and the update d held (4)."""
    with site(tmp_path) as made:
        became: Outcomes = {("mixpanel", Kind.EVENT): [BAD, DELIVERED, BAD], ("mixpanel", Kind.PROFILE): [HELD]}
        asyncio.run(write(made.data, [*map(record, "abc"), add("d")], became))
        yield made


@pytest.fixture(params=["up", "down"])
def here(down: Site, request: pytest.FixtureRequest) -> Site:
    """The same, with a server that delivers to a fake Mixpanel, and without."""
    if request.param == "up":
        down.sink()
        down.serve()
    return down


def dead(here: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on dead letters, whatever its exit code."""
    return here.run("dead", *arguments, check=False)


def open_letters(here: Site) -> int:
    """How many letters are open."""
    return sum(group["count"] for group in json.loads(dead(here, "list", "--json").stdout)["groups"])


def delivered(here: Site) -> list[Any]:
    """Deliver what waits, and return all that the fake Mixpanel has."""
    if not here.lock().get("admin") or not here.stats()["serving"]:
        here.sink()
        here.serve()
    here.drained()
    return here.delivered()


def test_the_list_says_what_was_refused_and_what_to_do(here: Site) -> None:
    """One line for each reason, with the count, the id and an example; the next commands are on stderr."""
    result = dead(here, "list")
    assert result.returncode == 0
    refused = next(line for line in result.stdout.splitlines() if "400 properties.time: is invalid" in line)
    assert refused.split()[1:4] == ["mixpanel", "events", "2"]
    assert "held, it may have arrived: no answer after 30 s" in result.stdout
    assert "walbatch dead show g" in result.stderr
    groups = json.loads(dead(here, "list", "--json").stdout)["groups"]
    assert {group["id"] for group in groups} >= {refused.split()[0]}
    assert {(group["lane"], group["count"], group["held"]) for group in groups} == {
        ("events", 2, False),
        ("profiles", 1, True),
    }
    assert CANARY not in result.stdout + result.stderr


def test_what_a_destination_says_is_no_language_of_ours(tmp_path: Path) -> None:
    """Brackets are no colours, and a word between colons is no picture."""
    said = "no [red] in :key: allowed"
    with site(tmp_path) as here:
        asyncio.run(write(here.data, [record("a")], {("mixpanel", Kind.EVENT): [Rejected(400, "", said)]}))
        assert said in dead(here, "list").stdout


def test_a_letter_is_shown_with_its_record(here: Site) -> None:
    """By the number of the record, or by the group, whose oldest it is."""
    (group,) = [g["id"] for g in json.loads(dead(here, "list", "--json").stdout)["groups"] if not g["held"]]
    text = dead(here, "show", "1").stdout
    assert f"400 properties.time: is invalid (group {group})" in text
    assert f'"note": "{CANARY}"' in text
    assert dead(here, "show", group).stdout == text
    letters = json.loads(dead(here, "show", "3", "4", "--json").stdout)["letters"]
    assert [(one["seq"], one["held"], one["resolution"], one["copies"]) for one in letters] == [
        (3, False, None, []),
        (4, True, None, []),
    ]


def test_a_letter_tells_of_its_copy_and_the_copy_of_its_letter(here: Site) -> None:
    """Both numbers are told, and what became of the copy."""
    dead(here, "replay", "1", "--yes")
    delivered(here)
    (letter,) = json.loads(dead(here, "show", "1", "--json").stdout)["letters"]
    assert (letter["resolution"], letter["copies"]) == ("replayed", [{"seq": 5, "status": "sent"}])
    assert "repeated by  record 5, which is sent" in dead(here, "show", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["show", "2"], 1, "2: no open letter"),
        (["show", "1", "99"], 3, "99: no open letter"),
        (["show", "first"], 2, "'first' is neither"),
        (["replay"], 2, "say which letters"),
        (["discard"], 2, "say which letters"),
        (["replay", "--limit", "1", "--yes"], 2, "say which letters"),
        (["replay", "1", "--all", "--yes"], 2, "either IDs or --all"),
        (["replay", "2", "--yes"], 1, "2: no open letter"),
        (["replay", "1", "--edit", "--patch", "x"], 2, "either --patch or --edit"),
        (["replay", "1", "--patch", "missing", "--yes"], 2, "--patch: missing cannot be read"),
        (["replay", "1"], 2, "--yes"),
        (["replay", "1", "--edit"], 2, "--yes"),
        (["replay", "4"], 2, "--held --yes"),
        (["replay", "--all", "--yes"], 2, "1 are held"),
        (["replay", "4", "--yes"], 2, "--held"),
        (["discard", "--all"], 2, "--confirm 3"),
        (["discard", "--all", "--confirm", "2"], 2, "3 letters match, not 2"),
        (["list", "--destination", "elsewhere"], 2, "it has mixpanel"),
        (["replay", "--destination", "elsewhere", "--yes"], 2, "it has mixpanel"),
        (["replay", "--all", "--since", "yesterday", "--yes"], 2, "--since"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_and_not_done(down: Site, arguments: list[str], code: int, says: str) -> None:
    """Without a terminal nobody is asked: the message names the way on, and nothing is changed."""
    result = dead(down, *arguments)
    assert result.returncode == code
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert open_letters(down) == 3


def test_an_export_has_every_letter_with_its_record(here: Site) -> None:
    """One line of JSON each; options narrow it."""
    lines = [json.loads(line) for line in dead(here, "export").stdout.splitlines()]
    assert [(one["seq"], one["kind"], one["code"], one["held"], one["event_id"]) for one in lines] == [
        (1, "event", 400, False, "a"),
        (3, "event", 400, False, "c"),
        (4, "profile", 0, True, "d"),
    ]
    assert lines[0]["record"]["properties"]["note"] == CANARY
    assert [json.loads(line)["seq"] for line in dead(here, "export", "--event", "c").stdout.splitlines()] == [3]
    assert len(dead(here, "export", "--limit", "2").stdout.splitlines()) == 2


def test_letters_are_sent_again_as_they_are(here: Site) -> None:
    """The same records arrive, the letters are closed, and nothing of the records is in any log."""
    before = [json.loads(line)["record"] for line in dead(here, "export", "--refused").stdout.splitlines()]
    assert dead(here, "replay", "--refused", "--dry-run").stdout == "2\n"
    result = dead(here, "replay", "--refused", "--yes", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {
        "destination": "mixpanel",
        "selected": 2,
        "held": 0,
        "replayed": 2,
        "refused": [],
    }
    assert "2 dead letters selected for mixpanel, dead from 20" in result.stderr
    arrived = delivered(here)
    assert [one["event"] for one in arrived] == ["a", "c"]
    for one, original in zip(arrived, before, strict=True):
        assert one["properties"].items() >= original["properties"].items()
    assert open_letters(here) == 1
    assert CANARY not in result.stderr + "".join(log.read_text() for log in here.path.glob("*.log"))
    again = dead(here, "replay", "--refused", "--yes")
    assert (again.returncode, again.stderr) == (0, "0 letters match\n")


def test_a_held_update_is_released_by_name(here: Site) -> None:
    """--held says that counting twice is accepted."""
    assert dead(here, "replay", "--held", "--yes").returncode == 0
    (arrived,) = delivered(here)
    assert arrived["$add"] == {"n": 1}
    assert open_letters(here) == 2


def test_a_patch_corrects_the_records(here: Site) -> None:
    """The corrected records arrive with their ids; one that breaks a rule is named, stays, and makes it exit 3."""
    patch = here.path / "patch.json"
    patch.write_text('{"event": "Corrected", "properties": {"note": null}}')
    assert dead(here, "replay", "1", "--patch", str(patch), "--yes").returncode == 0
    patch.write_text('{"event": ""}')
    foretold = dead(here, "replay", "3", "--patch", str(patch), "--dry-run")
    assert (foretold.returncode, foretold.stdout) == (3, "0\n")
    result = dead(here, "replay", "3", "--patch", str(patch), "--yes", "--json")
    assert result.returncode == 3
    assert "record 3 stays: event.name: must not be empty or blank (REQUIRED)" in result.stderr
    assert [one["field"] for one in json.loads(result.stdout)["refused"]] == ["event.name"]
    (arrived,) = delivered(here)
    assert (arrived["event"], arrived["properties"]["$insert_id"]) == ("Corrected", "a")
    assert "note" not in arrived["properties"]
    assert open_letters(here) == 2


def test_a_patch_that_is_no_json_object_is_refused(down: Site) -> None:
    """The file is named, its text is not repeated."""
    patch = down.path / "patch.json"
    patch.write_text(f'["{CANARY}"]')
    result = dead(down, "replay", "1", "--patch", str(patch), "--yes")
    assert result.returncode == 2
    assert "--patch" in result.stderr
    assert CANARY not in result.stderr


def editor(here: Site, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let a Python program be the person's editor: it finds the file's text as `text`, and leaves the new one there."""
    script = here.path / "editor.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "file = pathlib.Path(sys.argv[-1])\n"
        "assert file.parent.stat().st_mode & 0o77 == 0\n"
        "text = file.read_text()\n"
        f"{program}\n"
        "file.write_text(text)\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")


def test_records_are_corrected_in_an_editor(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed is sent changed, what was not as it is; what was taken out is left alone."""
    program = 'entries = json.loads(text); del entries["1"]; entries["3"]["record"]["event"] = "Corrected"'
    editor(here, monkeypatch, f"{program}; text = json.dumps(entries)")
    assert dead(here, "replay", "--refused", "--edit", "--yes").returncode == 0
    assert open_letters(here) == 2
    editor(here, monkeypatch, "")
    assert dead(here, "replay", "--refused", "--edit", "--yes").returncode == 0
    assert [(one["event"], one["properties"]["$insert_id"]) for one in delivered(here)] == [
        ("Corrected", "c"),
        ("a", "a"),
    ]
    editor(here, monkeypatch, 'text = "{}"')
    result = dead(here, "replay", "4", "--edit", "--held", "--yes")
    assert (result.returncode, "every record was taken out" in result.stderr) == (1, True)
    assert open_letters(here) == 1


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ('text = "not json"', "is not valid JSON"),
        ("""text = text.replace('"1"', '"2"')""", "2: is no record of this file"),
        ('text = json.dumps({"1": {}})', "1.record: must be a JSON object"),
        ("sys.exit(1)", "failed"),
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(
    down: Site, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    """Without a terminal it ends there, and the file with the records is gone."""
    editor(down, monkeypatch, program)
    files = down.path / "tmp"
    files.mkdir()
    monkeypatch.setenv("TMPDIR", str(files))
    result = dead(down, "replay", "1", "--edit", "--yes")
    assert result.returncode == 1
    assert says in result.stderr
    assert open_letters(down) == 3
    assert list(files.iterdir()) == []


def test_an_edit_without_an_editor_says_what_to_set(down: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables are named, and the other way."""
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    result = dead(down, "replay", "1", "--edit", "--yes")
    assert result.returncode == 1
    assert "VISUAL or EDITOR" in result.stderr
    assert "--patch" in result.stderr


def test_a_broken_edit_is_offered_again_on_a_terminal(down: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's work is not thrown away for a comma."""
    broken_then_mended = "text = text + '}' if text.endswith('\\n') else text[:-1].replace('\"a\"', '\"x\"')"
    editor(down, monkeypatch, broken_then_mended)
    code, text = down.on_terminal("dead", "replay", "1", "--edit", answers="y\ny\n")
    assert "Edit again? [Y/n]" in text
    assert "Send 1 records again? [y/N]" in text
    assert code == 0
    assert open_letters(down) == 2


@pytest.mark.parametrize(("answer", "left"), [("y", 2), ("n", 3)])
def test_a_replay_of_a_letter_asks_on_a_terminal(here: Site, answer: str, left: int) -> None:
    """A person is asked, and is obeyed."""
    code, text = here.on_terminal("dead", "replay", "1", answers=f"{answer}\n")
    assert (code, "Send 1 records again? [y/N]" in text) == (0, True)
    assert open_letters(here) == left


@pytest.mark.parametrize(("answer", "left"), [("1", 0), ("y", 3)])
def test_a_held_letter_needs_more_than_a_yes(down: Site, answer: str, left: int) -> None:
    """The person types how many may count twice."""
    code, text = down.on_terminal("dead", "replay", "--all", answers=f"{answer}\n")
    assert "1 of these 3 may have arrived" in text
    assert (code, open_letters(down)) == (0, left)


@pytest.mark.parametrize(("answer", "left"), [("3", 0), ("y", 3)])
def test_a_discard_needs_the_number_on_a_terminal(down: Site, answer: str, left: int) -> None:
    """A yes is too quick for what cannot be undone."""
    code, text = down.on_terminal("dead", "discard", "--all", answers=f"{answer}\n")
    assert "3 records will never be sent. Type 3 to go ahead" in text
    assert (code, open_letters(down)) == (0, left)


def test_a_discard_needs_the_number_in_a_script(here: Site) -> None:
    """With it the letters are closed, and nothing is sent."""
    assert dead(here, "discard", "--refused", "--dry-run").stdout == "2\n"
    result = dead(here, "discard", "--refused", "--confirm", "2", "--json")
    assert json.loads(result.stdout)["discarded"] == 2
    numbers = here.stats()
    assert (numbers["dead"], numbers["resolved"], numbers["pending"]) == (1, 2, 0)
    assert "discarded" in dead(here, "show", "1").stdout


def test_a_change_without_the_token_is_refused(down: Site) -> None:
    """Looking is for whoever can read the log, changing for whoever can read the token."""
    down.sink()
    down.serve()
    (down.data / "admin.token").unlink()
    result = dead(down, "replay", "1", "--yes")
    assert (result.returncode, "admin.token" in result.stderr) == (1, True)
    assert open_letters(down) == 3


def test_a_server_that_goes_away_is_told(down: Site) -> None:
    """The exit code is 4, and the way on is to run it again."""
    half = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n{"replayed":1,"refused":[]}\n\r\n'

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(half)

    with socket.create_server(("127.0.0.1", 0)) as listener, Ownership(down.data) as ownership:
        ownership.announce(admin=f"127.0.0.1:{listener.getsockname()[1]}")
        server = threading.Thread(target=answer, args=[listener])
        server.start()
        result = dead(down, "replay", "1", "--yes")
        server.join()
    assert (result.returncode, "run this again" in result.stderr) == (4, True)


def test_several_destinations_are_told_apart(tmp_path: Path) -> None:
    """Where letters of several match, one is to be named; the other keeps its own letter of the same record."""
    with site(tmp_path) as here:
        asyncio.run(write(here.data, [record("a")], {("mixpanel", Kind.EVENT): [BAD], ("archive", Kind.EVENT): [BAD]}))
        here.sink()
        here.serve()
        result = dead(here, "replay", "1", "--yes")
        assert (result.returncode, "there are archive, mixpanel" in result.stderr) == (2, True)
        assert len(dead(here, "export").stdout.splitlines()) == 2
        assert dead(here, "replay", "1", "--destination", "mixpanel", "--yes").returncode == 0
        assert len(delivered(here)) == 1
        (group,) = json.loads(dead(here, "list", "--json").stdout)["groups"]
        assert group["destination"] == "archive"
        result = here.run("replay", "--yes", check=False)
        assert (result.returncode, "there are archive, mixpanel" in result.stderr) == (2, True)
        assert here.run("replay", "--destination", "mixpanel", "--dry-run").stdout == "1\n"
        assert here.run("replay", "--destination", "archive", "--dry-run").stdout == "1\n"


def test_an_empty_log_has_no_dead_letters(tmp_path: Path) -> None:
    """It is said on stderr; without a log the setting is named."""
    with site(tmp_path) as here:
        result = dead(here, "list")
        assert (result.returncode, "WALBATCH_DATA_DIR" in result.stderr) == (78, True)
        asyncio.run(write(here.data, [record("a")], {("mixpanel", Kind.EVENT): [DELIVERED]}))
        result = dead(here, "list")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "no dead letters\n")
        assert dead(here, "export").stdout == ""
