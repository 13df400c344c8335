"""How the help of a command reads: paragraphs that fit any width, and examples below the options.

A command's docstring ends with its examples, one a line:

Examples:
        walbatch stats
        walbatch stats --json
"""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand

_MARKUP = re.compile(r"\[(?=[a-z#/@][^\[\]]*\])")
"""What the library that prints the help would take for a style."""


class Described(TyperCommand):
    """A command whose docstring has examples."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:  # noqa: A002 (typer's own name)
        text, _, examples = (help or "").partition("\n\nExamples:\n")
        self.text = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        """The help without its examples, each paragraph on one line."""
        self.examples = [line.strip() for line in examples.splitlines() if line.strip()]
        shown = "\n".join(["Examples:", *(f"$ {one}" for one in self.examples)])
        if options.get("rich_markup_mode") is None:
            texts = {"help": self.text, "epilog": f"\b\n{shown}"}  # \b keeps the lines apart
        else:
            texts = {"help": _escaped(self.text), "epilog": _escaped(shown)}
        super().__init__(*args, **(options | texts))


def describe(app: typer.Typer) -> None:
    """Let every command of a program, and of the groups below it, be `Described`."""
    for command in app.registered_commands:
        command.cls = Described if command.cls is TyperCommand else command.cls
    for group in app.registered_groups:
        if group.typer_instance is not None:
            describe(group.typer_instance)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\[", text)
