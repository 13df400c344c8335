"""The room that all streams share for what they have read ahead: whoever leaves gives its part back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from calls import uncounted

from walbatch.ingest import IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.clock import FakeClock
from walbatch.wal.memory import MemoryLog

REQUEST = pb.IngestStreamRequest(
    sequence=1, records=[pb.Record(event=pb.Event(event_id="a", name="Tick", distinct_id="u1"))]
)


async def one_request(arrives: asyncio.Event) -> AsyncIterator[pb.IngestStreamRequest]:
    """A client that sends one request when it is told to, and keeps its stream open."""
    await arrives.wait()
    yield REQUEST
    await asyncio.Event().wait()


async def turn(times: int) -> None:
    """Let the event loop do whatever is ready, so many times."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_stream_that_is_cancelled_at_any_moment_gives_back_what_it_read_ahead() -> None:
    """Also a request that it had just taken out, and that nobody will store: else the room goes bit by bit."""
    service = IngestService(MemoryLog(["there"], FakeClock()), FakeClock(), intake=uncounted())
    ends: list[type[object]] = []
    for turns in range(20):
        before = asyncio.all_tasks()
        arrives = asyncio.Event()
        stream: Any = service.IngestStream(one_request(arrives), cast(Any, None))
        call = asyncio.ensure_future(anext(stream))
        await turn(10)  # until it waits for a request
        arrives.set()
        await turn(turns)
        call.cancel()
        ended = await asyncio.gather(call, return_exceptions=True)
        await stream.aclose()
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
        assert service._ahead._bytes == 0, f"after {turns} turns of the loop"
        ends += map(type, ended)
    assert {*ends} == {asyncio.CancelledError, pb.IngestStreamResponse}
