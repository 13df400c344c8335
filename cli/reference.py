"""docs/commands.md, made from the program itself: `python -m walbatch.cli.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from .main import app
from .setting_options import SETTINGS, TakesSettings

HEAD = """\
# Commands

<!-- Made by `make docs` from cli/. -->

What a command answers goes to stdout, what it has to say about it to stderr; `--json` makes the answer JSON. A command
asks nothing where no terminal is: it names the option that answers. NO_COLOR and TERM=dumb are obeyed, and `-h` is
everywhere. `walbatch --install-completion` teaches the shell to complete commands and options.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage |
| 3 | partly done: some records were refused, or something is left |
| 4 | no server answers |
| 65 | the log is damaged |
| 70 | the shutdown was cut off |
| 74 | the disk failed |
| 75 | another process has the data directory |
| 78 | a setting is wrong, or the version does not fit |
| 130 | interrupted by Ctrl-C |
| 143 | ended at once by a second SIGTERM |"""


def page() -> str:
    """Return the text of the page."""
    root: Any = get_command(app)
    context = typer.Context(root, info_name="walbatch")
    return "\n".join([HEAD, *_index(root, context), *_sections(root, context)]) + "\n"


def _sections(group: Any, context: typer.Context) -> Iterator[str]:
    for command, inner in _commands(group, context):
        yield from ("", f"## {inner.command_path}", "")
        yield from (line for paragraph in _paragraphs(command) for line in (paragraph, ""))
        if hasattr(command, "commands"):
            yield from _sections(command, inner)
            continue
        yield from ("```", f"{inner.command_path} {' '.join(command.collect_usage_pieces(inner))}", "```")
        yield from _options(command, inner)
        yield from ("", "```console", *(f"$ {line}" for line in command.examples), "```")


def _index(root: Any, context: typer.Context) -> Iterator[str]:
    panel = None
    for command, inner in _commands(root, context):
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            yield from ("", f"**{panel}**", "")
        path = inner.command_path
        yield f"- [`{path}`](#{path.replace(' ', '-')}): {_paragraphs(command)[0]}"


def _paragraphs(command: Any) -> list[str]:
    """Return the help of a command, or of a group, which has no examples."""
    text: str = getattr(command, "text", command.help)
    return text.split("\n\n")


def _commands(group: Any, context: typer.Context) -> list[tuple[Any, typer.Context]]:
    """Return the commands of a group in the order of its help: by panel."""
    found = [group.get_command(context, name) for name in group.list_commands(context)]
    panels = list(dict.fromkeys(command.rich_help_panel for command in found))
    found.sort(key=lambda command: panels.index(command.rich_help_panel))
    return [(command, typer.Context(command, info_name=command.name, parent=context)) for command in found]


def _options(command: Any, context: typer.Context) -> Iterator[str]:
    # The settings are explained once.
    explained = isinstance(command, TakesSettings) and command.name != "serve"
    yield from ("", "| argument or option | meaning |", "|---|---|")
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record and "--help" not in option.opts and not (explained and option.name in SETTINGS):
            yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    if explained:
        yield "| every option of `walbatch serve` | [as there](#walbatch-serve) |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
