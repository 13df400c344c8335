"""`walbatch stats`: what was accepted, what is waiting, and how the destinations are doing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import DataDir, Json, local_settings
from .selecting import duration_s
from .table import console, counted

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C, with rates.")]
Interval = Annotated[str, typer.Option(metavar="TIME", help="With --watch: from one look to the next.")]
Check = Annotated[bool, typer.Option("--check", help="One line and an exit code for monitoring, as Nagios wants them.")]
MaxAge = Annotated[
    str | None, typer.Option(metavar="TIME", help="With --check: critical if the oldest pending record is older.")
]
MaxPending = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="With --check: critical if more records are pending.")
]

SHORTEST_S = 0.1


def stats(
    data_dir: DataDir = None,
    as_json: Json = False,
    watch: Watch = False,
    interval: Interval = "1s",
    check: Check = False,
    max_age: MaxAge = None,
    max_pending: MaxPending = None,
) -> None:
    """Show how many records were accepted, wait, were sent, or were refused; with the server up or down.

    --watch shows it live on a terminal; anywhere else it prints a line each time, with --json the whole document.

    --check exits with 0 ok, 1 warning (a destination fails or is paused, dead letters), 2 critical (not serving, new
    records are refused, beyond a limit), 3 unknown (nothing can be read).

    Examples:
        walbatch stats
        walbatch stats --watch
        walbatch stats --check --max-age 5m --max-pending 100000
    """
    if check:
        if watch or as_json:
            raise typer.BadParameter("--check prints its own line: leave out --watch and --json")
        _check(data_dir, max_age, max_pending)
    elif max_age is not None or max_pending is not None:
        raise typer.BadParameter("--max-age and --max-pending are for --check")
    elif watch:
        from .watching import watch as go_on

        interval_s = duration_s("--interval", interval)
        if interval_s < SHORTEST_S:
            raise typer.BadParameter(f"--interval: {interval!r} is too short; write 100ms or more")
        directory = local_settings(data_dir).data_dir
        go_on(lambda: _document(directory), interval_s, as_json=as_json)
    else:
        document = _document(local_settings(data_dir).data_dir)
        if as_json:
            typer.echo(json.dumps(document))
        else:
            _print(document)


def _check(data_dir: Path | None, max_age: str | None, max_pending: int | None) -> None:
    from walbatch.check import Limits, judge, unknown
    from walbatch.errors import WalbatchError

    try:
        limits = Limits(None if max_age is None else duration_s("--max-age", max_age), max_pending)
        verdict = judge(_document(local_settings(data_dir).data_dir), limits)
    except (WalbatchError, typer.BadParameter) as error:
        verdict = unknown(str(error))
    typer.echo(verdict.line)
    raise typer.Exit(verdict.level)


def _document(directory: Path) -> dict[str, Any]:
    return _from_server(directory) or _from_disk(directory)


def _from_server(directory: Path) -> dict[str, Any] | None:
    """Return the numbers of a running server; None if there is none, or none that answers yet."""
    from walbatch.ownership import is_owned

    from .admin_client import Unreachable, connect

    if not is_owned(directory):
        return None
    try:
        return connect(directory).get("/stats")
    except Unreachable:
        return None


def _from_disk(directory: Path) -> dict[str, Any]:
    from walbatch.errors import LogClosed
    from walbatch.ownership import is_owned
    from walbatch.stats import document, read_backlog, storage
    from walbatch.wal.files import DATABASE_FILE, file_sizes
    from walbatch.wal.reading import reading
    from walbatch.wal.reserve import free_bytes

    with reading(directory) as connection:
        backlog = read_backlog(connection)
    database_bytes, wal_bytes = file_sizes(directory / DATABASE_FILE)
    return document(
        backlog,
        now_ms=time.time_ns() // 1_000_000,
        durability="fsynced",
        database_bytes=database_bytes,
        wal_bytes=wal_bytes,
        storage=storage(LogClosed("no server answers"), free_bytes(directory)),
        serving=is_owned(directory),
    )


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    from walbatch.summary import standing

    out = console()
    out.print(document["summary"], soft_wrap=True)
    if document["dead"]:
        out.print(_dead_sentence(document), soft_wrap=True)
    table = Table("to", "state", "lane", *(name.replace("_", " ") for name in _COLUMNS), box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for destination in document["destinations"]:
        state = standing(destination)
        for lane in destination["lanes"]:
            table.add_row(destination["name"], state, lane["name"], *(f"{lane[name]:,}" for name in _COLUMNS))
    out.print(table)
    out.print(_footer(document), soft_wrap=True)


_COLUMNS = ("accepted", "pending", "in_flight", "sent", "dead", "held", "resolved", "purged", "erased")


def _dead_sentence(document: dict[str, Any]) -> str:
    held = f", {document['held']:,} of them held: they may have arrived" if document["held"] else ""
    return f"{counted(document['dead'], 'dead letter')}{held}; see `walbatch dead list`."


def _footer(document: dict[str, Any]) -> str:
    from walbatch.units import format_bytes

    sizes = f"database {format_bytes(document['database_bytes'])}, log {format_bytes(document['wal_bytes'])}"
    return f"{document['engine']} {document['sqlite_version']}, acknowledged means {document['durability']}; {sizes}"
