"""What the server holds in memory while its destination is of no use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from programs import Site, site
from watching import MIB, memory

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

pytestmark = pytest.mark.crash

BACKLOG_ROOM_BYTES = 192 * MIB
"""What it may need beside what it had when it was ready: a batch of 10 MB in its several shapes, the recent ids, what
the allocator keeps. Measured: 110 MiB after 200 MiB of events, 126 MiB after 600."""
ANSWERS_ROOM_BYTES = 64 * MIB
"""Measured: 28 MiB after 200 answers; it was 250 MiB while each stayed in a cycle with what was received."""
REFUSALS_ROOM_BYTES = 96 * MIB
"""Measured: 35 to 47 MiB after 600 requests; it was 350 MiB while errors stayed in cycles with them."""
BODY_BYTES = 13_000_000


def send_bulk(here: Site, size: int) -> int:
    """Send so many bytes in events of 60 kB, and return how many events that were."""
    record = pb.Record(event=pb.Event(name="Bulk", distinct_id="u", properties_json=json.dumps({"text": "x" * 60_000})))
    request = pb.IngestRequest(records=[record] * 50)
    with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
        stub = AnalyticsServiceStub(channel)
        accepted = 0
        while accepted * 60_000 < size:
            accepted += stub.Ingest(request, timeout=30).accepted_count
    return accepted


def test_a_backlog_is_not_kept_in_memory(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """While the destination is down, more than there is room for in memory is taken in and stays on disk."""
    size = rounds(300, 600) * MIB
    with site(tmp_path, max_in_flight=1, retry_base="50ms", retry_max="200ms", min_free_disk=0) as here:
        server = here.serve()
        before = memory(server, "VmHWM")
        accepted = send_bulk(here, size)
        grown = memory(server, "VmHWM") - before
        assert here.stats()["pending"] == accepted
    matrix(
        fault="destination down, memory",
        rounds=1,
        acked=accepted,
        lost=0,
        control=f"{size // MIB} MiB waited, {grown // MIB} MiB in memory",
    )
    assert grown < BACKLOG_ROOM_BYTES


def test_long_answers_are_not_kept_in_memory(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """An answer of 13 MB is cut off, again and again, and the events go out once the destination is well."""
    times = rounds(20, 60)
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"fault": "status", "status": 500, "body": "x" * BODY_BYTES, "times": times}]))
    with site(tmp_path, retry_base="10ms", retry_max="20ms", min_free_disk=0) as here:
        here.sink("--script", str(script))
        server = here.serve()
        before = memory(server, "VmHWM")
        accepted = send_bulk(here, MIB)
        here.drained()  # which is after all those answers
        grown = memory(server, "VmHWM") - before
        assert here.stats()["sent"] == accepted == len(here.delivered())
    matrix(
        fault="answers of 13 MB, memory",
        rounds=times,
        acked=accepted,
        lost=0,
        control=f"{times * BODY_BYTES // MIB} MiB answered, {grown // MIB} MiB in memory",
    )
    assert grown < ANSWERS_ROOM_BYTES


def test_refused_calls_are_not_kept_in_memory(
    tmp_path: Path, rounds: Callable[[int, int], int], matrix: Callable[..., None]
) -> None:
    """A client that sends large requests again and again though they are refused costs no memory."""
    times = rounds(100, 300)
    event = pb.Event(distinct_id="u", properties_json=json.dumps({"text": "x" * 900_000}))
    request = pb.IngestStreamRequest(records=[pb.Record(event=event)] * 4)
    with site(tmp_path, min_free_disk=0) as here:
        server = here.serve()
        before = memory(server, "VmHWM")
        with grpc.insecure_channel(f"127.0.0.1:{here.grpc_port}") as channel:
            stub = AnalyticsServiceStub(channel)
            for _ in range(times):
                with pytest.raises(grpc.RpcError, match="name: must"):
                    stub.TrackEvent(pb.TrackEventRequest(event=event), timeout=30)
                with pytest.raises(grpc.RpcError, match="sequence"):
                    list(stub.IngestStream(iter([request]), timeout=30))
        grown = memory(server, "VmHWM") - before
        assert here.stats()["accepted"] == 0
    matrix(
        fault="refused requests of 1 and 4 MB, memory",
        rounds=2 * times,
        acked=0,
        lost=0,
        control=f"{times * 9 // 2} MB refused, {grown // MIB} MiB in memory",
    )
    assert grown < REFUSALS_ROOM_BYTES
