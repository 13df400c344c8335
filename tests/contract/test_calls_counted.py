"""How a call ended is told, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from calls import GatedLog, event, records, refusal, served

from walbatch.decoding import Decoding
from walbatch.errors import BacklogFull, CommitFailed
from walbatch.ingest import IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.clock import FakeClock

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub

TRACK = pb.TrackEventRequest(event=event())


class Told:
    """What was told of the ends of calls."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, method: str, code: str) -> None:
        """Keep what is told."""
        self.ends.put_nowait((method, code))

    async def next(self) -> tuple[str, str]:
        """Return the next end, once it was told."""
        async with asyncio.timeout(10):
            return await self.ends.get()


@pytest.fixture
def log(clock: FakeClock) -> GatedLog:
    """An empty log that can be held back."""
    return GatedLog(clock)


@pytest.fixture
def told() -> Told:
    """Nothing was told yet."""
    return Told()


@pytest.fixture
async def stub(service: IngestService, told: Told) -> AsyncIterator[Stub]:
    """A client of the service on a real port."""
    async with served(service, Decoding(told)) as stub:
        yield stub


@pytest.mark.parametrize(
    ("error", "code"),
    [(CommitFailed("x"), "UNAVAILABLE"), (BacklogFull("x"), "RESOURCE_EXHAUSTED"), (ZeroDivisionError(), "UNKNOWN")],
)
async def test_a_call_that_fails(stub: Stub, log: GatedLog, told: Told, error: Any, code: str) -> None:
    """The status that the client gets is the one that is told."""
    log.error = error
    assert (await refusal(stub.TrackEvent(TRACK))).code().name == code
    assert await told.next() == ("TrackEvent", code)


async def test_a_caller_that_gives_up(stub: Stub, log: GatedLog, told: Told) -> None:
    """Its end is told when it gives up, not when the log answers."""
    log.gate.clear()
    call = stub.TrackEvent(TRACK)
    await log.called.wait()
    call.cancel()
    assert await told.next() == ("TrackEvent", "CANCELLED")


async def test_a_stream_that_ends(stub: Stub, told: Told) -> None:
    """Once, after its last answer."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event())))
    await call.read()
    assert told.ends.empty()
    await call.done_writing()
    assert await told.next() == ("IngestStream", "OK")


async def test_a_stream_that_is_refused(stub: Stub, told: Told) -> None:
    """With the status of the refusal."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=0))
    assert (await refusal(call.read())).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await told.next() == ("IngestStream", "INVALID_ARGUMENT")


async def test_a_stream_that_is_cancelled(stub: Stub, told: Told) -> None:
    """While it waits for its next request."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event())))
    await call.read()
    call.cancel()
    assert await told.next() == ("IngestStream", "CANCELLED")
