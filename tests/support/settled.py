"""How every fault test ends: the faults are over, a server runs, and everything is accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import canary
import grpc
from programs import DEADLINE_S, Site, accounted, eventually
from total_queue import Verdict, judge

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

READ_STORED = Path(__file__).with_name("read_stored.py")
DRAINED_WITHIN_S = 60.0
ACKED_WITHIN_S = 5.0
DELIVERED_WITHIN_S = 30.0


def settled_account(here: Site, logs: Sequence[Path]) -> Verdict:
    """Drain, probe, check the database, and judge. The clients have ended, and a server runs without any fault.

    Fails unless a fresh event is acknowledged and delivered in time, everything that was accepted is accounted for,
    and the database is sound. What became of the records is in the verdict; see its `complaints`.
    """
    _drain(here)
    probe = _probe(here)
    _drain(here)
    stored = read_stored(here.data)
    return judge([*(log.read_text() for log in logs if log.exists()), probe], here.delivered_lines(), stored)


def _drain(here: Site) -> None:
    """Wait until nothing is pending, and check that everything that was accepted is accounted for."""
    accounted(
        eventually(
            lambda: (numbers := _numbers(here)) and numbers["pending"] == 0 and numbers, "drained", DRAINED_WITHIN_S
        )
    )


def _numbers(here: Site) -> dict[str, Any]:
    """Return what `walbatch stats` would show, without the time that it takes to start; nothing from no server."""
    with suppress(OSError, KeyError):
        document: dict[str, Any] = json.loads(here.admin_get("/stats")[1])
        return document
    return {}


def read_stored(data: Path) -> list[dict[str, Any]]:
    """Return what became of each record (`id`, `destination`, `status`); fail if the database is damaged."""
    command = [sys.executable, str(READ_STORED), str(data)]
    read = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert read.returncode == 0, read.stderr
    findings, *records = (json.loads(line) for line in read.stdout.splitlines())
    assert findings == ["ok"], findings
    return records


def _probe(here: Site) -> str:
    """Send one more event, see it arrive, and return what a client would have written down of it."""
    event_id = str(uuid.uuid4())
    size = here.out.stat().st_size if here.out.exists() else 0
    event = pb.Event(event_id=event_id, name="Probe", distinct_id=canary.PERSON, properties_json=canary.PROPERTIES)
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        stub = AnalyticsServiceStub(channel)
        stub.TrackEvent(pb.TrackEventRequest(event=event), timeout=ACKED_WITHIN_S, wait_for_ready=True)
    eventually(lambda: event_id in _behind(here.out, size), "a fresh event is delivered", DELIVERED_WITHIN_S)
    return f"attempt {event_id}\nack {event_id}\n"


def _behind(path: Path, size: int) -> str:
    """Return what was added to a file after it had so many bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(size)
        return file.read().decode(errors="replace")
