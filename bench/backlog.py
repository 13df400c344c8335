"""What a large backlog costs: the same things are done beside a thousandth of it, in turn."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from loads import Checked
from plan import Plan
from results import Row, compared, in_turn, limited
from servers import Walbatch, refused_port

from walbatch.bench.fill import fill
from walbatch.bench.processes import WALBATCH, Sink, output, until
from walbatch.bench.samples import BATCH

CALLERS = 8
RSS_MIB = 150.0
GROWTH_MIB = 10.0
"""What memory may grow by between the first and the last fifth of a drain: more is not flat."""


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows of the large backlog."""
    small, large = plan.scratch / "small", plan.scratch / "large"
    fill(small, plan.small)
    fill(large, plan.large)
    size = f"{plan.large:,} pending"
    with refused_port() as port, ExitStack() as stack:
        startups = [_startup(large, port) for _ in range(plan.rounds - 1)]
        few, many = (stack.enter_context(Walbatch(directory, port)) for directory in (small, large))
        yield limited(f"start-up at {size}", [*startups, many.startup_s], "s", at_most=2.0)
        yield from _answers(plan, few, many)
        yield limited(f"memory at {size}", [many.rss_mib()], "MiB", at_most=RSS_MIB)
    yield from _drained(plan, large)


def _startup(directory: Path, port: int) -> float:
    """Return the seconds from the start of the process until it says that it is ready."""
    with Walbatch(directory, port) as server:
        return server.startup_s


def _answers(plan: Plan, few: Walbatch, many: Walbatch) -> Iterator[Row]:
    """Ingest and `stats`, with nothing delivered meanwhile, so that the backlogs stay."""

    def ingest(server: Walbatch) -> float:
        return Checked(server, plan.scratch, plan.seconds).python("batch", CALLERS).events_per_s

    name = f"at {plan.small:,}"
    found = in_turn(plan.rounds, partial(ingest, many), partial(ingest, few))
    yield compared(f"Ingest with {BATCH} events at {plan.large:,} pending", *found, name=name, at_least=0.9)
    commands = [_stats_s(many) for _ in range(plan.rounds)]
    requests = [_request_s(many) for _ in range(plan.rounds)]
    yield limited(
        f"`walbatch stats` at {plan.large:,} pending",
        commands,
        "s",
        at_most=0.5,
        note=f"most of it is the start of Python: GET /stats takes {statistics.median(requests) * 1000:.0f} ms",
    )


def _stats_s(server: Walbatch) -> float:
    started = time.perf_counter()
    output([*WALBATCH, "stats", "--json"], server.env)
    return time.perf_counter() - started


def _request_s(server: Walbatch) -> float:
    started = time.perf_counter()
    server.stats()
    return time.perf_counter() - started


def _drained(plan: Plan, large: Path) -> Iterator[Row]:
    """Drain a part of the large backlog, and a small one of the size of that part."""
    memory: list[float] = []
    name = f"a backlog of {plan.window:,}"
    found = in_turn(plan.rounds, partial(_drain, plan, large, memory), partial(_drain_small, plan))
    yield compared(f"drain at {plan.large:,} pending", *found, name=name, at_least=0.9)
    yield limited("memory while that drains, at most", [max(memory)], "MiB", at_most=RSS_MIB)
    fifth = max(len(memory) // 5, 1)
    yield limited(
        "growth of it between the first and the last fifth of the drain",
        [max(max(memory[-fifth:]) - max(memory[:fifth]), 0.0)],
        "MiB",
        at_most=GROWTH_MIB,
    )


def _drain(plan: Plan, directory: Path, memory: list[float]) -> float:
    with Sink() as sink, Walbatch(directory, sink.port) as server:
        watched: list[float] = []

        def done() -> bool:
            watched.append(server.rss_mib())
            return sink.received()["records"] >= plan.window

        until(done, server)
        memory[:] = watched  # of the last round
        return sink.received()["per_s"]


def _drain_small(plan: Plan) -> float:
    directory = plan.scratch / "window"
    shutil.rmtree(directory, ignore_errors=True)
    fill(directory, plan.window)
    return _drain(plan, directory, [])
