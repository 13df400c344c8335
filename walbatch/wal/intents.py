"""The SQL of what is about to be sent, and must not be sent twice.

What is in flight is known to memory only, and is sent again after a crash. Where an update would then count twice and
the destination's policy is to hold such updates, the batch is noted before it is sent. A note that is still there at
the next start means that the process ended in between: nobody knows what arrived.
"""

from __future__ import annotations

from walbatch.batching import BatchPolicy
from walbatch.delivery import RETRY, Outcome, Unknown
from walbatch.event import repeatable
from walbatch.wal import Batch, Lane, Settlement, store
from walbatch.wal.driver import Connection
from walbatch.wal.lanes import Span, runs

INTERRUPTED = Unknown("walbatch ended while this was being sent")


def add(connection: Connection, batch: Batch) -> None:
    """Note that a batch is about to be sent."""
    connection.execute(
        "INSERT INTO intents (destination, kind, first_seq, last_seq) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
        (*_lane(batch.lane), batch.offsets[0], batch.offsets[-1]),
    )


def remove(connection: Connection, batch: Batch) -> None:
    """Forget the note: the batch is settled."""
    connection.execute(
        "DELETE FROM intents WHERE destination = ? AND kind = ? AND first_seq = ?",
        (*_lane(batch.lane), batch.offsets[0]),
    )


def recover(connection: Connection, lane: Lane, bit: int, now_ms: int) -> int:
    """Hold what a former process may have sent, and return how many updates that is; the rest of it is sent again."""
    held = 0
    spans = connection.execute(
        "DELETE FROM intents WHERE destination = ? AND kind = ? RETURNING first_seq, last_seq", _lane(lane)
    ).fetchall()
    for span in spans:
        batch, _ = store.read_span(connection, lane, bit, Span(*span), _WHOLE)  # fewer, if some were purged
        outcomes: list[Outcome] = [
            RETRY if repeatable(lane.kind, payload) else INTERRUPTED for payload in batch.payloads
        ]
        condition = store.condition_of(connection, lane.destination)
        settlement = Settlement(batch, outcomes, condition, INTERRUPTED.reason, now_ms, now_ms)
        cut = [run for run in runs(batch, outcomes) if run.settled]
        store.settle(connection, settlement, cut, settled_through=0)
        held += outcomes.count(INTERRUPTED)
    return held


_WHOLE = BatchPolicy(max_size=2**31, max_bytes=2**62)


def _lane(lane: Lane) -> tuple[str, int]:
    return lane.destination, lane.kind.value
