"""TrackEvent at a fixed rate, whatever the answers do: paced.py ADDRESS CALLS_PER_S SECONDS prints one JSON line."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import grpc
import uvloop

from walbatch.bench.client import WARM_UP_S, answered, cuts
from walbatch.bench.samples import ONE, SERVICE


async def paced(channel: grpc.aio.Channel, per_s: int, seconds: float) -> dict[str, float]:
    """Send at a fixed rate. `late_ms` is how late the calls left at the 99th percentile: the client's own fault."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/TrackEvent")
    begin = time.perf_counter()
    latencies: list[float] = []
    late: list[float] = []

    async def one() -> None:
        started = time.perf_counter()
        if await answered(call, ONE) is not None:
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


async def main(address: str, per_s: int, seconds: float) -> None:
    """Run one measurement and print it."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        print(json.dumps(await paced(channel, per_s, seconds)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
