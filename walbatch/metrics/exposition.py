"""The text of `GET /metrics`: the counts, the gauges of that moment, and what the library knows of the process."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from walbatch.metrics.counting import Counter, Counts, Deliveries, Histogram, Intake, Log, Row
from walbatch.metrics.families import Family, families
from walbatch.retry import State

Values = dict[str, dict[Row, float]]
"""By the name of the family, and by row."""

_TOTALS = {
    "walbatch_database_bytes": "database_bytes",
    "walbatch_wal_file_bytes": "wal_bytes",
    "walbatch_backlog_bytes": "pending_bytes",
}
_LANE_COUNTS = {
    "walbatch_events_pending": "pending",
    "walbatch_events_in_flight": "in_flight",
    "walbatch_dead_letters": "dead",
    "walbatch_dead_letters_held": "held",
}


class Metrics(Collector):
    """Everything that is told at a scrape, and what counts for it."""

    def __init__(self, destinations: Sequence[str], backlog_limit_bytes: int) -> None:
        self._counts = Counts(destinations)
        self._limit_bytes = backlog_limit_bytes
        self.intake = Intake(self._counts)
        self.log = Log(self._counts)
        self.deliveries = Deliveries(self._counts)
        self._gauges: Values = {}
        self._info: dict[str, str] = {}
        self._registry = CollectorRegistry()  # not the global one, which others may add to
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, document: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
        """Return the text of a scrape and its media type, as an `Accept` header asks for it.

        `document` is that of `walbatch.stats`, from this moment.
        """
        self._gauges = _gauges(document) | {"walbatch_backlog_limit_bytes": {(): self._limit_bytes}}
        self._info = {
            "version": version("walbatch"),
            "python": platform.python_version(),
            "sqlite": document["sqlite_version"],
        }
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its rows; the client library calls it."""
        for name, family in families().items():
            match family.type:
                case "counter":
                    yield _counter(family, self._counts.counters[name])
                case "histogram":
                    yield _histogram(family, self._counts.histograms[name])
                case "info":
                    yield InfoMetricFamily(name.removesuffix("_info"), family.help, self._info)
                case _:
                    yield _gauge(family, self._gauges[name])


def _gauges(document: Mapping[str, Any]) -> Values:
    values: Values = {name: {(): document[key]} for name, key in _TOTALS.items()}
    values["walbatch_accepting"] = {(): document["storage"]["accepting"]}
    values["walbatch_disk_free_bytes"] = {(): document["storage"]["free_bytes"]}
    destinations = document["destinations"]
    for name, key in _LANE_COUNTS.items():
        values[name] = {(d["name"], lane["name"]): lane[key] for d in destinations for lane in d["lanes"]}
    values["walbatch_oldest_pending_age_seconds"] = {(d["name"],): d["oldest_pending_age_s"] for d in destinations}
    values["walbatch_destination_up"] = {(d["name"],): d["state"] == State.OK for d in destinations}
    values["walbatch_destination_state"] = {(d["name"], s): d["state"] == s for d in destinations for s in State}
    values["walbatch_destination_paused"] = {(d["name"],): d["paused_at"] is not None for d in destinations}
    values["walbatch_backoff_until_timestamp_seconds"] = {(d["name"],): _unix_s(d["retry_at"]) for d in destinations}
    return values


def _unix_s(rfc3339: str | None) -> float:
    return datetime.fromisoformat(rfc3339).timestamp() if rfc3339 else 0.0


def _counter(family: Family, rows: Mapping[Row, Counter]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=[*family.labels])
    for row, counter in rows.items():
        metric.add_metric(row, counter.value)
    return metric


def _gauge(family: Family, rows: Mapping[Row, float]) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=[*family.labels], unit=family.unit)
    for row, value in rows.items():
        metric.add_metric(row, value)
    return metric


def _histogram(family: Family, rows: Mapping[Row, Histogram]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=[*family.labels], unit=family.unit)
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    for row, histogram in rows.items():
        metric.add_metric(row, [*zip(bounds, accumulate(histogram.counts), strict=True)], histogram.total)
    return metric
