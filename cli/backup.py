"""`walbatch backup`: a copy of the log while the server runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, Json, local_settings
from .table import animated, counted

if TYPE_CHECKING:
    from walbatch.backup import Contents


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; must not exist yet.", show_default=False)],
    data_dir: DataDir = None,
    max_wal: Annotated[
        str, typer.Option(metavar="SIZE", help="Give up when the server's write-ahead log is larger.")
    ] = "1GiB",
    as_json: Json = False,
) -> None:
    """Copy the log into one file, with the server up or down; nothing has to wait for it. See docs/backup.md.

    Examples:
        walbatch backup /backup/walbatch.db
        walbatch backup --max-wal 4GiB --json /backup/walbatch.db
    """
    from walbatch.backup import back_up
    from walbatch.units import parse_bytes

    try:
        max_wal_bytes = parse_bytes(max_wal)
    except ValueError as error:
        raise typer.BadParameter(f"'{max_wal}' {error}", param_hint="--max-wal") from None
    settings = local_settings(data_dir)
    try:
        contents = back_up(
            settings.data_dir,
            file,
            min_free_bytes=settings.min_free_disk,
            max_wal_bytes=max_wal_bytes,
            progress=_show,
        )
    finally:
        if animated():
            typer.echo(err=True)
    typer.echo(json.dumps(_document(contents)) if as_json else _sentence(contents))


def _show(done: int, pages: int) -> None:
    if animated():
        typer.echo(f"\r{done * 100 // max(pages, 1)} %", nl=False, err=True)


def _document(contents: Contents) -> dict[str, object]:
    return {
        "file": str(contents.path),
        "bytes": contents.size,
        "schema_version": contents.schema_version,
        "records": contents.records,
        "pending": dict(contents.pending),
    }


def _sentence(contents: Contents) -> str:
    from walbatch.units import format_bytes

    owed = ", ".join(f"{count:,} pending for {name}" for name, count in contents.pending.items())
    what = f"{counted(contents.records, 'record')}{f', {owed}' if owed else ''}"
    return f"{contents.path}: {what}; {format_bytes(contents.size)}, schema version {contents.schema_version}"
