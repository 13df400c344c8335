"""Options that select records, and times as they are typed and shown."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import local_settings


def _known(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the destinations of the log that begin like this, for the shell; none where there is no log to read."""
    from walbatch.errors import WalbatchError
    from walbatch.wal import store
    from walbatch.wal.reading import reading

    try:
        with reading(local_settings(ctx.params.get("data_dir")).data_dir) as connection:
            return [name for name in store.destinations(connection) if name.startswith(incomplete)]
    except WalbatchError:
        return []


Destination = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The destination; needed if several come into question.", autocompletion=_known),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="At or after: 2h (ago), 2026-11-23, or RFC 3339.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before.")]
Event = Annotated[str | None, typer.Option(metavar="NAME", help="Events of this name.")]
DistinctId = Annotated[str | None, typer.Option(metavar="ID", help="Records of this user.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def time_ms(option: str, text: str | None, now_ms: int) -> int | None:
    """Return the moment that an option names, in milliseconds."""
    from walbatch.units import parse_time_ms

    if text is None:
        return None
    try:
        return parse_time_ms(text, now_ms)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text!r} {error}") from error


def duration_s(option: str, text: str) -> float:
    """Return the duration that an option names, in seconds."""
    from walbatch.units import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text!r} {error}") from error


def utc(ms: int | None) -> str:
    """Return a moment for people: in UTC, to the second."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp((ms or 0) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
