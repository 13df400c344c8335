"""One intake and several destinations: two Mixpanel projects and an archive of files."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canary import PERSON, VALUE
from load import Load
from programs import WALBATCH, Program, Site, eventually, free_port, site
from total_queue import judge

pytestmark = pytest.mark.e2e

SUPPORT = Path(__file__).parent.parent / "support"
SECRET = "canary-4be1d7"
RECORDS = "".join(
    f'{{"event": "{name}", "properties": {{"distinct_id": "{PERSON}", "$insert_id": "{name.replace(" ", "-")}"}}}}\n'
    for name in ("Signed Up", "Debug A", "Debug B", "Purchase")
) + (
    f'{{"$distinct_id": "{PERSON}", "$set": {{"plan": "{VALUE}"}}}}\n'
    '{"$group_key": "company", "$group_id": "acme", "$set": {"size": 7}}\n'
)


class Several:
    """A site whose server has the destinations all, some and archive. `some` wants no updates and no Debug events."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.ports = {"all": free_port(), "some": free_port()}
        self.file = here.path / "destinations.toml"
        here.settings["destinations_file"] = self.file
        self.write("all", "some", "archive")

    def write(self, *names: str, **more: str) -> None:
        """Write the file with these destinations; `more` has further lines of one, by its name."""
        lines: dict[str, list[str]] = {
            "all": [],
            "some": ['never = ["Debug *"]', 'kinds = ["events"]'],
            "archive": ['type = "ndjson"', 'directory = "archive"'],
        }
        text = ""
        for name in names:
            known = lines.get(name, [])
            project = ['type = "mixpanel"', f'token = "{name}"', f'url = "{self.url(name)}"']
            table = [*([] if name == "archive" else project), *known, more.get(name, "")]
            text += "\n".join([f"[destinations.{name}]", *table, ""])
        self.file.write_text(text)
        self.file.chmod(0o600)

    def url(self, name: str) -> str:
        """Return where a destination's fake Mixpanel listens."""
        return f"http://127.0.0.1:{self.ports.get(name, self.ports['some'])}"

    def fake(self, name: str, *options: str) -> Program:
        """Start the fake Mixpanel of a destination, and return once it listens."""
        listen = self.url(name).removeprefix("http://")
        out = self.out(name)
        program = self.here.start(WALBATCH, "sink", "--listen", listen, "--out", str(out), *options)
        eventually(lambda: "fake Mixpanel at" in program.output(), "the fake Mixpanel listens")
        return program

    def out(self, name: str) -> Path:
        """Return the file of what a fake Mixpanel took."""
        return self.here.path / f"{name}.ndjson"

    def send(self, text: str = RECORDS) -> None:
        """Send records; all are accepted."""
        self.here.run("send", "-", text=text)

    def state(self, name: str) -> dict[str, Any]:
        """Return what `stats` says of a destination, with its lanes summed up."""
        found: dict[str, Any]
        (found,) = [d for d in self.here.stats()["destinations"] if d["name"] == name]
        counts = ("accepted", "pending", "sent", "dead")
        return found | {count: sum(lane[count] for lane in found["lanes"]) for count in counts}

    def drained(self, *names: str) -> None:
        """Wait until nothing is pending for these."""
        eventually(lambda: not any(self.state(name)["pending"] for name in names), f"nothing is pending for {names}")

    def archived(self) -> list[str]:
        """Return the lines of the archive, whose files are all finished."""
        files = sorted((self.here.path / "archive").glob("events-*"), key=lambda file: file.name[-13:])
        assert {file.suffix for file in files} == {".ndjson"}
        assert all(file.read_text().endswith("\n") for file in files)
        return [line for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    """A site with three destinations, and nothing running yet."""
    settings = {"mixpanel_token": "", "mixpanel_url": "", "retry_base": "50ms", "retry_max": "200ms"}
    with site(tmp_path, **settings) as here:
        yield Several(here)


def names(lines: list[str]) -> list[str]:
    """Return what the records are, in order of their names."""
    records = [json.loads(line) for line in lines]
    return sorted(record["record"].get("event", record["endpoint"]) for record in records)


def payloads(lines: list[str]) -> set[str]:
    """Return the text of each event, byte for byte: updates have the project's token at the fake, and none here."""
    return {line.partition('"record":')[2].strip() for line in lines if "/import" in line}


EVERYTHING = ["/engage", "/groups", "Debug A", "Debug B", "Purchase", "Signed Up"]


def test_each_gets_what_its_filter_lets_through(several: Several) -> None:
    """All three get the same bytes once; what is kept back is not counted, and a stop finishes the archive."""
    several.fake("all", "--token", "all")
    several.fake("some", "--token", "some")
    server = several.here.serve()
    several.send()
    several.drained("all", "some", "archive")
    assert {name: several.state(name)["accepted"] for name in ("all", "some", "archive")} == {
        "all": 6,
        "some": 2,
        "archive": 6,
    }
    assert several.here.stats()["accepted"] == 6
    assert list((several.here.path / "archive").glob("*.open"))
    assert server.stop() == 0
    archived = several.archived()
    assert names(archived) == names(several.out("all").read_text().splitlines()) == EVERYTHING
    assert names(several.out("some").read_text().splitlines()) == ["Purchase", "Signed Up"]
    assert payloads(archived) == payloads(several.out("all").read_text().splitlines())
    assert payloads(several.out("some").read_text().splitlines()) < payloads(archived)
    assert "all" not in {json.loads(line)["record"].get("$token") for line in archived}


@pytest.mark.parametrize("trouble", ["refused", "401", "503"])
def test_one_that_is_down_holds_up_nobody(several: Several, trouble: str) -> None:
    """The others go on, the intake goes on, and what it is owed goes out when it is back, also after a restart."""
    several.fake("all")
    failing = None if trouble == "refused" else several.fake("some", "--fail-rate", "1", "--status", trouble)
    server = several.here.serve()
    several.send()
    several.drained("all", "archive")
    held = eventually(lambda: (s := several.state("some"))["failures"] > 1 and s, "failures")
    assert held["state"] in (["paused"] if trouble == "401" else ["retrying", "open"])
    assert trouble in held["last_error"] or "cannot connect" in held["last_error"]
    assert (held["pending"], held["dead"]) == (2, 0)
    for name in ("all", "archive"):
        assert (several.state(name)["failures"], several.state(name)["state"]) == (0, "ok")
    shown = several.here.run("stats").stdout
    assert re.match(r"Delivering to 2 of 3 destinations; some (answers \d+|fails) since \d\d:\d\d UTC", shown)
    assert re.search(r"; nothing is lost, 2 records buffered, \d+B of 20GiB\.\n", shown)
    server.kill()
    several.here.serve()
    several.send(RECORDS.replace("Purchase", "Refund"))
    several.drained("all", "archive")
    assert several.state("some")["failures"] >= held["failures"]
    if failing:
        failing.stop()
    several.fake("some")
    several.drained("some")
    assert names(several.out("some").read_text().splitlines()) == ["Purchase", "Refund", "Signed Up"]
    assert several.state("some")["state"] == "ok"


def test_dead_letters_are_those_of_one_destination(several: Several) -> None:
    """What one refuses the others have; sent again, it goes to that one alone."""
    several.fake("all")
    port = str(several.ports["some"])
    refusing = several.here.start(sys.executable, str(SUPPORT / "refusing_sink.py"), port, str(several.out("some")))
    eventually(lambda: "listening" in refusing.output(), "the fake Mixpanel listens")
    several.here.serve()
    several.send('{"event": "Poison", "properties": {"distinct_id": "u1", "$insert_id": "p"}}\n')
    several.drained("all", "some", "archive")
    assert {name: several.state(name)["dead"] for name in ("all", "some", "archive")} == {
        "all": 0,
        "some": 1,
        "archive": 0,
    }
    assert "1 dead letter; see `walbatch dead list`." in several.here.run("stats").stdout
    refusing.kill()
    several.fake("some")
    several.here.run("dead", "replay", "--all", "--destination", "some", "--yes")
    several.drained("some")
    assert names(several.out("some").read_text().splitlines()) == ["Poison"]
    assert len(several.out("all").read_text().splitlines()) == 1
    assert several.state("all")["accepted"] == 1


def test_stats_shows_each_with_the_server_up_and_down(several: Several) -> None:
    """Every destination has a row for each lane and an entry in the JSON; one sentence is about all of them."""
    several.fake("all")
    server = several.here.serve()
    several.send()
    several.drained("all", "archive")
    eventually(lambda: several.state("some")["failures"], "a failure")
    up = several.here.stats()
    assert [found["name"] for found in up["destinations"]] == ["all", "some", "archive"]
    assert (up["accepted"], up["pending"], up["sent"]) == (6, 2, 12)
    text = several.here.run("stats").stdout
    rows = Counter(
        line.split()[0] for line in text.splitlines() if line.split()[2:3] in (["events"], ["profiles"], ["groups"])
    )
    assert rows == {"all": 3, "some": 3, "archive": 3}
    assert server.stop() == 0
    down = several.here.stats()
    assert [found["lanes"] for found in down["destinations"]] == [found["lanes"] for found in up["destinations"]]
    sentence = several.here.run("stats").stdout.splitlines()[0]
    assert re.fullmatch(
        r"Not serving\. 2 pending, oldest .* s; what is pending goes out after `walbatch serve`\.", sentence
    )


@pytest.mark.timeout(240)
def test_the_archive_is_whole_after_kills(several: Several) -> None:
    """Killed under load, it has every acknowledged event, in whole lines, and copies only of what a kill cut off."""
    several.write("archive", archive='rotate_size = "1MiB"')
    here = several.here
    server = here.serve()
    load = Load(here, clients=1)
    before: list[str] = []
    for _ in range(3):
        load.goes_on(45_000)
        eventually(lambda: list((here.path / "archive").glob("*.open")), "a file is being written")
        server.signal(signal.SIGKILL)
        server.wait()
        for file in (here.path / "archive").glob("events-*"):
            *lines, torn = file.read_text(errors="replace").split("\n")
            assert all(json.loads(line) for line in lines)
            assert not torn or file.suffix == ".open"
            before += lines if file.suffix == ".ndjson" else []
        server = here.serve()
    load.end()
    several.drained("archive")
    assert server.stop() == 0
    lines = several.archived()
    assert set(before) <= set(lines), "a finished file does not change"
    verdict = judge([log.read_text() for log in load.logs], lines)
    assert verdict.acked
    assert not verdict.lost
    assert not verdict.unexpected
    assert not verdict.altered


def test_a_stop_writes_out_what_waits_and_finishes_the_file(several: Several) -> None:
    """What is pending goes into the archive although no batch is due, beside a destination that is down."""
    several.here.settings["flush_interval"] = "1h"
    server = several.here.serve()
    several.send()
    assert server.stop() == 0
    assert names(several.archived()) == EVERYTHING
    assert several.here.stats()["pending"] == 6 + 2


def test_one_that_is_taken_out_of_the_file_is_told_and_comes_back(several: Several) -> None:
    """The log names it and what it is owed; the others go on, and once it is back it gets what waited."""
    several.fake("all")
    server = several.here.serve()
    several.send()
    several.drained("all", "archive")
    assert server.stop() == 0
    assert "service.destination_not_configured" not in server.output()
    several.write("all", "archive")
    server = several.here.serve()
    (warning,) = [json.loads(line) for line in server.output().splitlines() if "not_configured" in line]
    assert (warning["event"], warning["level"]) == ("service.destination_not_configured", "warning")
    assert (warning["destination"], warning["pending"]) == ("some", 2)
    assert [found["name"] for found in several.here.stats()["destinations"]] == ["all", "archive"]
    assert server.stop() == 0
    several.write("all", "some", "archive")
    several.fake("some")
    server = several.here.serve()
    several.drained("some")
    assert "not_configured" not in server.output()
    assert names(several.out("some").read_text().splitlines()) == ["Purchase", "Signed Up"]


def test_one_that_is_renamed_goes_on(several: Several) -> None:
    """With `formerly` what waited goes out under the new name; a destination that is new begins at the end."""
    several.write("all")
    server = several.here.serve()
    several.send()
    eventually(lambda: several.state("all")["failures"], "a failure")
    assert server.stop() == 0
    several.write("everything", "archive", everything='formerly = "all"')
    several.fake("everything")
    server = several.here.serve()
    assert "not_configured" not in server.output()
    several.drained("everything")
    assert names(several.out("everything").read_text().splitlines()) == EVERYTHING
    assert several.state("archive")["accepted"] == 0
    several.send('{"event": "Later", "properties": {"distinct_id": "u1"}}\n')
    several.drained("everything", "archive")
    assert server.stop() == 0
    assert names(several.archived()) == ["Later"]


def test_from_one_destination_to_several(several: Several) -> None:
    """The destination of the settings is called mixpanel: under that name in the file it goes on where it was."""
    here = several.here
    several.file.unlink()
    here.settings |= {"destinations_file": "", "mixpanel_token": "t", "mixpanel_url": several.url("mixpanel")}
    server = here.serve()
    several.send()
    eventually(lambda: several.state("mixpanel")["failures"], "a failure")
    assert server.stop() == 0
    several.write("mixpanel", "archive")
    here.settings |= {"destinations_file": several.file, "mixpanel_token": "", "mixpanel_url": ""}
    several.fake("mixpanel")
    here.serve()
    several.drained("mixpanel")
    assert names(several.out("mixpanel").read_text().splitlines()) == EVERYTHING


def test_a_wrong_file_is_explained(several: Several) -> None:
    """Every problem is told with the file, the destination and the key, and without a value; nothing is started."""
    several.file.write_text(
        f'[destinations.one]\ntype = "mixpanel"\ntoken = "{SECRET} {SECRET}"\nregion = "{SECRET}"\n'
        f'[destinations.two]\ntype = "ndjson"\nrotate_size = 100\ntokn = "{SECRET}"\n'
    )
    result = several.here.run("serve", check=False)
    assert result.returncode == 78
    for problem in (
        "[destinations.one] token: must be the credential alone",
        "[destinations.one] region: must be 'us', 'eu' or 'in'",
        "[destinations.two] directory: is missing",
        "[destinations.two] rotate_size: must be at least 1MiB",
        "[destinations.two] tokn: is not known here",
    ):
        assert f"{several.file}: {problem}" in result.stderr
    assert SECRET not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert not several.here.data.exists()


def test_a_file_beside_the_settings_of_one_destination_is_explained(several: Several) -> None:
    """Whoever has both is told which of the settings would have no effect."""
    several.here.settings["mixpanel_token"] = SECRET
    result = several.here.run("serve", check=False)
    assert result.returncode == 78
    assert "WALBATCH_DESTINATIONS_FILE: lists the destinations, so WALBATCH_MIXPANEL_TOKEN would" in result.stderr
    assert SECRET not in result.stderr


def test_a_directory_that_another_server_writes_is_refused(several: Several, tmp_path: Path) -> None:
    """Two servers never write one archive; the second one says which directory it is."""
    several.write("archive")
    several.here.serve()
    second = several.here.run(
        "serve", "--data-dir", str(tmp_path / "other"), "--grpc-listen", "127.0.0.1:0", check=False
    )
    assert second.returncode == 78
    assert f"{tmp_path / 'archive'} cannot be used as an archive" in second.stderr
    assert "Traceback" not in second.stderr
