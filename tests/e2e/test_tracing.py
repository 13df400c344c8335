"""A server whose spans go to a collector, by the protocol that collectors speak."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from programs import eventually, free_port, site

pytestmark = pytest.mark.e2e


class Collector:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        """Keep the spans of one request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            self.services.update(names)
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, part: str) -> list[Span]:
        """Return the spans with this in their name."""
        return [span for span in self.spans if part in span.name]


@contextmanager
def collecting() -> Iterator[tuple[Collector, int]]:
    """A collector on a port of this machine."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector, server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_of_calls_and_deliveries_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delivery's span is linked to that of the call, and both are sent at the latest at the end."""
    with collecting() as (collector, port), site(tmp_path) as here:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        here.sink()
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u-1")
        here.drained()
        assert server.stop() == 0
        (call,), (delivery,) = collector.named("AnalyticsService/"), collector.named("send mixpanel")
    assert [(link.trace_id, link.span_id) for link in delivery.links] == [(call.trace_id, call.span_id)]
    assert collector.services == {"walbatch"}


def test_a_collector_that_is_down_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are accepted and delivered, and the stop is orderly within its grace."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with site(tmp_path, shutdown_grace="10s") as here:
        here.sink()
        server = here.serve()
        here.run("send", "--event", "Tick", "--distinct-id", "u-1")
        eventually(lambda: here.stats()["sent"] == 1, "the event is delivered")
        assert server.stop() == 0, server.output()
