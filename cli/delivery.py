"""`walbatch pause`, `resume` and `flush`: hold delivery back, let it go on, or let it go now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from .changing import open_log
from .options import DataDir, Json, local_settings
from .table import counted

Destination = Annotated[str | None, typer.Option(metavar="NAME", help="This destination alone, not all of them.")]

FAILED, PARTLY_DONE = 1, 3


def pause(data_dir: DataDir = None, destination: Destination = None, as_json: Json = False) -> None:
    """Hold delivery back until `walbatch resume`. Records are accepted as before, and kept.

    It lasts over restarts, and holds for the last flush of a stop. Requests under way come to their end. While nobody
    serves the log it is noted for the next start.

    Examples:
        walbatch pause
        walbatch pause --destination mixpanel
    """
    with open_log(local_settings(data_dir)) as log:
        _tell(log.stream("/pause", {"destination": destination}), _paused, as_json=as_json)


def resume(data_dir: DataDir = None, destination: Destination = None, as_json: Json = False) -> None:
    """Let delivery go on that `walbatch pause` holds back.

    Examples:
        walbatch resume
        walbatch resume --destination mixpanel
    """
    with open_log(local_settings(data_dir)) as log:
        _tell(log.stream("/resume", {"destination": destination}), _resumed, as_json=as_json)


def flush(data_dir: DataDir = None, destination: Destination = None, as_json: Json = False) -> None:
    """Deliver what waits now, without waiting for full batches; ask a destination that is backing off at once.

    It says what is due and does not wait for it. Exit codes: 0, 1 if all that was asked for is paused, 3 if some is, 4
    without a server.

    Examples:
        walbatch flush
        walbatch flush --json
    """
    from walbatch.ownership import is_owned

    from .admin_client import Unreachable, connect

    directory = local_settings(data_dir).data_dir
    if not is_owned(directory):
        raise Unreachable(f"nobody serves {directory}, and flush asks a server; `walbatch serve` delivers what waits")
    reports = connect(directory).stream("/flush", {"destination": destination})
    told = _tell(reports, _flushed, as_json=as_json)
    if paused := sum(report["paused_at"] is not None for report in told):
        raise typer.Exit(FAILED if paused == len(told) else PARTLY_DONE)


def _tell(
    reports: Iterable[dict[str, Any]], words: Callable[[dict[str, Any]], str], *, as_json: bool
) -> list[dict[str, Any]]:
    """Print a line for each destination, and return what was reported."""
    told = []
    for report in reports:
        typer.echo(json.dumps(report) if as_json else f"{report['destination']}: {words(report)}")
        told.append(report)
    return told


def _paused(report: dict[str, Any]) -> str:
    since = "" if report["changed"] else f" since {report['paused_at']}"
    return f"paused{since}, {counted(report['pending'], 'record')} pending; `walbatch resume` lets it go on"


def _resumed(report: dict[str, Any]) -> str:
    return f"{'resumed' if report['changed'] else 'was not paused'}, {counted(report['pending'], 'record')} pending"


def _flushed(report: dict[str, Any]) -> str:
    if report["paused_at"] is not None:
        return f"paused since {report['paused_at']}, nothing goes out; `walbatch resume` lets it go on"
    due = f"{counted(report['due'], 'record')} due now"
    return due if report["state"] == "ok" else f"{due}, and it is asked at once"
