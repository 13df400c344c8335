"""The counts, as plain numbers: changed in the event loop alone, which also reads them at a scrape, so without a lock.

The client library's own take a lock: 0.4 microseconds for a counter, 0.9 for a histogram (measured on 2 cores). A call
needs three of the one and one of the other, which is 0.6 with these, and a transaction needs three, which is 0.45. They
become the library's families at a scrape.
Every row is there from the start, at 0: a first error is then an increase that an alert can see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from walbatch.delivery import Answered
from walbatch.errors import InvalidRecord, Unavailable
from walbatch.metrics.families import HELD, OTHER, Family, families

Row = tuple[str, ...]
"""The values of a family's labels, in their order."""


class Counter:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """How often values fell into each bucket. `counts` are not cumulative; the last one is of what is beyond."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a bound belongs to the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts:
    """Every counter and histogram, by the name of its family and by row."""

    def __init__(self, destinations: Sequence[str]) -> None:
        self.counters: dict[str, dict[Row, Counter]] = {}
        self.histograms: dict[str, dict[Row, Histogram]] = {}
        for name, family in families().items():
            rows = list(_rows(family, destinations))
            if family.type == "counter":
                self.counters[name] = {row: Counter() for row in rows}
            elif family.type == "histogram":
                self.histograms[name] = {row: Histogram(family.buckets) for row in rows}


def _rows(family: Family, destinations: Sequence[str]) -> Iterable[Row]:
    for row in product(*(values or destinations for values in family.labels.values())):
        if "bidi_stream" not in row or "IngestStream" in row:
            yield row


class Intake:
    """Counts what clients send, and what they are answered."""

    def __init__(self, counts: Counts) -> None:
        self._received = {row[0]: one for row, one in counts.counters["walbatch_events_received_total"].items()}
        self._duplicates = counts.counters["walbatch_events_duplicate_total"][()]
        self._rejected = counts.counters["walbatch_events_rejected_total"]
        self._refused = counts.counters["walbatch_events_refused_total"]
        self._handled = {row[2:]: one for row, one in counts.counters["grpc_server_handled_total"].items()}
        self._ack_s = {row[0]: one for row, one in counts.histograms["walbatch_ingest_ack_duration_seconds"].items()}

    def received(self, method: str, records: int) -> None:
        """Count records that a call has brought, whatever becomes of them."""
        self._received[method].value += records

    def acknowledged(self, method: str, duplicates: int, duration_s: float) -> None:
        """Count an answer: what it names is on the disk, and some of it was there before."""
        if duplicates:
            self._duplicates.value += duplicates
        self._ack_s[method].observe(duration_s)

    def not_stored(self, error: InvalidRecord | Unavailable, records: int = 1) -> None:
        """Count records that were not stored, for good or for the moment."""
        table = self._rejected if isinstance(error, InvalidRecord) else self._refused
        _add(table, (error.reason,), records)

    def ended(self, method: str, code: str) -> None:
        """Count the end of a call by its status; calls that bring no records are not counted."""
        handled = self._handled.get((method, code)) or self._handled.get((method, "UNKNOWN"))
        if handled is not None:
            handled.value += 1


class Log:
    """Counts what the log does on the disk; `walbatch.wal.disk.Watching`."""

    def __init__(self, counts: Counts) -> None:
        self._accepted = counts.counters["walbatch_events_accepted_total"][()]
        self._commit_s = counts.histograms["walbatch_commit_duration_seconds"][()]
        self._commit_events = counts.histograms["walbatch_commit_events"][()]
        self._checkpoint_s = counts.histograms["walbatch_checkpoint_duration_seconds"][()]

    def committed(self, records: int, duration_s: float) -> None:
        """Count a transaction, and the records that it stored."""
        if records:
            self._accepted.value += records
            self._commit_events.observe(records)
        self._commit_s.observe(duration_s)

    def checkpointed(self, duration_s: float) -> None:
        """Count a checkpoint."""
        self._checkpoint_s.observe(duration_s)


class Deliveries:
    """Counts what destinations have answered."""

    def __init__(self, counts: Counts) -> None:
        self._sent = counts.counters["walbatch_events_sent_total"]
        self._dead = counts.counters["walbatch_events_dead_total"]
        self._attempts = counts.counters["walbatch_delivery_attempts_total"]
        self._duration_s = counts.histograms["walbatch_delivery_duration_seconds"]
        self._lag_s = counts.histograms["walbatch_delivery_lag_seconds"]
        self._events = counts.histograms["walbatch_batch_events"]
        self._bytes = counts.histograms["walbatch_batch_bytes"]

    def answered(self, answered: Answered) -> None:
        """Count a batch and what became of its records."""
        destination, lane = (answered.destination,), (answered.destination, answered.lane)
        self._attempts[*lane, answered.outcome].value += 1
        self._sent[lane].value += answered.sent
        for code, count in answered.dead_by_code.items():
            _add(self._dead, (*lane, str(code)), count)
        self._dead[*lane, HELD].value += answered.held
        self._duration_s[destination].observe(answered.duration_s)
        self._events[destination].observe(answered.events)
        self._bytes[destination].observe(answered.payload_bytes)
        if answered.sent:
            self._lag_s[destination].observe(max(answered.finished_at_ms - answered.oldest_at_ms, 0) / 1000)


def _add(table: Mapping[Row, Counter], row: Row, count: int) -> None:
    """Count in a row, or in the one for what is not listed: no text from outside becomes a label."""
    table[row if row in table else (*row[:-1], OTHER)].value += count
