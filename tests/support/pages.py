"""The pages of the documentation, and how the commands on them are typed.

A block ```console holds lines to type after `$ ` or, as root, after `# `; other lines show what may be answered, and in
a block ```console exact what is answered, letter for letter. All lines of a page are typed in one shell, in the order
in which they stand there, in an empty directory. Each has to end with 0: a page that shows a failure says `; echo $?`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from programs import WALBATCH, environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIMIT_S = 100.0
TYPED = Path(__file__).with_name("typed.py")

_BLOCK = re.compile(r"^```console( exact)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- typed"


@dataclass(frozen=True, slots=True)
class Typed:
    """One command of a page, and what the page says that it answers."""

    line: int
    text: str
    answer: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """What a page takes for granted: shell, like what is typed."""

    before: str = ""
    """Done first."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """In the environment, beside which there is no other."""
    ahead: Mapping[str, str] = field(default_factory=dict)
    """Done ahead of the command that begins so."""
    asks: Mapping[str, str] = field(default_factory=dict)
    """What a person answers to the command that begins so."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What stands for a word that is an example on the page."""


def commands(page: Path) -> list[Typed]:
    """Return every command of a page, in order."""
    text = page.read_text()
    found: list[Typed] = []
    for block in _BLOCK.finditer(text):
        number = text.count("\n", 0, block.start(2)) + 1
        found += _of_block(block[2].splitlines(), number, exact=bool(block[1]))
    return found


def _of_block(lines: list[str], number: int, *, exact: bool) -> Iterator[Typed]:
    index = 0
    while index < len(lines):
        prompt, text, start = lines[index][:2], lines[index][2:], index
        assert prompt in {"$ ", "# "}, f"line {number + index} belongs to no command: {lines[index]!r}"
        while text.endswith("\\"):
            index += 1
            text += f"\n{lines[index]}"
        index += 1
        answer = []
        while index < len(lines) and lines[index][:2] not in {"$ ", "# "}:
            answer.append(lines[index])
            index += 1
        yield Typed(number + start, text, "\n".join(answer).rstrip(), exact=exact)


def type_page(page: Path, scene: Scene, directory: Path, *, left_out: Collection[str] = (), after: str = "") -> Path:
    """Type the commands of a page, but those that begin like one that is left out. Return the directory they ran in.

    `after` is done last, while everything still runs. It fails with what was shown, and the place on the page.
    """
    lines = [command for command in commands(page) if not command.text.startswith(tuple(left_out))]
    script = directory / "page.sh"
    script.write_text("\n".join([_PROLOGUE, scene.before, *_typed(page, lines, scene), after, _ENDING]))
    home = directory / "home"
    home.mkdir()
    (home / "examples").symlink_to(ROOT / "examples")
    shown, told = directory / "stdout", directory / "stderr"
    code = _run(script, home, shown, told, environment(**scene.settings))
    assert code == 0, f"exit {code} on {page.name}\n{shown.read_text()}\n{told.read_text()}"
    _compare(page, lines, shown.read_text())
    return home


_PROLOGUE = """
number() { walbatch stats --json | python -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }
settled() { until [ "$(number $1)" = $2 ]; do :; done; }
ready() { until walbatch health >/dev/null 2>&1; do kill -0 $1 || exit 1; done; }
listening() { until (exec 3<>/dev/tcp/127.0.0.1/$2) 2>/dev/null; do kill -0 $1 || exit 1; done; }
ended() { code=$?; [ $code = 0 ] || { echo "$1 ended with $code" >&2; exit $code; }; }
"""
"""What scenes are written with: `settled pending 0` waits for a number of `walbatch stats`."""

# What was put into the background is ended in the reverse order, and has to end well.
_ENDING = "for pid in $(jobs -p | tac); do kill $pid && wait $pid || exit 1; done"


def _typed(page: Path, lines: list[Typed], scene: Scene) -> Iterator[str]:
    for command in lines:
        yield from (f"{{\n{ahead}\n}} >&2" for begin, ahead in scene.ahead.items() if command.text.startswith(begin))
        yield f"echo '{_MARK} {command.line}'"
        text = command.text
        for word, meant in scene.words.items():
            text = text.replace(word, meant)
        for begin, answer in scene.asks.items():
            if command.text.startswith(begin):
                text = f'{sys.executable} {TYPED} "{answer}" {text}'
        yield text
        if not text.endswith("&"):
            yield f"ended '{page.name}:{command.line}'"
        elif "walbatch serve" in text:
            yield "ready $!"
        elif "walbatch sink" in text:
            yield f"listening $! {_port(text)}"


def _port(sink: str) -> str:
    """Return the port of a `walbatch sink`."""
    given = re.search(r"--listen \S+:(\d+)", sink)
    return given[1] if given else "8089"


def _run(script: Path, home: Path, shown: Path, told: Path, env: Mapping[str, str]) -> int:
    path = f"{Path(WALBATCH).parent}:/usr/local/bin:/usr/bin:/bin"
    with shown.open("w") as stdout, told.open("w") as stderr:
        shell = subprocess.Popen(
            ["bash", str(script)],
            cwd=home,
            env={**env, "PATH": path, "COLUMNS": "120"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            return shell.wait(LIMIT_S)
        finally:
            with suppress(ProcessLookupError):  # nothing is left, if all went well
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def _compare(page: Path, lines: list[Typed], shown: str) -> None:
    """Compare what was answered where the page has it letter for letter."""
    answers = dict(re.findall(rf"^{_MARK} (\d+)\n(.*?)(?=^{_MARK}|\Z)", shown, re.MULTILINE | re.DOTALL))
    for command in lines:
        if command.exact:
            found = answers[str(command.line)].rstrip()
            assert found == command.answer, f"{page.name}:{command.line}: {command.text}\n{found}"
