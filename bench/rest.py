"""What it costs to run: CPU at rest, and the wear of the disk over a record's whole life."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from loads import Checked
from plan import Plan
from results import Row, limited
from servers import Walbatch

from walbatch.bench.processes import Sink, until
from walbatch.bench.samples import BATCH, ROW_BYTES


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows."""
    yield _idle(plan)
    yield from _written(plan, f"Ingest with {BATCH} events", callers=8, at_most=3.0)
    yield from _written(plan, "TrackEvent, 10 callers", callers=0)


def _idle(plan: Plan) -> Row:
    with Sink() as sink, Walbatch(plan.scratch / "idle", sink.port) as server:
        time.sleep(plan.idle_s / 10)  # what a server does right after its start is no rest
        used, began = server.cpu_s(), time.monotonic()
        time.sleep(plan.idle_s)
        share = (server.cpu_s() - used) / (time.monotonic() - began) * 100
    return limited(f"CPU at rest, over {plan.idle_s:g} s", [share], "% of a core", at_most=0.5)


def _written(plan: Plan, what: str, *, callers: int, at_most: float | None = None) -> Iterator[Row]:
    """Take in a first part, then about as many while it is deleted, and delete those while nothing comes.

    Each in a server of its own, as retention runs when one starts; all that was stored before is then due.
    """
    directory, size = plan.scratch / f"life-{callers}", plan.life if callers else plan.life // 20
    with Sink() as sink:
        first, written = _take_in(plan, Walbatch(directory, sink.port), size, callers)
        taken_in = written / first
        second, written = _take_in(plan, _deleting(directory, sink), first, callers, deleted=first)
        beside = (written - second * taken_in) / first  # without what these themselves have cost
        with _deleting(directory, sink) as server:
            until(lambda: server.stats()["purged"] == first + second, server)
            idle = server.finish() / second
    stored = f"events of {ROW_BYTES} bytes"
    yield limited(
        f"bytes written for each stored byte, {what}",
        [(taken_in + beside) / ROW_BYTES],
        "",
        at_most=at_most,
        note=f"{first:,} {stored}; {beside / ROW_BYTES:.2f} of it to delete them while {second:,} came in",
    )
    yield limited(
        f"bytes written if deleted while idle, {what}",
        [(taken_in + idle) / ROW_BYTES],
        "",
        note=f"{second:,} {stored}; {idle / ROW_BYTES:.2f} of it to delete them",
    )


def _deleting(directory: Path, sink: Sink) -> Walbatch:
    time.sleep(1.5)  # the shortest retention, and a little
    return Walbatch(directory, sink.port, RETENTION="1s")


def _take_in(plan: Plan, started: Walbatch, size: int, callers: int, *, deleted: int = 0) -> tuple[int, int]:
    """Take in at least so many, wait until others are deleted, and return how many it was, and the bytes written."""
    with started as server:
        before = server.stats()["accepted"]
        load = Checked(server, plan.scratch, plan.seconds / 4)  # short, so that they are not many more
        while server.stats()["accepted"] - before < size:
            if callers:
                load.python("batch", callers)
            else:
                load.unary(connections=10)
        server.settle()
        until(lambda: server.stats()["purged"] >= deleted, server)
        return server.stats()["accepted"] - before, server.finish()
