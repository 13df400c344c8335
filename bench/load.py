"""A load generator in a process of its own: load.py ADDRESS MODE IN_FLIGHT SECONDS, and one JSON line when it is done.

MODE is `unary` (TrackEvent), `batch` (Ingest with 50 events) or `stream` (IngestStream with 50 events a request).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import grpc
import uvloop

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

BATCH = 50
WARM_UP_S = 0.5
if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub

PROPERTIES = json.dumps(
    {
        **{f"text_{n}": "a value of usual length" for n in range(4)},
        **{f"number_{n}": n * 1.5 for n in range(4)},
        "list": ["a", "b"],
        "object": {"plan": "pro"},
    }
)
EVENT = pb.Event(name="Bench", distinct_id="user-1", properties_json=PROPERTIES)
MANY = [pb.Record(event=EVENT)] * BATCH


def caller(stub: Stub, mode: str) -> tuple[Callable[[], Awaitable[object]], int]:
    """Return what one caller does again and again, and how many events that is."""
    if mode == "unary":
        return lambda: stub.TrackEvent(pb.TrackEventRequest(event=EVENT)), 1
    return lambda: stub.Ingest(pb.IngestRequest(records=MANY)), BATCH


async def closed_loop(stub: Stub, mode: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Keep so many calls under way, each caller waiting for its answer before the next."""
    call, size = caller(stub, mode)
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    latencies: list[float] = []

    async def work() -> None:
        while (started := time.perf_counter()) < end:
            await call()
            if started >= begin:
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    cuts = statistics.quantiles(latencies, n=100)
    return {"events_per_s": len(latencies) * size / seconds, "p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


async def stream(stub: Stub, seconds: float) -> dict[str, float]:
    """Send as fast as flow control allows, and count what is acknowledged."""
    end = time.perf_counter() + WARM_UP_S + seconds

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        sequence = 0
        while time.perf_counter() < end:
            sequence += 1
            yield pb.IngestStreamRequest(sequence=sequence, records=MANY)

    acked_at = [(time.perf_counter(), r.acked_sequence) async for r in stub.IngestStream(requests())]
    (first_s, first), (last_s, last) = acked_at[0], acked_at[-1]
    return {"events_per_s": (last - first) * BATCH / (last_s - first_s)}


async def main(address: str, mode: str, in_flight: int, seconds: float) -> None:
    """Run one measurement and print it."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Stub = AnalyticsServiceStub(channel)
        await channel.channel_ready()
        result = await (stream(stub, seconds) if mode == "stream" else closed_loop(stub, mode, in_flight, seconds))
    print(json.dumps(result))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
