"""`walbatch replay`: send stored records once more."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .changing import confirmed, follow, open_log
from .options import DataDir, Json, local_settings
from .selecting import Destination, DistinctId, DryRun, Event, Limit, Since, Until, Yes, time_ms, utc
from .table import counted

if TYPE_CHECKING:
    from walbatch.settings import Settings
    from walbatch.wal.selection import Plan


class Status(StrEnum):
    """What became of the records to repeat."""

    SENT = "sent"
    DEAD = "dead"
    ALL = "all"


def replay(
    data_dir: DataDir = None,
    destination: Destination = None,
    since: Since = None,
    until: Until = None,
    event: Event = None,
    distinct_id: DistinctId = None,
    status: Annotated[Status, typer.Option(help="Delivered records, refused ones, or both.")] = Status.ALL,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send records to one destination again, with the same ids and times.

    Mixpanel drops the copies of events that it still has; an update with add, append or remove counts once more. Times
    are those of acceptance. What is pending or held is not repeated; `walbatch dead` has more for what was refused.
    Against a running server this goes through its admin port.

    Examples:
        walbatch replay --since 2h --dry-run
        walbatch replay --event Signup --destination mixpanel
        walbatch replay --status dead --limit 100 --yes
    """
    from walbatch.wal.selection import Plan, Selection

    now_ms = time.time_ns() // 1_000_000
    selection = Selection(
        since_ms=time_ms("--since", since, now_ms),
        until_ms=time_ms("--until", until, now_ms),
        event=event,
        distinct_id=distinct_id,
        status=status.value,
        limit=limit,
    )
    settings = local_settings(data_dir)
    body = {"destination": _destination(settings, destination), "selection": asdict(selection), "dry_run": True}
    with open_log(settings) as log:
        (document,) = log.stream("/replay", body)
        plan = Plan(**document)
        typer.echo(_describe(plan), err=True)
        done = 0
        if not dry_run and plan.count and confirmed(f"Send {plan.count} records again?", yes=yes):
            body |= {"selection": asdict(replace(selection, through=plan.through)), "dry_run": False}
            for report in follow(log.stream("/replay", body), "replayed", plan.count):
                done = report["replayed"]
            typer.echo(
                f"{counted(done, 'record')} in the log again, to be sent; follow with `walbatch stats`", err=True
            )
    if as_json:
        typer.echo(json.dumps({"plan": asdict(plan), "replayed": done}))
    elif dry_run:
        typer.echo(plan.count)


def _destination(settings: Settings, named: str | None) -> str:
    from walbatch.replay import destination_of
    from walbatch.wal import store
    from walbatch.wal.reading import reading

    with reading(settings.data_dir) as connection:
        return destination_of(store.destinations(connection), named)


def _describe(plan: Plan) -> str:
    if not plan.count:
        return "0 records match"
    span = f"accepted from {utc(plan.first_ms)} to {utc(plan.last_ms)}"
    return f"{plan.count} records match ({plan.sent} sent, {plan.dead} dead), {span}"
