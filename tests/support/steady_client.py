"""A well-behaved client in a thread: a call at a time, at a steady pace, with a log of what was attempted and acked.

Each call has a batch of events; with `updates` also one update of the client's own profile, whose version rises.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

import canary
import grpc
from total_queue import update_id

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

TIME_MS = 1_764_000_000_000
"""The time of the first event; each later one is a millisecond later."""


class SteadyClient:
    """Sends batches until it is stopped. A call that failed is told in `failures`, and repeated with the same ids."""

    def __init__(
        self,
        address: str,
        log: Path,
        *,
        batch: int = 10,
        pause_s: float = 0.02,
        text_bytes: int = 0,
        updates: bool = False,
    ) -> None:
        self.log = log
        self.acked = 0
        self.latencies_s: list[float] = []
        self.failures: list[str] = []
        self._address = address
        self._batch = batch
        self._updates = updates
        self._pause_s = pause_s
        self._text_bytes = text_bytes
        self._random = Random(log.stem)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client {log.stem}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the call under way, if it was started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def median_s(self) -> float:
        """Return how long a call took, in the middle."""
        return statistics.median(self.latencies_s)

    def _run(self) -> None:
        with (
            grpc.insecure_channel(self._address, [("grpc.max_reconnect_backoff_ms", 100)]) as channel,
            self.log.open("a") as log,
        ):
            stub = AnalyticsServiceStub(channel)
            for number in count():
                if self._ended.wait(self._pause_s):
                    return
                ids = [f"{self.log.stem}-{number}-{index}" for index in range(self._batch)]
                records = list(self._events(ids, TIME_MS + number * self._batch))
                if self._updates:
                    ids.append(update_id(self.log.stem, number))
                    records.append(pb.Record(profile_update=self._update(ids[-1], number)))
                log.writelines(f"attempt {record_id}\n" for record_id in ids)
                if self._send(stub, records):
                    log.writelines(f"ack {record_id}\n" for record_id in ids)
                    self.acked += len(ids)
                log.flush()

    def _events(self, ids: list[str], time_ms: int) -> Iterator[pb.Record]:
        for index, event_id in enumerate(ids):
            event = pb.Event(event_id=event_id, name="Steady", distinct_id=canary.PERSON)
            event.event_time.FromMilliseconds(time_ms + index)
            text = self._random.randbytes(self._text_bytes // 2).hex()  # nothing that could be compressed away
            event.properties_json = f'{{"text":"{text}"}}'
            yield pb.Record(event=event)

    def _update(self, record_id: str, version: int) -> pb.ProfileUpdate:
        version_json = pb.Properties(json=f'{{"version":{version}}}')
        return pb.ProfileUpdate(update_id=record_id, distinct_id=self.log.stem, set=version_json)

    def _send(self, stub: AnalyticsServiceStub, records: list[pb.Record]) -> bool:
        while True:
            began_s = time.monotonic()
            try:
                reply = stub.Ingest(pb.IngestRequest(records=records), timeout=10)
            except grpc.RpcError as error:
                self.failures.append(f"{error.code().name}: {error.details()}")
                if self._ended.wait(self._pause_s):
                    return False
                continue
            self.latencies_s.append(time.monotonic() - began_s)
            return reply.accepted_count + reply.duplicate_count == len(records)


@contextmanager
def steady(
    address: str, log: Path, *, batch: int = 10, pause_s: float = 0.02, text_bytes: int = 0, updates: bool = False
) -> Iterator[SteadyClient]:
    """A client that sends as long as the block runs."""
    client = SteadyClient(address, log, batch=batch, pause_s=pause_s, text_bytes=text_bytes, updates=updates)
    client.start()
    try:
        yield client
    finally:
        client.stop()
