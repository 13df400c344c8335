"""Spans of calls and deliveries, over a real port and a log on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from calls import Caller, Ended, GatedLog, event, uncounted
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from walbatch.batching import BatchPolicy
from walbatch.delivery import Answer, Hold, Rejected, Settled
from walbatch.errors import CommitFailed
from walbatch.event import Kind, Record, track
from walbatch.flusher import Flusher, Manner
from walbatch.ingest import IngestService
from walbatch.otel import OtelTracing, traceparent
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.retry import Backoff, Breaker
from walbatch.testing.clock import FakeClock
from walbatch.testing.sink import ScriptedSink
from walbatch.wal import MAX_TRACES, EventLog, Lane
from walbatch.wal.sqlite import SqliteLog

if TYPE_CHECKING:
    from walbatch.pb.analytics.v1.service_pb2_grpc import AnalyticsServiceAsyncStub as Stub

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
CALLER = f"00-{TRACE_ID:032x}-b7ad6b7169203331-01"
NOT_SAMPLED = CALLER[:-1] + "0"
EVENTS = Lane("there", Kind.EVENT)
SECRETS = ("u-secret", "Name-secret", "value-secret", "id-secret")


class Uncalled(Caller):
    """A client without a trace of its own."""

    def invocation_metadata(self) -> None:
        """Return what it sent along."""


NO_TRACE: Any = Uncalled()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """What keeps the spans that have ended."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> OtelTracing:
    """Tracing with the SDK's defaults."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelTracing(provider)


@pytest.fixture
async def log(directory: Path, clock: FakeClock) -> AsyncIterator[SqliteLog]:
    """A log that tells traces."""
    async with SqliteLog(directory, ["there"], clock, traced=True) as log:
        yield log


@pytest.fixture
def service(log: EventLog, clock: FakeClock, tracing: OtelTracing) -> IngestService:
    """The traced calls over the log of the test."""
    return IngestService(log, clock, intake=uncounted(), tracing=tracing)


async def fetched(log: EventLog) -> Sequence[str]:
    """Return the traces of all that waits."""
    return (await log.fetch(EVENTS, BatchPolicy().at_once(), wait=False)).traces


async def deliver(log: EventLog, clock: FakeClock, tracing: OtelTracing, *answers: Answer) -> None:
    """Send what waits, once for each answer, or until it is taken."""
    sink = ScriptedSink(answers)
    breaker = Breaker(Backoff(), clock, lambda: 0.0)
    policies = dict.fromkeys(Kind, BatchPolicy())
    flusher = Flusher(log, sink, "there", breaker=breaker, clock=clock, manner=Manner(policies), tracing=tracing)
    flusher.drain()
    await flusher.run()


def of_kind(exporter: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    """Return the spans of calls (SERVER) or of deliveries (CLIENT)."""
    return [span for span in exporter.get_finished_spans() if span.kind is kind]


def stored_form(span: ReadableSpan) -> str:
    """Return a span as it is stored with a record."""
    assert span.context
    return traceparent(span.context)


async def test_a_call_goes_on_with_its_callers_trace(
    stub: Stub, log: SqliteLog, exporter: InMemorySpanExporter
) -> None:
    """Its span has the caller's as its parent, and is stored with the event."""
    await stub.TrackEvent(pb.TrackEventRequest(event=event()), metadata=[("traceparent", CALLER)])
    (span,) = of_kind(exporter, SpanKind.SERVER)
    assert span.parent
    assert span.context
    assert (span.context.trace_id, f"{span.parent.span_id:016x}") == (TRACE_ID, "b7ad6b7169203331")
    assert span.name == "analytics.v1.AnalyticsService/TrackEvent"
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "analytics.v1.AnalyticsService/TrackEvent",
        "rpc.response.status_code": "OK",
    }
    assert await fetched(log) == (stored_form(span),)


async def test_a_call_without_a_trace_begins_one(stub: Stub, log: SqliteLog, exporter: InMemorySpanExporter) -> None:
    """As the SDK's sampler decides, which takes all by default."""
    await stub.TrackEvent(pb.TrackEventRequest(event=event()))
    (span,) = of_kind(exporter, SpanKind.SERVER)
    assert span.parent is None
    assert await fetched(log) == (stored_form(span),)


async def test_a_caller_that_does_not_sample_costs_nothing(
    stub: Stub, log: SqliteLog, exporter: InMemorySpanExporter
) -> None:
    """No span, and nothing is stored."""
    await stub.TrackEvent(pb.TrackEventRequest(event=event()), metadata=[("traceparent", NOT_SAMPLED)])
    assert not exporter.get_finished_spans()
    assert not await fetched(log)


@pytest.mark.parametrize("text", ["", "nonsense", "00-0-0-01", CALLER + "-more"])
async def test_what_is_no_traceparent_is_ignored(stub: Stub, exporter: InMemorySpanExporter, text: str) -> None:
    """The call is served, in a trace of its own."""
    await stub.TrackEvent(pb.TrackEventRequest(event=event()), metadata=[("traceparent", text)])
    (span,) = of_kind(exporter, SpanKind.SERVER)
    assert span.parent is None


async def test_a_refused_call_says_so(stub: Stub, exporter: InMemorySpanExporter) -> None:
    """By its status, without the text."""
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.TrackEvent(pb.TrackEventRequest(event=pb.Event()))
    spans = of_kind(exporter, SpanKind.SERVER)
    async with asyncio.timeout(10):
        while not spans:  # the client may have its answer before the call has ended
            await asyncio.sleep(0)
            spans = of_kind(exporter, SpanKind.SERVER)
    (span,) = spans
    assert span.attributes
    assert span.attributes["rpc.response.status_code"] == span.attributes["error.type"] == "INVALID_ARGUMENT"
    assert span.status.status_code is StatusCode.ERROR
    assert not span.status.description


