"""What one commit stores: planned in the event loop, run in the writer's thread, answered after the COMMIT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from walbatch.batching import byte_length
from walbatch.event import Kind, Offset, Record
from walbatch.routing import Router
from walbatch.wal import ORDERED, Appended, Batch, Lane, Settlement, dead_letters, erasure, intents, store
from walbatch.wal.driver import Connection
from walbatch.wal.erasure import Found, Quote
from walbatch.wal.lanes import LaneState, Run, runs
from walbatch.wal.purge import Purged, purge
from walbatch.wal.recent import Key, RecentIds, key_of
from walbatch.wal.tombstones import Tombstone

ROW_BYTES = 256
"""What a row takes besides its payload, in memory and on disk, roughly."""

PURGED_BEYOND = 32
"""Beside new records a purge looks at as many as they are, and at so many more, so that it gets ahead of them."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Of `size` records behind an offset delete those that were received before a time and are settled everywhere.

    Beside new records it looks at fewer: see `PURGED_BEYOND`.
    """

    before_ms: int
    after: int
    size: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Close the open dead letters of these records at one destination: they will never be sent there."""

    destination: str
    offsets: Sequence[Offset]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Intent:
    """Note that a batch is about to be sent."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Chore:
    """Something small to do within the transaction."""

    run: Callable[[Connection], int]


@dataclass(frozen=True, slots=True)
class Bury:
    """Remember that people were erased."""

    stones: Sequence[Tombstone]


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete these records, but for those that are in flight."""

    offsets: Sequence[Offset]


@dataclass(frozen=True, slots=True)
class Blank:
    """Replace texts of destinations."""

    quotes: Sequence[Quote]


class Erased(NamedTuple):
    """What was deleted, and what was left because it is in flight."""

    found: Found
    in_flight: Sequence[Offset]


Rarer = Settlement | Purge | Discard | Intent | Chore | Bury | Erase | Blank
Write = list[Record] | Rarer
Answer = list[Appended] | Purged | int | Erased | None
"""What a write is answered: where its records are, what was deleted, how many were closed, or nothing."""


