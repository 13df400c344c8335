"""docs/runbook.md, lived through: an outage, an event that is refused, a full disk, by commands and on the page."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from browsing import Look, refusing
from file_systems import in_memory
from pages import ROOT, Typed, commands
from playwright.sync_api import expect
from probe import track
from programs import WALBATCH, Site, environment, eventually, site

RUNBOOK = ROOT / "docs" / "runbook.md"
LIMIT_S = 60.0
Open = Callable[..., Look]


class Night:
    """One chapter of the runbook: its commands, to be typed in order."""

    def __init__(self, here: Site, heading: str) -> None:
        self._here = here
        text = RUNBOOK.read_text()
        first = text.count("\n", 0, text.index(f"\n## {heading}\n")) + 2
        ends = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("## ") and number > first]
        self._rest = [one for one in commands(RUNBOOK) if first < one.line < min(ends, default=len(text))]

    def type(self, begin: str, words: Mapping[str, str] | None = None) -> str:
        """Type the next command, which begins so, with other words for the examples; return what it answered."""
        command: Typed = self._rest.pop(0)
        assert command.text.startswith(begin), f"{RUNBOOK.name}:{command.line} is {command.text!r}"
        text = command.text
        for word, meant in (words or {}).items():
            text = text.replace(word, meant)
        path = f"{Path(WALBATCH).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", text],
            env=environment(**self._here.settings) | {"PATH": path},
            cwd=self._here.path,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{RUNBOOK.name}:{command.line}: {text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def is_over(self) -> bool:
        """Say whether every command of the chapter was typed."""
        return not self._rest


def ticks(here: Site, count: int) -> None:
    """Send some events."""
    lines = [f'{{"event": "Tick", "properties": {{"distinct_id": "u-{n}", "plan": "free"}}}}\n' for n in range(count)]
    here.run("send", "-", text="".join(lines))


def dashboard(here: Site, look: Open) -> Look:
    """Open the page as somebody who may change things."""
    return look(here.run("dashboard", "--with-token").stdout.strip())


def test_the_night_of_an_outage(tmp_path: Path, look: Open) -> None:
    """It is seen, waited for, and over by itself; a flush says so at once. Nothing is lost."""
    with site(tmp_path, retry_base="30m", retry_max="1h") as here:
        down = here.sink("--fail-rate", "1", "--status", "503")
        here.serve()
        night, page = Night(here, "Mixpanel does not answer"), dashboard(here, look).page
        ticks(here, 120)
        expect(page.locator("#state")).to_have_text("retrying")
        expect(page.locator(".sentence")).to_contain_text("nothing is lost, 120 records buffered")
        assert "mixpanel answers 503 since" in night.type("walbatch stats")
        assert re.search(r"^warn\s+destination: mixpanel", night.type("walbatch doctor"), re.MULTILINE)
        down.stop()
        here.sink()
        assert here.stats()["pending"] == 120, "the next probe is half an hour away"
        assert "120 records due now, and it is asked at once" in night.type("walbatch flush")
        expect(page.locator("#state")).to_have_text("delivering")
        here.drained()
        assert night.type("walbatch stats --check").startswith("OK - Delivering.")
        assert night.is_over()
        assert len({record["properties"]["distinct_id"] for record in here.delivered()}) == 120


@pytest.mark.parametrize("by", ["command", "page"])
def test_the_night_of_an_event_that_is_refused(tmp_path: Path, look: Open, by: str) -> None:
    """The others of its batch arrive; it is sent again corrected by the command, or as it is from the page."""
    script = refusing(tmp_path / "script.json", "properties.plan: is unknown")
    with site(tmp_path) as here:
        here.sink("--script", str(script))
        here.serve()
        night, page = Night(here, "Mixpanel refuses an event"), dashboard(here, look).page
        ticks(here, 3)
        letter = page.locator("#dead > li")
        expect(letter).to_contain_text("is unknown")
        assert here.drained()["sent"] == 2
        listed = night.type("walbatch dead list")
        found = re.search(r"^(g[0-9a-f]{8}) .*is unknown", listed, re.MULTILINE)
        assert found, listed
        group = {"g5f0c9e1b": found[1]}
        assert "is unknown" in night.type("walbatch dead show", group)
        night.type("echo")
        if by == "command":
            assert "1 record in the log again" in night.type("walbatch dead replay", group)
        else:
            night._rest.pop(0)
            letter.get_by_role("button", name="Send again").click()
            page.locator("#dialog-confirm").click()
        expect(page.locator("#dead-none")).to_be_visible()
        assert here.drained()["sent"] == 3
        assert "no dead letters" in night.type("walbatch dead list")
        assert night.is_over()
        (again,) = here.delivered()  # the other two were counted as taken by the answer that refused the first
    assert again["properties"]["plan"] == ("pro" if by == "command" else "free")


def test_the_night_of_a_full_disk(tmp_path: Path, look: Open) -> None:
    """New records are refused, delivery goes on, and both is over within seconds after there is room."""
    assert os.geteuid() == 0, "a disk that is full needs root to be made"
    with (
        in_memory(tmp_path / "disk", 64) as disk,
        site(tmp_path, data_dir=disk.path / "walbatch-data", min_free_disk="8MiB") as here,
    ):
        here.sink()
        here.serve()
        night, page = Night(here, "The disk is full"), dashboard(here, look).page
        where = {"walbatch-data": str(here.data)}
        ticks(here, 3)
        ballast = disk.fill()
        expect(page.locator(".sentence")).to_contain_text("New records are refused")
        expect(page.locator("#state")).to_have_text("refusing new records")
        assert track(here).reason == "DISK_FULL"
        health = night.type("walbatch health; echo $?")
        assert health.startswith("not accepting records: ")
        assert health.endswith("\n1\n")
        assert night.type("walbatch stats").startswith("New records are refused: ")
        assert "Avail" in night.type("df", where)
        assert str(here.data) in night.type("du", where)
        assert here.drained()["sent"] == 3, "delivery goes on"
        ballast.unlink()
        eventually(lambda: here.run("health", check=False).returncode == 0, "there is room")
        assert night.type("walbatch health") == "ok\n"
        assert night.is_over()
        expect(page.locator("#state")).to_have_text("delivering")
        ticks(here, 2)
        assert here.drained()["sent"] == 5
