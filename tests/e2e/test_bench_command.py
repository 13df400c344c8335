"""`walbatch bench`: the installed command measures on its own, and leaves nothing behind; how fast is no matter."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import WALBATCH, Program, Site, environment, eventually, site

pytestmark = pytest.mark.e2e

SECONDS = "0.3"
FSYNCED = {"answers_said": "DURABILITY_FSYNCED", "acknowledged_means": "fsynced"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A site with a server, a destination, and one event that was delivered."""
    with site(tmp_path) as running:
        running.sink()
        running.serve()
        running.run("send", "--event", "Mine", "--distinct-id", "user-1")
        running.drained()
        yield running


def test_figures_of_the_disk_of_a_log_in_use(here: Site) -> None:
    """Beside a running server, whose log and destination get nothing of it; nothing is left there."""
    before, files = here.stats(), everything(here.path)
    done = bench(here.path, "--seconds", SECONDS, "--json", **here.settings)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["directory"] == str(here.path)
    assert found["durability"] == FSYNCED
    assert found["seconds_per_load"] == 0.3
    assert found.keys() >= {"walbatch", "sqlite", "python", "cores", "warnings"}
    assert found["fdatasync_4kb"]["samples"] >= 100
    for part in ("fdatasync_4kb", "track_event_1_caller", "track_event_64_callers"):
        assert 0 < found[part]["p50_ms"] <= found[part]["p99_ms"], part
    for part in ("track_event_1_caller", "track_event_64_callers", "ingest", "ingest_stream", "drain"):
        assert found[part]["events"] > 0, part
        assert found[part]["events_per_s"] > 0, part
    assert found["sqlite_alone"]["rows_per_s"] > 0
    assert found["event"]["disk_bytes"] > found["event"]["stored_bytes"]
    after = here.stats()
    assert after["accepted"] == before["accepted"] == 1
    assert [record["event"] for record in here.delivered()] == ["Mine"]
    assert everything(here.path) == files


def test_a_sentence_and_a_table(tmp_path: Path) -> None:
    """On a directory that is named, no setting counts: neither the environment nor a `.env` reaches the server."""
    (tmp_path / ".env").write_text("WALBATCH_BATCH_SIZE=none\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = bench(tmp_path, "--dir", "disk", "--seconds", SECONDS, retention="never")
    assert (done.returncode, done.stderr) == (0, "")
    sentence = " ".join(done.stdout.split())
    assert re.match(r"64 callers: [\d,]+ events/s, each acknowledged once fsynced \(p99 [\d.,]+ ms\);", sentence)
    rows = {line[:28].strip(): line[28:].split() for line in done.stdout.splitlines()}
    assert rows["TrackEvent, 1 caller"][-2:] == ["x", "fdatasync"]
    assert rows["Ingest, 8 callers of 50"][-3:] == ["x", "sqlite3", "alone"]
    assert {"fdatasync of 4 kB", "IngestStream of 50", "drain of 15,000 events"} <= rows.keys()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("server/walbatch.lock", signal.SIGINT, 130), ("backlog/walbatch.lock", signal.SIGTERM, 143)],
)
def test_it_can_be_ended_at_any_time(tmp_path: Path, moment: str, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM leave no process and no file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = Program(
        [WALBATCH, "bench", "--dir", str(disk), "--seconds", SECONDS], tmp_path / "log", environment(), tmp_path
    )
    try:
        eventually(lambda: list(disk.glob(f"*/{moment}")) or program.process.poll() is not None, "it got there")
        started = children(program.process.pid)

        def ended() -> bool:
            program.signal(number)
            return program.process.poll() is not None

        eventually(ended, "it ended, however impatient somebody is")
        assert program.wait() == code
    finally:
        program.process.kill()
    assert started
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert list(disk.iterdir()) == []
    assert not program.output()


@pytest.mark.parametrize(
    ("directory", "told"),
    [("absent", "there is no such directory; name one"), ("/sys", "name a directory that you may write to")],
)
def test_a_directory_that_cannot_be_used(tmp_path: Path, directory: str, told: str) -> None:
    """The line names the option and the fix."""
    done = bench(tmp_path, "--dir", directory)
    assert (done.returncode, done.stdout) == (78, "")
    assert re.fullmatch(rf"walbatch: --dir {directory}: .*{told}.*\n", done.stderr)


def bench(cwd: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [WALBATCH, "bench", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def everything(path: Path) -> set[Path]:
    """Return all files below a directory but the logs of its programs."""
    return {found for found in path.rglob("*") if found.suffix != ".log"}


def children(pid: int) -> list[str]:
    """Return the processes that a process has started and that still run."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
