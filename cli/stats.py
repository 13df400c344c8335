"""`walbatch stats`: what was accepted, what is waiting, and how the destination is doing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import typer

from .options import DataDir, Json, local_settings
from .table import console, counted


def stats(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show how many records were accepted, wait, were sent, or were refused; with the server up or down."""
    settings = local_settings(data_dir)
    document = _from_server(settings.data_dir) or _from_disk(settings.data_dir)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        _print(document)


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

    out = console()
    for destination in document["destinations"]:
        out.print(_sentence(document, destination), soft_wrap=True)
    if document["serving"] and not document["storage"]["accepting"]:
        out.print(f"New records are refused: {document['storage']['detail']}.", soft_wrap=True)
    if document["dead"]:
        out.print(_dead_sentence(document), soft_wrap=True)
    table = Table("to", "lane", *(name.replace("_", " ") for name in _COLUMNS), box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for destination in document["destinations"]:
        for lane in destination["lanes"]:
            table.add_row(destination["name"], lane["name"], *(f"{lane[name]:,}" for name in _COLUMNS))
    out.print(table)
    out.print(_footer(document), soft_wrap=True)


_COLUMNS = ("accepted", "pending", "in_flight", "sent", "dead", "held", "resolved", "purged", "erased")


def _sentence(document: dict[str, Any], destination: dict[str, Any]) -> str:
    from walbatch.units import format_duration

    owed = sum(lane["pending"] for lane in destination["lanes"])
    pending = f"{owed:,} pending"
    if owed:
        pending += f", the oldest for {format_duration(round(destination['oldest_pending_age_s'], 1))}"
    if not document["serving"]:
        return f"Not serving {destination['name']}. {pending}; what is pending goes out after `walbatch serve`."
    if destination["state"] == "ok":
        return f"Delivering to {destination['name']}. {pending}."
    next_try = f"next try in {format_duration(round(destination['retry_in_s'] or 0))}"
    trouble = f"{destination['name']} is {destination['state']}: {destination['last_error']}"
    return f"{trouble}; {next_try}. {pending}, nothing is lost."


def _dead_sentence(document: dict[str, Any]) -> str:
    held = f", {document['held']:,} of them held: they may have arrived" if document["held"] else ""
    return f"{counted(document['dead'], 'dead letter')}{held}; see `walbatch dead list`."


def _footer(document: dict[str, Any]) -> str:
    from walbatch.units import format_bytes

    sizes = f"database {format_bytes(document['database_bytes'])}, log {format_bytes(document['wal_bytes'])}"
    return f"{document['engine']} {document['sqlite_version']}, acknowledged means {document['durability']}; {sizes}"
