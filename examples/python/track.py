"""Send records to walbatch: `python track.py [ADDRESS]`.

An event has its id and its time before the first try, so that it is the same event however often it is sent. gRPC
itself waits for the server and repeats what ended with UNAVAILABLE, as service-config.json says.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

SERVICE_CONFIG = (Path(__file__).parents[1] / "service-config.json").read_text()


def new_event(name: str, distinct_id: str, **properties: Any) -> pb.Event:
    """Return an event that happens now."""
    now = Timestamp()
    now.GetCurrentTime()
    return pb.Event(
        event_id=str(uuid.uuid4()),
        name=name,
        distinct_id=distinct_id,
        event_time=now,
        properties_json=json.dumps(properties),
    )


def main(address: str) -> int:
    """Send one of everything, and return the exit code."""
    with grpc.insecure_channel(address, [("grpc.service_config", SERVICE_CONFIG)]) as channel:
        analytics = AnalyticsServiceStub(channel)
        event = new_event("Order Completed", "user-1", amount=49.99)
        try:
            for _ in range(2):  # the second time it is only recognised
                reply = analytics.TrackEvent(pb.TrackEventRequest(event=event))
                print(f"{event.name}: {pb.Durability.Name(reply.durability)}, duplicate: {reply.duplicate}")
            analytics.IdentifyUser(pb.IdentifyUserRequest(user_id="user-1", traits_json='{"plan": "pro"}'))
            events = [new_event(name, "user-1") for name in ("Page Viewed", "", "Signed Out")]
            answer = analytics.Ingest(pb.IngestRequest(records=[pb.Record(event=event) for event in events]))
        except grpc.RpcError as error:
            return failed(error)
    for rejection in answer.rejections:  # a bug of ours: sending it again changes nothing
        print(f"record {rejection.index} is refused: {rejection.field} {rejection.description} ({rejection.reason})")
    print(f"{answer.accepted_count} accepted")
    return 0


def failed(error: Any) -> int:
    """Say what to do with what was not acknowledged."""
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            print(f"drop it, and correct the code: {error.details()}", file=sys.stderr)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            print(f"keep it, and send it again in half a minute: {error.details()}", file=sys.stderr)
        case _:  # UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED: it may be stored
            print(f"keep it, and send it again with the same event_id: {error.details()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"))
