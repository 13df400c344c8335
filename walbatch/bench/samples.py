"""What every load sends: one event with 10 properties, alone or 50 at a time, serialised beforehand."""

from __future__ import annotations

import json
import time

from walbatch import wire
from walbatch.pb.analytics.v1 import service_pb2 as pb

BATCH = 50
SERVICE = pb.DESCRIPTOR.services_by_name["AnalyticsService"].full_name
PROPERTIES = {
    **{f"text_{n}": "a value of usual length" for n in range(4)},
    **{f"number_{n}": n * 1.5 for n in range(4)},
    "list": ["a", "b"],
    "object": {"plan": "pro"},
}
EVENT = pb.Event(name="Bench", distinct_id="user-1", properties_json=json.dumps(PROPERTIES))
ONE = pb.TrackEventRequest(event=EVENT).SerializeToString()
MANY = pb.IngestRequest(records=[pb.Record(event=EVENT)] * BATCH).SerializeToString()
STREAMED = pb.IngestStreamRequest(records=[pb.Record(event=EVENT)] * BATCH).SerializeToString()

STORED = wire.event(EVENT, time.time_ns() // 1_000_000)
"""The record that the server makes of it, but for its id and its time, which are as long."""

ROW_BYTES = len(STORED.payload) + len(STORED.event_id) + 16
"""What a row of `events` holds: the payload, the id, and 16 bytes of numbers and headers."""


def streamed(sequence: int) -> bytes:
    """Return a request of a stream: protobuf messages that stand one behind the other are read as one."""
    return pb.IngestStreamRequest(sequence=sequence).SerializeToString() + STREAMED
