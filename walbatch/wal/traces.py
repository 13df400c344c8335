"""Reading a batch together with the traces of its records."""

from __future__ import annotations

from walbatch.batching import BatchPolicy
from walbatch.wal import MAX_TRACES, Batch, Lane, store
from walbatch.wal.driver import Connection
from walbatch.wal.lanes import Span


def read_span(
    connection: Connection, lane: Lane, bit: int, span: Span, policy: BatchPolicy
) -> tuple[Batch, int | None]:
    """Return what `store.read_span` does, with `Batch.traces`."""
    batch, next_at_ms = store.read_span(connection, lane, bit, span, policy)
    if not batch.offsets:
        return batch, next_at_ms
    # By the span, not one by one: a record in between that is for others adds another caller at worst.
    rows = connection.execute(
        f"SELECT DISTINCT trace FROM events WHERE {store.OF_KIND[lane.kind]} AND trace IS NOT NULL"
        " AND seq BETWEEN ? AND ? LIMIT ?",
        (batch.offsets[0], batch.offsets[-1], MAX_TRACES),
    ).fetchall()
    return batch._replace(traces=tuple(trace for (trace,) in rows)), next_at_ms
