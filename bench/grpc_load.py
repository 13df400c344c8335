"""A load generator in a process of its own: grpc_load.py ADDRESS MODE IN_FLIGHT SECONDS prints one JSON line.

MODE is `unary` (TrackEvent), `batch` (Ingest with 50 events), `stream` (IngestStream with 50 events a request) or
`paced` (TrackEvent at a fixed rate, whatever the answers do: IN_FLIGHT is then the calls of each second).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator

import grpc
import uvloop
from samples import BATCH, MANY, ONE, SERVICE, streamed

from walbatch.pb.analytics.v1 import service_pb2 as pb

WARM_UP_S = 0.5

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


async def answered(call: Call, request: bytes) -> bool:
    """Call, and say whether there was an answer: not if the transport refused the stream, and gRPC's second try."""
    try:
        await call(request)
    except grpc.aio.AioRpcError as error:
        if "RST_STREAM" not in (error.details() or ""):
            raise
        return False
    return True


async def closed_loop(channel: grpc.aio.Channel, mode: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Keep so many calls under way, each caller waiting for its answer before the next."""
    method, request, size = ("TrackEvent", ONE, 1) if mode == "unary" else ("Ingest", MANY, BATCH)
    call: Call = channel.unary_unary(f"/{SERVICE}/{method}")
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    latencies: list[float] = []
    calls = refused = 0

    async def work() -> None:
        nonlocal calls, refused
        while (started := time.perf_counter()) < end:
            if not await answered(call, request):
                refused += 1
                continue
            calls += 1
            if started >= begin:
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    taken = time.perf_counter() - begin
    return {"events": calls * size, "refused": refused, "events_per_s": len(latencies) * size / taken} | cuts(latencies)


async def paced(channel: grpc.aio.Channel, per_s: int, seconds: float) -> dict[str, float]:
    """Send at a fixed rate. `late_ms` is how late the calls left at the 99th percentile: the client's own fault."""
    call: Call = channel.unary_unary(f"/{SERVICE}/TrackEvent")
    begin = time.perf_counter()
    latencies: list[float] = []
    late: list[float] = []

    async def one() -> None:
        started = time.perf_counter()
        if await answered(call, ONE):
            latencies.append(time.perf_counter() - started)

    calls = []
    for number in range(round(per_s * (seconds + WARM_UP_S))):
        due = begin + number / per_s
        await asyncio.sleep(due - time.perf_counter())  # at least once around the loop, also when it is late
        late.append(max(time.perf_counter() - due, 0.0))
        calls.append(asyncio.create_task(one()))
    await asyncio.gather(*calls)
    cold = round(len(latencies) * WARM_UP_S / (seconds + WARM_UP_S))
    late_ms = statistics.quantiles(late[cold:], n=100)[98] * 1000
    return {"events": len(latencies), "refused": len(calls) - len(latencies), "late_ms": late_ms} | cuts(
        latencies[cold:]
    )


async def stream(channel: grpc.aio.Channel, seconds: float) -> dict[str, float]:
    """Send as fast as flow control allows, and count what is acknowledged."""
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    sent = 0

    async def requests() -> AsyncIterator[bytes]:
        nonlocal sent
        while time.perf_counter() < end:
            sent += 1
            yield streamed(sent)

    call: grpc.aio.StreamStreamMultiCallable[bytes, pb.IngestStreamResponse] = channel.stream_stream(
        f"/{SERVICE}/IngestStream", response_deserializer=pb.IngestStreamResponse.FromString
    )
    acked_at = [(time.perf_counter(), answer.acked_sequence) async for answer in call(requests())]
    acked_at = [(at_s, acked) for at_s, acked in acked_at if at_s >= begin]
    (first_s, first), (last_s, last) = acked_at[0], acked_at[-1]
    if last != sent:
        raise RuntimeError(f"{sent} requests were sent, {last} acknowledged")
    return {"events": sent * BATCH, "events_per_s": (last - first) * BATCH / (last_s - first_s)}


def cuts(latencies: list[float]) -> dict[str, float]:
    """Return the two percentiles of interest."""
    found = statistics.quantiles(latencies, n=100)
    return {"p50_ms": found[49] * 1000, "p99_ms": found[98] * 1000}


async def main(address: str, mode: str, in_flight: int, seconds: float) -> None:
    """Run one measurement and print it."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        match mode:
            case "stream":
                result = await stream(channel, seconds)
            case "paced":
                result = await paced(channel, in_flight, seconds)
            case _:
                result = await closed_loop(channel, mode, in_flight, seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
