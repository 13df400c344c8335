"""`walbatch replay`: send stored records once more."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from .options import DataDir, Json, local_settings, on_terminal

if TYPE_CHECKING:
    from walbatch.settings import Settings
    from walbatch.wal.selection import Plan, Selection
    from walbatch.wal.sqlite import SqliteLog


class Status(StrEnum):
    """What became of the records to repeat."""

    SENT = "sent"
    DEAD = "dead"
    ALL = "all"


class _Log(Protocol):
    """A log that can be replayed: this process's own, or a running server's."""

    def plan(self, selection: Selection) -> Plan: ...

    def replay(self, selection: Selection) -> Iterator[int]: ...


def replay(
    data_dir: DataDir = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Accepted at or after: 2h (ago), 2026-11-23, or RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Accepted before.")] = None,
    event: Annotated[str | None, typer.Option(metavar="NAME", help="Events of this name.")] = None,
    distinct_id: Annotated[str | None, typer.Option(metavar="ID", help="Records of this user.")] = None,
    status: Annotated[Status, typer.Option(help="Delivered records, dead letters, or both.")] = Status.ALL,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be repeated.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Send delivered records or dead letters again, with the same ids and times: Mixpanel drops what it still has.

    Pending records are never repeated. Against a running server this goes through its admin port.
    """
    from walbatch.wal.selection import Selection

    now_ms = time.time_ns() // 1_000_000
    selection = Selection(
        since_ms=_time("--since", since, now_ms),
        until_ms=_time("--until", until, now_ms),
        event=event,
        distinct_id=distinct_id,
        status=status.value,
        limit=limit,
    )
    with _open_log(local_settings(data_dir)) as log:
        plan = log.plan(selection)
        typer.echo(_describe(plan), err=True)
        done = 0
        if not dry_run and plan.count and _confirmed(plan, yes=yes):
            done = _follow(log.replay(replace(selection, through=plan.through)), plan.count)
            typer.echo(
                f"{done} records are in the log again and will be sent; follow them with `walbatch stats`", err=True
            )
    if as_json:
        typer.echo(json.dumps({"plan": asdict(plan), "replayed": done}))
    elif dry_run:
        typer.echo(plan.count)


def _time(option: str, text: str | None, now_ms: int) -> int | None:
    from walbatch.units import parse_time_ms

    if text is None:
        return None
    try:
        return parse_time_ms(text, now_ms)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text!r} {error}") from error


def _describe(plan: Plan) -> str:
    if not plan.count:
        return "0 records match"
    first, last = (_utc(ms) for ms in (plan.first_ms, plan.last_ms))
    return f"{plan.count} records match ({plan.sent} sent, {plan.dead} dead), accepted from {first} to {last}"


def _utc(ms: int | None) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp((ms or 0) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _confirmed(plan: Plan, *, yes: bool) -> bool:
    if yes:
        return True
    if not on_terminal():
        raise typer.BadParameter("there is no terminal to ask on: say --yes to go ahead, or --dry-run to only count")
    return typer.confirm(f"Send {plan.count} records again?", err=True)


def _follow(counts: Iterator[int], total: int) -> int:
    """Wait for a replay to end, with a bar on stderr if that is a terminal, and return how far it came."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    done = 0
    with Progress(console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("replaying", total=total)
        for count in counts:
            done = count
            progress.update(task, completed=done)
    return done


@contextmanager
def _open_log(settings: Settings) -> Iterator[_Log]:
    """Return the running server's log, or the directory's own when nobody serves it."""
    from walbatch.wal.ownership import is_owned

    from .admin_client import connect

    if is_owned(settings.data_dir):
        yield _ServerLog(connect(settings.data_dir))
    else:
        with asyncio.Runner() as runner:
            log, destination = _own_log(settings)
            runner.run(log.__aenter__())
            try:
                yield _OwnLog(runner, log, destination)
            finally:
                runner.run(log.__aexit__())


class _ServerLog:
    def __init__(self, client: Any) -> None:
        self._client = client

    def plan(self, selection: Selection) -> Plan:
        from walbatch.wal.selection import Plan

        return Plan(**self._client.post("/replay", {"selection": asdict(selection), "dry_run": True}))

    def replay(self, selection: Selection) -> Iterator[int]:
        for line in self._client.stream("/replay", {"selection": asdict(selection), "dry_run": False}):
            yield line["replayed"]


class _OwnLog:
    def __init__(self, runner: asyncio.Runner, log: SqliteLog, destination: str) -> None:
        self._runner = runner
        self._log = log
        self._destination = destination

    def plan(self, selection: Selection) -> Plan:
        from walbatch.replay import plan

        return self._runner.run(plan(self._log, self._destination, selection))

    def replay(self, selection: Selection) -> Iterator[int]:
        from walbatch.clock import SystemClock
        from walbatch.replay import replay as replay_pages

        pages = replay_pages(self._log, self._destination, selection, SystemClock())
        while (done := self._runner.run(anext(pages, None))) is not None:
            yield done


def _own_log(settings: Settings) -> tuple[SqliteLog, str]:
    """Return the directory's log, and the destination whose outcomes count."""
    from walbatch.clock import SystemClock
    from walbatch.wal import store
    from walbatch.wal.reading import reading
    from walbatch.wal.sqlite import SqliteLog

    with reading(settings.data_dir) as connection:
        known = store.destinations(connection)
    destination = known[0] if len(known) == 1 else settings.destination
    log = SqliteLog(
        settings.data_dir, [destination], SystemClock(), allow_affected_sqlite=settings.allow_affected_sqlite
    )
    return log, destination
