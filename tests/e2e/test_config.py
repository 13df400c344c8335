"""`walbatch config`: what a person and a pipeline get to see of the settings, by the installed command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from destinations_file import ARCHIVE, MIXPANEL, written
from programs import DEADLINE_S, WALBATCH, environment, site
from wrong_settings import CANARY, secret_file

pytestmark = pytest.mark.e2e


def config(cwd: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the command with these settings. No output of it ever shows the secret."""
    done = subprocess.run(
        [WALBATCH, "config", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The rows of the table, by setting."""
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith("WALBATCH_")}


def test_each_source_is_shown(tmp_path: Path) -> None:
    """Flag, environment, `.env`, the file of a secret, default: one row each."""
    (tmp_path / ".env").write_text("WALBATCH_RETENTION=30d\nWALBATCH_BATCH_SIZE=1\n")
    secret = secret_file(tmp_path / "token")
    done = config(tmp_path, "show", "--batch-size", "100", log_level="debug", mixpanel_token_file=secret)
    assert (done.returncode, done.stderr) == (0, "")
    shown = rows(done)
    assert shown["WALBATCH_BATCH_SIZE"] == ["100", "--batch-size"]
    assert shown["WALBATCH_LOG_LEVEL"] == ["debug", "environment"]
    assert shown["WALBATCH_RETENTION"] == ["30d", ".env"]
    assert shown["WALBATCH_MIXPANEL_TOKEN"] == ["********", "environment,", "a", "file"]
    assert shown["WALBATCH_BATCH_MAX"] == ["2000", "default"]
    assert shown["WALBATCH_MIXPANEL_URL"] == ["(not", "set)", "default"]


def test_the_same_as_json(tmp_path: Path) -> None:
    """Names, values and sources for a program; destinations of a file as well."""
    path = written(tmp_path, MIXPANEL + ARCHIVE.replace("destinations.a", "destinations.b"))
    done = config(tmp_path, "show", "--json", destinations_file=path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["problems"]) == (0, [])
    by_name = {one.pop("name"): one for one in document["settings"]}
    assert by_name["WALBATCH_DESTINATIONS_FILE"] == {
        "value": str(path),
        "source": "environment",
        "key": "WALBATCH_DESTINATIONS_FILE",
        "in_file": False,
        "usable": True,
    }
    assert document["destinations"]["a"]["token"] == "********"
    assert document["destinations"]["b"]["type"] == "ndjson"
    text = config(tmp_path, "show", destinations_file=path).stdout
    assert "[destinations.a]\ntype = mixpanel\n" in text


def test_showing_what_is_wrong(tmp_path: Path) -> None:
    """Everything is shown all the same, each problem is told, and the exit code is 78."""
    done = config(tmp_path, "show", batch_size="many", mixpanel_region=CANARY, batch_sise=5)
    assert done.returncode == 78
    assert rows(done)["WALBATCH_BATCH_SIZE"][:3] == ["(cannot", "be", "used)"]
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "WALBATCH_BATCH_SISE",
        "WALBATCH_MIXPANEL_REGION",
        "WALBATCH_BATCH_SIZE",
    ]


def test_checking_what_is_right(tmp_path: Path) -> None:
    """One line and 0, also for a pipeline."""
    done = config(tmp_path, "check", mixpanel_token=CANARY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok: 1 destination (mixpanel)\n", "")
    document = json.loads(config(tmp_path, "check", "--json", "--destination", "stdout").stdout)
    assert document == {"ok": True, "destinations": ["stdout"], "problems": []}


@pytest.mark.parametrize(
    ("settings", "flags", "keys"),
    [
        ({}, [], ["WALBATCH_MIXPANEL_TOKEN"]),
        ({"mixpanel_token_file": "absent"}, [], ["WALBATCH_MIXPANEL_TOKEN_FILE"]),
        ({"mixpanel_token": CANARY, "mixpanel_url": f"https://u:{CANARY}@h"}, [], ["WALBATCH_MIXPANEL_URL"]),
        ({"mixpanel_token": CANARY}, ["--batch-size", "9000"], ["--batch-size"]),
        ({"destinations_file": "absent.toml"}, [], ["WALBATCH_DESTINATIONS_FILE"]),
        (
            {"mixpanel_token": CANARY, "retention": "soon", "batch_sise": "5"},
            [],
            ["WALBATCH_BATCH_SISE", "WALBATCH_RETENTION"],
        ),
    ],
    ids=["no secret", "no such file", "a secret in the address", "a flag", "no file of destinations", "two at once"],
)
def test_checking_what_is_wrong(tmp_path: Path, settings: dict[str, object], flags: list[str], keys: list[str]) -> None:
    """The keys as they were typed, each with its fix, and 78: what `serve` would say, without a server."""
    done = config(tmp_path, "check", *flags, **settings)
    assert (done.returncode, done.stdout) == (78, "")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == keys
    document = json.loads(config(tmp_path, "check", "--json", *flags, **settings).stdout)
    assert document["ok"] is False
    assert document["problems"] == done.stderr.splitlines()
    with site(tmp_path) as here:
        here.settings = dict(settings)
        refused = here.run("serve", *flags, check=False)
    assert refused.returncode == 78
    assert refused.stderr.removeprefix("walbatch: ") == done.stderr
