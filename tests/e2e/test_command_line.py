"""What holds for every command: help, examples, where output goes, and what a terminal is shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from programs import DEADLINE_S, WALBATCH, Site, environment, site
from typer import Context
from typer.main import get_command

from walbatch.settings import WITHOUT_FLAG, Settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
(SCRIPT,) = entry_points(group="console_scripts", name="walbatch")
PROGRAM: Any = get_command(SCRIPT.load())
WIDTH = 80
COLOURED, ESCAPE = {"TERM": "xterm-256color", "NO_COLOR": ""}, "\x1b"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(PROGRAM))
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def context_of(path: tuple[str, ...]) -> Context:
    """Return the context that a command would run in."""
    context = Context(PROGRAM, info_name="walbatch")
    for end in range(1, len(path)):
        group = context.command.get_command(context, path[end - 1])  # type: ignore[attr-defined]
        context = Context(group, info_name=path[end - 1], parent=context)
    return Context(COMMANDS[path], info_name=path[-1], parent=context)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its output into pipes, and without a setting."""
    return subprocess.run(
        [WALBATCH, *arguments],
        env=environment() | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=False,
    )


BOTH = """
import sys
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="walbatch")
program = script.load()
for word, code in (("-h", 0), ("--help", 0), ("--no-such-option", 2)):
    try:
        program([*sys.argv[1:], word], prog_name="walbatch")
    except SystemExit as end:
        assert end.code == code
    print("=====")
print(*sys.modules, file=sys.stderr)
"""
"""A program that asks for the help in both ways, makes a mistake, and then says what was imported."""