@dataclass(slots=True)
class Transaction:
    """Several writes as one. What is found out while it runs, such as `offsets`, is known after it, by position."""

    records: list[Record] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    """What each record is recognised by."""
    routes: list[store.Route] = field(default_factory=list)
    """Whom each record is for."""
    tallies: dict[tuple[Kind, store.Route], list[int]] = field(default_factory=lambda: defaultdict(list))
    """The bytes of the records, by kind and route."""
    settlements: list[tuple[Settlement, list[Run], int]] = field(default_factory=list)
    """Each with its runs, and the watermark of its lane after it."""
    purges: list[Purge] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    chores: list[Chore] = field(default_factory=list)
    burials: list[Bury] = field(default_factory=list)
    erasures: list[Sequence[Offset]] = field(default_factory=list)
    blanks: list[Blank] = field(default_factory=list)
    offsets: Sequence[Offset] = ()
    purged: list[Purged] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    discarded: list[int] = field(default_factory=list)
    erased: list[Found] = field(default_factory=list)
    answers: list[Callable[[], Answer]] = field(default_factory=list)
    """What each write is answered, by position; to be called once it has run."""

    @property
    def weight(self) -> int:
        """About how many bytes the rows of its records take."""
        return len(self.records) * ROW_BYTES + sum(map(sum, self.tallies.values()))

    def run(self, connection: Connection, lanes: Iterable[Lane], bits: Mapping[str, int]) -> None:
        """Store everything or nothing. After an error from COMMIT itself it is unknown which."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Purges come first: the new records take the pages that they empty, which are then written once, not twice.
            self.purged = [self._purge(connection, lanes, one) for one in self.purges]
            self.offsets = store.append(connection, self.records, self.routes, bits)
            store.count_accepted(connection, self.tallies)
            for settlement, cut, settled_through in self.settlements:
                store.settle(connection, settlement, [run for run in cut if run.settled], settled_through)
                if settlement.batch.lane.kind in ORDERED:
                    intents.remove(connection, settlement.batch)
            for intent in self.intents:
                intents.add(connection, intent.batch)
            self.discarded = [_discard(connection, discard) for discard in self.discards]
            self.done = [chore.run(connection) for chore in self.chores]
            for burial in self.burials:
                erasure.bury(connection, burial.stones)
            self.erased = [erasure.erase(connection, offsets) for offsets in self.erasures]
            for one in self.blanks:
                erasure.blank(connection, one.quotes)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _purge(self, connection: Connection, lanes: Iterable[Lane], one: Purge) -> Purged:
        size = min(one.size, len(self.records) + PURGED_BEYOND) if self.records else one.size
        return purge(connection, lanes, one.before_ms, one.after, size)


def _discard(connection: Connection, discard: Discard) -> int:
    closed = (
        dead_letters.resolve(connection, discard.destination, offset, "discarded", discard.now_ms)
        for offset in discard.offsets
    )
    return sum(closed)


class Planner:
    """Turns the writes of one group into a transaction, by what is durable at this moment. Changes nothing else."""

    def __init__(self, recent: RecentIds, states: Mapping[Lane, LaneState], router: Router) -> None:
        self._recent = recent
        self._router = router
        self._states = states
        self._seen = RecentIds()  # of this group; the offsets in it are positions in the transaction's records
        self._settled: dict[Lane, set[Offset]] = {lane: set() for lane in states}
        self._given_back: dict[Lane, list[Run]] = {lane: [] for lane in states}
        self._planned = Transaction()

    def plan(self, writes: Iterable[Write]) -> Transaction:
        """Return the transaction of these writes, to be called once."""
        for write in writes:
            answer = self._append(write) if isinstance(write, list) else self._note(write)
            self._planned.answers.append(answer)
        return self._planned

    def _note(self, write: Rarer) -> Callable[[], Answer]:
        """Plan anything but new records, and return what answers it."""
        planned = self._planned
        match write:
            case Settlement():
                self._settle(write)
            case Intent():
                planned.intents.append(write)
            case Bury():
                planned.burials.append(write)
            case Blank():
                planned.blanks.append(write)
            case Purge():
                planned.purges.append(write)
                return partial(self._purged, len(planned.purges) - 1)
            case Discard():
                planned.discards.append(write)
                return partial(self._discarded, len(planned.discards) - 1)
            case Chore():
                planned.chores.append(write)
                return partial(self._done, len(planned.chores) - 1)
            case Erase():
                return self._erase(write)
        return lambda: None

    def _done(self, position: int) -> int:
        return self._planned.done[position]

    def _purged(self, position: int) -> Purged:
        return self._planned.purged[position]

    def _discarded(self, position: int) -> int:
        return self._planned.discarded[position]

    def _erase(self, write: Erase) -> Callable[[], Erased]:
        in_flight = frozenset(chain.from_iterable(state.in_flight for state in self._states.values()))
        position = len(self._planned.erasures)
        self._planned.erasures.append([offset for offset in write.offsets if offset not in in_flight])
        left = [offset for offset in write.offsets if offset in in_flight]
        return lambda: Erased(self._planned.erased[position], left)

    def _append(self, records: Sequence[Record]) -> Callable[[], list[Appended]]:
        places = [self._place(record) for record in records]

        def answer() -> list[Appended]:
            offsets = self._planned.offsets
            return [
                Appended(offsets[position] if stored is None else stored, duplicate)
                for stored, position, duplicate in places
            ]

        return answer

    def _place(self, record: Record) -> tuple[Offset | None, int, bool]:
        """Return where a record is or will be: its offset if it is stored, else its position in the transaction."""
        key = key_of(record.event_id, record.name, record.distinct_id)
        stored = self._recent.find(key, record)
        if stored is not None:
            return stored, 0, True
        twin = self._seen.find(key, record)
        if twin is not None:
            return None, twin, True
        planned = self._planned
        position = Offset(len(planned.records))
        planned.records.append(record)
        planned.keys.append(key)
        route = self._router.destinations(record)
        planned.routes.append(route)
        planned.tallies[record.kind, route].append(byte_length(record.payload))
        if record.replay_of is None:  # a copy may be for one destination only, so it stands for nothing else
            self._seen.remember(key, record.time_ms, position)
        return None, position, False

    def _settle(self, settlement: Settlement) -> None:
        batch = settlement.batch
        first, state = batch.entries[0].offset, self._states[batch.lane]
        settled, given_back = self._settled[batch.lane], self._given_back[batch.lane]
        if first in settled or not state.holds(first):
            return  # it was settled before
        cut = runs(batch.entries, settlement.outcomes)
        settled.add(first)
        given_back.extend(run for run in cut if not run.settled)
        self._planned.settlements.append((settlement, cut, state.watermark_after(settled, given_back)))
