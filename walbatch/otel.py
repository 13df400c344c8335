"""`Tracing` by OpenTelemetry: spans go out by OTLP over HTTP, in the background. Needs the extra `otel`.

Names are those of the semantic conventions for RPC and for messaging
(https://opentelemetry.io/docs/specs/semconv/rpc/, https://opentelemetry.io/docs/specs/semconv/messaging/).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from walbatch import rich_errors
from walbatch.delivery import Answered
from walbatch.pb.analytics.v1 import service_pb2 as pb
from walbatch.tracing import Context, Delivery, Tracing
from walbatch.wal import Batch

FLUSH_S = 2.0
"""What the last spans may take at the end: a collector that is down must not hold up a stop."""

SERVICE = pb.DESCRIPTOR.services_by_name["AnalyticsService"].full_name

_PARENT = TraceContextTextMapPropagator()


@contextmanager
def exporting(environ: Mapping[str, str]) -> Iterator[Tracing]:
    """Yield what traces, with the SDK's own settings, which it reads from the process's environment."""
    resource = Resource.create(
        {"service.name": environ.get("OTEL_SERVICE_NAME") or "walbatch", "service.version": version("walbatch")}
    )
    # Its own end at the exit of the process would wait for the collector for as long as that takes.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield OtelTracing(provider)
    finally:
        ending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(FLUSH_S)


class OtelTracing:
    """`Tracing` with a provider of spans. The provider's sampler decides; its default follows the caller's choice."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("walbatch", version("walbatch"))

    @contextmanager
    def call(self, method: str, context: Context) -> Iterator[str]:
        """See `Tracing.call`."""
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        span = self._tracer.start_span(
            f"{SERVICE}/{method}",
            context=_PARENT.extract(metadata),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": f"{SERVICE}/{method}"},
        )
        status = grpc.StatusCode.OK
        try:
            yield traceparent(span.get_span_context())
        except BaseException as error:
            status = rich_errors.status_of(error, context)
            raise
        finally:
            _end_call(span, status)

    def delivery(self, batch: Batch) -> Delivery:
        """See `Tracing.delivery`."""
        span = self._tracer.start_span(
            f"send {batch.lane.destination}",
            kind=SpanKind.CLIENT,
            links=[Link(found) for trace in batch.traces if (found := span_context(trace)).is_valid],
            attributes={
                "messaging.system": "walbatch",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": batch.lane.destination,
                "messaging.batch.message_count": len(batch.offsets),
                "walbatch.lane": batch.lane.name,
            },
        )
        return _OtelDelivery(span)


class _OtelDelivery:
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, answered: Answered | None) -> None:
        """See `Delivery.end`."""
        if answered is None:
            self._span.set_attribute("error.type", "cut off")
        else:
            counts = {name: getattr(answered, name) for name in ("sent", "dead", "held", "pending", "attempt")}
            self._span.set_attributes({f"walbatch.{name}": count for name, count in counts.items()})
            if answered.sent != answered.events:
                # Not the answer's text, which may quote what was sent.
                self._span.set_attribute(
                    "error.type", next(name for name in ("pending", "held", "dead") if counts[name])
                )
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _end_call(span: Span, status: grpc.StatusCode) -> None:
    span.set_attribute("rpc.response.status_code", status.name)
    if status is not grpc.StatusCode.OK:
        span.set_attribute("error.type", status.name)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def traceparent(context: SpanContext) -> str:
    """Return what is stored of a span; nothing if it is not sampled."""
    if not context.trace_flags.sampled:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def span_context(trace: str) -> SpanContext:
    """Return the span that a stored text stands for; an invalid one if it is none."""
    return get_current_span(_PARENT.extract({"traceparent": trace})).get_span_context()