@each_command
def test_the_help(path: tuple[str, ...]) -> None:
    """It fits 80 columns, -h is the same, and neither gRPC nor an HTTP client is imported for it.

    An option that no command has is exit 2, named on stderr, and nothing goes to stdout.
    """
    done = subprocess.run(
        [sys.executable, "-c", BOTH, *path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    short, long, mistaken, _ = done.stdout.split("=====\n")
    assert short == long
    assert mistaken == ""
    *complaint, imported = done.stderr.splitlines()
    assert "--no-such-option" in "".join(complaint)
    assert f"Usage: walbatch {' '.join(path)} " in long
    lines = [line.strip() for line in long.splitlines()]
    assert "Examples:" in lines
    assert all(f"$ {example}" in lines for example in COMMANDS[path].examples)
    assert ESCAPE not in long
    assert max(map(len, long.splitlines())) <= WIDTH
    assert {"grpc", "httpx", "starlette", "aiosqlite"} & set(imported.split()) == set()


@each_command
def test_the_description(path: tuple[str, ...]) -> None:
    """A sentence to begin with, examples that fit a line, and a help for each option."""
    command = COMMANDS[path]
    assert command.text.split("\n\n")[0].endswith(".")
    assert command.examples
    for example in command.examples:
        assert f"walbatch {' '.join(path)}" in example
        assert len(example) <= WIDTH - 4
    for option in command.get_params(context_of(path)):
        assert option.help, option.name
        assert option.help.rstrip().endswith((".", ")", "]")), option.help


@each_command
def test_the_examples_can_be_typed(path: tuple[str, ...]) -> None:
    """Each has arguments and options that the command takes."""
    for example in COMMANDS[path].examples:
        called = f"walbatch {' '.join(path)}"
        typed = next(part for part in example.split("|") if part.strip().startswith(called))
        words = shlex.split(typed.partition(">")[0])[1 + len(path) :]
        context = COMMANDS[path].make_context(path[-1], words, parent=context_of(path).parent)
        assert context.params


def test_every_setting_but_the_credentials_is_an_option() -> None:
    """Of serve, and of what looks at the settings as serve would."""
    wanted = set(Settings.model_fields) - set(WITHOUT_FLAG)
    for path in (("serve",), ("config", "show"), ("config", "check")):
        assert {option.name for option in COMMANDS[path].params} - {"as_json"} == wanted


def test_what_people_come_for_stands_first() -> None:
    """serve, stats and replay, in a panel of their own; every command is in one."""
    shown = run("--help").stdout
    names = re.findall(r"(?m)^│ ([a-z]+) ", shown)
    assert names[:3] == ["serve", "stats", "replay"]
    assert sorted(names) == sorted(PROGRAM.commands)
    panels = [command.rich_help_panel for command in PROGRAM.commands.values()]
    assert all(panels)
    assert 3 <= len(set(panels)) <= 6


def test_the_page_of_commands_is_current() -> None:
    """docs/commands.md is what the program generates; `make docs` writes it."""
    made = subprocess.run(
        [sys.executable, "-m", "walbatch.cli.reference"], env=environment(), capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "commands.md").read_text() == made.stdout
    for path, command in COMMANDS.items():
        assert f"\n## walbatch {' '.join(path)}\n" in made.stdout
        assert all(f"\n$ {example}\n" in made.stdout for example in command.examples)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("stast", "stats"), ("replya", "replay"), ("dead lst", "list"), ("config chek", "check")],
)
def test_a_misspelt_command(typed: str, meant: str) -> None:
    """The near one is named, and nothing is done."""
    done = run(*typed.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Did you mean '{meant}'?" in " ".join(done.stderr.replace("│", "").split())


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running server that has delivered an event, and has one dead letter."""
    with site(tmp_path_factory.mktemp("here")) as made:
        made.sink("--fail-rate", "0")
        made.serve()
        made.run("send", "--event", "Signup", "--distinct-id", "user-1")
        made.drained()
        yield made


DATA = [
    "stats",
    "tap --since 1h --limit 1",
    "inspect 1",
    "export",
    "pause",
    "resume",
    "flush",
    "dashboard",
    "dead list",
    "dead export",
    "config show",
    "config check",
    "doctor --offline",
    "health",
    "version",
    "replay --dry-run",
    "dead replay --all --dry-run",
    "dead discard --all --dry-run",
    "erase --distinct-id user-1 --dry-run",
    "send --event Again --distinct-id user-2",
    "backup {new}",
    "stats --help",
    "stats --no-such-option",
]
"""What prints something, and changes nothing that another of them looks at."""


@pytest.mark.parametrize("typed", DATA)
def test_output_without_decoration(here: Site, tmp_path: Path, typed: str) -> None:
    """Nothing but text goes into a pipe, and onto a terminal with NO_COLOR or TERM=dumb."""
    piped = here.run(*words(typed, tmp_path / "1"), check=False)
    assert ESCAPE not in piped.stdout + piped.stderr
    for count, variables in enumerate((COLOURED | {"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""})):
        code, shown = here.on_terminal(*words(typed, tmp_path / f"{count}-on-terminal"), variables=variables)
        assert code == piped.returncode
        assert ESCAPE not in shown
        assert shown


def words(typed: str, new: Path) -> list[str]:
    """Return what is typed, with a file that does not exist yet."""
    return [word.format(new=new) for word in typed.split()]


def test_every_command_that_prints_is_looked_at() -> None:
    """A command that is not in the list above cannot be run to its end without something of its own."""
    looked_at = {" ".join(path) for path in COMMANDS for typed in DATA if typed.startswith(" ".join(path))}
    assert {" ".join(path) for path in COMMANDS} - looked_at == {"serve", "sink", "migrate", "bench", "dead show"}


def test_a_terminal_is_decorated_where_it_may_be(here: Site) -> None:
    """Else the test above would say nothing."""
    for typed in (["stats"], ["stats", "--help"], ["stats", "--no-such-option"]):
        assert ESCAPE in here.on_terminal(*typed, variables=COLOURED)[1]


ASKING = {
    ("replay",): [],
    ("erase",): ["--distinct-id", "user-1"],
    ("dead", "replay"): ["--all"],
    ("dead", "discard"): ["--all"],
}


def test_nobody_is_asked_without_a_terminal(here: Site) -> None:
    """Whatever could ask says which option answers instead, and does nothing; a reader of a pipe never waits for it."""
    assert ASKING.keys() == {path for path, command in COMMANDS.items() if asks(command)}
    before = here.stats()["accepted"]
    for path, arguments in ASKING.items():
        done = here.run(*path, *arguments, check=False)
        matching = path[0] != "dead"  # there is no dead letter, and nothing to ask about
        assert (path, done.returncode) == (path, 2 if matching else 0)
        assert not done.stdout
        assert ("--yes" in done.stderr) is matching
    assert here.stats()["accepted"] == before


def asks(command: Any) -> bool:
    """Say whether a command has an option that answers its question."""
    return bool({"--yes", "--confirm"} & {name for option in command.params for name in option.opts})


def in_bash(*lines: str, **settings: object) -> list[str]:
    """Run lines in a bash that finds the installed command, and return what they print."""
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join([*lines, "true"])],
        env=environment(**settings) | {"PATH": f"{Path(WALBATCH).parent}:/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert not done.stderr
    return done.stdout.splitlines()


def completed(typed: str, **settings: object) -> list[str]:
    """Return what bash offers for a line, by the script that the program prints for the shell that it finds."""
    *given, last = typed.split(" ")
    return in_bash(
        'eval "$(walbatch --show-completion)"',
        f"COMP_WORDS=({' '.join(map(shlex.quote, [*given, last]))}); COMP_CWORD={len(given)}",
        "complete -p walbatch | grep -q -- '-F _walbatch_completion walbatch' && _walbatch_completion walbatch",
        r'printf "%s\n" "${COMPREPLY[@]}"',
        **settings,
    )


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("walbatch s", ["send", "serve", "sink", "stats"]),
        ("walbatch dead re", ["replay"]),
        ("walbatch config ", ["check", "show"]),
        ("walbatch serve --batch-", ["--batch-max", "--batch-size"]),
        ("walbatch replay --status ", ["all", "dead", "sent"]),
    ],
)
def test_bash_completes(typed: str, offered: list[str]) -> None:
    """Commands, options, and the values that an option may have."""
    assert sorted(completed(typed)) == offered


def test_bash_completes_destinations(here: Site, tmp_path: Path) -> None:
    """Those of the log, also of one that is named on the line; where there is none, nothing is said."""
    assert completed("walbatch replay --destination mix", **here.settings) == ["mixpanel"]
    assert completed(f"walbatch dead list --data-dir {here.data} --destination ") == ["mixpanel"]
    assert completed("walbatch replay --destination ", data_dir=tmp_path / "absent") == [""]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_of_a_shell_that_is_named(shell: str) -> None:
    """Where the shell cannot be found out, as in a build of a package, it is named."""
    done = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert f"_WALBATCH_COMPLETE=complete_{shell}" in done.stdout
