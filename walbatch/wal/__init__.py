"""The log's contract, the same for every engine.

    append    durable on return
    fetch     oldest first; a record that was handed out is not handed out again until it is settled, or the
              process ends: what is in flight is kept in memory only, so that a crash needs no repair
    settle    durable on return
    intend    for what must not be sent twice: durable on return, before it is sent
    pause     durable on return; from then on nothing is handed out for that destination, until it is resumed
    backlog   cheap at any size

`MemoryLog` is this contract as the shortest program that keeps it; `SqliteLog` keeps it on disk. One conformance
suite runs against both. Delivery state belongs to a lane (a destination and a kind), never to a record: each
destination has its own progress, and one that is down delays no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from walbatch.batching import BatchPolicy
from walbatch.delivery import Outcome
from walbatch.errors import InvalidRecord
from walbatch.event import Kind, Offset, Record
from walbatch.retry import Condition

MAX_TRACES = 128
"""That a batch tells: as many links as a span keeps (https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits)."""

LANES = {Kind.EVENT: "events", Kind.PROFILE: "profiles", Kind.GROUP: "groups"}
"""What the lane of each kind is called, in the database and to people."""


ORDERED = frozenset({Kind.PROFILE, Kind.GROUP})
"""Kinds of which one record may undo another: their order counts. Events carry their time."""


class Lane(NamedTuple):
    """One kind of record on its way to one destination."""

    destination: str
    kind: Kind

    @property
    def name(self) -> str:
        """Return the lane's name without the destination: `events`, `profiles` or `groups`."""
        return LANES[self.kind]


class Appended(NamedTuple):
    """Where a record is. A duplicate was stored before, at this offset, and nothing was added."""

    offset: Offset
    duplicate: bool


class Batch(NamedTuple):
    """What one fetch handed out: consecutive records of one lane.

    By column: there are so many records that an object for each would cost as much as to read them.
    """

    lane: Lane
    offsets: Sequence[Offset]
    payloads: Sequence[str]
    sizes: Sequence[int]
    """The bytes of each payload."""
    oldest_at_ms: int = 0
    """When the first of them was received; 0 if there is none."""
    traces: Sequence[str] = ()
    """Where some of the records came from, each once: what `Record.trace` has, if the log was asked to tell."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a batch. One outcome for each record, by position; `Retry` gives the record back."""

    batch: Batch
    outcomes: Sequence[Outcome]
    condition: Condition
    """The destination's condition after this attempt; stored in the same commit."""
    note: str
    """The answer in a word or a line, for the delivery's history. Never a payload, never a credential."""
    started_at_ms: int
    finished_at_ms: int


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """Counts of one lane. accepted = pending + sent + purged + dead + resolved + erased, at every moment."""

    name: str
    accepted: int
    pending: int
    """Owed to the destination, including what is in flight."""
    in_flight: int
    """Handed out and not settled."""
    sent: int
    """Delivered and still stored."""
    purged: int
    """Deleted by retention: delivered before, or owed to a destination that was not served any more."""
    dead: int
    """Refused by the destination, or held; kept for a person to decide."""
    held: int
    """Of those that are dead: it is not known whether the destination has them, and twice would be wrong."""
    resolved: int
    """Dead once, then dealt with: replayed, or discarded."""
    erased: int
    """Deleted because a person asked for it, whatever had become of them."""
    oldest_pending_at_ms: int | None


@dataclass(frozen=True, slots=True)
class DestinationBacklog:
    """One destination: how it is doing, and what it is owed."""

    name: str
    condition: Condition
    lanes: Sequence[LaneBacklog]
    paused_at_ms: int | None = None
    """Since when a person holds delivery to it back; None if nobody does."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was accepted, and how far each destination is."""

    accepted: int
    """Records stored, ever, replays included."""
    pending_bytes: int
    """Payload owed to the destination that is furthest behind."""
    destinations: Sequence[DestinationBacklog]


class EventLog(Protocol):
    """A durable, ordered log with a cursor for each lane. Entering the context opens and recovers it."""

    durability: str
    """What a return of `append` means: `fsynced`, `replicated` or `buffered`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Store records, all or none, in order; durable on return.

        A record with the `event_id`, name and distinct_id of a recently stored one, and not a different time, is
        a duplicate, unless it is a replay. Cancelling the caller does not cancel the commit. Each record is owed to
        the destinations that the log's router names.

        Raises:
            CommitFailed: nothing is known about any of them; send the same ids again.
            BacklogFull: nothing was stored; try again later.
            LogClosed: nothing was stored; the process is ending.
            InvalidRecord: one of them is refused, see `refusal`; nothing was stored.
        """
        ...

    async def append_one(self, make: Callable[[], Record], size: int) -> tuple[Record, Appended]:
        """Store the one record that `make` returns, like `append`; return it, and where it is.

        `make` is called when the record's group is about to be stored, one right after the other: in between calls of
        other code the processor's caches have forgotten it, and it takes four times as long. Until then the log
        keeps about `size` bytes.

        Raises:
            What `append` and `make` raise. An error of `make` is no other caller's.
        """
        ...

    def refusal(self, record: Record) -> InvalidRecord | None:
        """Return why a valid record is not taken all the same: a person in it was erased, and it is older than that.

        It holds until something is awaited: leave out what is refused, and append the others at once.
        """
        ...

    async def fetch(self, lane: Lane, policy: BatchPolicy, *, wait: bool = True) -> Batch:
        """Wait until a batch is due, and hand out the oldest records that are not handed out yet.

        Without `wait` it returns at once, with an empty batch if none is due.

        Records that were given back are due at once. When delivery lags, what came before and what comes from then
        on are handed out in turns (`walbatch.batching.Turns`), but never out of order in an ordered lane. A batch may
        be smaller than the policy allows. Cancel-safe: nothing is handed out then. One caller a lane at a time.
        While the destination is paused nothing is due.
        """
        ...

    def release(self, batch: Batch) -> None:
        """Give back a batch of which nothing was sent: it is handed out again, like anything that was given back."""
        ...

    async def intend(self, batch: Batch) -> None:
        """Note that a batch of an ordered lane is about to be sent; durable on return.

        If it is not settled before the process ends, its updates that would count twice (`event.repeatable`) are
        held as `Unknown` at the next start, instead of being handed out again. Needed only where that is the policy.

        Raises:
            CommitFailed, BacklogFull: it is not known to be noted; do not send.
        """
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Record what became of a batch; durable on return. Settling the same batch twice changes nothing.

        Raises:
            CommitFailed: nothing is known; settle the same batch again.
        """
        ...

    async def pause(self, destination: str, at_ms: int | None) -> bool:
        """Hand out nothing for a destination from this moment on; None resumes it. Durable on return.

        What is in flight stays so, and can be settled or given back. Says whether anything changed: a second pause
        leaves the time of the first.

        Raises:
            CommitFailed, BacklogFull: it is not known to be noted; ask again.
        """
        ...

    def make_due(self, destination: str) -> int:
        """Let everything that waits for a destination now be due at once, whatever the policy; return how much it is.

        What is in flight does not count. If the destination is paused, it is due at once after that.
        """
        ...

    async def backlog(self) -> Backlog:
        """Return counts and conditions, from one moment."""
        ...
