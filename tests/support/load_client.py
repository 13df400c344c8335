"""A client under load: sends records for as long as it lives, and logs what it attempted and what was acknowledged.

Usage: load_client.py ADDRESS LOG NAME [--timed] [--calls-per-s N]. In turn it sends an event, a batch of events,
updates of its own profiles, and a stream of events, as fast as it goes or at a pace. A call whose outcome is unknown is
repeated with the same ids; every seventh is given up after one try instead, so that some outcomes stay unknown. Each
profile's updates set a version that rises, one call after the other, so that the order of the acknowledgements is the
order in which they must arrive.

With --timed the records say themselves when they happened; else the server does, at the first acceptance. A server with
a retention so short that it has forgotten a record by the time of the repeated call would give it another time.

An acknowledgement counts once it is on disk. After a fault of the file system that holds the log there is none to ask:
keep the log on another one than the database.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import canary
import grpc
from total_queue import update_id

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

BATCH = 20
PROFILES = 3
CALL_LIMIT_S = 5.0
GIVE_UP_EVERY = 7
_OPTIONS: dict[str, Any] = {"timeout": CALL_LIMIT_S, "wait_for_ready": True}  # while there is no server, wait for one
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 20),
]


@dataclass(frozen=True, slots=True)
class Call:
    """Records that are sent in so many requests, and their ids."""

    ids: list[str]
    records: list[pb.Record]
    stream: bool = False

    def send(self, stub: AnalyticsServiceStub) -> None:
        """Return once all of it is acknowledged; `grpc.RpcError` if that is not known."""
        if self.stream:
            self._send_stream(stub)
        elif len(self.records) == 1:
            stub.TrackEvent(pb.TrackEventRequest(event=self.records[0].event), **_OPTIONS)
        else:
            reply = stub.Ingest(pb.IngestRequest(records=self.records), **_OPTIONS)
            assert reply.accepted_count + reply.duplicate_count == len(self.records), reply

    def _send_stream(self, stub: AnalyticsServiceStub) -> None:
        half = len(self.records) // 2
        parts = (self.records[:half], self.records[half:])
        requests = [pb.IngestStreamRequest(sequence=n, records=part) for n, part in enumerate(parts, 1)]
        replies = list(stub.IngestStream(iter(requests), **_OPTIONS))
        assert replies[-1].acked_sequence == len(parts), replies
        assert not any(reply.rejections for reply in replies), replies


def main(address: str, log_path: Path, name: str, *, timed: bool, pause_s: float) -> None:
    """Send until killed."""
    never = threading.Event()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with grpc.insecure_channel(address, _CHANNEL_OPTIONS) as channel:
        stub = AnalyticsServiceStub(channel)
        for number, call in enumerate(_calls(name, timed=timed), 1):
            os.write(log, "".join(f"attempt {record_id}\n" for record_id in call.ids).encode())
            if _sent(stub, call, tries=10_000 if number % GIVE_UP_EVERY else 1):
                os.write(log, "".join(f"ack {record_id}\n" for record_id in call.ids).encode())
                os.fsync(log)
            never.wait(pause_s)


def _sent(stub: AnalyticsServiceStub, call: Call, tries: int) -> bool:
    """Say whether the records were acknowledged."""
    for _ in range(tries):
        try:
            call.send(stub)
        except grpc.RpcError:
            continue
        return True
    return False


def _calls(name: str, *, timed: bool) -> Iterator[Call]:
    for number in count():
        happened_at_s = int(time.time()) if timed else None
        match number % 4:
            case 0:
                yield _events([f"{name}-{number}-0"], happened_at_s)
            case 1:
                yield _events([f"{name}-{number}-{index}" for index in range(BATCH)], happened_at_s)
            case 2:
                yield _updates([f"{name}-p{index}" for index in range(PROFILES)], number, happened_at_s)
            case _:
                yield _events([f"{name}-{number}-{index}" for index in range(BATCH)], happened_at_s, stream=True)


def _events(ids: list[str], happened_at_s: int | None, *, stream: bool = False) -> Call:
    text = json.dumps({canary.NAME: f"Ærøskøbing {canary.VALUE}"}, ensure_ascii=False)
    events = [pb.Event(event_id=one, name="Load", distinct_id=canary.PERSON, properties_json=text) for one in ids]
    if happened_at_s is not None:
        for event in events:
            event.event_time.FromSeconds(happened_at_s)
    return Call(ids, [pb.Record(event=event) for event in events], stream)


def _updates(distinct_ids: list[str], version: int, happened_at_s: int | None) -> Call:
    """Set two versions of each profile, one after the other in the same request."""
    pairs = [(distinct_id, one) for one in (version, version + 1) for distinct_id in distinct_ids]
    records = [
        pb.Record(
            profile_update=pb.ProfileUpdate(
                update_id=update_id(distinct_id, one),
                distinct_id=distinct_id,
                set=pb.Properties(json=json.dumps({"version": one})),
            )
        )
        for distinct_id, one in pairs
    ]
    if happened_at_s is not None:
        for record in records:
            record.profile_update.update_time.FromSeconds(happened_at_s)
    return Call([update_id(*pair) for pair in pairs], records)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("log", type=Path)
    parser.add_argument("name")
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--calls-per-s", type=float, default=math.inf)
    given = parser.parse_args()
    main(given.address, given.log, given.name, timed=given.timed, pause_s=1 / given.calls_per_s)
