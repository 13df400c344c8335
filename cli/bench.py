"""`walbatch bench`: the headline figures, on one's own disk."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, local_settings


def bench(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where; else on the disk of WALBATCH_DATA_DIR.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long each load runs.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Measure walbatch on this machine and this disk, beside the disk itself and SQLite alone; half a minute.

    It starts a server of its own, in a new directory that is removed at the end, with a destination on this machine.
    Your log is not touched, and its server can go on, but then shares the machine. docs/performance.md says what the
    figures mean.

    Examples:
        walbatch bench
        walbatch bench --dir /var/lib --seconds 10
    """
    _end_in_order()

    from walbatch.bench.measure import measure
    from walbatch.bench.place import beside, scratch
    from walbatch.bench.report import document, text

    where = directory or beside(local_settings(None).data_dir)
    with scratch(where, seconds) as place:
        found = measure(place, seconds, _show)
    if as_json:
        typer.echo(json.dumps(document(found, str(where), seconds)))
    else:
        typer.echo(text(found, str(where), seconds))


def _show(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"measuring: {what}", err=True)


def _end_in_order() -> None:
    """Let the first signal end this with everything removed, and no other disturb it meanwhile."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for each in numbers:
        signal.signal(each, end)
