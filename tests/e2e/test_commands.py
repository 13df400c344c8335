"""The other commands, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Site, environment, site

pytestmark = pytest.mark.e2e

SECRET = "canary-5f0c9e"
LINES = "".join(
    f'{{"event": "{name}", "properties": {{"distinct_id": "u{n % 2}", "$insert_id": "{name}-{n}"}}}}\n'
    for name in ("Tick", "Tock")
    for n in range(6)
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A running server and fake Mixpanel that have delivered six Ticks and six Tocks."""
    with site(tmp_path) as made:
        made.sink()
        made.serve()
        made.run("send", "-", text=LINES)
        made.drained()
        yield made


def test_stats_tells_the_same_with_the_server_up_and_down(here: Site) -> None:
    """The numbers come from the server while it runs and from the file otherwise; both add up."""
    up = here.stats()
    assert here.run("stats").stdout.startswith("Delivering. Nothing is pending.\n")
    here.close()
    down = here.stats()
    assert (up["serving"], down["serving"]) == (True, False)
    for name in ("accepted", "pending", "sent", "dead", "in_flight", "engine", "durability", "sqlite_version"):
        assert up[name] == down[name]
    assert up["destinations"][0]["lanes"] == down["destinations"][0]["lanes"]
    text = here.run("stats").stdout
    assert text.startswith("Not serving. Nothing is pending.\n")
    assert "12" in text


def test_stats_without_a_log_says_what_to_do(tmp_path: Path) -> None:
    """A directory without a log is a clear error with the setting's name, and nothing is made there."""
    with site(tmp_path) as empty:
        result = empty.run("stats", check=False)
    assert result.returncode == 78
    assert "WALBATCH_DATA_DIR" in result.stderr
    assert not empty.data.exists()


def test_a_directory_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    """A file in the place of the data directory is an error of the configuration, not a traceback."""
    with site(tmp_path) as here:
        here.data.write_text("not a directory")
        for command in (["serve"], ["migrate"], ["replay", "--yes"], ["stats"]):
            result = here.run(*command, check=False)
            assert (command, result.returncode) == (command, 78)
            assert "WALBATCH_DATA_DIR" in result.stderr
            assert "Traceback" not in result.stderr


def test_a_file_that_is_no_database_is_explained_and_left_alone(tmp_path: Path) -> None:
    """No command touches it; the server says how to recover."""
    with site(tmp_path) as here:
        here.data.mkdir()
        database = here.data / "events.db"
        database.write_bytes(b"something else, " * 1000)
        before = database.read_bytes()
        for command, code in ((["serve"], 65), (["migrate"], 65), (["stats"], 65), (["replay", "--yes"], 65)):
            result = here.run(*command, check=False)
            assert (command, result.returncode) == (command, code)
            assert "Traceback" not in result.stderr
        assert database.read_bytes() == before


def test_a_replay_through_a_running_server_sends_the_same_bytes_again(here: Site) -> None:
    """The selected events, and only they, arrive a second time, identical."""
    result = here.run("replay", "--event", "Tick", "--distinct-id", "u1", "--yes")
    assert "3 records match (3 sent, 0 dead)" in result.stderr
    here.drained()
    lines = here.delivered_lines()
    twice = {line for line in lines if lines.count(line) == 2}
    assert sorted(json.loads(line)["record"]["properties"]["$insert_id"] for line in twice) == [
        "Tick-1",
        "Tick-3",
        "Tick-5",
    ]
    assert len(lines) == 15


def test_a_replay_without_the_token_is_refused(here: Site) -> None:
    """Whoever cannot read the data directory's token is told so, and nothing is repeated."""
    (here.data / "admin.token").unlink()
    result = here.run("replay", "--yes", check=False)
    assert result.returncode == 1
    assert "admin.token" in result.stderr
    assert here.stats()["accepted"] == 12


def test_a_replay_while_nobody_serves_goes_out_after_the_next_start(here: Site) -> None:
    """Without a server the command appends by itself, under the lock."""
    here.close()
    assert here.run("replay", "--event", "Tock", "--limit", "2", "--yes").returncode == 0
    assert here.stats()["pending"] == 2
    here.sink()
    here.serve()
    here.drained()
    assert len(here.delivered()) == 14


def test_a_dry_run_changes_nothing(here: Site) -> None:
    """It prints the count on stdout and the time span on stderr."""
    result = here.run("replay", "--since", "1h", "--until", "0s", "--status", "sent", "--dry-run")
    assert result.stdout == "12\n"
    assert "accepted from 20" in result.stderr
    assert here.stats()["accepted"] == 12


def test_a_replay_refuses_to_ask_without_a_terminal(here: Site) -> None:
    """A script that forgot --yes gets exit 2 and the two ways on, and nothing is repeated."""
    result = here.run("replay", check=False)
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert here.stats()["accepted"] == 12


@pytest.mark.parametrize(("answer", "accepted"), [("y", 24), ("n", 12)])
def test_a_replay_asks_on_a_terminal(here: Site, answer: str, accepted: int) -> None:
    """A person is asked, and is obeyed."""
    code, text = here.on_terminal("replay", answers=f"{answer}\n")
    assert code == 0
    assert "Send 12 records again? [y/N]" in text
    assert here.stats()["accepted"] == accepted


