"""A client in a process of its own: client ADDRESS MODE IN_FLIGHT SECONDS prints one JSON line.

MODE is `unary` (TrackEvent), `batch` (Ingest with 50 events) or `stream` (IngestStream with 50 events a request).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import uvloop

from walbatch.bench.samples import BATCH, MANY, ONE, SERVICE, streamed
from walbatch.pb.analytics.v1 import service_pb2 as pb

WARM_UP_S = 0.5
LEAST = 2
"""Answers that a figure takes: a load on a disk that hangs for a moment goes on until it has them."""

OPTIONS = [("grpc.enable_http_proxy", 0)]
"""A proxy for web pages does not lead to this server."""


async def answered(call: Callable[[bytes], Awaitable[Any]], request: bytes) -> Any:
    """Call, and return the answer: None if the transport refused the stream, and gRPC's second try."""
    try:
        return await call(request)
    except grpc.aio.AioRpcError as error:
        if "RST_STREAM" not in (error.details() or ""):
            raise
        return None


async def closed_loop(channel: grpc.aio.Channel, mode: str, in_flight: int, seconds: float) -> dict[str, Any]:
    """Keep so many calls under way, each caller waiting for its answer before the next."""
    method, request, size = ("TrackEvent", ONE, 1) if mode == "unary" else ("Ingest", MANY, BATCH)
    answer_type = pb.TrackEventResponse if mode == "unary" else pb.IngestResponse
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = channel.unary_unary(
        f"/{SERVICE}/{method}", response_deserializer=answer_type.FromString
    )
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    latencies: list[float] = []
    said: set[pb.Durability] = set()
    calls = refused = 0

    async def work() -> None:
        nonlocal calls, refused
        while (started := time.perf_counter()) < end or len(latencies) < LEAST:
            answer = await answered(call, request)
            if answer is None:
                refused += 1
                continue
            calls += 1
            said.add(answer.durability)
            if started >= begin:
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    taken = time.perf_counter() - begin
    counts = {"events": calls * size, "refused": refused, "events_per_s": len(latencies) * size / taken}
    return counts | cuts(latencies) | {"durability": names(said)}


async def stream(channel: grpc.aio.Channel, seconds: float) -> dict[str, Any]:
    """Send as fast as flow control allows, and count what is acknowledged."""
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    acked_at: list[tuple[float, int]] = []
    said: set[pb.Durability] = set()
    sent = 0

    async def requests() -> AsyncIterator[bytes]:
        nonlocal sent
        while time.perf_counter() < end or len(acked_at) < LEAST:
            sent += 1
            yield streamed(sent)

    call: grpc.aio.StreamStreamMultiCallable[bytes, pb.IngestStreamResponse] = channel.stream_stream(
        f"/{SERVICE}/IngestStream", response_deserializer=pb.IngestStreamResponse.FromString
    )
    async for answer in call(requests()):
        said.add(answer.durability)
        if (at_s := time.perf_counter()) >= begin:
            acked_at.append((at_s, answer.acked_sequence))
    (first_s, first), (last_s, last) = acked_at[0], acked_at[-1]
    if last != sent:
        sys.exit(f"{sent} requests were sent, {last} acknowledged")
    rate = (last - first) * BATCH / (last_s - first_s)
    return {"events": sent * BATCH, "events_per_s": rate, "durability": names(said)}


def cuts(latencies: list[float]) -> dict[str, float]:
    """Return the two percentiles of interest."""
    found = statistics.quantiles(latencies, n=100)
    return {"p50_ms": found[49] * 1000, "p99_ms": found[98] * 1000}


def names(durabilities: set[pb.Durability]) -> str:
    """Return what the answers said of their durability; more than one word if they differed."""
    return ", ".join(sorted(pb.Durability.Name(number) for number in durabilities))


async def main(address: str, mode: str, in_flight: int, seconds: float) -> None:
    """Run one measurement and print it."""
    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        await channel.channel_ready()
        try:
            result = await (
                stream(channel, seconds) if mode == "stream" else closed_loop(channel, mode, in_flight, seconds)
            )
        except grpc.aio.AioRpcError as error:
            sys.exit(f"a call was answered {error.code().name}: {error.details()}")
    print(json.dumps(result))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
