"""Counting by itself: buckets, rows, and that no text from outside becomes a label."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

from walbatch import event, ingest, json_text, rules, wire
from walbatch.delivery import ATTEMPTS, DELIVERED, Answer, Answered, Hold, Pause, Settled, Split, attempt_of
from walbatch.errors import InvalidRecord, NoRoom, Unavailable
from walbatch.metrics.counting import Counts, Deliveries, Histogram, Intake, Row
from walbatch.metrics.families import HELD, OTHER, REFUSALS, REJECTIONS, families
from walbatch.wal import tombstones

MODULES = [event, ingest, json_text, rules, tombstones, wire]
"""Where the records of calls are judged."""

NEVER_OF_A_RECORD = {"OUT_OF_ORDER"}
"""What ends a stream, and is said of none of its records."""


def reasons(module: ModuleType) -> Iterator[str]:
    """Return every reason that a module refuses a record with."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InvalidRecord":
            constants = (part.value for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant))
            yield from (value for value in constants if isinstance(value, str))


def subclasses(kind: type[Unavailable]) -> Iterator[type[Unavailable]]:
    """Return every kind of it that is raised: those that nothing else is a kind of."""
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def nonzero(counts: Counts, name: str) -> dict[Row, int]:
    """Return what was counted of one family."""
    return {row: counter.value for row, counter in counts.counters[name].items() if counter.value}


@pytest.mark.parametrize("module", MODULES)
def test_every_reason_is_a_label(module: ModuleType) -> None:
    """A reason that is new in the code has to be added to the list, else it is counted as OTHER."""
    assert {*reasons(module)} - NEVER_OF_A_RECORD <= {*REJECTIONS}


def test_every_listed_reason_is_used() -> None:
    """The list has nothing that cannot happen."""
    used = {reason for module in MODULES for reason in reasons(module)}
    assert {*REJECTIONS} == used - NEVER_OF_A_RECORD | {OTHER}
    assert {*REFUSALS} == {kind.reason for kind in subclasses(Unavailable)} - {NoRoom.reason} | {OTHER}


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    """As `le` says: less or equal."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 50.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 2], 56.6)


def test_what_is_not_listed_is_other() -> None:
    """A reason is counted, but its text is not told."""
    counts = Counts([])
    Intake(counts).not_stored(InvalidRecord("event.name", "user-4711", "is odd"), 2)
    assert nonzero(counts, "walbatch_events_rejected_total") == {(OTHER,): 2}


@pytest.mark.parametrize(
    ("method", "code", "counted"),
    [
        ("TrackEvent", "OK", {("TrackEvent", "OK"): 1}),
        ("TrackEvent", "DATA_LOSS", {("TrackEvent", "UNKNOWN"): 1}),
        ("Check", "OK", {}),
        ("IngestStream", "CANCELLED", {("IngestStream", "CANCELLED"): 1}),
    ],
)
def test_only_calls_with_records_are_counted(method: str, code: str, counted: dict[tuple[str, str], int]) -> None:
    """Health checks are not; a status that we never answer counts as UNKNOWN."""
    counts = Counts([])
    Intake(counts).ended(method, code)
    handled = nonzero(counts, "grpc_server_handled_total")
    assert {row[2:]: count for row, count in handled.items()} == counted


def test_a_batch_with_every_fate_is_counted() -> None:
    """What is held counts as dead, with a reason of its own; a status that is not listed is OTHER."""
    counts = Counts(["there"])
    fates = {"events": 10, "sent": 4, "dead": 3, "held": 2, "pending": 1, "dead_by_code": {400: 2, 418: 1}}
    answer = {"finished_at_ms": 5000, "oldest_at_ms": 2000, "attempt": 1, "answer": "400", "outcome": "partial"}
    sizes = {"payload_bytes": 900, "duration_s": 0.2}
    answered = Answered(destination="there", lane="profiles", **fates, **answer, **sizes)  # type: ignore[arg-type]
    Deliveries(counts).answered(answered)
    row = ("there", "profiles")
    assert nonzero(counts, "walbatch_events_sent_total") == {row: 4}
    dead = {(*row, "400"): 2, (*row, OTHER): 1, (*row, HELD): 2}
    assert nonzero(counts, "walbatch_events_dead_total") == dead
    (lag,) = counts.histograms["walbatch_delivery_lag_seconds"].values()
    assert lag.total == 3


@pytest.mark.parametrize(
    ("answer", "whole", "outcome"),
    [
        (Settled([DELIVERED]), True, "delivered"),
        (Settled([DELIVERED]), False, "partial"),
        (Split(413, "too large"), False, "partial"),
        (Hold("503"), False, "failed"),
        (Hold("429", throttled=True), False, "throttled"),
        (Pause("401"), False, "paused"),
    ],
)
def test_every_answer_has_an_outcome(answer: Answer, outcome: str, *, whole: bool) -> None:
    """It is one of the label's values."""
    assert attempt_of(answer, whole=whole) == outcome
    assert outcome in ATTEMPTS


@pytest.mark.parametrize("name", families())
def test_names_follow_the_conventions(name: str) -> None:
    """A prefix, base units, `_total` for counters alone; a help of one sentence or so, and something to do."""
    family = families()[name]
    assert name.startswith("walbatch_") or name == "grpc_server_handled_total"
    assert name.endswith("_total") == (family.type == "counter")
    assert not any(part in name for part in ("_ms", "milli", "_kb", "_mb", "percent"))
    assert family.help.endswith(".")
    assert "`" not in family.help
    assert family.action
    assert bool(family.buckets) == (family.type == "histogram")
    assert list(family.buckets) == sorted(set(family.buckets))
    assert name.isascii()
    assert name.islower()
