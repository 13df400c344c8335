"""What the commands share that change a log: who does it, whether the person wants it, and how far it is.

A log has one writer. While a server has the directory, it is asked through its admin port; otherwise this process opens
the log and does the same by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from .options import on_terminal
from .table import animated

if TYPE_CHECKING:
    import asyncio

    from walbatch.maintenance import Maintenance
    from walbatch.settings import Settings
    from walbatch.wal.sqlite import SqliteLog


class Log(Protocol):
    """A log that can be changed: a running server's, or this process's own."""

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Do what `walbatch.maintenance` has under a path, and yield its reports."""
        ...


@contextmanager
def open_log(settings: Settings) -> Iterator[Log]:
    """Return the running server's log, or the directory's own when nobody serves it."""
    from walbatch.ownership import is_owned

    from .admin_client import connect

    if is_owned(settings.data_dir):
        yield connect(settings.data_dir)
        return
    import asyncio

    from walbatch.logs import configure

    configure(settings.log_format, "warning")  # to stderr: stdout is for what the command answers
    from walbatch.clock import SystemClock
    from walbatch.maintenance import Maintenance

    with asyncio.Runner() as runner:
        log = _own_log(settings)
        runner.run(log.__aenter__())
        try:
            yield _OwnLog(runner, Maintenance(log, SystemClock()))
        finally:
            runner.run(log.__aexit__())


class _OwnLog:
    def __init__(self, runner: asyncio.Runner, maintenance: Maintenance) -> None:
        self._runner = runner
        self._maintenance = maintenance

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        reports = self._maintenance.start(path, json.dumps(body).encode())
        while (report := self._runner.run(anext(reports, None))) is not None:
            yield report


def _own_log(settings: Settings) -> SqliteLog:
    from walbatch.clock import SystemClock
    from walbatch.wal import store
    from walbatch.wal.admission import Limits
    from walbatch.wal.reading import reading
    from walbatch.wal.sqlite import SqliteLog

    with reading(settings.data_dir) as connection:
        known = store.destinations(connection)
    return SqliteLog(
        settings.data_dir,
        list(known),
        SystemClock(),
        limits=Limits(min_free_bytes=settings.min_free_disk),  # else it would leave another reserve than the server's
        allow_affected_sqlite=settings.allow_affected_sqlite,
    )


def check_asking(*, yes: bool) -> None:
    """Refuse to go on where a question will come up that nobody can be asked."""
    if not yes and not on_terminal():
        raise typer.BadParameter("there is no terminal to ask on: say --yes to go ahead, or --dry-run to only count")


def confirmed(question: str, *, yes: bool) -> bool:
    """Say whether the person wants it."""
    check_asking(yes=yes)
    return yes or typer.confirm(question, err=True)


def confirmed_by_number(warning: str, number: int, *, instead: str) -> bool:
    """Say whether the person wants it so much that they type a number. `instead` is what a script has to say."""
    if not on_terminal():
        raise typer.BadParameter(f"{warning}. There is no terminal to ask on: {instead}, or --dry-run to only count")
    answer: str = typer.prompt(f"{warning}. Type {number} to go ahead", default="", show_default=False, err=True)
    return answer.strip() == str(number)


def follow(reports: Iterable[dict[str, Any]], name: str, total: int) -> Iterator[dict[str, Any]]:
    """Yield the reports of a change, with a bar on stderr if that is a terminal; `name` has the count so far."""
    from rich.console import Console
    from rich.progress import Progress

    # The console's own idea of a terminal can be overruled by the environment.
    with Progress(console=Console(stderr=True), disable=not animated()) as progress:
        task = progress.add_task(name, total=total)
        for report in reports:
            progress.update(task, completed=report[name])
            yield report
