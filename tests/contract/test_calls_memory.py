"""What a call leaves in memory: nothing, however it ends. Clients that send again what is refused would fill it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from calls import event, records, served
from leftovers import left_by

from walbatch.decoding import Decoding
from walbatch.ingest import MAX_RECORDS, IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.wal.sqlite import SqliteLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub

GOOD = event()
NAMELESS = pb.Event(distinct_id="u1")
ERASED = pb.Event(name="Tick", distinct_id="erased")


@pytest.fixture
async def stub(service: IngestService) -> AsyncIterator[Stub]:
    """A client of the service on a real port, with what stands around every call."""
    async with served(service, Decoding()) as stub:
        yield stub


async def _stream(stub: Stub, *requests: pb.IngestStreamRequest | bytes) -> None:
    call: Any = stub.IngestStream()
    for request in requests:
        if isinstance(request, bytes):
            call._request_serializer = bytes
        await call.write(request)
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


async def _broken_stream(stub: Stub) -> None:
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(GOOD)))
    await call.read()
    call.cancel()


async def _bytes(stub: Stub) -> None:
    call: Any = stub.TrackEvent
    call._request_serializer = bytes
    await call(b"\xff\xff\xff")


CALLS: dict[str, Callable[[Stub], Awaitable[object]]] = {
    "an event": lambda stub: stub.TrackEvent(pb.TrackEventRequest(event=GOOD)),
    "a refused event": lambda stub: stub.TrackEvent(pb.TrackEventRequest(event=NAMELESS)),
    "an event of an erased person": lambda stub: stub.TrackEvent(pb.TrackEventRequest(event=ERASED)),
    "a refused identification": lambda stub: stub.IdentifyUser(pb.IdentifyUserRequest()),
    "a batch": lambda stub: stub.Ingest(pb.IngestRequest(records=records(GOOD, NAMELESS, ERASED))),
    "too large a batch": lambda stub: stub.Ingest(pb.IngestRequest(records=records(GOOD) * (MAX_RECORDS + 1))),
    "no message": _bytes,
    "a stream": lambda stub: _stream(stub, pb.IngestStreamRequest(sequence=1, records=records(GOOD, NAMELESS))),
    "a stream out of order": lambda stub: _stream(stub, pb.IngestStreamRequest(records=records(GOOD))),
    "a stream with no message": lambda stub: _stream(stub, b"\xff\xff\xff"),
    "a stream that breaks": _broken_stream,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_was_said_is_not_kept(stub: Stub, log: SqliteLog, call: Callable[[Stub], Awaitable[object]]) -> None:
    """Neither the request nor the records nor the error of a call is left in a cycle."""
    await log.bury(["erased"])
    assert await left_by(partial(_ended, call, stub)) == set()


async def test_what_there_was_no_room_for_is_not_kept(stub: Stub, log: SqliteLog) -> None:
    """A client that sends again and again while the disk is full costs nothing."""
    log._admission.disk_full = True
    for name in "an event", "a batch", "a stream":
        assert await left_by(partial(_ended, CALLS[name], stub)) == set(), name


async def _ended(call: Callable[[Stub], Awaitable[object]], stub: Stub) -> None:
    with suppress(grpc.RpcError):
        await call(stub)
