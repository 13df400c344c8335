"""How fast records are taken in: beside the same server without a log, and beside SQLite without a server."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from loads import BY, Checked, unary
from plan import Plan
from results import Row, compared, limited
from servers import HERE, PYTHON, Walbatch, empty_server

from walbatch.bench.fill import fill
from walbatch.bench.loads import Load, python
from walbatch.bench.plain_sqlite import rows_per_s
from walbatch.bench.processes import Sink, output
from walbatch.bench.samples import BATCH
from walbatch.disk_speed import Fdatasync, fdatasync

CALLERS = 8
"""Calls of Ingest under way at once."""


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows of ingest. A flusher delivers beside every one of them."""
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        server = Checked(stack.enter_context(Walbatch(plan.scratch / "ingest", sink.port)), plan.scratch, plan.seconds)
        ceiling = f"127.0.0.1:{stack.enter_context(empty_server()).line}"
        yield _beside_empty(plan, server, ceiling, connections=1, in_flight=64, at_least=0.9)
        yield _beside_empty(plan, server, ceiling, connections=10, in_flight=1, at_least=0.7)
        yield _latency(plan, server, ceiling)
        yield from _batches(plan, server)
    yield _paced(plan)


def _beside_empty(
    plan: Plan, server: Checked, ceiling: str, *, connections: int, in_flight: int, at_least: float
) -> Row:
    ours: list[Load] = []
    theirs: list[Load] = []
    for _ in range(plan.rounds):
        theirs.append(unary(ceiling, plan.scratch, plan.seconds, connections=connections, in_flight=in_flight))
        ours.append(server.unary(connections=connections, in_flight=in_flight))
        server.server.settle()
    many = f"{connections} callers" if connections > 1 else f"{in_flight} in flight"
    return compared(
        f"TrackEvent, {many}",
        [load.events_per_s for load in ours],
        [load.events_per_s for load in theirs],
        name="empty handler",
        at_least=at_least,
        note=", ".join(filter(None, (_percentiles(ours), _refusals(ours), BY))),
    )


def _percentiles(loads: list[Load]) -> str:
    p50, p99 = (
        statistics.median(values) for values in zip(*((load.p50_ms, load.p99_ms) for load in loads), strict=True)
    )
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _refusals(loads: list[Load]) -> str:
    refused, all_calls = sum(load.refused for load in loads), sum(load.events + load.refused for load in loads)
    return f"{refused / all_calls:.0%} of the calls refused by the transport" if refused else ""


def _latency(plan: Plan, server: Checked, ceiling: str) -> Row:
    """One caller: what the log adds to a call may be two fsyncs of this disk."""
    ours: list[float] = []
    allowed: list[float] = []
    for _ in range(plan.rounds):
        empty = unary(ceiling, plan.scratch, plan.seconds, connections=1, in_flight=1)
        allowed.append(empty.p50_ms + 2 * Fdatasync.of(fdatasync(plan.scratch)).p50_ms)
        ours.append(server.unary().p50_ms)
        server.server.settle()
    return compared(
        "TrackEvent, 1 caller, p50",
        ours,
        allowed,
        name="empty handler's + 2 fdatasync",
        unit="ms",
        at_most=1.0,
        note=BY,
    )


def _batches(plan: Plan, server: Checked) -> Iterator[Row]:
    ours: list[float] = []
    plain: list[float] = []
    streamed: list[float] = []
    group = CALLERS * BATCH
    for _ in range(plan.rounds):
        plain.append(rows_per_s(plan.scratch, group, plan.seconds))
        ours.append(server.python("batch", CALLERS).events_per_s)
        server.server.settle()
        streamed.append(server.python("stream", 1).events_per_s)
        server.server.settle()
    yield compared(
        f"Ingest with {BATCH} events, {CALLERS} callers",
        ours,
        plain,
        name=f"sqlite3, {group} rows a transaction",
        at_least=0.35,
    )
    yield compared(f"IngestStream, {BATCH} events a request", streamed, ours, name="Ingest", at_least=1.0)


def _paced(plan: Plan) -> Row:
    """Latency at half of the rate that saturates, while a backlog goes out: one server and one backlog a round."""
    ratios: list[float] = []
    notes = ""
    for number in range(plan.rounds):
        directory = plan.scratch / f"paced-{number}"
        fill(directory, plan.beside_drain)
        with Sink() as sink, Walbatch(directory, sink.port) as server:
            half = round(_saturating(plan, server) / 2)
            load = _at_rate(server.address, half, plan.seconds)
            left = server.stats()["pending"]
        shutil.rmtree(directory)
        ratios.append(load.p99_ms / load.p50_ms)
        refused = _refusals([load])
        notes = (
            f"last round: {half} calls/s, p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms, the client itself late"
            f" by {load.late_ms:.1f} ms, {left:,} still pending at the end{refused and f', {refused}'}"
        )
    return limited("TrackEvent at half the rate, beside a drain: p99 / p50", ratios, "", at_most=5.0, note=notes)


def _at_rate(address: str, per_s: int, seconds: float) -> Load:
    return Load(**json.loads(output([PYTHON, str(HERE / "paced.py"), address, str(per_s), str(seconds)])))


def _saturating(plan: Plan, server: Walbatch) -> float:
    """Return the rate of 64 calls in flight, in the same situation: the backlog is going out."""
    return python(server.address, "unary", 64, plan.seconds / 2).events_per_s
