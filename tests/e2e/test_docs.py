"""What the documentation says can be typed, is typed; what it names, exists."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from pages import PAGES, ROOT, Scene, commands, type_page
from programs import WALBATCH, free_port

pytestmark = pytest.mark.e2e

LEFT_OUT = {
    "make ": "installs, tests or measures for minutes; test_readme.py looks for the targets, and .ci/run runs them",
    "pip install": "there is no release yet that it could install",
    "kubectl ": "there is no cluster",
    "walbatch tap": "goes on until Ctrl-C; test_looking.py has it",
}
"""Commands that are not typed, by how they begin, and why."""

SERVING = """
walbatch sink --listen 127.0.0.1:$SINK --out delivered.ndjson &
walbatch serve & server=$!
ready $server
walbatch send --event Signup --distinct-id user-1 --property plan=pro
settled pending 0
"""

ENDED = "kill $server && wait $server || exit 1"
"""What a page asks the reader to do without a command of ours."""

REFUSING = """
cat >faults.json <<'JSON'
[{"fault": "status", "status": 400, "times": 1000, "body": {"code": 400, "error": "some data points failed",
  "num_records_imported": 0, "failed_records": [{"index": 0, "field": "properties.time", "message": "is invalid"}]}}]
JSON
walbatch sink --listen 127.0.0.1:$SINK --script faults.json &
walbatch serve &
ready $!
walbatch send --event Signup --distinct-id user-1 --property plan=pro
settled dead 1
first() { walbatch dead list --json | python -c "import json, sys; print(json.load(sys.stdin)['groups'][0]['$1'])"; }
GROUP=$(first id) LETTER=$(first example)
"""

SCENES = {
    "README.md": Scene(),
    "examples/README.md": Scene(asks={"walbatch replay": "y"}),
    "docs/fake-mixpanel.md": Scene(),
    "docs/backup.md": Scene(SERVING, ahead={"mv walbatch-data ": ENDED}),
    "docs/dashboard.md": Scene(SERVING, words={"127.0.0.1:9095": "${WALBATCH_ADMIN_LISTEN}"}),
    "docs/dead-letters.md": Scene(
        REFUSING,
        ahead={"walbatch dead replay": "settled dead 1", "walbatch dead discard": "settled dead 1"},
        asks={"walbatch dead replay": "y", "walbatch dead discard": "1"},
        words={"g5f0c9e1b": "$GROUP", "418": "$LETTER"},
    ),
    "docs/looking.md": Scene(
        SERVING + "walbatch send --event Signup --distinct-id user-1 --event-id known-1",
        words={"0199d1c2-7a3b-7c11-9d35-3f5a6b8c9d0e": "known-1", "other:50051": "${WALBATCH_GRPC_LISTEN}"},
    ),
    "docs/versioning.md": Scene(SERVING, ahead={"walbatch migrate": ENDED}),
    "docs/erase.md": Scene(SERVING + "echo user-9 >ids.txt", asks={"walbatch erase --distinct-id user-1": "y"}),
}
"""What pages take for granted. Any other one finds a server that has delivered an event."""

ELSEWHERE = {
    "docs/commands.md": "is made from the program; its examples are to choose from, and make no sense in a row",
    "docs/runbook.md": "is lived through by tests/browser/test_runbook.py, with the incidents between its commands",
}
"""Pages whose commands are not typed here, and why."""

NAMED = {str(page.relative_to(ROOT)): page for page in PAGES}
TYPED = [
    name
    for name, page in NAMED.items()
    if name not in ELSEWHERE and any(not command.text.startswith(tuple(LEFT_OUT)) for command in commands(page))
]


@contextmanager
def documented_ports() -> Iterator[None]:
    """The ports that walbatch and its sink have by default, for one page at a time."""
    with (Path(tempfile.gettempdir()) / "walbatch-documented-ports.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("name", [name for name in TYPED if name != "README.md"])
def test_the_commands_of_a_page(tmp_path: Path, name: str) -> None:
    """Typed one after the other, each ends with 0, and answers what the page says letter for letter."""
    scene = SCENES.get(name, Scene(SERVING))
    if scene.before:
        type_page(NAMED[name], _elsewhere(scene), tmp_path, left_out=LEFT_OUT)
    else:
        with documented_ports():
            type_page(NAMED[name], scene, tmp_path, left_out=LEFT_OUT)


def _elsewhere(scene: Scene) -> Scene:
    """Return a scene on ports of its own."""
    sink = free_port()
    settings = {
        "grpc_listen": f"127.0.0.1:{free_port()}",
        "admin_listen": f"127.0.0.1:{free_port()}",
        "mixpanel_url": f"http://127.0.0.1:{sink}",
        "mixpanel_token": "any",
        "flush_interval": "200ms",
    }
    return Scene(f"SINK={sink}\n{scene.before}", settings, scene.ahead, scene.asks, scene.words)


@pytest.mark.timeout(120)
def test_the_readme_delivers_what_it_says(tmp_path: Path) -> None:
    """Its commands and its Python code, in an empty directory and on the ports that they name."""
    (tmp_path / "readme.py").write_text("\n".join(code(NAMED["README.md"], "python")))
    with documented_ports():
        home = type_page(
            NAMED["README.md"],
            SCENES["README.md"],
            tmp_path,
            left_out=LEFT_OUT,
            after="python ../readme.py && walbatch stats --json && settled pending 0 || exit 1",
        )
    delivered = (home / "delivered.ndjson").read_text()
    sent = (ROOT / "examples" / "earthquakes.ndjson").read_text().count("\n")
    assert delivered.count('"/import"') == sent + 2
    assert delivered.count('"/engage"') == 1


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_a_command_that_fails_is_told_with_its_place(tmp_path: Path) -> None:
    """The typing itself, checked: an exit code, and an answer that is not what the page says."""
    page = tmp_path / "page.md"
    page.write_text("Text\n\n```console\n$ true\n$ walbatch health\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:5 ended with 4"):
        type_page(page, Scene(), _made(tmp_path / "one"))
    page.write_text("```console exact\n$ echo a; false; echo $?\na\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: echo a; false"):
        type_page(page, Scene(), _made(tmp_path / "two"))
    page.write_text("```console exact\n$ echo a; false; echo $?\na\n1\n```\n")
    type_page(page, Scene(), _made(tmp_path / "three"))


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.parametrize("name", NAMED)
def test_every_setting_and_command_that_a_page_names_exists(name: str) -> None:
    """No setting, no command and no file of ours is named that is not there."""
    text = NAMED[name].read_text()
    settings = set(re.findall(r"WALBATCH_[A-Z_]+[A-Z]\b", text))
    assert settings <= set(re.findall(r"WALBATCH_[A-Z_]+[A-Z]", (ROOT / ".env.example").read_text()))
    for command in set(re.findall(r"`walbatch ([a-z]+)", text)):
        assert re.search(rf"^\W*{command}\b", _help(), re.MULTILINE), command
    for test in set(re.findall(r"`(tests/[a-z_/]+\.(?:py|sh))", text)):
        assert (ROOT / test).exists(), test


@cache
def _help() -> str:
    return subprocess.run([WALBATCH, "--help"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", NAMED)
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    """Files exist, and the headings that are linked are on their pages."""
    page = NAMED[name]
    for path, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        if heading:
            assert heading in {_anchor(line) for line in re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)}


def _anchor(heading: str) -> str:
    """Return what a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_in_the_index() -> None:
    """Nobody finds a page that docs/README.md does not name."""
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
