"""`walbatch export`: stored records as lines that `walbatch send` reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from .choosing import check_destination
from .options import DataDir, local_settings
from .piping import until_closed
from .selecting import DistinctId, Event, Limit, Since, Until, time_ms
from .table import animated, counted

if TYPE_CHECKING:
    from walbatch.wal.extract import Wanted


class Status(StrEnum):
    """What became of the records to export."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    HELD = "held"
    ALL = "all"


def export(
    data_dir: DataDir = None,
    destination: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the status is looked at; else at any destination.")
    ] = None,
    since: Since = None,
    until: Until = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    status: Annotated[Status, typer.Option(help="Records of which this has become.")] = Status.ALL,
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there, not to stdout; complete or not at all.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write stored records as the lines that `walbatch send` reads, oldest first: the same bytes, ids and times.

    `walbatch export | walbatch send --to HOST:PORT` moves them to another server. Times are those of acceptance; what
    was discarded is left out, and of a copy and its original there is one. It is personal data. See docs/looking.md.

    Examples:
        walbatch export --since 2h --output events.ndjson
        walbatch export --status dead --destination mixpanel >dead.ndjson
        walbatch export | walbatch send --to 127.0.0.1:50061
    """
    from walbatch.wal.extract import Wanted

    now_ms = time.time_ns() // 1_000_000
    wanted = Wanted(
        since_ms=time_ms("--since", since, now_ms),
        until_ms=time_ms("--until", until, now_ms),
        event=event,
        distinct_id=distinct_id,
        status=status.value,
        destination=destination,
    )
    directory = local_settings(data_dir).data_dir
    if output is None:
        with until_closed():
            count = _write(directory, wanted, limit, sys.stdout.buffer)
    else:
        from walbatch.whole_file import written

        with written(output, replace=force) as file:
            count = _write(directory, wanted, limit, file)
    typer.echo(counted(count, "record"), err=True)


def _write(directory: Path, wanted: Wanted, limit: int | None, file: BinaryIO) -> int:
    from walbatch.export import export as exported
    from walbatch.wal import store
    from walbatch.wal.reading import reading

    count = 0
    with reading(directory) as connection:
        check_destination(connection, wanted.destination)
        through = store.last_offset(connection)
        with _progress(through) as report:
            for lines, looked_through in exported(connection, wanted, through, limit):
                file.writelines(lines)
                count += len(lines)
                report(looked_through)
    return count


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yield what is to be called with how far it is; on a terminal, it moves a bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    # Not where the lines go to the same terminal: the bar would stand among them.
    hidden = not animated() or sys.stdout.isatty()
    with Progress(console=Console(stderr=True), disable=hidden, transient=True) as progress:
        task = progress.add_task("exporting", total=total)
        yield lambda through: progress.update(task, completed=through)
