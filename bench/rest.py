"""What it costs to run: CPU at rest, and the wear of the disk over a record's whole life."""

from __future__ import annotations

import time
from collections.abc import Iterator

from loads import Checked
from plan import Plan
from results import Row, limited
from servers import Walbatch

from walbatch.bench.processes import Sink, until
from walbatch.bench.samples import BATCH, ROW_BYTES


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows."""
    yield _idle(plan)
    yield _written(plan, f"Ingest with {BATCH} events", callers=8, at_most=3.0)
    yield _written(plan, "TrackEvent, 10 callers", callers=0)


def _idle(plan: Plan) -> Row:
    with Sink() as sink, Walbatch(plan.scratch / "idle", sink.port) as server:
        time.sleep(plan.idle_s / 10)  # what a server does right after its start is no rest
        used, began = server.cpu_s(), time.monotonic()
        time.sleep(plan.idle_s)
        share = (server.cpu_s() - used) / (time.monotonic() - began) * 100
    return limited(f"CPU at rest, over {plan.idle_s:g} s", [share], "% of a core", at_most=0.5)


def _written(plan: Plan, what: str, *, callers: int, at_most: float | None = None) -> Row:
    """Take in, deliver, and delete; the server ends in between, as its retention runs at the start and each minute."""
    directory = plan.scratch / f"life-{callers}"
    with Sink() as sink:
        with Walbatch(directory, sink.port) as server:
            load = Checked(server, plan.scratch, plan.seconds)
            while server.stats()["accepted"] < (plan.life if callers else plan.life // 20):
                if callers:
                    load.python("batch", callers)
                else:
                    load.unary(connections=10)
            server.settle()
            events = server.stats()["accepted"]
            written = server.finish()
        time.sleep(1.5)  # the shortest retention, and a little
        with Walbatch(directory, sink.port, RETENTION="1s") as server:
            until(lambda: server.stats()["purged"] == events, server)
            deleted = server.finish()
    stored = events * ROW_BYTES
    return limited(
        f"bytes written for each stored byte, {what}",
        [(written + deleted) / stored],
        "",
        at_most=at_most,
        note=f"{events:,} events of {ROW_BYTES} bytes; {deleted / stored:.2f} of it to delete them",
    )
