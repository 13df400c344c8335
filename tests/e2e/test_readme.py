"""What the README says can be typed, and works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import WALBATCH, environment

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Return every command line of the README, in order."""
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def test_every_make_target_named_there_exists() -> None:
    """The make commands are real; setup, demo and test are what the CI script itself runs."""
    targets = {word for line in commands() for word in re.findall(r"\bmake (\w+)", line)}
    assert targets == {"setup", "demo", "test", "faults", "bench"}
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_every_setting_and_command_named_there_exists() -> None:
    """No setting and no command is named that the program does not have."""
    settings = set(re.findall(r"WALBATCH_[A-Z_]+[A-Z]", README))
    assert settings <= set(re.findall(r"WALBATCH_[A-Z_]+[A-Z]", (ROOT / ".env.example").read_text()))
    shown = subprocess.run([WALBATCH, "--help"], capture_output=True, text=True, check=True).stdout
    for command in set(re.findall(r"`walbatch (\w+)", README)):
        assert re.search(rf"^\W*{command}\b", shown, re.MULTILINE), command


@pytest.mark.timeout(120)
def test_the_commands_and_the_python_code_work(tmp_path: Path) -> None:
    """Typed one after the other, in an empty directory and on the README's ports, they deliver what they say."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    typed = [line for line in commands() if not line.startswith("make ")]
    python = tmp_path / "readme.py"
    python.write_text("\n".join(blocks("python")))
    script = tmp_path / "readme.sh"
    # Jobs that were put into the background are ended in the reverse order, and waited for.
    ending = "for pid in $(jobs -p | tac); do kill $pid; wait $pid || exit 1; done"
    script.write_text(
        "\n".join(["set -e", *typed, f"{sys.executable} {python}", "walbatch stats --json > stats.json", ending])
    )
    with (tmp_path / "log").open("w") as log:
        result = subprocess.run(
            ["bash", str(script)],
            cwd=tmp_path,
            env=environment() | {"PATH": f"{Path(WALBATCH).parent}:/usr/local/bin:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    assert result.returncode == 0, (tmp_path / "log").read_text()
    delivered = (tmp_path / "delivered.ndjson").read_text()
    sent = (ROOT / "examples" / "earthquakes.ndjson").read_text().count("\n")
    assert delivered.count('"/import"') == sent + 2
    assert delivered.count('"/engage"') == 1


def test_every_file_linked_there_exists() -> None:
    """No link of the README leads nowhere."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_test_that_the_guarantees_name_exists() -> None:
    """A promise without its test would be a claim."""
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", (ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 5
    for test in named:
        assert (ROOT / test).exists(), test
