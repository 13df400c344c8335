"""`walbatch tap`: see what is being accepted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, Json, local_settings
from .piping import closed_within, until_closed
from .selecting import DistinctId, Event, Since, duration_s, time_ms

if TYPE_CHECKING:
    from walbatch.tap import Look, Shown

SHORTEST_S = 0.05
"""Of an interval: each look opens the log anew, which takes a millisecond."""


class Format(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"
    LOGFMT = "logfmt"


def tap(
    data_dir: DataDir = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    since: Since = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many records.", show_default=False)] = None,
    interval: Annotated[str, typer.Option(metavar="DURATION", help="Time between two looks.")] = "500ms",
    sample: Annotated[int, typer.Option(min=1, help="Show at most so many records of each interval.")] = 100,
    form: Annotated[Format, typer.Option("--format", help="How a record is written.")] = Format.TEXT,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the values, and the ids of users.")] = False,
    as_json: Json = False,
) -> None:
    """Show a live sample of what is accepted, from now on or since a time, until Ctrl-C. See docs/looking.md.

    Of each property the name and the type are shown, of each user a mark that is the same throughout this tap. --reveal
    shows the values to the person at this terminal, who can read the log anyway. The server does nothing for it.

    Examples:
        walbatch tap
        walbatch tap --event Signup --since 10m --limit 20
        walbatch tap --json --reveal
    """
    from random import Random

    from walbatch.tap import Tap, Viewer, Wanted

    interval_s = duration_s("--interval", interval)
    if interval_s < SHORTEST_S:
        raise typer.BadParameter(f"--interval: {interval!r} is less than {SHORTEST_S:g}s")
    directory = local_settings(data_dir).data_dir
    since_ms = time_ms("--since", since, time.time_ns() // 1_000_000)
    following = Tap(directory, Wanted(event, distinct_id), since_ms=since_ms)
    typer.echo(_told(directory, reveal=reveal), err=True)
    viewer, write = Viewer(reveal=reveal), _writer(Format.JSON if as_json else form)
    chance = Random()  # noqa: S311  it decides what is shown, and no secret
    left = limit
    with until_closed():
        while True:
            look = following.look(sample, chance)
            sys.stdout.writelines(f"{write(viewer.shown(row))}\n" for row in look.rows[:left])
            sys.stdout.flush()
            _tell_left_out(look)
            left = None if left is None else max(left - len(look.rows), 0)
            if left == 0 or closed_within(interval_s):
                return


def _told(directory: Path, *, reveal: bool) -> str:
    from walbatch.ownership import is_owned

    values = "with personal data" if reveal else "values are hidden, --reveal shows them"
    nobody = "" if is_owned(directory) else "no server is running, so nothing comes at the moment; "
    return f"{nobody}{values}; Ctrl-C ends it"


def _writer(form: Format) -> Callable[[Shown], str]:
    from .tap_view import as_json, as_logfmt, as_text

    return {Format.TEXT: as_text, Format.JSON: as_json, Format.LOGFMT: as_logfmt}[form]


def _tell_left_out(look: Look) -> None:
    if look.left_out:
        typer.echo(
            f"{look.left_out:,} of {look.left_out + len(look.rows):,} are left out; --sample shows more", err=True
        )