def test_a_replayed_copy_is_not_replayed_again(here: Site) -> None:
    """A second replay repeats the originals only."""
    here.run("replay", "--event", "Tick", "--yes")
    here.drained()
    assert here.run("replay", "--event", "Tick", "--dry-run").stdout == "6\n"


def test_health_follows_the_server(here: Site) -> None:
    """0 while it accepts records, 4 when there is no server."""
    assert here.run("health").stdout == "ok\n"
    here.close()
    assert here.run("health", check=False).returncode == 4


def test_a_second_server_is_told_who_has_the_directory(here: Site) -> None:
    """It exits with 75 and names the process, and the first one goes on."""
    result = here.run("serve", "--grpc-listen", "127.0.0.1:0", check=False)
    assert result.returncode == 75
    assert f"pid {here.lock()['pid']}" in result.stderr
    assert here.run("health").returncode == 0


def test_a_port_in_use_is_explained(here: Site, tmp_path: Path) -> None:
    """Two servers never share a port in silence."""
    result = here.run("serve", "--data-dir", str(tmp_path / "other"), check=False)
    assert result.returncode == 78
    assert "WALBATCH_GRPC_LISTEN" in result.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": "many"}, "WALBATCH_BATCH_SIZE"),
        ({"batch_sise": "50"}, "did you mean WALBATCH_BATCH_SIZE"),
        ({"mixpanel_token": ""}, "WALBATCH_MIXPANEL_TOKEN"),
        ({"mixpanel_region": SECRET}, "WALBATCH_MIXPANEL_REGION"),
        ({"mixpanel_url": f"https://user:{SECRET}@api.mixpanel.com"}, "WALBATCH_MIXPANEL_URL"),
    ],
    ids=[
        "a wrong value",
        "a wrong name",
        "a missing credential",
        "a secret under a wrong name",
        "a secret in the address",
    ],
)
def test_a_wrong_setting_is_named_and_ends_with_78(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    """The message has the key as it was typed, and never a secret."""
    with site(tmp_path, **settings) as wrong:
        result = wrong.run("serve", check=False)
    assert result.returncode == 78
    assert says in result.stderr
    assert SECRET not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    """A new database gets every step, once."""
    with site(tmp_path) as new:
        assert new.run("migrate", "--dry-run").stdout == "schema version 0: 1, 2, 3, 4, 5 would be applied\n"
        assert new.run("migrate").stdout == "schema version 0: 1, 2, 3, 4, 5 applied\n"
        assert new.run("migrate").stdout == "schema version 5: nothing to do\n"


def test_version_names_what_a_bug_report_needs(tmp_path: Path) -> None:
    """The SQLite named is the one that is used."""
    with site(tmp_path) as anywhere:
        facts = json.loads(anywhere.run("version", "--json").stdout)
    assert facts.keys() >= {"walbatch", "python", "sqlite", "schema", "grpcio"}


STORAGE = frozenset({"sqlite3", "pysqlite3", "orjson", "walbatch.wal"})
SETTINGS = frozenset({"asyncio", "pydantic"})
SERVER = frozenset(
    "grpc google.protobuf httpx aiosqlite starlette uvicorn uvloop structlog prometheus_client".split(),
)
"""What takes longest to import; `typer` is in every command, and these are not."""

LOADED = """
import sys
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="walbatch")
try:
    script.load()(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""
"""A program that runs a command, and then says what it imported."""


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("--help", SERVER | SETTINGS | STORAGE),
        ("bench --help", SERVER | STORAGE),
        ("version", SERVER),
        ("health", SERVER | STORAGE),
        ("stats", SERVER | STORAGE),
        ("stats --json", SERVER | STORAGE | {"rich"}),
        ("stats --check", SERVER | STORAGE | {"rich"}),
        ("pause", SERVER | STORAGE),
        ("resume", SERVER | STORAGE),
        ("flush", SERVER | STORAGE),
    ],
)
def test_small_commands_import_little(here: Site, command: str, spared: frozenset[str]) -> None:
    """They are over in the time in which one of these packages is imported; a server's numbers come over its port."""
    needless = imported(here, command) & spared
    assert needless == set()


def test_stats_imports_no_server_to_read_the_file(here: Site) -> None:
    """While nobody serves the log, it is read, and that is all."""
    here.close()
    needless = imported(here, "stats") & SERVER
    assert needless == set()


def imported(here: Site, command: str) -> set[str]:
    """Return the names of the modules that a command imports."""
    result = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()],
        env=environment(**here.settings),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stderr.splitlines()[-1].split())


def test_stdout_is_a_destination_for_trying_out(tmp_path: Path) -> None:
    """With DESTINATION=stdout every record is printed as one JSON line."""
    with site(tmp_path, destination="stdout", mixpanel_token="", mixpanel_url="") as here:
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u1")
        here.drained()
        records = [json.loads(line) for line in server.output().splitlines() if line.startswith('{"endpoint"')]
        assert [r["record"]["event"] for r in records] == ["Tick"]
