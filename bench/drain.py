"""How fast a backlog goes out: beside a loop that does nothing else, and beside Mixpanel's own tools."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from plan import Plan
from results import Row, compared, in_turn, missing
from servers import HERE, PYTHON, Walbatch

from walbatch.bench.fill import fill
from walbatch.bench.processes import Child, Sink, output

NPM = HERE.parent / "build" / "bench-npm"
NODE = shutil.which("node")


def rows(plan: Plan) -> Iterator[Row]:
    """Yield the rows of the drain.

    Ours and the bare loop's rate is that at the destination, from its first request to its last; those of Mixpanel's
    tools are by the time that they take from the moment at which they have the events.
    """
    directory = plan.scratch / "drain"
    what = f"drain of {plan.drained:,} events"
    has_import = bool(NODE and (NPM / "node_modules" / "mixpanel-import").is_dir())
    sides = [
        partial(_ours, plan, directory),
        partial(_bare, plan, directory),
        partial(_sent, plan, [PYTHON, str(HERE / "buffered_consumer.py")]),
    ]
    if has_import:
        sides.append(partial(_sent, plan, [NODE or "", str(HERE / "mixpanel_import.cjs")]))
    ours, bare, buffered, *imported = in_turn(plan.rounds, *sides)
    yield compared(what, ours, bare, name="a bare loop", at_least=0.6)
    if has_import:
        note = f"{plan.drained_by_peers:,} events from memory, 10 workers, gzip"
        yield compared(what, ours, imported[0], name="mixpanel-import", at_least=2.0, note=note)
    else:
        yield missing(f"{what}, beside mixpanel-import", "mixpanel-import (npm)")
    note = f"{plan.drained_by_peers // 10:,} events from memory"
    yield compared(what, ours, buffered, name="BufferedConsumer", at_least=10.0, note=note)


def _ours(plan: Plan, directory: Path) -> float:
    """Drain a new backlog, whose database stays for the bare loop."""
    shutil.rmtree(directory, ignore_errors=True)
    fill(directory, plan.drained)
    with Sink() as sink, Walbatch(directory, sink.port) as server:
        return sink.wait_for(plan.drained, server)


def _bare(plan: Plan, directory: Path) -> float:
    command = [PYTHON, str(HERE / "bare_drain.py"), str(directory / "events.db")]
    with Sink() as sink, Child([*command, str(sink.port)]) as sender:
        return sink.wait_for(plan.drained, sender)


def _sent(plan: Plan, command: Sequence[str]) -> float:
    events = plan.drained_by_peers // (10 if command[0] == PYTHON else 1)
    env = os.environ | {"NODE_PATH": str(NPM / "node_modules")}
    with Sink() as sink:
        seconds = float(output([*command, str(sink.port), str(events)], env).split()[-1])
        received = sink.received()["records"]
    if received != events:
        raise RuntimeError(f"{command!r} sent {received} of {events} events")
    return events / seconds
