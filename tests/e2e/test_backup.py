"""Backup under load, disaster, restore by the letter of the documentation."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from load import Load
from programs import WALBATCH, Program, Site, environment, eventually, site
from total_queue import id_of, judge

ROOT = Path(__file__).parent.parent
SUPPORT = ROOT / "support"
DOCUMENTED = ROOT.parent / "docs" / "backup.md"

pytestmark = pytest.mark.e2e


def documented(heading: str) -> list[str]:
    """The commands of the first block below a heading, as a reader would type them."""
    section = DOCUMENTED.read_text().split(f"\n## {heading}\n", 1)[1]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]


def type_in(here: Site, command: str) -> str:
    """Run a command in a shell where the data directory is, and return what it printed."""
    path = f"{Path(WALBATCH).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment(**here.settings) | {"PATH": path},
        cwd=here.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def acked(log: Path) -> set[str]:
    """What the client was acknowledged so far."""
    return {line.removeprefix("ack ") for line in log.read_text().splitlines() if line.startswith("ack ")}


def ids_of(lines: list[str]) -> set[str]:
    """The ids of what was delivered."""
    return {id_of(json.loads(line)["record"]) for line in lines}


@contextmanager
def serving_an_event(path: Path) -> Iterator[tuple[Site, Program]]:
    """A site whose server has delivered an event, to stdout."""
    with site(path, destination="stdout") as here:
        del here.settings["mixpanel_token"], here.settings["mixpanel_url"]
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u1")
        here.drained()
        yield here, server


@pytest.mark.timeout(120)
def test_what_was_acknowledged_before_a_backup_is_delivered_after_the_restore(tmp_path: Path) -> None:
    """By the documented steps, under load: nothing from before is lost, and what was pending has the same bytes."""
    with site(tmp_path, data_dir=tmp_path / "walbatch-data", retry_base="50ms", retry_max="200ms") as here:
        here.data = tmp_path / "walbatch-data"
        sink = here.sink("--fail-rate", "0.1", "--latency", "5ms", "--seed", "1")
        server = here.serve()
        load = Load(here, clients=1)
        (log,) = load.logs
        load.goes_on(12_000)  # some hundred events are acknowledged
        sink.signal(signal.SIGSTOP)  # an outage: what comes now is pending in the backup
        load.goes_on(12_000)
        before, arrived = acked(log), len(here.delivered_lines())
        (back_up,) = documented("Backup")
        summary = json.loads(type_in(here, f"{back_up} --json"))
        after = len(acked(log))
        assert summary["pending"]["mixpanel"] > 100
        eventually(lambda: len(acked(log)) > after, "the client goes on after the backup")
        sink.signal(signal.SIGCONT)
        eventually(lambda: len(here.delivered_lines()) > arrived + 200, "some of it is delivered")
        server.kill()  # the disaster
        load.end()
        assert sink.stop() == 0
        first = here.delivered_lines()
        here.out.unlink()  # what is delivered from here on is from the restored log alone

        for command in documented("Restore"):
            printed = type_in(here, command)
        assert not re.search(r"(?m)^fail", printed)
        assert "accounting: every counter" in printed
        assert [file.name for file in here.data.iterdir()] == ["events.db"]

        here.sink()
        here.serve()
        numbers = here.drained()
        assert (numbers["accepted"], numbers["dead"]) == (summary["records"], 0)
        second = here.delivered_lines()
        assert len(second) == summary["pending"]["mixpanel"]
        assert before - ids_of(first[:arrived]), "all had arrived before the backup: the restore was not needed"
        assert before <= ids_of(first[:arrived]) | ids_of(second)
        verdict = judge([log.read_text()], first + second)
        print(verdict.summary())
        assert not verdict.unexpected
        assert ids_of(first[arrived:]) & ids_of(second), "nothing was sent again: the bytes were not compared"
        assert not verdict.altered


def test_the_command_tells_and_refuses(tmp_path: Path) -> None:
    """A summary for people, one line of error and exit code 1 for a file that exists, 2 for a size that is none."""
    with serving_an_event(tmp_path) as (here, server):
        copy = tmp_path / "copy.db"
        assert "1 record, 0 pending for stdout" in here.run("backup", str(copy)).stdout
        refused = here.run("backup", str(copy), check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"walbatch: {copy} exists; name a file that does not, or remove that one first\n"
        assert here.run("backup", shlex.quote("x"), "--max-wal", "much", check=False).returncode == 2
        small = here.run("backup", str(tmp_path / "other.db"), "--max-wal", "1", check=False)
        assert small.returncode == 1
        assert "--max-wal" in small.stderr
        assert not (tmp_path / "other.db").exists()
        assert server.stop() == 0
        shown, text = here.on_terminal("backup", str(tmp_path / "third.db"), variables={"TERM": "xterm"})
        assert shown == 0
        assert "100 %" in text


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Exit code 130, and neither FILE nor FILE.partial."""
    with serving_an_event(tmp_path) as (here, server):
        slow = here.start(sys.executable, str(SUPPORT / "slow_backup.py"), str(here.data), str(tmp_path / "copy.db"))
        eventually(lambda: "copying" in slow.output(), "the copy is made")
        assert (tmp_path / "copy.db.partial").exists()
        slow.signal(signal.SIGINT)
        assert slow.wait() == 130
        assert not list(tmp_path.glob("copy.db*"))
        assert server.stop() == 0


def test_the_doctor_looks_at_a_running_server_and_at_a_damaged_log(tmp_path: Path) -> None:
    """Exit code 0 with a line a check while it is served; 65, and every other check, when its file is damaged."""
    with serving_an_event(tmp_path) as (here, server):
        lines = here.run("doctor").stdout.splitlines()
        assert f"ok    server: pid {server.process.pid} accepts records" in lines
        assert not [line for line in lines if line.startswith("fail")]
        assert server.stop() == 0
        content = (here.data / "events.db").read_bytes()
        (here.data / "events.db").write_bytes(content[:4096] + bytes(len(content) - 4096))
        found = here.run("doctor", "--json", check=False)
        document = json.loads(found.stdout)
        assert (found.returncode, document["exit_code"], found.stderr) == (65, 65, "")
        assert {"check": "settings", "status": "ok", "text": "destinations: stdout", "fix": "", "damaged": False} in (
            document["checks"]
        )
        assert any(check["damaged"] for check in document["checks"])
        refused = here.run("serve", check=False)
        assert refused.returncode == 65
        assert "walbatch doctor" in refused.stderr
