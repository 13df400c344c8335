"""`walbatch stats --watch`: the numbers again and again, with rates, until Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from .table import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from walbatch.rates import Rates

Document = dict[str, Any]
Look = tuple[Document, "Rates | None"]
"""The numbers at one moment, and the rates since the moment before."""


def watch(read: Callable[[], Document], interval_s: float, *, as_json: bool) -> None:
    """Show what `read` returns, about every `interval_s`. Ctrl-C is how it ends, and no failure.

    Live on a terminal; elsewhere, or as JSON, a line each time. Once it has begun, numbers that cannot be read are told
    on stderr, and it goes on.
    """
    try:
        looks = _looks(read, interval_s)
        if as_json:
            for document, _ in looks:
                typer.echo(json.dumps(document))
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            _live(looks)
        else:
            for document, rates in looks:
                typer.echo(f"{document['at']} {document['summary']}{_speed(rates)}")
    except KeyboardInterrupt:
        return


def _looks(read: Callable[[], Document], interval_s: float) -> Iterator[Look]:
    from walbatch.errors import WalbatchError
    from walbatch.rates import rates

    before = read()
    yield before, None
    while True:
        time.sleep(interval_s)
        try:
            document = read()
        except WalbatchError as error:
            typer.echo(f"walbatch: {error}", err=True)
            continue
        yield document, rates(before, document)
        before = document


def _live(looks: Iterator[Look]) -> None:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:
        for document, rates in looks:
            live.update(_view(document, rates), refresh=True)


def _view(document: Document, rates: Rates | None) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    from walbatch.summary import standing
    from walbatch.units import rough_duration

    table = Table("to", "state", "in/s", "out/s", "pending", "in flight", "oldest", "dead", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in document["destinations"]:
        name, age_s = one["name"], one["oldest_pending_age_s"]
        pending, in_flight, dead = (sum(lane[key] for lane in one["lanes"]) for key in ("pending", "in_flight", "dead"))
        table.add_row(
            name,
            standing(one),
            _rate(None if rates is None else rates.accepted_for.get(name)),
            _rate(None if rates is None else rates.delivered_to.get(name)),
            f"{pending:,}",
            f"{in_flight:,}",
            rough_duration(age_s) if pending else "",
            f"{dead:,}",
        )
    return Group(document["summary"], "", table, "", f"{document['at']}, Ctrl-C ends")


def _speed(rates: Rates | None) -> str:
    if rates is None:
        return ""
    delivered = sum(rates.delivered_to.values())
    return f" In {_rate(rates.accepted)}/s, out {_rate(delivered)}/s."


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return ""
    return f"{per_second:,.1f}" if 0 < per_second < 10 else f"{per_second:,.0f}"  # noqa: PLR2004
