"""`walbatch erase` as people run it: with the server up and down, during an outage, on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from programs import Site, eventually, free_port, site
from traces import files_with, secret_id

pytestmark = pytest.mark.e2e


def line(name: str, distinct_id: str, **properties: Any) -> str:
    """An event as a line of JSON."""
    return json.dumps({"event": name, "properties": {"distinct_id": distinct_id, **properties}}) + "\n"


def test_with_the_server_up_and_the_destination_down(tmp_path: Path) -> None:
    """Nothing waits for the outage, nothing of the person goes out after it, late records are refused, new ones not."""
    who = secret_id()
    with site(tmp_path, retry_base="50ms", retry_max="200ms", log_level="debug") as here:
        sink = here.sink()
        server = here.serve()
        here.run("send", "-", text=line("before", who) + line("before", "u2"))
        here.drained()
        sink.kill()
        update = json.dumps({"$distinct_id": who, "$set": {"plan": who}}) + "\n"
        here.run("send", "-", text=line("waits", who, note=f"{who} " * 900) + update + line("waits", "u2"))
        eventually(lambda: here.stats()["destinations"][0]["failures"], "the destination is down")
        assert files_with(here.data, who)

        done = here.run("erase", "--distinct-id", who, "--yes", "--json")
        receipt = json.loads(done.stdout)
        assert files_with(here.data, who) == []
        assert receipt["complete"]
        assert receipt["records"] == {"events": 2, "profiles": 1, "groups": 0}
        (share,) = receipt["destinations"]
        assert (share["name"], share["sent"], share["pending"]) == ("mixpanel", 1, 2)
        assert "1 had been sent: erase the person there as well" in done.stderr

        late = here.run("send", "-", text=line("late", who, time=1_600_000_000) + line("late", "u2"), check=False)
        assert late.returncode == 3
        assert "erased at" in late.stderr
        here.run("send", "-", text=line("back", who))
        here.sink()
        numbers = here.drained()
        assert (numbers["erased"], numbers["accepted"]) == (3, 7)
        names = [one["event"] for one in here.delivered() if one.get("properties", {}).get("distinct_id") == who]
        assert names == ["before", "back"]
        assert server.stop() == 0
        assert "erasure.done" in server.output()
        assert who not in server.output() + done.stdout + done.stderr + late.stderr


ARCHIVE = """
[destinations.archive]
type = "ndjson"
directory = "archive"
"""


def test_with_the_server_down(tmp_path: Path) -> None:
    """By ids from stdin; an archive's directory is named, and a copy of the database keeps it from being complete."""
    who = secret_id()
    (tmp_path / "destinations.toml").write_text(ARCHIVE)
    with site(tmp_path, destinations_file=tmp_path / "destinations.toml") as here:
        del here.settings["mixpanel_token"], here.settings["mixpanel_url"]
        server = here.serve()
        here.run("send", "-", text=line("a", who) + line("b", "u2"))
        here.drained()
        assert server.stop() == 0
        (here.data / "old.db").write_text(who)
        command = ("erase", "--ids-from", "-")
        counted = here.run(*command, "--dry-run", text=f"{who}\r\n\n")
        assert (counted.stdout, files_with(here.data, who)) == ("1\n", ["events.db", "old.db"])

        assert here.run(*command, text=who, check=False).returncode == 2
        partly = here.run(*command, "--yes", "--json", text=f"{who}\nnobody\n", check=False)
        assert partly.returncode == 3
        assert json.loads(partly.stdout)["erased"] == 1, "nothing but the receipt is on stdout"
        assert f"{here.data / 'old.db'} may hold the same" in partly.stderr
        assert f"erase the person in the files of {tmp_path / 'archive'} as well" in partly.stderr
        assert files_with(here.data, who) == ["old.db"]
        assert files_with(tmp_path / "archive", who)

        assert here.run(*command, "--yes", "--delete-copies", text=who).returncode == 0
        assert files_with(here.data, who) == []
        assert here.stats()["erased"] == 1
        assert who not in counted.stderr + partly.stdout + partly.stderr


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    """No means that nothing is done; who is not named at all is an error of usage."""
    who = secret_id()
    with site(tmp_path, mixpanel_url=f"http://127.0.0.1:{free_port()}") as here:
        server = here.serve()
        here.run("send", "-", text=line("a", who))
        assert server.stop() == 0
        for answer, left in (("n", True), ("y", False)):
            code, text = here.on_terminal("erase", "--distinct-id", who, answers=f"{answer}\n")
            assert code == 0
            assert "Erase 1 record of 1 person for good?" in text
            assert bool(files_with(here.data, who)) == left
        assert_usage(here, "erase", "--yes")
        assert_usage(here, "erase", "--yes", "--distinct-id", "$device:")
        assert_usage(here, "erase", "--yes", "--ids-from", str(tmp_path / "missing"))


def assert_usage(here: Site, *arguments: str) -> None:
    """The command is refused before it does anything."""
    refused = here.run(*arguments, check=False)
    assert refused.returncode == 2, refused.stderr
