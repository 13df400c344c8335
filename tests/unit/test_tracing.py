"""When there are traces at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from walbatch.tracing import NO_TRACING, exporting, is_wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_an_endpoint_asks_for_traces(environ: dict[str, str], *, wanted: bool) -> None:
    """The variables are those of every OpenTelemetry SDK."""
    assert is_wanted(environ) is wanted


def test_without_an_endpoint_there_are_none() -> None:
    """What is not asked for is not loaded."""
    with exporting({}) as tracing:
        assert tracing is NO_TRACING
    loaded = "import sys, walbatch.service; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_a_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server does not fail because its platform sets the endpoint for everything that it runs."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "walbatch.otel", raising=False)
    with capture_logs() as logs, exporting(ENDPOINT) as tracing:
        assert tracing is NO_TRACING
    (line,) = logs
    assert line["event"] == "tracing.not_installed"
    assert "walbatch[otel]" in line["fix"]
