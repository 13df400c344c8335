"""Streams over a real socket: cumulative acknowledgements, and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from calls import Caller, Ended, GatedLog, event, records, refusal, unpack
from google.rpc import error_details_pb2 as details

from walbatch.ingest import IngestService
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.testing.clock import FakeClock

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub


@pytest.fixture
def log(clock: FakeClock) -> GatedLog:
    """An empty log that can be held back."""
    return GatedLog(clock)


async def test_a_stream_acknowledges_cumulatively_with_its_refusals(stub: Stub, log: GatedLog) -> None:
    """Every request is covered in the end, refusals say which request and record, and the counts add up."""

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        for sequence in range(1, 21):
            yield pb.IngestStreamRequest(sequence=sequence, records=records(event(f"E{sequence}"), event("")))

    replies = [reply async for reply in stub.IngestStream(requests())]
    acked = [reply.acked_sequence for reply in replies]
    assert acked == sorted(set(acked))
    assert acked[-1] == 20
    assert sum(reply.accepted_count for reply in replies) == 20
    refused = [(r.sequence, r.rejection.index) for reply in replies for r in reply.rejections]
    assert refused == [(sequence, 1) for sequence in range(1, 21)]
    assert {reply.durability for reply in replies} == {pb.DURABILITY_FSYNCED}
    assert len(await log.stored()) == 20


async def test_requests_that_arrive_during_a_commit_share_the_next(service: IngestService, log: GatedLog) -> None:
    """One append and one answer for all of them."""
    all_read = asyncio.Event()

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        yield pb.IngestStreamRequest(sequence=1, records=records(event()))
        await log.called.wait()
        for sequence in range(2, 11):
            yield pb.IngestStreamRequest(sequence=sequence, records=records(event()))
        all_read.set()

    log.gate.clear()
    stream: Any = service.IngestStream(requests(), None)  # type: ignore[arg-type]  # needed only to refuse
    first = asyncio.ensure_future(anext(stream))
    await all_read.wait()
    log.gate.set()
    assert [(await first).acked_sequence] + [reply.acked_sequence async for reply in stream] == [1, 10]
    assert log.calls == 2


async def test_a_stream_whose_numbers_do_not_rise_is_refused(stub: Stub, log: GatedLog) -> None:
    """What came before the wrong number is acknowledged, what came with it is not stored."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=2, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 2
    await call.write(pb.IngestStreamRequest(sequence=2, records=records(event("B"))))
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "OUT_OF_ORDER"
    assert len(await log.stored()) == 1


async def test_a_drain_ends_open_streams_after_what_they_were_acknowledged(
    stub: Stub, log: GatedLog, service: IngestService
) -> None:
    """A client that keeps its stream open is told to go on elsewhere."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    service.drain()
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert unpack(error, details.ErrorInfo).reason == "SHUTTING_DOWN"
    assert len(await log.stored()) == 1


async def test_a_cancelled_stream_leaves_nothing_running(stub: Stub, log: GatedLog) -> None:
    """The server goes on serving others after a client vanished in the middle of a stream."""
    log.gate.clear()
    call: Any = stub.IngestStream()
    for sequence in range(1, 60):
        await call.write(pb.IngestStreamRequest(sequence=sequence, records=records(event())))
    call.cancel()
    log.gate.set()
    assert (await stub.TrackEvent(pb.TrackEventRequest(event=event()))).event_id


async def test_a_request_of_a_stream_that_is_no_message_ends_it(stub: Stub, log: GatedLog) -> None:
    """What came before it is acknowledged; nobody waits for what cannot be read."""
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    call._request_serializer = bytes
    await call.write(b"\xff\xff\xff")
    error = await refusal(call.read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(error, details.ErrorInfo).reason == "NOT_A_MESSAGE"


async def test_a_cancelled_stream_leaves_no_task_behind(stub: Stub, service: IngestService) -> None:
    """Neither what read it nor what waited for its next request goes on, and nothing counts as read ahead."""
    before = asyncio.all_tasks()
    call: Any = stub.IngestStream()
    await call.write(pb.IngestStreamRequest(sequence=1, records=records(event("A"))))
    assert (await call.read()).acked_sequence == 1
    ours = {"_read", "Queue.get", "Event.wait"}  # the others are gRPC's own
    made: set[asyncio.Task[Any]] = set()
    while len(made) < 3:  # the answer may be read before the stream waits for its next request
        await asyncio.sleep(0)
        made = {task for task in asyncio.all_tasks() - before if getattr(task.get_coro(), "__qualname__", "") in ours}
    call.cancel()
    _, left = await asyncio.wait(made, timeout=10)
    assert not left
    assert service._ahead._bytes == 0


async def test_a_stream_that_broke_never_ends_with_ok(service: IngestService, log: GatedLog) -> None:
    """OK is for a client that has ended its stream itself; whose requests cannot be read any more has not."""

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        yield pb.IngestStreamRequest(sequence=1, records=records(event()))
        raise grpc.aio.UsageError("the call is over")

    stream = service.IngestStream(requests(), cast(Any, Caller()))
    assert (await anext(stream)).acked_sequence == 1
    with pytest.raises(Ended) as ended:
        await anext(stream)
    assert ended.value.args == (grpc.StatusCode.UNAVAILABLE,)
