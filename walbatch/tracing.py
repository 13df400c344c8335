"""Traces: a span for each call that brings records, and one for each delivery, with links to the calls of its records.

A delivery has no single parent, since its records came with many calls. The `traceparent` of a call is stored with its
records (https://www.w3.org/TR/trace-context/), so a trace goes on behind the log, days and restarts later.

Off, at no cost but a call of a function that does nothing, unless an endpoint is set in the variables that every
OpenTelemetry SDK reads (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). `walbatch.otel` does the rest; it
is imported only then, as its libraries are an extra.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import grpc
import structlog

from walbatch.delivery import Answered
from walbatch.wal import Batch

log = structlog.stdlib.get_logger("walbatch.tracing")

Context = grpc.aio.ServicerContext[Any, Any]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""One of these says where spans go."""


class Delivery(Protocol):
    """The span of one delivery, begun when it was made."""

    def end(self, answered: Answered | None) -> None:
        """End it with the answer; None if it was cut off by a stop, so that there is none."""
        ...


class Tracing(Protocol):
    """Begins spans. None of them has a property or an id of a record."""

    def call(self, method: str, context: Context) -> AbstractContextManager[str]:
        """Begin the span of a call; leaving it ends it, with the call's status.

        The value is the `traceparent` to store with the records of the call: empty if the call is not sampled.
        """
        ...

    def delivery(self, batch: Batch) -> Delivery:
        """Begin the span of a delivery."""
        ...


class _NoTracing:
    """Does nothing."""

    def call(self, method: str, context: Context) -> AbstractContextManager[str]:
        del method, context
        return _NO_CALL

    def delivery(self, batch: Batch) -> Delivery:
        del batch
        return _NO_DELIVERY


class _NoDelivery:
    def end(self, answered: Answered | None) -> None:
        pass


_NO_CALL = nullcontext("")
_NO_DELIVERY = _NoDelivery()

NO_TRACING: Tracing = _NoTracing()


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Say whether an environment asks for traces: by an endpoint, and not switched off by one of the usual switches."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(environ.get(name) for name in ENDPOINTS)


@contextmanager
def exporting(environ: Mapping[str, str] = os.environ) -> Iterator[Tracing]:
    """Yield what traces, as the environment asks for it. At the end the last spans are sent, for two seconds at most.

    Without the extra `otel` there are no traces, and a warning: platforms set the endpoint for whatever they run.
    """
    if not is_wanted(environ):
        yield NO_TRACING
        return
    try:
        otel = importlib.import_module("walbatch.otel")
    except ImportError as error:
        log.warning("tracing.not_installed", missing=error.name, fix="pip install 'walbatch[otel]'")
        yield NO_TRACING
        return
    with otel.exporting(environ) as tracing:
        yield tracing
