"""A client under load: sends events for as long as it lives, and logs what it attempted and what was acknowledged.

Usage: load_client.py ADDRESS LOG NAME. A call whose outcome is unknown is repeated with the same id; every tenth call
is given up after one try instead, so that some outcomes stay unknown. Half of the calls are events, half batches.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import grpc

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

BATCH = 20
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 20),
]


def main(address: str, log_path: Path, name: str) -> None:
    """Send until killed."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with grpc.insecure_channel(address, _CHANNEL_OPTIONS) as channel:
        stub = AnalyticsServiceStub(channel)
        for number in count():
            size = BATCH if number % 2 else 1
            ids = [f"{name}-{number}-{index}" for index in range(size)]
            os.write(log, "".join(f"attempt {event_id}\n" for event_id in ids).encode())
            if _send(stub, ids, tries=10_000 if number % 10 else 1):
                os.write(log, "".join(f"ack {event_id}\n" for event_id in ids).encode())


def _send(stub: AnalyticsServiceStub, ids: list[str], tries: int) -> bool:
    """Say whether the events were acknowledged."""
    events = [pb.Event(event_id=i, name="Load", distinct_id="u", properties_json='{"text": "Ærøskøbing"}') for i in ids]
    for _ in range(tries):
        try:
            if len(events) == 1:
                stub.TrackEvent(pb.TrackEventRequest(event=events[0]), timeout=5)
            else:
                reply = stub.Ingest(pb.IngestRequest(records=[pb.Record(event=e) for e in events]), timeout=5)
                assert reply.accepted_count + reply.duplicate_count == len(events)
        except grpc.RpcError:
            continue
        return True
    return False


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
