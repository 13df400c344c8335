"""`walbatch config`: the settings as the server would see them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from .options import Json
from .setting_options import TakesSettings, takes_settings
from .table import console, counted

if TYPE_CHECKING:
    from walbatch.settings_view import Shown

WRONG = 78
"""As `serve` ends with a wrong setting."""

app = typer.Typer(no_args_is_help=True, help="Show the settings and where they come from, or check them.")


@app.command(cls=TakesSettings)
@takes_settings
def show(overrides: dict[str, object], as_json: Json = False) -> None:
    """Show every setting, its value and where that comes from; secrets are masked.

    The options are those of `walbatch serve`, so that the same line shows what it would take. What is wrong is told on
    stderr, and ends with 78; credentials may be missing here.

    Examples:
        walbatch config show
        walbatch config show --json
        walbatch config show --batch-size 100
    """
    from walbatch import settings_view
    from walbatch.settings import examine

    found = examine(overrides)
    settings = settings_view.settings(found)
    # One destination is described by the settings themselves.
    several = found.settings.destinations_file is not None
    destinations, wrong = settings_view.destinations_of(found) if several else ({}, [])
    problems = [*found.problems, *wrong]
    if as_json:
        document = {
            "settings": [asdict(one) for one in settings],
            "destinations": destinations,
            "problems": problems,
        }
        typer.echo(json.dumps(document))
    else:
        _print(settings)
        _print_destinations(destinations)
    _end(problems)


@app.command(cls=TakesSettings)
@takes_settings
def check(overrides: dict[str, object], as_json: Json = False) -> None:
    """Check the settings as `walbatch serve` does at its start, without starting anything: for CI, before a deploy.

    The credentials have to be there. Every problem is a line on stderr with its key and the fix, and the exit code is
    78; `walbatch doctor` asks the destinations as well.

    Examples:
        walbatch config check
        walbatch config check --destinations-file destinations.toml
        walbatch config check --json
    """
    from walbatch import settings_view
    from walbatch.settings import examine

    found = examine(overrides, need_destination=True)
    destinations, wrong = ({}, []) if found.problems else settings_view.destinations_of(found)
    problems = [*found.problems, *wrong]
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "destinations": [*destinations], "problems": problems}))
    elif not problems:
        typer.echo(f"ok: {counted(len(destinations), 'destination')} ({', '.join(destinations)})")
    _end(problems)


def _end(problems: list[str]) -> None:
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(WRONG)


def _print(settings: list[Shown]) -> None:
    from rich.table import Table

    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for one in settings:
        table.add_row(one.name, _value(one), _source(one))
    console().print(table)


def _value(one: Shown) -> str:
    if not one.usable:
        return "(cannot be used)"
    return one.value or "(not set)"


def _source(one: Shown) -> str:
    if one.key is None:
        return "default"
    source = one.key if one.source == "flag" else one.source
    return f"{source}, a file" if one.in_file else source


def _print_destinations(destinations: dict[str, dict[str, str]]) -> None:
    out = console()
    for name, keys in destinations.items():
        out.print(f"\n[destinations.{name}]")
        for key, value in keys.items():
            out.print(f"{key} = {value}", soft_wrap=True)
