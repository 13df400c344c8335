"""Moving records into another log: what is exported is what is stored, and makes the same again."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from log_records import mode
from mixed_load import Client
from programs import WALBATCH, Site, environment, site

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub
from walbatch.wal.reading import reading

pytestmark = pytest.mark.e2e

COUNT = 600
"""Enough that there is every operation, and every way of saying who did it."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A running server that has delivered records of every kind to a fake Mixpanel."""
    (tmp_path / "here").mkdir()
    with site(tmp_path / "here") as made:
        made.sink()
        made.serve()
        records = [
            one.record for one in Client(0, time.time_ns() // 1_000_000 - 10**8, 20).records(COUNT) if one.meaning
        ]
        with grpc.insecure_channel(f"127.0.0.1:{made.grpc_port}") as channel:
            reply = AnalyticsServiceStub(channel).Ingest(pb.IngestRequest(records=records), timeout=10)
        assert not reply.rejections
        made.drained()
        yield made


def stored(here: Site) -> list[tuple[int, str, str]]:
    """Return kind, id and payload of every stored record, in order."""
    with reading(here.data) as connection:
        return connection.execute("SELECT kind, event_id, payload FROM events ORDER BY seq").fetchall()


def moved(here: Site, there: Site) -> str:
    """Move everything from one server to another, by a pipe between two commands; return the summary."""
    script = f"set -o pipefail; {WALBATCH} export | {WALBATCH} send --to 127.0.0.1:{there.grpc_port}"
    result = subprocess.run(
        ["bash", "-c", script], env=environment(**here.settings), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_everything_is_the_same_after_a_move(here: Site, tmp_path: Path) -> None:
    """The same ids, times and bytes are stored there in the same order, and delivered; twice, they are stored once."""
    (tmp_path / "there").mkdir()
    with site(tmp_path / "there") as there:
        there.sink()
        there.serve()
        count = len(stored(here))
        assert count > COUNT * 0.9
        assert {kind for kind, _, _ in stored(here)} == {0, 1, 2}
        said = moved(here, there)
        assert f"{count} records" in said
        assert f"{count} accepted, 0 duplicates, 0 refused" in said
        assert stored(there) == stored(here)
        assert there.drained()["sent"] == count
        assert sorted(there.delivered_lines()) == sorted(here.delivered_lines())
        here.close()
        assert f"0 accepted, {count} duplicates, 0 refused" in moved(here, there)


def test_an_export_has_what_is_asked_for(here: Site) -> None:
    """On stdout there are lines and nothing else; the count is on stderr."""
    count = len(stored(here))
    everything = here.run("export")
    assert (len(everything.stdout.splitlines()), everything.stderr) == (count, f"{count} records\n")
    assert here.run("export", "--status", "sent").stdout == everything.stdout
    assert here.run("export", "--status", "pending").stdout == ""
    assert here.run("export", "--limit", "7").stdout.splitlines() == everything.stdout.splitlines()[:7]
    views = [json.loads(line) for line in here.run("export", "--event", "Page View").stdout.splitlines()]
    assert {one["event"] for one in views} == {"Page View"}
    assert here.run("export", "--until", "1h", "--destination", "mixpanel").stdout == ""


def test_an_export_into_a_file(here: Site, tmp_path: Path) -> None:
    """It is complete, for its owner only, and replaces nothing unless that is said."""
    target = tmp_path / "records.ndjson"
    result = here.run("export", "--output", str(target))
    assert (result.stdout, mode(target)) == ("", 0o600)
    assert target.read_text() == here.run("export").stdout
    refused = here.run("export", "--output", str(target), "--limit", "1", check=False)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    here.run("export", "--output", str(target), "--limit", "1", "--force")
    assert len(target.read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "records.ndjson"]


def test_an_export_that_nobody_reads_to_its_end(here: Site) -> None:
    """It ends in peace."""
    script = f"set -o pipefail; {WALBATCH} export | head -n 1"
    result = subprocess.run(
        ["bash", "-c", script], env=environment(**here.settings), capture_output=True, text=True, check=False
    )
    assert (result.returncode, len(result.stdout.splitlines()), result.stderr) == (0, 1, "")


def test_an_export_on_a_terminal(here: Site, tmp_path: Path) -> None:
    """The lines go to the file, and the count is the last that is seen."""
    target = tmp_path / "records.ndjson"
    code, shown = here.on_terminal("export", "--output", str(target), answers="")
    assert code == 0
    assert shown.endswith(f"{len(stored(here))} records")


REFUSED = [
    (["--destination", "elsewhere"], 2, "it has mixpanel"),
    (["--status", "lost"], 2, "--status"),
    (["--since", "yesterday"], 2, "--since"),
    (["--output", "missing/file"], 74, "cannot be written"),
    (["--data-dir", "nowhere"], 78, "WALBATCH_DATA_DIR"),
]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    """On stderr, with the exit code of its sort, and without a traceback."""
    with site(tmp_path) as here:
        here.serve()
        for arguments, code, says in REFUSED:
            result = here.run("export", *arguments, check=False)
            assert (arguments, result.returncode, result.stdout) == (arguments, code, "")
            assert says in " ".join(result.stderr.replace("│", " ").split())
            assert "Traceback" not in result.stderr