async def test_a_call_that_is_given_up_says_so(
    service: IngestService, log: SqliteLog, exporter: InMemorySpanExporter
) -> None:
    """It may be stored all the same, and nobody was answered."""
    call = asyncio.create_task(service.TrackEvent(pb.TrackEventRequest(event=event()), NO_TRACE))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    (span,) = of_kind(exporter, SpanKind.SERVER)
    assert span.attributes
    assert span.attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_stream_that_cannot_be_stored_says_so(tracing: OtelTracing, exporter: InMemorySpanExporter) -> None:
    """The span is of the answer that never came."""
    clock = FakeClock()
    log = GatedLog(clock)
    log.error = CommitFailed("the disk refused")
    service = IngestService(log, clock, intake=uncounted(), tracing=tracing)

    async def requests() -> AsyncIterator[pb.IngestStreamRequest]:
        yield pb.IngestStreamRequest(sequence=1, records=[pb.Record(event=event())])

    with pytest.raises(Ended):
        await anext(service.IngestStream(requests(), NO_TRACE))
    (span,) = of_kind(exporter, SpanKind.SERVER)
    assert span.attributes
    assert span.attributes["rpc.response.status_code"] == "UNAVAILABLE"


async def test_all_records_of_a_call_have_its_trace(stub: Stub, log: SqliteLog, exporter: InMemorySpanExporter) -> None:
    """Batches, and IdentifyUser with its update and its link."""
    await stub.Ingest(pb.IngestRequest(records=[pb.Record(event=event()) for _ in range(3)]))
    await stub.IdentifyUser(pb.IdentifyUserRequest(user_id="u-1", anonymous_id="a-1", traits_json='{"plan": "pro"}'))
    ingest, identify = of_kind(exporter, SpanKind.SERVER)
    assert await fetched(log) == (stored_form(ingest), stored_form(identify))
    profiles = await log.fetch(Lane("there", Kind.PROFILE), BatchPolicy().at_once(), wait=False)
    assert profiles.traces == (stored_form(identify),)


async def test_each_answer_of_a_stream_has_a_span(stub: Stub, log: SqliteLog, exporter: InMemorySpanExporter) -> None:
    """A stream may last for weeks: its span would be told at its end."""
    call = stub.IngestStream(metadata=[("traceparent", CALLER)])
    for number in (1, 2):
        await call.write(pb.IngestStreamRequest(sequence=number, records=[pb.Record(event=event())]))
        await call.read()
    await call.done_writing()
    spans = of_kind(exporter, SpanKind.SERVER)
    assert await fetched(log) == tuple(stored_form(span) for span in spans)
    assert {span.context and span.context.trace_id for span in spans} == {TRACE_ID}
    assert len(spans) == 2


async def test_a_delivery_after_a_restart_is_linked_to_its_calls(
    directory: Path, clock: FakeClock, tracing: OtelTracing, exporter: InMemorySpanExporter
) -> None:
    """The trace does not end at the log."""
    records = [track(name="a", properties={}, now_ms=clock.wall_ms())._replace(trace=trace) for trace in (CALLER, "")]
    async with SqliteLog(directory, ["there"], clock) as log:
        await log.append(records)
    async with SqliteLog(directory, ["there"], clock, traced=True) as log:
        await deliver(log, clock, tracing)
    (span,) = of_kind(exporter, SpanKind.CLIENT)
    assert [traceparent(link.context) for link in span.links] == [CALLER]
    assert span.parent is None
    assert span.attributes
    assert span.attributes["messaging.batch.message_count"] == span.attributes["walbatch.sent"] == 2
    assert span.attributes["messaging.destination.name"] == "there"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(Hold("503 with value-secret"), "pending"), (Settled([Rejected(400, "", "u-secret is bad")], "400"), "dead")],
)
async def test_a_delivery_that_failed_says_how(
    log: SqliteLog, clock: FakeClock, tracing: OtelTracing, exporter: InMemorySpanExporter, *, answer: Answer, kind: str
) -> None:
    """In our word, since the destination's text may quote what it was sent."""
    await log.append([track(name="a", properties={}, now_ms=clock.wall_ms())])
    await deliver(log, clock, tracing, answer)
    (span,) = of_kind(exporter, SpanKind.CLIENT)
    assert span.attributes
    assert (span.attributes["error.type"], span.attributes[f"walbatch.{kind}"]) == (kind, 1)
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


async def test_no_span_has_an_id_or_a_property(
    stub: Stub, log: SqliteLog, clock: FakeClock, tracing: OtelTracing, exporter: InMemorySpanExporter
) -> None:
    """Spans go to another company as often as not."""
    secret = pb.Event(
        event_id="id-secret", name="Name-secret", distinct_id="u-secret", properties_json='{"p": "value-secret"}'
    )
    await stub.TrackEvent(pb.TrackEventRequest(event=secret))
    await deliver(log, clock, tracing)
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    assert not [word for word in SECRETS for span in spans if word in span.to_json()]


def numbered(count: int, clock: FakeClock) -> list[Record]:
    """Return two records for each of so many traces."""
    made = [track(name="a", properties={}, now_ms=clock.wall_ms()) for _ in range(2 * count)]
    return [record._replace(trace=f"00-{TRACE_ID:032x}-{n // 2 + 1:016x}-01") for n, record in enumerate(made)]


async def test_a_batch_tells_each_trace_once(either: EventLog, clock: FakeClock) -> None:
    """As many as a span has room for."""
    records = numbered(MAX_TRACES + 5, clock)
    await either.append(records)
    found = await fetched(either)
    assert len(found) == len({*found}) == MAX_TRACES
    assert {*found} <= {record.trace for record in records}
