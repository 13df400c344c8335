"""A client that cancels most of its calls and streams at random moments: fickle_client.py ADDRESS LOG SECONDS.

What was acknowledged before it cancelled counts as acknowledged, all else as attempted.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TextIO

import canary
import grpc

from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceStub

if TYPE_CHECKING:  # there is one class for both kinds of channels, with two names in its stub file
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub

CALLERS = 16
MOST_S = 0.02
"""The longest time that a call is given: a few commits."""
GIVEN_UP_S = 0.5


class Fickle:
    """One caller."""

    def __init__(self, stub: AnalyticsServiceAsyncStub, log: TextIO, random: Random, ids: Iterator[str]) -> None:
        self._stub = stub
        self._log = log
        self._random = random
        self._ids = ids

    async def run(self, until_s: float) -> None:
        """Call again and again."""
        while time.monotonic() < until_s:
            call = self._random.choice((self._cancelled, self._in_no_time, self._stream))
            # An invalid state is how a write learns that its call was cancelled; sometimes it never does.
            with suppress(grpc.RpcError, asyncio.CancelledError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(GIVEN_UP_S):
                    await call()

    def _records(self, count: int) -> tuple[list[str], list[pb.Record]]:
        ids = [next(self._ids) for _ in range(count)]
        self._log.writelines(f"attempt {event_id}\n" for event_id in ids)
        return ids, [pb.Record(event=pb.Event(event_id=i, name="Fickle", distinct_id=canary.PERSON)) for i in ids]

    def _acked(self, ids: list[str]) -> None:
        self._log.writelines(f"ack {event_id}\n" for event_id in ids)

    async def _cancelled(self) -> None:
        ids, records = self._records(10)
        call = self._stub.Ingest(pb.IngestRequest(records=records), timeout=10)
        asyncio.get_running_loop().call_later(self._random.uniform(0, MOST_S), call.cancel)
        await call
        self._acked(ids)

    async def _in_no_time(self) -> None:
        ids, records = self._records(10)
        await self._stub.Ingest(pb.IngestRequest(records=records), timeout=self._random.uniform(0.0001, MOST_S))
        self._acked(ids)

    async def _stream(self) -> None:
        call = self._stub.IngestStream(timeout=10)
        asyncio.get_running_loop().call_later(self._random.uniform(0, 3 * MOST_S), call.cancel)
        sent: list[list[str]] = []
        for sequence in range(1, 6):
            ids, records = self._records(5)
            sent.append(ids)
            await call.write(pb.IngestStreamRequest(sequence=sequence, records=records))
            if self._random.random() < 0.5 and isinstance(reply := await call.read(), pb.IngestStreamResponse):
                for done in sent[: reply.acked_sequence]:
                    self._acked(done)


async def main(address: str, path: Path, seconds: float) -> None:
    """Run all callers on one connection, for so long."""
    ids = (f"{path.stem}-{number}" for number in itertools.count())
    until_s = time.monotonic() + seconds
    with path.open("a") as log:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: AnalyticsServiceAsyncStub = AnalyticsServiceStub(channel)
            callers = [Fickle(stub, log, Random(number), ids) for number in range(CALLERS)]
            runs: list[Callable[[float], Awaitable[None]]] = [caller.run for caller in callers]
            await asyncio.gather(*(run(until_s) for run in runs))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
