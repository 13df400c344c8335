"""`walbatch inspect`: the whole life of one record."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, Json, local_settings
from .table import animated

if TYPE_CHECKING:
    from walbatch.life import Found
    from walbatch.wal.driver import Connection

NOT_FOUND = 1

_NUMBER = re.compile("[1-9][0-9]{0,17}")


def inspect(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="An id, or the number of a record.")],
    data_dir: DataDir = None,
    by_id: Annotated[bool, typer.Option("--id", help="It is an id, even if it looks like a number.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Look at all of the log, for more records with this id.")
    ] = False,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the record itself, which is personal data.")] = False,
    as_json: Json = False,
) -> None:
    """Show what became of a record: when it was accepted, what each destination made of it, and its copies.

    An id that walbatch made is found at once; another one may need a look at all of the log. See docs/looking.md.

    Examples:
        walbatch inspect 4711
        walbatch inspect --id order-4711 --everywhere
    """
    from walbatch.life import lives
    from walbatch.ownership import is_owned
    from walbatch.wal.reading import reading

    from .inspect_view import document, text

    directory = local_settings(data_dir).data_dir
    with reading(directory) as connection:
        found = _found(connection, event_id, by_id=by_id, everywhere=everywhere)
        all_lives = lives(connection, found.offsets)
    serving = is_owned(directory)
    if as_json:
        shown = [document(life, reveal=reveal) for life in all_lives]
        typer.echo(
            json.dumps({"searched": "all" if found.everywhere else "part", "serving": serving, "records": shown})
        )
    elif all_lives:
        typer.echo("\n\n".join(text(life, serving=serving, reveal=reveal) for life in all_lives))
    if not all_lives:
        typer.echo(f"{event_id}: not in the log (sent and older than the retention, or never accepted)", err=True)
        raise typer.Exit(NOT_FOUND)
    if not found.everywhere and sys.stderr.isatty():
        typer.echo("--everywhere looks for more records with this id in all of the log", err=True)


def _found(connection: Connection, event_id: str, *, by_id: bool, everywhere: bool) -> Found:
    """Return the records that are meant."""
    from walbatch.life import Found, search
    from walbatch.wal import lookup

    row = lookup.row(connection, int(event_id)) if _NUMBER.fullmatch(event_id) and not by_id else None
    if row is not None and not everywhere:
        return Found([row.offset], everywhere=False)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not animated(), transient=True) as progress:
        task = progress.add_task("looking for it", total=None)
        return search(
            connection,
            row.event_id if row else event_id,
            everywhere=everywhere,
            progress=lambda looked, total: progress.update(task, completed=looked, total=total),
        )
